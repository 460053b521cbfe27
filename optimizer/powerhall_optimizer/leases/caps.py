"""Cap requests of nodes for a plan, and leases of the caps that the ledger grants."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from powerhall.hostlist import expand
from powerhall.lease import GpuCap, Lease, SignedLease, node_key, sign_lease
from powerhall.plan.plan import Assignment, Plan, gpu_power_w
from powerhall.runtime.errors import Rejected
from powerhall.site.index import SiteIndex
from powerhall.site.topology import JobClass, Mode, NodeType, Site
from powerhall_optimizer.leases.ledger import Budget, Ledger

__all__ = ["CapRequest", "cap_requests", "grant_leases", "node_cap_w", "safe_caps_w"]


@dataclass(frozen=True, slots=True)
class CapRequest:
    """A node's request: the mode of its fastest job, and the weight that the ledger serves it by."""

    node: str
    kind: NodeType
    mode: Mode
    job_class: JobClass | None
    weight: float

    @property
    def cap_w(self) -> int:
        """The most that the node draws in this mode, in whole W."""
        return node_cap_w(self.kind, self.mode, self.job_class)


def node_cap_w(kind: NodeType, mode: Mode, job_class: JobClass | None) -> int:
    """Return the power of a node with every GPU busy in this mode, in whole W, rounded up."""
    return -int(-min(kind.max_power_w, kind.gpus * gpu_power_w(kind, mode, job_class)) // 1)


def safe_caps_w(site: Site) -> dict[str, int]:
    """Return every node's cap without a lease, in whole W."""
    index = SiteIndex.of(site)
    return {node: int(index.rack_type(rack).safe_cap_w) for node, rack in index.rack_of.items()}


def cap_requests(plan: Plan, now_s: float, until_s: float, modes: Mapping[str, str] | None = None) -> list[CapRequest]:
    """Return the cap requests of jobs that run between `now_s` and `until_s`, the highest weight first.

    `modes` overrides the plan's mode per job (an emergency lowers it). A node that runs several jobs is capped by the
    fastest of their modes: a cap holds for all GPUs of a node, since the scheduler chooses which of them a job gets.
    """
    site, jobs = plan.snapshot.site, {job.job_id: job for job in plan.snapshot.jobs}
    found: dict[str, CapRequest] = {}
    for entry in plan.assignments:
        if entry.start_s >= until_s or entry.end_s <= now_s:
            continue
        job = jobs[entry.job_id]
        kind = site.node_types[entry.node_type]
        mode = _mode(kind, (modes or {}).get(entry.job_id, entry.mode))
        for node in _nodes(entry):
            request = CapRequest(node, kind, mode, site.job_classes.get(job.job_class), job.weight)
            before = found.get(node)
            if before is None or before.cap_w < request.cap_w:
                found[node] = request
    return sorted(found.values(), key=lambda request: (-request.weight, request.node))


def _nodes(entry: Assignment) -> Iterable[str]:
    for placement in entry.placements:
        yield from expand(placement.nodes)


def _mode(kind: NodeType, name: str) -> Mode:
    mode = kind.find_mode(name)
    if mode is None:
        raise Rejected.field("plan", "mode", name, f"must be a mode of {kind.name}")
    return mode


def _fitting(request: CapRequest, granted_w: int) -> Mode | None:
    fitting = [m for m in request.kind.modes if m.speed <= request.mode.speed]
    return next((m for m in fitting if node_cap_w(request.kind, m, request.job_class) <= granted_w), None)


def grant_leases(
    plan: Plan,
    wanted: Sequence[CapRequest],
    ledger: Ledger,
    budgets: Sequence[Budget] | None,
    *,
    site_key: bytes,
    now_s: float,
    until_s: float,
) -> list[tuple[Lease, SignedLease]]:
    """Grant and sign leases from `now_s` to `until_s`, each with its node's key.

    Without budgets no cap rises above what its node may hold already, as in an emergency shed.
    A node that gets less than it needs runs in the fastest mode that fits; where none fits it gets no lease and stays
    at its safe cap.
    """
    caps_w = {request.node: request.cap_w for request in wanted}
    granted = ledger.lower(caps_w, now_s, until_s) if budgets is None else ledger.grant(caps_w, budgets, now_s, until_s)
    leases = []
    for request in wanted:
        entry = granted[request.node]
        mode = _fitting(request, entry.cap_w)
        if mode is None:
            continue
        cap_w = node_cap_w(request.kind, mode, request.job_class)
        caps = tuple(GpuCap(gpu, mode.gpu_power_limit_w, mode.sm_clock_mhz) for gpu in range(request.kind.gpus))
        lease = Lease(request.node, plan.plan_id, entry.sequence, now_s, until_s, float(cap_w), caps)
        leases.append((lease, sign_lease(lease, node_key(site_key, request.node))))
    return leases
