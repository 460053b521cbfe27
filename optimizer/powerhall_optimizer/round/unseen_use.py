"""What tenants' jobs may draw that neither the bill nor the plan has: counted at its worst in budgets over a period.

* A running job that no agent shows on its node (the node is silent, its readings are late) may have drawn the most of
  its GPUs all the while; so may one whose interval has an energy that cannot be.
* A running job that no plan can have (on nodes of two halls, with unreadable fields, on the GPU of another tenant's
  job) goes on to its end, or as long as nobody knows it.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from powerhall.hostlist import expand
from powerhall.jobs import Job
from powerhall.jobs.left_out import LeftOut
from powerhall.jobs.model import node_gpus
from powerhall.jobs.owners import NOBODY, Owners
from powerhall.plan.plan import Snapshot
from powerhall.site.index import SiteIndex
from powerhall.site.topology import Site
from powerhall_optimizer.billing.bill import Bill
from powerhall_optimizer.billing.held import mean_board_w
from powerhall_optimizer.inputs.observed_nodes import worst_gpu_w

__all__ = ["HeldRun", "held_by_tenant", "unseen_it_j"]


@dataclass(frozen=True, slots=True)
class HeldRun:
    """A running job that no plan has: its most power in W, from now to its end in s since the epoch."""

    power_w: float
    start_s: float
    end_s: float = math.inf

    def it_j(self, start_s: float, end_s: float) -> float:
        """Return its most energy within a period."""
        return self.power_w * max(0.0, min(self.end_s, end_s) - max(self.start_s, start_s))


class _NodePower:
    """The most that a GPU draws in W, by node; on an unknown node that of any."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.racks = SiteIndex.of(site).rack_of
        self.worst_w = {name: worst_gpu_w(site, kind) for name, kind in site.node_types.items()}

    def gpu_w(self, node: str) -> float:
        rack = self.racks.get(node)
        return max(self.worst_w.values()) if rack is None else self.worst_w[rack.node_type]

    def gpus(self, node: str) -> int:
        rack = self.racks.get(node)
        return 0 if rack is None else self.site.node_types[rack.node_type].gpus


def held_by_tenant(snapshot: Snapshot, owners: Owners) -> Mapping[str, list[HeldRun]]:
    """Return the running jobs that no plan has by tenant."""
    power = _NodePower(snapshot.site)
    now_s = float(snapshot.start_s)
    found: defaultdict[str, list[HeldRun]] = defaultdict(list)
    payer = {(job.nodes, job.gpu_number): job.tenant for job in snapshot.jobs if job.gpus}
    for job in snapshot.jobs:
        if job.state != "running" or job.tenant is None:
            continue
        is_guest = job.gpus == 0 and payer.get((job.nodes, job.gpu_number)) != job.tenant
        if job.hall is None or is_guest:
            found[job.tenant].append(HeldRun(_job_w(job, power), now_s, now_s + job.duration_s))
    for entry in snapshot.left_out:
        tenant = owners.of(entry.job_id, project=entry.project or "", tenant=entry.tenant or "").tenant
        if entry.running and tenant != NOBODY:
            found[tenant].append(HeldRun(_left_out_w(entry, power), now_s))
    return found


def _job_w(job: Job, power: _NodePower) -> float:
    split = node_gpus(job) if job.gpus else dict.fromkeys(expand(job.nodes or ""), 1)
    return sum(gpus * power.gpu_w(node) for node, gpus in split.items()) or max(1, job.gpus) * power.gpu_w("")


def _left_out_w(entry: LeftOut, power: _NodePower) -> float:
    """Return the most that a left-out job may draw: its GPUs, or all of its nodes."""
    try:
        nodes = expand(entry.nodes or "")
    except ValueError:
        nodes = ()
    most_w = max((power.gpu_w(node) for node in nodes), default=power.gpu_w(""))
    all_gpus = 0 if entry.gpus_on_nodes else sum(power.gpus(node) for node in nodes)
    return (entry.gpus or max(1, all_gpus)) * most_w


def unseen_it_j(snapshot: Snapshot, bill: Bill, now_s: float) -> Mapping[str, float]:
    """Return the IT energy in J that tenants may have used since the bill's start and that it does not show."""
    power = _NodePower(snapshot.site)
    kinds = {node: snapshot.site.node_types[rack.node_type] for node, rack in power.racks.items()}
    found: defaultdict[str, float] = defaultdict(float)
    changes: defaultdict[tuple[str, str], list[_Change]] = defaultdict(list)
    for tenant, node, gpus, since_s in _running(snapshot, bill.start_s):
        changes[tenant, node].append((since_s, gpus, ""))
    for one, owner in bill.held:
        span_s = max(0.0, min(one.end_s, now_s) - max(one.start_s, bill.start_s))
        if mean_board_w(one, kinds.get(one.node)) is None:
            found[owner.tenant] += power.gpu_w(one.node) * span_s
        if (owner.tenant, one.node) in changes:
            changes[owner.tenant, one.node] += [(one.start_s, 1, one.gpu), (one.end_s, -1, one.gpu)]
    for (tenant, node), of_node in changes.items():
        found[tenant] += power.gpu_w(node) * _unseen_gpu_s(of_node, now_s)
    return found


_Change = tuple[float, int, str]
"""When, and how many GPUs more jobs have by the queue (no GPU named) or holders a GPU has by its agent."""


def _unseen_gpu_s(changes: Sequence[_Change], now_s: float) -> float:
    """Return the GPU seconds up to now in which jobs had more GPUs by the queue than by the agents."""
    total, have, holders = 0.0, 0, Counter[str]()
    ordered = sorted(change for change in changes if change[0] < now_s)
    for (at_s, more, gpu), (next_s, *_) in zip(ordered, [*ordered[1:], (now_s, 0, "")], strict=True):
        if gpu:
            holders[gpu] += more
        else:
            have += more
        if have:
            total += max(0, have - sum(count > 0 for count in holders.values())) * (next_s - at_s)
    return total


def _running(snapshot: Snapshot, start_s: float) -> Iterator[tuple[str, str, int, float]]:
    """Yield tenant, node, GPUs and since when, of the running jobs whose nodes are known."""
    for job in snapshot.jobs:
        if job.state == "running" and job.tenant is not None:
            since_s = max(start_s, job.start_s or start_s)
            for node, gpus in node_gpus(job).items():
                yield job.tenant, node, gpus, since_s
