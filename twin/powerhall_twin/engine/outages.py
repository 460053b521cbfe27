"""Parts of the running site that have failed: what runs there stops, and what is left is what policies may use."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from powerhall_twin.engine.columns import RACK_TYPE
from powerhall_twin.engine.job_arrays import fail_run, run_on, take_out
from powerhall_twin.engine.sim_state import SimState
from powerhall_twin.engine.site_arrays import to_nw
from powerhall_twin.site.failures import Failure, FailureKind, FailureRules

__all__ = ["Outages"]

_SEEN = {FailureKind.PLANT, FailureKind.PUMP}


@dataclass(slots=True)
class Outages:
    """Failures as they begin and end; a part is in use again once none of its failures lasts.

    `down` and `off` count the failures of a node, those that leave its idle power and those that take it, too.
    """

    state: SimState
    rules: FailureRules
    moments: list[tuple[float, int, bool, Failure]] = field(default_factory=list)
    down: Counter[int] = field(default_factory=Counter)
    off: Counter[int] = field(default_factory=Counter)
    gpus: Counter[int] = field(default_factory=Counter)
    taken: dict[int, tuple[int, int]] = field(default_factory=dict)
    begun: int = 0
    interrupted: int = 0

    @classmethod
    def of(cls, state: SimState, failures: Iterable[Failure], rules: FailureRules) -> "Outages":
        """Return the outages of these failures, none of which has begun."""
        moments = []
        for number, one in enumerate(failures):
            moments += [(one.start_s, number, True, one), (one.end_s, number, False, one)]
        return cls(state, rules, sorted(moments, key=lambda moment: moment[:3], reverse=True))

    @property
    def next_s(self) -> float:
        """When the next failure begins or ends, or is seen; infinite without one."""
        soonest = self.moments[-1][0] if self.moments else float("inf")
        return min(soonest, self.state.next_seen_s)

    def update(self) -> None:
        """Let begin and end what is due."""
        while self.moments and self.moments[-1][0] <= self.state.now_s:
            _, _, begins, failure = self.moments.pop()
            self.begun += begins
            self._change(failure, 1 if begins else -1)
            self.changed()
        self.state.see_plants()

    def changed(self) -> None:
        """Let policies that plan know which nodes and GPUs are out of use."""
        state = self.state
        state.out_of_use += 1
        whole = {node for node, count in self.down.items() if count > 0}
        off = {node for node, count in self.off.items() if count > 0}
        names = state.arrays.node_names
        state.nodes_down = tuple(names[node] for node in sorted(whole - off))
        state.nodes_off = tuple(names[node] for node in sorted(off))
        state.gpus_out = {n: out for n, (out, _) in sorted(self.taken.items()) if out > 0 and n not in whole | off}

    def _change(self, failure: Failure, by: int) -> None:
        state, arrays = self.state, self.state.arrays
        if failure.kind in _SEEN:
            number = arrays.plant_of[failure.name]
            hall_name, _, _ = failure.name.rpartition("/")
            plants = arrays.site.hall(hall_name).plants
            units = 1 if failure.kind is FailureKind.PUMP else plants[number - arrays.first_plant[hall_name]].units
            state.change_units_out(number, by * units, self.rules.reaction_s if by > 0 else 0.0)
        elif failure.kind is FailureKind.FEED:
            for node in arrays.nodes_below(failure.name):
                self.off[node] += by
                self._settle(node)
        else:
            node = arrays.node_of[failure.name]
            (self.down if failure.kind is FailureKind.NODE else self.gpus)[node] += by
            self._settle(node, int(failure.start_s * 1000))

    def hold(self, nodes: Iterable[int], by: int) -> None:
        """Take nodes out of use (`by` 1), or put them back (-1)."""
        for node in nodes:
            self.down[node] += by
            self._settle(node)
        self.changed()

    def _settle(self, node: int, which: int = 0) -> None:
        """Take out, or put back, what the failures of a node leave; runs on what has failed stop first."""
        state, world = self.state, self.state.world
        kind = int(world.layout.racks[RACK_TYPE, world.layout.node_rack[node]])
        every = int(world.layout.type_gpus[kind])
        is_off = self.off[node] > 0
        out = every if is_off or self.down[node] > 0 else min(every, self.gpus[node])
        had, had_nw = self.taken.get(node, (0, 0))
        while out == every and (j := run_on(world, node, 0)) >= 0:
            self._fail(j)
        if had < out < every:
            j = run_on(world, node, which % every)
            if j >= 0:
                self._fail(j)
            while world.now.free[node] < out - had and (j := run_on(world, node, 0)) >= 0:
                self._fail(j)
        off_nw = to_nw(state.arrays.types[kind].idle_power_w) if is_off else 0
        if (out, off_nw) != (had, had_nw):
            take_out(world, state.memory.empty, node, out - had, off_nw - had_nw)
            self.taken[node] = (out, off_nw)

    def _fail(self, j: int) -> None:
        fail_run(self.state.world, j, self.state.now_s, self.rules.checkpoint_s)
        self.interrupted += 1

    def stop_hall(self, runs: Iterable[int]) -> None:
        """Stop runs whose hall has tripped."""
        for j in runs:
            self._fail(j)
