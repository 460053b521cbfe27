"""One power cap for all: the fastest power mode in which every GPU could be busy at once, with EASY backfilling."""

from collections.abc import Iterable
from dataclasses import dataclass

from object_actions import Action, SetMode
from object_admission import Admission
from object_cluster import Cluster
from object_easy import backfill
from object_placement import stop_youngest
from object_view import PolicyView

from powerhall.plan.plan import gpu_power_w
from powerhall.site.topology import Mode, NodeType


@dataclass(slots=True)
class UniformCap:
    """Keeps the whole site in one power mode per node type."""

    def decide(self, view: PolicyView) -> Iterable[Action]:
        """Move every run to the mode that fits now, then stop runs where that is too much, then backfill."""
        modes = {name: self.mode(view, kind) for name, kind in view.site.node_types.items()}
        changes: list[Action] = []
        for run in view.cluster.runs.values():
            mode = modes[run.node_type.name]
            if mode.name != run.mode.name:
                draw_w = gpu_power_w(run.node_type, mode, view.site.job_classes.get(run.job.job_class))
                changes.append(SetMode(run.job.job_id, mode, draw_w))
        return changes or stop_youngest(view) or backfill(view, modes)

    def mode(self, view: PolicyView, kind: NodeType) -> Mode:
        """Return the fastest mode in which a full site keeps its budgets; the slowest where none does."""
        admission = Admission.of(Cluster.of(view.site), view.budgets, view.weather)
        for mode in kind.modes:
            full = {
                rack.zone: len(rack.nodes) * k.gpus * _mode_w(k, mode)
                for rack in view.site.racks()
                for k in (view.site.node_types[rack.node_type],)
            }
            if admission.fits(full):
                return mode
        return kind.modes[-1]


def _mode_w(kind: NodeType, mode: Mode) -> float:
    """Return the planning figure of a node type in the mode of this name; its lowest where it has no such mode."""
    same = kind.find_mode(mode.name)
    return min(m.gpu_power_w for m in kind.modes) if same is None else same.gpu_power_w
