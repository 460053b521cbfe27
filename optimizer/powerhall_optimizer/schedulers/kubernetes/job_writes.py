"""Writes one Job: the patch, read back, its word to Kueue, and the event that says why."""

import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import cast

from powerhall.runtime.errors import PowerhallError, Rejected
from powerhall_optimizer.schedulers.base import Command, WriteReport
from powerhall_optimizer.schedulers.kubernetes.api_client import Conflict, KubernetesApi, NotFound
from powerhall_optimizer.schedulers.kubernetes.decisions import JobPatch
from powerhall_optimizer.schedulers.kubernetes.kueue import TRIES, Workloads
from powerhall_optimizer.schedulers.kubernetes.leader_lease import Lead
from powerhall_optimizer.schedulers.kubernetes.objects import Object, job_id, part
from powerhall_optimizer.schedulers.kubernetes.ownership import QUEUE_LABEL
from powerhall_optimizer.schedulers.skip_reasons import Skip, SkipReason

__all__ = ["JobWrites"]

Decide = Callable[[Object], JobPatch | SkipReason | None]
"""What is to be done with a job as it is now: a patch, why it is left alone, or nothing."""


class JobWrites:
    """Writes jobs and notes each write in the report; `suspended` has what was written, by job."""

    def __init__(self, api: KubernetesApi, lead: Lead, clock: Callable[[], float], report: WriteReport) -> None:
        self._api, self._lead, self._clock, self._report = api, lead, clock, report
        self.workloads = Workloads(api)
        self.suspended: dict[str, bool] = {}

    def write(self, name: str, raw: Object | None, decide: Decide) -> Object | None:
        """Write one job as decided, anew where somebody else changes it; return it unless it was left alone."""
        for _ in range(TRIES):
            if raw is None:
                self._report.skip_job(name, SkipReason(Skip.NOT_THERE))
                return None
            made = decide(raw)
            if made is None:
                self._report.unchanged += 1
                return raw
            if isinstance(made, SkipReason):
                self._report.skip_job(name, made)
                return None
            try:
                self._patch(raw, made)
            except Conflict:
                raw = self._again(name)
            else:
                return raw
        error = f"changed by others {TRIES} times in a row"
        self._report.commands.append(Command(f"patch job {name}", f"job {name}", error))
        return None

    def _again(self, name: str) -> Object | None:
        namespace, _, short = name.partition("/")
        try:
            return self._api.job(namespace, short)
        except NotFound:
            return None

    def _patch(self, raw: Object, made: JobPatch) -> None:
        """Patch one job: Kueue holds it before, and may run it after it is where it is planned."""
        name = job_id(raw)
        if not self._report.dry_run:
            self._lead.keep()
        written = made.admit is False and self.workloads.set_active(name, False, self._report)
        is_right = not made.patch or self._patch_job(raw, made)
        written |= bool(made.admit) and is_right and self.workloads.set_active(name, True, self._report)
        self._report.unchanged += not made.patch and not written

    def _patch_job(self, raw: Object, made: JobPatch) -> bool:
        """Patch one job, verify it, and record it in an event; return whether it reads back as written."""
        name = job_id(raw)
        text = f"{made.event_reason.lower()} {name}: {made.message}"
        if self._report.dry_run:
            self._report.commands.append(Command(text, f"job {name}"))
            return True
        self._check_queue(raw, made)
        namespace, _, short = name.partition("/")
        patch = made.patch
        if made.spec_after_reset:
            before = self._api.job_status(namespace, short, {"status": {"startTime": None}})
            metadata = part(patch, "metadata") | {"resourceVersion": part(before, "metadata").get("resourceVersion")}
            patch = patch | {"metadata": metadata, "spec": part(patch, "spec") | made.spec_after_reset}
        self._api.patch_job(namespace, short, patch)
        after = self._api.job(namespace, short)
        error = _unlike(patch, after, "")
        self._report.commands.append(Command(text, f"job {name}", error))
        suspend = part(made.patch, "spec").get("suspend")
        if isinstance(suspend, bool):
            self.suspended[name] = suspend
        try:
            self._api.event(namespace, self._event(after, made))
        except PowerhallError as refused:
            self._report.commands.append(Command(f"event of {name}", f"job {name}", str(refused)))
        return not error

    def _check_queue(self, raw: Object, made: JobPatch) -> None:
        """Refuse to send a job to a LocalQueue that is not there: Kueue would keep it for ever."""
        queue = part(made.patch, "metadata", "labels").get(QUEUE_LABEL)
        if queue:
            namespace = str(part(raw, "metadata").get("namespace"))
            try:
                self._api.local_queue(namespace, str(queue))
            except NotFound:
                raise Rejected(f"namespace {namespace} has no LocalQueue {queue}") from None

    def _event(self, job: Object, made: JobPatch) -> Object:
        meta = part(job, "metadata")
        stamp = datetime.fromtimestamp(self._clock(), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return {
            "metadata": {"name": f"{meta['name']}.{uuid.uuid4().hex[:16]}", "namespace": meta["namespace"]},
            "involvedObject": {
                "apiVersion": job.get("apiVersion") or "batch/v1",
                "kind": job.get("kind") or "Job",
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
            "reportingInstance": self._lead.holder,
        }


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
        elif now != value and not (key == "suspend" and value is False and now is None):
            return f"{where} reads back as {now!r}, not {value!r}"
    return ""
