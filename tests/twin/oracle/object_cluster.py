"""The state of the cluster: free GPUs of every node, and the jobs that run on the others.

Invariants: a GPU belongs to at most one run; a run's GPUs lie in one hall, on nodes of one type; a job that needs a
node's GPUs or fewer stays on one node, a larger one takes whole nodes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

from powerhall.hostlist import compress
from powerhall.jobs.model import Job
from powerhall.site.index import SiteIndex
from powerhall.site.topology import Mode, NodeType, Site
from powerhall_twin.site.placed_runs import Slice

__all__ = ["Cluster", "Run"]


@dataclass(slots=True)
class Run:
    """A running job. `left_s` is the remaining work in seconds at the fastest mode's speed."""

    job: Job
    hall: str
    node_type: NodeType
    mode: Mode
    slices: tuple[Slice, ...]
    start_s: float
    left_s: float
    planned_gpu_w: float
    """Planning figure of one GPU's draw, from the policy or plan that started the run."""


@dataclass(slots=True)
class Cluster:
    """Nodes, their free GPUs, and the runs on them."""

    site: Site
    free: dict[str, set[int]] = field(default_factory=dict)
    runs: dict[str, Run] = field(default_factory=dict)

    @classmethod
    def of(cls, site: Site) -> "Cluster":
        """Return the site with every GPU free."""
        index = SiteIndex.of(site)
        return cls(site, {node: set(range(index.rack_type(rack).gpus)) for node, rack in index.rack_of.items()})

    @property
    def index(self) -> SiteIndex:
        """Lookups over the site."""
        return SiteIndex.of(self.site)

    def start(self, run: Run) -> None:
        """Take the run's GPUs; one that is not free raises ValueError."""
        for part in run.slices:
            if not set(part.gpus) <= self.free[part.node]:
                raise ValueError(f"job {run.job.job_id}: GPUs {part.gpus} of {part.node} are not free")
        for part in run.slices:
            self.free[part.node] -= set(part.gpus)
        self.runs[run.job.job_id] = run

    def stop(self, job_id: str) -> Run:
        """Free the run's GPUs and return the run."""
        run = self.runs.pop(job_id)
        for part in run.slices:
            self.free[part.node] |= set(part.gpus)
        return run

    def take(self, nodes: Mapping[str, int]) -> tuple[Slice, ...] | None:
        """Return the wanted number of free GPUs per node without taking them; None where a node has too few."""
        slices = []
        for node, count in nodes.items():
            if len(self.free.get(node, ())) < count:
                return None
            slices.append(Slice(node, tuple(sorted(self.free[node])[:count])))
        return tuple(slices)

    def running_job(self, run: Run) -> Job:
        """Return the job as a running one with its remaining work, as a scheduler reports it."""
        return msgspec.structs.replace(
            run.job,
            duration_s=max(1.0, run.left_s),
            state="running",
            hall=run.hall,
            node_type=run.node_type.name,
            mode=run.mode.name,
            nodes=compress(part.node for part in run.slices),
            start_s=run.start_s,
        )
