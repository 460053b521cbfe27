"""Kubernetes: jobs by spec.suspend, Kueue's labels, Workloads and quota, reasons as events, one leader."""

import time
from collections.abc import Callable
from functools import cached_property

from powerhall.hostlist import expand
from powerhall.jobs.model import Job
from powerhall.plan.plan import Assignment, Plan, Waiting
from powerhall.runtime.errors import PowerhallError, Retryable
from powerhall.timeseries import parse_time
from powerhall_optimizer.schedulers import texts
from powerhall_optimizer.schedulers.base import Command, WriteReport, check_fresh
from powerhall_optimizer.schedulers.kubernetes.api_client import (
    Conflict,
    Gone,
    KubernetesApi,
    NotFound,
    identity,
    open_api,
)
from powerhall_optimizer.schedulers.kubernetes.confinement import Confined, Confinement, host_list
from powerhall_optimizer.schedulers.kubernetes.decisions import JobPatch, Stop, decide, explain, level_notes, replan
from powerhall_optimizer.schedulers.kubernetes.gangs import pod_label
from powerhall_optimizer.schedulers.kubernetes.gpu_parts import claim_reader
from powerhall_optimizer.schedulers.kubernetes.job_writes import JobWrites
from powerhall_optimizer.schedulers.kubernetes.jobs import job_gpus
from powerhall_optimizer.schedulers.kubernetes.kubernetes_settings import KubernetesSettings
from powerhall_optimizer.schedulers.kubernetes.kueue import Quota
from powerhall_optimizer.schedulers.kubernetes.leader_lease import Lead
from powerhall_optimizer.schedulers.kubernetes.node_demands import OWN_NODES
from powerhall_optimizer.schedulers.kubernetes.objects import (
    PREFIX,
    Object,
    job_id,
    notes_of,
    part,
    started_at,
    status_of,
)
from powerhall_optimizer.schedulers.kubernetes.pod_requests import holdings
from powerhall_optimizer.schedulers.kubernetes.since_snapshot import taken_since
from powerhall_optimizer.schedulers.kubernetes.withdrawal import withdraw
from powerhall_optimizer.schedulers.kubernetes.written_modes import planned_modes
from powerhall_optimizer.schedulers.skip_reasons import Skip, SkipReason

__all__ = ["KubernetesWriter"]

Clock = Callable[[], float]


class KubernetesWriter:
    """Writes plans into a cluster, as long as it holds the leader lease.

    What is refused is in the report, and the rest goes on: power is given back first (a lower quota, stopped jobs), and
    where that failed nothing is started.
    """

    def __init__(
        self,
        settings: KubernetesSettings,
        api: KubernetesApi | None = None,
        clock: Clock = time.time,
        holder: str = "",
    ) -> None:
        self._settings, self._clock = settings, clock
        self._api = api or open_api(settings)
        self._holder = holder or settings.identity or identity()

    def apply(self, plan: Plan, *, dry_run: bool = False) -> WriteReport:
        """Write the differences to the plan; a lowered quota first, a raised one last."""
        check_fresh(plan, self._clock())
        lead = Lead(self._api, self._settings, self._holder, self._clock)
        if not dry_run:
            lead.take(plan)
        return _Round(self._api, self._settings, self._clock, lead, plan, dry_run=dry_run).run()

    def withdraw_pins(self, *, dry_run: bool = False) -> WriteReport:
        """Release jobs that wait while the newest plan is older than two rounds, as the power allows."""
        lead = Lead(self._api, self._settings, f"{self._holder}-withdraw", self._clock)
        return withdraw(self._api, self._settings, lead, self._clock, dry_run=dry_run)


class _Round:
    """One application of a plan."""

    def __init__(
        self, api: KubernetesApi, settings: KubernetesSettings, clock: Clock, lead: Lead, plan: Plan, *, dry_run: bool
    ) -> None:
        self._api, self._settings, self._clock, self._lead, self._plan = api, settings, clock, lead, plan
        self.report = WriteReport("kubernetes", plan.plan_id, dry_run)
        self._planned = {job.job_id: job for job in plan.snapshot.jobs}
        self._writes = JobWrites(api, lead, clock, self.report)
        self._in_mode: set[str] = set()

    def run(self) -> WriteReport:
        """Write, and return what was written."""
        now_s = self._clock()
        quota = Quota(self._api, self._settings)
        watts = quota.wanted(self._plan, now_s)
        is_raised = self._quota(quota, watts, lower=True)
        listed, version = self._api.jobs()
        found = {job_id(raw): raw for raw in (*listed, *self._api.gangs()[0])}
        if self._jobs(self._plan.waiting, found):
            starts = sorted(self._plan.assignments, key=lambda job: (job.start_s, job.job_id))
            if self.report.failed or not self._has_ended(found):
                for desired in starts:
                    self.report.skip_job(desired.job_id, SkipReason(Skip.NOT_GIVEN_BACK))
            else:
                kept = self._with_room(starts, found)
                if self._jobs(kept, found) and is_raised and kept == starts:
                    self._quota(quota, watts, lower=False)
        self._note_modes()
        self._explain(found)
        self._effective(quota, watts)
        if self._writes.suspended and self._settings.settle_s:
            self._settle(version)
        return self.report

    def _with_room(self, starts: list[Assignment], found: dict[str, Object]) -> list[Assignment]:
        """Return what may be written of the plan's jobs: none starts on power that others took since the snapshot."""
        now_s = self._clock()
        is_due = {
            job.job_id: not job.running and job.start_s <= now_s and status_of(found[job.job_id]) == "waiting"
            for job in starts
            if job.job_id in found
        }
        if not any(is_due.values()):
            return starts
        try:
            pods = self._api.pods()
            held = holdings(pods, self._settings.gpu_resource, claim_reader(pods, self._api.resource_claims))
            taken = taken_since(self._plan, found, held, self._settings.gpu_resource, now_s)
        except PowerhallError as error:
            self.report.commands.append(Command("list pods before jobs start", "pods", str(error)))
            taken = "GPUs that could not be counted"
        for name in (name for name, due in is_due.items() if due and taken):
            self.report.skip_job(name, SkipReason(Skip.TAKEN_SINCE, value=taken))
        return [job for job in starts if not (taken and is_due.get(job.job_id))]

    def _explain(self, found: dict[str, Object]) -> None:
        """Say on the jobs that the plan leaves out why: a tenant looks there, and not into the optimizer's log."""
        for entry in self._plan.snapshot.left_out:
            raw, message = found.get(entry.job_id), texts.not_planned_text(entry.reason)
            if raw is None or explain(raw, message) is None:
                continue
            try:
                self._writes.write(entry.job_id, raw, lambda now, text=message: explain(now, text))  # type: ignore[misc]
            except PowerhallError as error:
                self.report.commands.append(Command(f"patch job {entry.job_id}", f"job {entry.job_id}", str(error)))
                return

    def _has_ended(self, found: dict[str, Object]) -> bool:
        """Wait for the pods of the jobs that the plan stops: they draw power until they end, and are given time to."""
        planned = ((one.job_id, self._planned.get(one.job_id)) for one in self._plan.waiting)
        stopped = [found[name] for name, job in planned if name in found and job and job.state == "running"]
        if not stopped or self.report.dry_run:
            return True
        end_s = time.monotonic() + self._settings.grace_s
        try:
            while stopped := [raw for raw in stopped if self._holds_gpus(raw)]:
                if time.monotonic() > end_s:
                    return False
                time.sleep(0.5)
        except PowerhallError as error:
            self.report.commands.append(Command("list pods of stopped jobs", "pods", str(error)))
            return False
        return True

    def _holds_gpus(self, raw: Object) -> bool:
        """Return whether pods of a job are on nodes still."""
        namespace, _, short = job_id(raw).partition("/")
        pods = self._api.pods_of(namespace, short, pod_label(raw))
        return any(True for _ in holdings(pods, self._settings.gpu_resource))

    def _quota(self, quota: Quota, watts: int | None, *, lower: bool) -> bool:
        if watts is None:
            return False
        try:
            if not self.report.dry_run and not lower:
                self._lead.keep()
            return quota.write(watts, self.report, lower=lower)
        except PowerhallError as error:
            name = f"clusterqueue {self._settings.cluster_queue}"
            self.report.commands.append(Command(f"quota of {name}: {watts} W", name, str(error)))
            return False

    def _effective(self, quota: Quota, watts: int | None) -> None:
        """Look whether the quota counts; where something failed already, that is enough to say."""
        try:
            if watts is not None and not self.report.failed:
                quota.check_effective(watts, self.report)
        except PowerhallError as error:
            name = f"clusterqueue {self._settings.cluster_queue}"
            self.report.commands.append(Command(f"read {name}", name, str(error)))

    def _jobs(self, desired_jobs: tuple[Waiting, ...] | list[Assignment], found: dict[str, Object]) -> bool:
        """Write some jobs; return False where the server answers no more."""
        for desired in desired_jobs:
            try:
                self._job(found.get(desired.job_id), desired)
            except PowerhallError as error:
                subject = f"job {desired.job_id}"
                self.report.commands.append(Command(f"patch {subject}", subject, str(error)))
                if isinstance(error, Retryable) and not isinstance(error, Conflict):
                    return False
        return True

    def _job(self, raw: Object | None, desired: Assignment | Waiting) -> None:
        written = self._writes.write(desired.job_id, raw, lambda now: self._decided(now, desired))
        if written is not None and isinstance(desired, Assignment):
            self._levels(written, desired)
            is_template = written.get("kind", "Job") == "Job"  # of other kinds the pods have it from the next round on
            if desired.running or (is_template and desired.start_s <= self._clock()):
                self._in_mode.add(desired.job_id)

    def _note_modes(self) -> None:
        """Keep in the lease which jobs have their mode now."""
        wrong = {command.subject for command in self.report.failed}
        planned = planned_modes(self._plan)
        right = {job for job in self._in_mode & planned.keys() if f"job {job}" not in wrong}
        try:
            if not self.report.dry_run:
                self._lead.note_modes(dict(planned[job] for job in right))
        except PowerhallError as error:
            self.report.commands.append(Command("note modes in the leader lease", "lease", str(error)))

    def _decided(self, raw: Object, desired: Assignment | Waiting) -> JobPatch | SkipReason | None:
        stop = self._stop(raw, desired)
        differs = self._unlike_planned(raw, desired)
        if not differs and self._is_stuck(raw, desired):
            return replan(raw, host_list(self._nodes.reach(raw)))
        where = None if differs else self._where(raw, desired)
        return differs or decide(raw, desired, self._settings, self._clock(), stop=stop, where=where)

    @cached_property
    def _nodes(self) -> Confinement:
        """The cluster's nodes, listed when the first job starts."""
        return Confinement(self._plan.snapshot.site, self._api.nodes(), self._settings)

    def _is_stuck(self, raw: Object, desired: Assignment | Waiting) -> bool:
        """Return whether a job that Powerhall confined has waited for a round, and no node took one of its pods."""
        started, notes = started_at(raw), notes_of(raw)
        if not isinstance(desired, Assignment) or not desired.running or OWN_NODES not in notes:
            return False
        if status_of(raw) != "running" or part(raw, "status").get("ready") or not started:
            return False
        if self._clock() - parse_time(started) < self._settings.round_s:
            return False
        namespace, _, short = job_id(raw).partition("/")
        pods = self._api.pods_of(namespace, short, pod_label(raw))
        return bool(pods) and not any(part(pod, "spec").get("nodeName") for pod in pods)

    def _where(self, raw: Object, desired: Assignment | Waiting) -> Confined | SkipReason | None:
        """Return how a job that starts now is kept where it is planned."""
        if not isinstance(desired, Assignment) or desired.running or desired.start_s > self._clock():
            return None
        nodes = [node for place in desired.placements for node in expand(place.nodes)]
        return self._nodes.where(raw, nodes) if nodes else None

    def _unlike_planned(self, raw: Object, desired: Assignment | Waiting) -> SkipReason | None:
        """Return why a job is not the one that was planned: made anew, or of another size now."""
        planned = self._planned.get(desired.job_id)
        if planned is None:
            return None
        made_at = part(raw, "metadata").get("creationTimestamp")
        if made_at and abs(parse_time(str(made_at)) - planned.submit_s) >= 1:
            return SkipReason(Skip.JOB_DIFFERS)
        if planned.state == "waiting" and job_gpus(raw, self._settings.gpu_resource) != planned.gpus:
            return SkipReason(Skip.JOB_DIFFERS)
        return None

    def _stop(self, raw: Object, desired: Assignment | Waiting) -> Stop | None:
        """Return the stop of a job that the plan stops, with the work done by then."""
        job = self._planned.get(desired.job_id)
        if job is None or job.state != "running" or not job.preemptible or not isinstance(desired, Waiting):
            return None
        return Stop(_work_s(self._plan, job, raw, self._clock()))

    def _levels(self, raw: Object, desired: Assignment) -> None:
        """Put the power level of a running job onto its pods, which read it there."""
        if not desired.running or self.report.dry_run:
            return
        wanted = {PREFIX + key: value for key, value in level_notes(desired).items()}
        namespace, _, short = job_id(raw).partition("/")
        for pod in self._api.pods_of(namespace, short, pod_label(raw)):
            now = notes_of(pod)
            if all(now.get(key.removeprefix(PREFIX)) == value for key, value in wanted.items()):
                continue
            name = str(part(pod, "metadata").get("name"))
            try:
                self._api.patch_pod(namespace, name, {"metadata": {"annotations": wanted}})
            except NotFound:  # it ended since
                continue
            self.report.commands.append(Command(f"powerlevel of pod {namespace}/{name}", f"job {job_id(raw)}"))

    def _settle(self, version: str) -> None:
        """Watch for a while; a write that another controller reverts counts as failed."""
        seen: dict[str, Object] = {}
        namespaces = self._settings.namespaces or ("",)
        for namespace in namespaces:
            try:
                for raw in self._api.watch_jobs(version, self._settings.settle_s / len(namespaces), namespace):
                    seen[job_id(raw)] = raw
            except Gone:
                seen = {job_id(raw): raw for raw in self._api.jobs()[0]}
                break
        for name, suspend in self._writes.suspended.items():
            last = seen.get(name)
            if last is not None and bool(part(last, "spec").get("suspend")) != suspend:
                state = "suspended" if not suspend else "unsuspended"
                error = f"was {state} again by somebody else"
                self.report.commands.append(Command(f"watch {name}", f"job {name}", error))


def _work_s(plan: Plan, job: Job, raw: Object, now_s: float) -> float:
    """Return the work that a running job has done since it started, in s at the fastest mode, less a checkpoint's."""
    kind = plan.snapshot.site.node_types.get(job.node_type or "")
    mode = kind.find_mode(job.mode) if kind else None
    started = started_at(raw)
    if mode is None or not started:
        return 0.0
    ran_s = max(0.0, now_s - parse_time(started))
    return max(0.0, ran_s * mode.speed - job.checkpoint_cost_s)
