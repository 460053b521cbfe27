"""Kubernetes: Jobs by spec.suspend, Kueue's queue labels and a quota in watts, reasons as events, one leader."""

import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import cast

from powerhall.jobs.model import Job
from powerhall.plan.plan import Assignment, Plan, Waiting
from powerhall.runtime.errors import ConfigError, Rejected
from powerhall.site.index import SiteIndex
from powerhall.site.topology import Site
from powerhall_optimizer.schedulers import texts
from powerhall_optimizer.schedulers.allowed import allowed_units, budget_zone
from powerhall_optimizer.schedulers.base import Command, Queue, WriteReport, check_fresh
from powerhall_optimizer.schedulers.kubernetes.api_client import (
    Conflict,
    Gone,
    KubernetesApi,
    NotFound,
    Object,
    identity,
    open_api,
)
from powerhall_optimizer.schedulers.kubernetes.jobs import JobPatch, decide, job_id, part, status_of, to_job
from powerhall_optimizer.schedulers.kubernetes.kubernetes_settings import KubernetesSettings
from powerhall_optimizer.schedulers.kubernetes.leader_lease import take_lease
from powerhall_optimizer.schedulers.skip_reasons import Skip, SkipReason

__all__ = ["KubernetesReader", "KubernetesWriter"]

Clock = Callable[[], float]
_TRIES = 4
"""Attempts to write a job that others change at the same time."""


class KubernetesReader:
    """Reads Jobs and nodes; the site's nodes carry the names of the cluster's."""

    def __init__(
        self, site: Site, settings: KubernetesSettings, api: KubernetesApi | None = None, clock: Clock = time.time
    ) -> None:
        self._site, self._settings, self._clock = site, settings, clock
        self._api = api or open_api(settings)

    def read(self) -> Queue:
        """Return jobs and nodes as they are now."""
        jobs: list[Job] = []
        left_out: dict[str, str] = {}
        for raw in self._api.jobs()[0]:
            if status_of(raw) == "done":
                continue
            made = to_job(raw, self._site, self._settings)
            if isinstance(made, Job):
                jobs.append(made)
            else:
                left_out[job_id(raw)] = texts.left_out_text(made)
        usable = {str(part(node, "metadata").get("name")) for node in self._api.nodes() if _is_usable(node)}
        down = tuple(node for node in SiteIndex.of(self._site).rack_of if node not in usable)
        return Queue(int(self._clock()), tuple(jobs), down, left_out)


def _is_usable(node: Object) -> bool:
    conditions = cast("list[Object]", part(node, "status").get("conditions") or [])
    ready = any(c.get("type") == "Ready" and c.get("status") == "True" for c in conditions)
    return ready and not part(node, "spec").get("unschedulable")


class KubernetesWriter:
    """Writes plans into a cluster, as long as it holds the leader lease."""

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
        now_s = self._clock()
        check_fresh(plan, now_s)
        report = WriteReport("kubernetes", plan.plan_id, dry_run)
        if not dry_run:
            take_lease(self._api, self._settings, self._holder, now_s)
        renew_s = now_s + self._settings.lease_s / 2
        raised = self._quota(plan, now_s, report, lower=True)
        listed, version = self._api.jobs()
        found = {job_id(raw): raw for raw in listed}
        wrote: dict[str, bool] = {}
        starts = sorted(plan.assignments, key=lambda job: (job.start_s, job.job_id))
        desired_jobs: list[Assignment | Waiting] = [*plan.waiting, *starts]
        for desired in desired_jobs:
            if not dry_run and self._clock() > renew_s:
                take_lease(self._api, self._settings, self._holder, self._clock())
                renew_s = self._clock() + self._settings.lease_s / 2
            self._job(found.get(desired.job_id), desired, plan, report, wrote)
        if raised:
            self._quota(plan, now_s, report, lower=False)
        if wrote and self._settings.settle_s:
            self._settle(version, wrote, report)
        return report

    def _job(
        self, raw: Object | None, desired: Assignment | Waiting, plan: Plan, report: WriteReport, wrote: dict[str, bool]
    ) -> None:
        stops = {job.job_id for job in plan.snapshot.jobs if job.state == "running" and job.preemptible}
        subject = f"job {desired.job_id}"
        for _ in range(_TRIES):
            if raw is None:
                report.skip_job(desired.job_id, SkipReason(Skip.NOT_THERE))
                return
            made = decide(raw, desired, self._settings, self._clock(), stop=desired.job_id in stops)
            if made is None:
                report.unchanged += 1
                return
            if isinstance(made, SkipReason):
                report.skip_job(desired.job_id, made)
                return
            try:
                self._write(raw, made, report, wrote)
            except Conflict:
                raw = self._again(desired.job_id)
            except ConfigError:
                raise  # missing rights: no other job fares better
            except Rejected as error:
                report.commands.append(Command(f"patch {subject}", subject, str(error)))
                return
            else:
                return
        report.commands.append(Command(f"patch {subject}", subject, f"changed by others {_TRIES} times in a row"))

    def _again(self, name: str) -> Object | None:
        namespace, _, short = name.partition("/")
        try:
            return self._api.job(namespace, short)
        except NotFound:
            return None

    def _write(self, raw: Object, made: JobPatch, report: WriteReport, wrote: dict[str, bool]) -> None:
        """Patch one job, verify it, and record it in an event."""
        name = job_id(raw)
        text = f"{made.event_reason.lower()} {name}: {made.message}"
        if report.dry_run:
            report.commands.append(Command(text, f"job {name}"))
            return
        namespace, _, short = name.partition("/")
        self._api.patch_job(namespace, short, made.patch)
        after = self._api.job(namespace, short)
        error = _unlike(made.patch, after, "")
        report.commands.append(Command(text, f"job {name}", error))
        suspend = part(made.patch, "spec").get("suspend")
        if isinstance(suspend, bool):
            wrote[name] = suspend
        self._api.event(namespace, self._event(after, made))

    def _event(self, job: Object, made: JobPatch) -> Object:
        meta = part(job, "metadata")
        stamp = datetime.fromtimestamp(self._clock(), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return {
            "metadata": {"name": f"{meta['name']}.{uuid.uuid4().hex[:16]}", "namespace": meta["namespace"]},
            "involvedObject": {
                "apiVersion": "batch/v1",
                "kind": "Job",
                "name": meta["name"],
                "namespace": meta["namespace"],
                "uid": meta.get("uid"),
            },
            "reason": made.event_reason,
            "message": made.message[:1000],
            "type": "Normal",
            "firstTimestamp": stamp,
            "lastTimestamp": stamp,
            "count": 1,
            "source": {"component": "powerhall-optimizer"},
            "reportingComponent": "powerhall.io/optimizer",
            "reportingInstance": self._holder,
        }

    def _quota(self, plan: Plan, now_s: float, report: WriteReport, *, lower: bool) -> bool:
        """Set the queue's quota in watts to the power that jobs may hold now; return whether to raise it at the end."""
        name = self._settings.cluster_queue
        zone = budget_zone(plan, self._settings.zone, "kubernetes.zone") if name else None
        if zone is None:
            return False
        slot = max(0, int(now_s - plan.snapshot.start_s) // plan.snapshot.slot_s)
        watts = allowed_units(plan, zone, 1.0)[slot][0]
        for _ in range(_TRIES):
            queue = self._api.cluster_queue(name)
            resource = _watts_of(queue, self._settings.watts_resource)
            if resource is None:
                report.skip(f"clusterqueue {name}", SkipReason(Skip.NO_QUOTA, self._settings.watts_resource))
                return False
            before_w = int(float(str(resource.get("nominalQuota", 0))))
            if before_w == watts:
                return False
            if lower and watts > before_w:
                return True
            resource["nominalQuota"] = str(watts)
            version = part(queue, "metadata").get("resourceVersion")
            groups = part(queue, "spec")["resourceGroups"]
            text, error = f"quota of clusterqueue {name}: {before_w} W to {watts} W", ""
            if not report.dry_run:
                try:
                    self._api.cluster_queue(
                        name, {"metadata": {"resourceVersion": version}, "spec": {"resourceGroups": groups}}
                    )
                except Conflict:
                    continue
                read = _watts_of(self._api.cluster_queue(name), self._settings.watts_resource)
                error = "" if read and str(read.get("nominalQuota")) == str(watts) else "reads back otherwise"
            report.commands.append(Command(text, f"clusterqueue {name}", error))
            return False
        report.commands.append(Command(f"quota of clusterqueue {name}", name, "changed by others again and again"))
        return False

    def _settle(self, version: str, wrote: dict[str, bool], report: WriteReport) -> None:
        """Watch for a while; a write that another controller reverts counts as failed."""
        seen: dict[str, Object] = {}
        try:
            for raw in self._api.watch_jobs(version, self._settings.settle_s):
                seen[job_id(raw)] = raw
        except Gone:
            seen = {job_id(raw): raw for raw in self._api.jobs()[0]}
        for name, suspend in wrote.items():
            last = seen.get(name)
            if last is not None and bool(part(last, "spec").get("suspend")) != suspend:
                state = "suspended" if not suspend else "unsuspended"
                report.commands.append(Command(f"watch {name}", f"job {name}", f"was {state} again by somebody else"))


def _watts_of(queue: Object, resource: str) -> Object | None:
    """Return the entry of the first flavour with this resource."""
    for group in cast("list[Object]", part(queue, "spec").get("resourceGroups") or []):
        for flavour in cast("list[Object]", group.get("flavors") or []):
            for entry in cast("list[Object]", flavour.get("resources") or []):
                if entry.get("name") == resource:
                    return entry
    return None


def _unlike(patch: Object, after: Object, path: str) -> str:
    """Return the first field of a merge patch that reads back otherwise, or ""."""
    for key, value in patch.items():
        if key == "resourceVersion":
            continue
        now = after.get(key)
        where = f"{path}.{key}".lstrip(".")
        if isinstance(value, dict):
            if found := _unlike(cast("Object", value), cast("Object", now or {}), where):
                return found
        elif now != value and not (key == "suspend" and value is True and now is None):
            return f"{where} reads back as {now!r}, not {value!r}"
    return ""
