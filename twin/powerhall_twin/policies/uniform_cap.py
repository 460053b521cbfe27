"""One power cap for all: the fastest power mode in which every GPU could be busy at once, with EASY backfilling."""

from dataclasses import dataclass, field

import numpy as np

from powerhall.plan.plan import gpu_power_w
from powerhall.site.topology import Mode, NodeType
from powerhall_twin.engine.columns import BUDGETS, KIND, MODE
from powerhall_twin.engine.queue_passes import EASY_ORDER
from powerhall_twin.engine.sim_state import SimState
from powerhall_twin.engine.site_arrays import to_nw
from powerhall_twin.policies.policy import PolicyKind
from powerhall_twin.policies.queue_policy import QueuePolicy, rule_of

__all__ = ["UNIFORM_CAP"]

_TOLERANCE_W = 1e-6


@dataclass(slots=True)
class _UniformCap(QueuePolicy):
    """Keeps the whole site in one power mode per node type; it follows budgets and weather."""

    budgets: int = -1
    modes: list[int] = field(default_factory=list)
    is_behind: bool = False

    def decide(self, state: SimState) -> None:
        """Move every run to the mode that fits now, then stop runs where that is too much, then backfill."""
        version = int(state.world.jobs.sizes[BUDGETS])
        if version != self.budgets:
            self.budgets = version
            modes = [_mode(state, kind) for kind in state.arrays.types]
            if modes != self.modes:
                self.modes = modes
                self.rule = rule_of(state, np.tile(np.array(modes, np.int64), (len(state.arrays.classes), 1)))
                self.is_behind = True
        if self.is_behind:
            self._move(state)
        QueuePolicy.decide(self, state)

    def _move(self, state: SimState) -> None:
        """Move every run; one that would raise power faster than the ramp is moved later."""
        self.is_behind = False
        for j in state.running.tolist():
            before = int(state.world.jobs.ints[MODE, j])
            mode = self.modes[state.world.jobs.ints[KIND, j]]
            if mode != before:
                self._set(state, j, mode)
                if mode < before and state.rise_left_w < -_TOLERANCE_W:
                    self._set(state, j, before)
                    self.is_behind = True

    @staticmethod
    def _set(state: SimState, j: int, mode: int) -> None:
        kind = state.arrays.types[state.world.jobs.ints[KIND, j]]
        known = state.arrays.site.job_classes.get(state.jobs[j].job_class)
        state.set_mode(j, mode, gpu_power_w(kind, kind.modes[mode], known))


def _mode(state: SimState, kind: NodeType) -> int:
    """Return the fastest mode in which a full site keeps its budgets and is cooled; the slowest where none does."""
    site = state.arrays.site
    kinds = [(len(rack.nodes), site.node_types[rack.node_type]) for rack in site.racks()]
    for number, mode in enumerate(kind.modes):
        full_nw = [nodes * k.gpus * to_nw(_mode_w(k, mode)) for nodes, k in kinds]
        if state.would_hold(np.array(full_nw, np.int64)):
            return number
    return len(kind.modes) - 1


def _mode_w(kind: NodeType, mode: Mode) -> float:
    """Return the planning figure of a node type in the mode of this name; its lowest where it has no such mode."""
    same = kind.find_mode(mode.name)
    return min(m.gpu_power_w for m in kind.modes) if same is None else same.gpu_power_w


UNIFORM_CAP = PolicyKind("uniform", "one power cap for all", lambda _: _UniformCap(EASY_ORDER))
