"""Jobs that ask for parts of a GPU: those that share one are planned as one job of a whole GPU.

Jobs on one GPU start together, in one mode, and the longest of them, the host, has the GPU: its power counts as a whole
until the host ends, which is the most that they can draw together whatever isolates them. So a plan of the hosts is a
plan of all, and the bound is proven for every way to share, since a part uses at least its share of GPUs and power.

Where the scheduler does not fill one GPU after the other (`gpu_fill`), a part may come to a GPU of its own. So it is
planned with one, and shares it with nobody.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from powerhall.jobs import Job
from powerhall.plan.gpu_parts import share_of
from powerhall.plan.plan import Assignment, Plan, Snapshot, WaitCode, Waiting, gpu_speed, snapshot_hash
from powerhall_optimizer.planning import texts
from powerhall_optimizer.planning.assemble import restated
from powerhall_optimizer.planning.gpu_groups import gpu_groups
from powerhall_optimizer.planning.plan_value import plan_stops, schedule_of
from powerhall_optimizer.problem.site_problem import build_problem
from powerhall_optimizer.verify.value import proven_bound

__all__ = ["SharedGpus", "host_plan"]

replace = msgspec.structs.replace


@dataclass(frozen=True, slots=True)
class SharedGpus:
    """A snapshot, the same with one job per shared GPU (`hosts`), and the guests of each host."""

    snapshot: Snapshot
    hosts: Snapshot
    guests: Mapping[str, tuple[Job, ...]] = field(default_factory=dict)

    @staticmethod
    def of(snapshot: Snapshot) -> "SharedGpus":
        """Group the jobs of a snapshot; the same snapshot gives the same groups."""
        parts = [job for job in snapshot.jobs if job.gpu_share is not None]
        if not parts:
            return SharedGpus(snapshot, snapshot)
        hosts: dict[str, Job] = {}
        guests: dict[str, tuple[Job, ...]] = {}
        for group in gpu_groups(parts, snapshot):
            host = group.runs or max(group.members, key=lambda job: (job.duration_s, job.job_id))
            hosts[host.job_id] = _as_one(host, group.members)
            guests[host.job_id] = tuple(job for job in group.members if job is not host)
        names = {job.job_id for job in parts} - hosts.keys()
        jobs = tuple(hosts.get(job.job_id, job) for job in snapshot.jobs if job.job_id not in names)
        planned = tuple(entry for entry in snapshot.planned if entry.job_id not in names)
        return SharedGpus(snapshot, replace(snapshot, jobs=jobs, planned=planned), guests)

    def host_of(self, job_id: str) -> str | None:
        """Return the job beside which a guest is planned; None for a job that is no guest."""
        return next((host for host, jobs in self.guests.items() if any(job.job_id == job_id for job in jobs)), None)

    def plan(self, hosts: Plan, storage_cost: int) -> Plan:
        """Return the plan of all jobs from one of the hosts; value and bound are those of all jobs."""
        if self.hosts is self.snapshot:
            return hosts
        assigned = list(hosts.assignments)
        done: set[str] = set()
        for entry in hosts.assignments:
            for job in self.guests.get(entry.job_id, ()):
                end_s = entry.start_s + self._slots(job, entry) * self.snapshot.slot_s
                if end_s <= entry.end_s:
                    done.add(job.job_id)
                if job.job_id in done or job.state == "running":
                    assigned.append(self._beside(job, entry, min(end_s, entry.end_s)))
        waits: list[Waiting] = []
        for why in hosts.waiting:
            left = [job for job in self.guests.get(why.job_id, ()) if job.job_id not in done]
            waits += [why, *(self._waits(job, why) for job in left)]
        plan = replace(
            hosts,
            plan_id=snapshot_hash(self.snapshot),
            snapshot=self.snapshot,
            assignments=tuple(sorted(assigned, key=lambda entry: (entry.start_s, entry.job_id))),
            waiting=tuple(waits),
        )
        stops = plan_stops(plan)
        open_to_all = replace(self.snapshot, period_budgets=())  # the hosts have kept them
        built = build_problem(open_to_all, stops=stops)
        value = schedule_of((plan,), built).value(built.problem) - storage_cost
        bound = proven_bound([self.snapshot], plan.certificate, stops)
        plan = restated(plan, value, bound)
        notes = tuple(note for note in plan.notes if note != texts.OPTIMAL_NOTE)
        notes += (texts.OPTIMAL_NOTE,) if plan.status == "optimal" else ()
        return replace(plan, notes=notes)

    @staticmethod
    def _beside(job: Job, host: Assignment, end_s: int) -> Assignment:
        """Return a guest's assignment beside its host."""
        return replace(
            host,
            job_id=job.job_id,
            gpus=0,
            end_s=end_s,
            placements=tuple(replace(placement, gpus_per_node=0) for placement in host.placements),
            running=job.state == "running",
            reason=texts.beside_text(job, host.job_id),
            beside=host.job_id,
        )

    def _slots(self, job: Job, entry: Assignment) -> int:
        site = self.snapshot.site
        speed = gpu_speed(site.node_types[entry.node_type].mode(entry.mode), site.job_classes.get(job.job_class))
        return max(1, math.ceil(job.duration_s / speed / self.snapshot.slot_s - 1e-9))

    @staticmethod
    def _waits(job: Job, host: Waiting) -> Waiting:
        stays = host.code not in (WaitCode.PREEMPTED, WaitCode.SHED) or job.state == "running"
        code = host.code if stays else WaitCode.CAPACITY
        return replace(host, job_id=job.job_id, code=code, reason=texts.waits_beside_text(job, host), what_if=())


def host_plan(plan: Plan) -> Plan:
    """Return a published plan as one of its hosts, each with a whole GPU: what explains a plan looks at these."""
    shared = SharedGpus.of(plan.snapshot)
    if shared.hosts is plan.snapshot:
        return plan
    names = {job.job_id for job in shared.hosts.jobs}
    return replace(
        plan,
        snapshot=shared.hosts,
        assignments=tuple(entry for entry in plan.assignments if entry.job_id in names),
        waiting=tuple(entry for entry in plan.waiting if entry.job_id in names),
    )


def _as_one(host: Job, members: Sequence[Job]) -> Job:
    """Return the job of a whole GPU that stands for all of them: it takes as long as the host, and is worth their sum.

    It is stopped only where each that runs may be.
    """
    worth = sum(job.weight * float(share_of(job) or 0) * job.duration_s for job in members)
    runs = [job for job in members if job.state == host.state]
    return replace(
        host,
        gpu_share="1",
        weight=worth / host.duration_s,
        preemptible=all(job.preemptible for job in runs),
        checkpoint_cost_s=max(job.checkpoint_cost_s for job in runs),
        earliest_s=max(max(job.submit_s, job.earliest_s or 0.0) for job in runs),
    )
