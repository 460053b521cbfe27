"""Cap requests of nodes for a plan, and leases of the caps that the ledger grants."""

import math
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, replace

from powerhall.hostlist import expand
from powerhall.lease import GpuCap, Lease, SignedLease, node_key, sign_lease
from powerhall.plan.plan import Assignment, Plan, gpu_power_w
from powerhall.runtime.errors import Rejected
from powerhall.site.index import SiteIndex
from powerhall.site.topology import JobClass, Mode, NodeType, Site
from powerhall_optimizer.leases.ledger import Budget, Ledger

__all__ = ["CapRequest", "cap_requests", "grant_leases", "most_powers_w", "node_cap_w", "safe_caps_w"]


@dataclass(frozen=True, slots=True)
class CapRequest:
    """A node's request: the mode of its fastest job, and what the ledger serves it by: protection, then weight."""

    node: str
    kind: NodeType
    mode: Mode
    job_class: JobClass | None
    weight: float
    is_protected: bool = False
    """A job that may not be preempted runs here."""

    @property
    def cap_w(self) -> int:
        """The most that the node draws in this mode, in whole W."""
        return node_cap_w(self.kind, self.mode, self.job_class)

    @property
    def modes(self) -> tuple[Mode, ...]:
        """The mode and the slower ones, the fastest first."""
        return tuple(mode for mode in self.kind.modes if mode.speed <= self.mode.speed)

    @property
    def steps_w(self) -> tuple[int, ...]:
        """The node's cap in each of these modes."""
        return tuple(node_cap_w(self.kind, mode, self.job_class) for mode in self.modes)


def node_cap_w(kind: NodeType, mode: Mode, job_class: JobClass | None) -> int:
    """Return the power of a node with every GPU busy in this mode, in whole W, rounded up."""
    return -int(-min(kind.max_power_w, kind.gpus * gpu_power_w(kind, mode, job_class)) // 1)


def safe_caps_w(site: Site) -> dict[str, int]:
    """Return every node's cap without a lease, in whole W."""
    index = SiteIndex.of(site)
    return {node: int(index.rack_type(rack).safe_cap_w) for node, rack in index.rack_of.items()}


def most_powers_w(site: Site) -> dict[str, int]:
    """Return every node's highest power, in whole W: what it may draw when nothing is known about its cap."""
    index = SiteIndex.of(site)
    return {node: math.ceil(index.rack_type(rack).max_power_w) for node, rack in index.rack_of.items()}


def cap_requests(plan: Plan, now_s: float, until_s: float, modes: Mapping[str, str] | None = None) -> list[CapRequest]:
    """Return the cap requests of jobs that run between `now_s` and `until_s`: protected ones, then by weight.

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
            job_class = site.job_classes.get(job.job_class)
            request = CapRequest(node, kind, mode, job_class, job.weight, is_protected=not job.preemptible)
            found[node] = _joined(found.get(node), request)
    return sorted(found.values(), key=lambda request: (not request.is_protected, -request.weight, request.node))


def _joined(one: CapRequest | None, other: CapRequest) -> CapRequest:
    """Return the request of a node for two of its jobs: the faster mode, protected where either is."""
    if one is None:
        return other
    faster = other if one.cap_w < other.cap_w else one
    return replace(faster, is_protected=one.is_protected or other.is_protected)


def _nodes(entry: Assignment) -> Iterable[str]:
    for placement in entry.placements:
        yield from expand(placement.nodes)


def _mode(kind: NodeType, name: str) -> Mode:
    mode = kind.find_mode(name)
    if mode is None:
        raise Rejected.field("plan", "mode", name, f"must be a mode of {kind.name}")
    return mode


def grant_leases(
    plan: Plan,
    wanted: Sequence[CapRequest],
    ledger: Ledger,
    budgets: Sequence[Budget] | None,
    *,
    site_key: bytes,
    now_s: float,
    until_s: float,
    falls_s: Sequence[float] = (),
    must_fit: bool = True,
) -> list[tuple[Lease, SignedLease]]:
    """Grant and sign leases from `now_s` to `until_s` at most, each with its node's key.

    Without budgets no cap rises above what its node may hold already, as in an emergency shed, and ends at a fall of a
    budget (`falls_s`) unless the node may hold it then anyway. A node that gets less than it needs runs in the fastest
    mode that fits. Where none fits it gets no lease and stays at its safe cap; if it may hold more than that, it gets a
    lease of the safe cap. With budgets, every node of which it is not known what it holds gets a lease.
    """
    caps_w = {request.node: request.cap_w for request in wanted}
    unasked = ledger.unasked(now_s)  # before the grant: it enters caps that no mode may fit
    if budgets is None:
        granted = ledger.lower(caps_w, now_s, until_s, falls_s)
    else:
        steps_w = {request.node: request.steps_w for request in wanted}
        granted = ledger.grant(caps_w, budgets, now_s, until_s, steps_w=steps_w, must_fit=must_fit)
    leases, left = [], set[str]()
    for request in wanted:
        entry = granted.get(request.node)
        mode = None if entry is None else _fitting(request, entry.cap_w)
        if entry is None or mode is None:
            left.add(request.node)
            continue
        cap_w = node_cap_w(request.kind, mode, request.job_class)
        caps = tuple(GpuCap(gpu, mode.gpu_power_limit_w, mode.sm_clock_mhz) for gpu in range(request.kind.gpus))
        leases.append(Lease(request.node, plan.plan_id, entry.sequence, now_s, entry.expires_s, float(cap_w), caps))
    if budgets is not None:
        left |= unasked - {lease.node for lease in leases}
    over = {node for node in left if ledger.exposure_w(node, now_s) > ledger.safe_caps_w[node]}
    leases += _to_safe(plan, over | (left & unasked), ledger, now_s, until_s)
    alive = [lease for lease in leases if lease.expires_s > now_s]
    return [(lease, sign_lease(lease, node_key(site_key, lease.node))) for lease in alive]


def _to_safe(plan: Plan, nodes: Set[str], ledger: Ledger, now_s: float, until_s: float) -> list[Lease]:
    """Return leases of the safe cap for nodes that may hold more, or of which it is not known what they hold.

    A lease that names no GPU leaves all of them at their safe caps. Its confirmation ends what is not known.
    """
    safe_w = {node: ledger.safe_caps_w[node] for node in sorted(nodes)}
    granted = ledger.lower(safe_w, now_s, until_s) if safe_w else {}
    return [
        Lease(node, plan.plan_id, entry.sequence, now_s, entry.expires_s, float(entry.cap_w), ())
        for node, entry in granted.items()
    ]


def _fitting(request: CapRequest, granted_w: int) -> Mode | None:
    return next((m for m in request.modes if node_cap_w(request.kind, m, request.job_class) <= granted_w), None)
