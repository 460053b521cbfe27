"""Actions of a scheduler on the cluster, applied in an order that lowers power before it raises it."""

from collections.abc import Iterable
from dataclasses import dataclass

from object_cluster import Cluster, Run

from powerhall.jobs.model import Job
from powerhall.site.topology import Mode, NodeType
from powerhall_twin.site.placed_runs import Slice

__all__ = ["Action", "SetMode", "Start", "Stop", "apply"]


@dataclass(frozen=True, slots=True)
class Start:
    """Start a job on these GPUs in this mode; `planned_gpu_w` is the planning figure per GPU."""

    job: Job
    hall: str
    node_type: NodeType
    mode: Mode
    slices: tuple[Slice, ...]
    planned_gpu_w: float
    left_s: float

    def run(self, time_s: float) -> Run:
        """Return the run that begins at `time_s`."""
        return Run(self.job, self.hall, self.node_type, self.mode, self.slices, time_s, self.left_s, self.planned_gpu_w)


@dataclass(frozen=True, slots=True)
class Stop:
    """Stop and requeue a job; its work so far counts, less its checkpoint cost."""

    job_id: str


@dataclass(frozen=True, slots=True)
class SetMode:
    """Change the power mode of a running job."""

    job_id: str
    mode: Mode
    planned_gpu_w: float


Action = Start | Stop | SetMode


def apply(cluster: Cluster, actions: Iterable[Action], time_s: float) -> list[Run]:
    """Apply stops, then lower modes, then starts and higher modes; return the runs that were stopped."""
    wanted = list(actions)
    stopped = [cluster.stop(action.job_id) for action in wanted if isinstance(action, Stop)]
    changes = [action for action in wanted if isinstance(action, SetMode)]
    for change in sorted(changes, key=lambda c: c.planned_gpu_w - cluster.runs[c.job_id].planned_gpu_w):
        run = cluster.runs[change.job_id]
        run.mode, run.planned_gpu_w = change.mode, change.planned_gpu_w
    for start in (action for action in wanted if isinstance(action, Start)):
        cluster.start(start.run(time_s))
    return stopped
