"""Starts, modes and nodes of all waiting jobs together, exactly, where a site with blocks is small.

The solver knows blocks by sums alone, so that a schedule of few jobs may miss them by much. Here CP-SAT chooses
decisions and nodes at once: one Boolean per job, option and start, and one per node that it takes there. It runs where
these are few (`_MOST_BOOLEANS`), keeps every limit that the placement keeps, and is taken where it is worth more.
"""

from collections.abc import Sequence
from itertools import groupby

from ortools.sat.python import cp_model

from powerhall_optimizer.placement.node_occupancy import NodeOccupancy, Split
from powerhall_optimizer.placement.placer import Placer
from powerhall_optimizer.problem.site_problem import Choice
from powerhall_optimizer.solve.cp_sat_model import add_capacities, decisions_of

__all__ = ["place_exactly"]

_MOST_BOOLEANS = 20_000
_WORK = 1.0
"""Deterministic seconds of CP-SAT."""
_Placed = tuple[int, int, Split | None]
"""Option, start, and nodes of a job."""
_Terms = list[tuple[int, cp_model.IntVar]]


def place_exactly(placer: Placer) -> None:
    """Replace the placement of the waiting jobs by a better one, if there is one; nothing for larger sites."""
    jobs = [n for n, job in enumerate(placer.built.jobs) if job.state == "waiting" and not placer.homes.hold(n)]
    ramps = any(power.limited for power in placer.site_powers.values())
    if ramps or _booleans(placer, jobs) > _MOST_BOOLEANS:
        return
    before = sum(map(placer.value_of, jobs))
    placed = {
        job: (int(placer.option[job]), int(placer.start[job]), placer.splits.get(job))
        for job in jobs
        if placer.option[job] >= 0
    }
    for job in placed:
        placer.drop(job)
    found = _Model(placer, jobs).solve()
    if found is not None and sum(placer.problem.value(j, *found.get(j, (-1, -1, None))[:2]) for j in jobs) > before:
        placed = found
        placer.moved = {job: why for job, why in placer.moved.items() if job not in jobs}
    for job, (option, start, split) in placed.items():
        if split is not None:
            placer.put_at(job, option, start, split)
            placer.left_out.pop(job, None)


def _booleans(placer: Placer, jobs: Sequence[int]) -> int:
    problem, total = placer.problem, 0
    for option in (option for job in jobs for option in problem.options_of(job)):
        starts = int(problem.option_latest[option] - problem.option_earliest[option]) + 1
        total += starts * len(placer.occupancy(placer.built.choices[option]).nodes)
    return total


class _Model:
    """Decisions of the waiting jobs and their nodes, beside the running jobs."""

    def __init__(self, placer: Placer, jobs: Sequence[int]) -> None:
        self.placer = placer
        self.model = cp_model.CpModel()
        self.decisions = [d for job in jobs for d in decisions_of(placer.problem, job)]
        self.chosen = [self.model.new_bool_var("") for _ in self.decisions]
        for _, own in groupby(zip(self.decisions, self.chosen, strict=True), key=lambda pair: pair[0].job):
            self.model.add_at_most_one(x for _, x in own)
        free = placer.problem.capacity - placer.usage
        add_capacities(self.model, placer.problem, self.decisions, self.chosen, free)
        self.gpus: dict[tuple[NodeOccupancy, int, int], _Terms] = {}
        self.watts: dict[tuple[str, str, int], _Terms] = {}
        self.on = [self._nodes(number) for number in range(len(self.decisions))]
        for (occupancy, node, slot), terms in self.gpus.items():
            self._at_most(terms, occupancy.per_node - int(occupancy.busy[slot, node]))
        for (site, zone, slot), terms in self.watts.items():
            self._at_most(terms, int(placer.headroom[site].left[zone][slot]))
        gain = [d.value - int(placer.problem.job_wait_value[d.job]) for d in self.decisions]
        self.model.maximize(cp_model.LinearExpr.weighted_sum(self.chosen, gain))

    def _at_most(self, terms: _Terms, most: int) -> None:
        amounts, variables = zip(*terms, strict=True)
        self.model.add(cp_model.LinearExpr.weighted_sum(variables, amounts) <= most)

    def _nodes(self, number: int) -> list[cp_model.IntVar]:
        """Add the nodes of a decision, what they take of GPUs and of tight zones, and its blocks."""
        decision, chosen = self.decisions[number], self.chosen[number]
        choice = self.placer.built.choices[decision.option]
        occupancy = self.placer.occupancy(choice)
        on = [self.model.new_bool_var("") for _ in occupancy.nodes]
        self.model.add(sum(on) == -(-choice.job.gpus // occupancy.per_node) * chosen)
        barred = occupancy.barred_for(choice.job.allowed_nodes)
        self.model.add(sum(x for x, bar in zip(on, barred.tolist(), strict=True) if bar) == 0)
        gpus = min(choice.job.gpus, occupancy.per_node)
        whole = occupancy.per_node if choice.job.gpus > occupancy.per_node else gpus
        watts = -int(-gpus * self.placer.gpu_w(choice) // 1)
        headroom = occupancy.headroom
        for node, variable in enumerate(on):
            zones = headroom.of_rack[occupancy.racks[int(occupancy.rack_of[node])]]
            for slot in range(*self.placer.span(decision.option, decision.start)):
                self.gpus.setdefault((occupancy, node, slot), []).append((whole, variable))
                for zone in zones if watts > 0 else ():
                    self.watts.setdefault((choice.site, zone, slot), []).append((watts, variable))
        self._stay(choice, occupancy, on)
        return on

    def _stay(self, choice: Choice, occupancy: NodeOccupancy, on: Sequence[cp_model.IntVar]) -> None:
        """Every block holds whole parts, and nodes in no block none."""
        within = self.placer.within(choice)
        if within is None:
            return
        level, parts = within
        block = occupancy.blocks_of(level).tolist()
        for name in sorted(set(block)):
            members = [x for x, own in zip(on, block, strict=True) if own == name]
            most = 0 if name < 0 else min(parts.count, len(members) // parts.nodes)
            self.model.add(sum(members) == parts.nodes * self.model.new_int_var(0, most, ""))

    def solve(self) -> dict[int, _Placed] | None:
        """Return the decisions with their nodes; None where none were found within the work."""
        solver = cp_model.CpSolver()
        solver.parameters.num_workers = 1
        solver.parameters.max_deterministic_time = _WORK
        if solver.solve(self.model) not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
            return None
        found: dict[int, _Placed] = {}
        for decision, chosen, on in zip(self.decisions, self.chosen, self.on, strict=True):
            if solver.boolean_value(chosen):
                choice = self.placer.built.choices[decision.option]
                nodes = [node for node, x in enumerate(on) if solver.boolean_value(x)]
                split = self.placer.occupancy(choice).split_of(nodes, choice.job.gpus)
                found[decision.job] = decision.option, decision.start, split
        return found
