"""Convert Kubernetes Jobs to the planner's jobs, and a plan to patches of them.

The annotation `powerhall.io/wrote` has the values that Powerhall wrote last. Where the job has others now, somebody
else changed it, and Powerhall does not write it until that annotation is removed.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import cast

import msgspec

from powerhall.jobs.model import Job
from powerhall.plan.plan import Assignment, Waiting
from powerhall.runtime.errors import Rejected
from powerhall.site.index import SiteIndex
from powerhall.site.topology import Site
from powerhall.timeseries import parse_time
from powerhall.units import parse_duration
from powerhall_optimizer.schedulers import texts
from powerhall_optimizer.schedulers.kubernetes.api_client import Object
from powerhall_optimizer.schedulers.kubernetes.kubernetes_settings import KubernetesSettings
from powerhall_optimizer.schedulers.skip_reasons import LeftOut, LeftOutCause, Skip, SkipReason

__all__ = ["JobPatch", "decide", "job_id", "status_of", "to_job"]

PREFIX = "powerhall.io/"
QUEUE_LABEL = "kueue.x-k8s.io/queue-name"


def part(of: Object, *path: str) -> Object:
    """Return a nested object, empty where it is not there."""
    for key in path:
        of = cast("Object", of.get(key) or {})
    return of


def job_id(raw: Object) -> str:
    """Return NAMESPACE/NAME."""
    meta = part(raw, "metadata")
    return f"{meta.get('namespace')}/{meta.get('name')}"


def notes_of(raw: Object) -> dict[str, str]:
    """Return Powerhall's annotations by their short names."""
    found = part(raw, "metadata", "annotations")
    return {key.removeprefix(PREFIX): str(value) for key, value in found.items() if key.startswith(PREFIX)}


def status_of(raw: Object) -> str:
    """Return waiting (suspended), running or done."""
    conditions = cast("list[Object]", part(raw, "status").get("conditions") or [])
    if any(c.get("type") in ("Complete", "Failed") and c.get("status") == "True" for c in conditions):
        return "done"
    return "waiting" if part(raw, "spec").get("suspend") else "running"


def _gpus(raw: Object, resource: str) -> int:
    spec = part(raw, "spec")
    containers = cast("list[Object]", part(spec, "template", "spec").get("containers") or [])
    each = sum(int(str(part(c, "resources", "limits").get(resource, 0))) for c in containers)
    return each * int(cast("int", spec.get("parallelism") or 1))


def _seconds(notes: dict[str, str], raw: Object, settings: KubernetesSettings) -> float:
    if text := notes.get("duration"):
        try:
            return float(text) if text.replace(".", "", 1).isdigit() else parse_duration(text)
        except ValueError as error:
            raise Rejected.field(job_id(raw), f"{PREFIX}duration", text, str(error)) from None
    limit = part(raw, "spec").get("activeDeadlineSeconds")
    return float(cast("int", limit)) if limit else settings.fields.default_duration_s


def _moment(notes: dict[str, str], key: str, raw: Object) -> float | None:
    if key not in notes:
        return None
    try:
        return parse_time(notes[key])
    except ValueError as error:
        raise Rejected.field(job_id(raw), PREFIX + key, notes[key], str(error)) from None


def _hall(notes: dict[str, str], site: Site) -> str:
    if notes.get("hall"):
        return notes["hall"]
    return site.halls[0].zone if len(site.halls) == 1 else ""


def to_job(raw: Object, site: Site, settings: KubernetesSettings) -> Job | LeftOut:
    """Return a job for the planner, or why it is left out; a malformed annotation is a reason, not an error."""
    gpus = _gpus(raw, settings.gpu_resource)
    if gpus == 0:
        return LeftOut(LeftOutCause.NO_GPUS, settings.gpu_resource)
    notes, meta = notes_of(raw), part(raw, "metadata")
    priority = str(part(raw, "spec", "template", "spec").get("priorityClassName") or "")
    running = status_of(raw) == "running"
    try:
        job = Job(
            job_id(raw),
            gpus,
            _seconds(notes, raw, settings),
            submit_s=parse_time(str(meta["creationTimestamp"])) if meta.get("creationTimestamp") else 0.0,
            job_class=notes.get("class", "default"),
            weight=settings.fields.weights.get(priority, 1.0),
            halls=tuple(notes["halls"].split()) if notes.get("halls") else (),
            earliest_s=_moment(notes, "earliest", raw),
            deadline_s=_moment(notes, "deadline", raw),
            preemptible=notes.get("preemptible") == "true" or priority in settings.fields.preemptible,
            checkpoint_cost_s=settings.fields.checkpoint_cost_s,
        )
    except Rejected as error:
        return LeftOut(LeftOutCause.BAD_FIELD, value=str(error))
    if not running:
        return job
    hall = _hall(notes, site)
    found = SiteIndex.of(site).halls.get(hall)
    kinds = set() if found is None else {rack.node_type for rack in found.racks()}
    if len(kinds) != 1:
        return LeftOut(LeftOutCause.UNKNOWN_HALL, f"{PREFIX}hall", hall or "unknown")
    kind = site.node_types[kinds.pop()]
    mode = (kind.find_mode(notes.get("mode")) or kind.modes[0]).name
    started = part(raw, "status").get("startTime")
    start_s = parse_time(str(started)) if started else job.submit_s
    return msgspec.structs.replace(job, state="running", hall=hall, node_type=kind.name, mode=mode, start_s=start_s)


@dataclass(frozen=True, slots=True)
class JobPatch:
    """A merge patch of one job, and the event that goes with it."""

    patch: Object
    event_reason: str
    message: str


def _wrote(raw: Object) -> str:
    spec, labels = part(raw, "spec"), part(raw, "metadata", "labels")
    return f"suspend={'true' if spec.get('suspend') else 'false'};queue={labels.get(QUEUE_LABEL, '')}"


def _stamp(time_s: float) -> str:
    return datetime.fromtimestamp(time_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _annotations(raw: Object, wanted: dict[str, str | None]) -> dict[str, str | None]:
    """Return those annotations that differ; None removes one."""
    now = notes_of(raw)
    return {PREFIX + key: value for key, value in wanted.items() if now.get(key) != value}


def _was_changed(raw: Object) -> bool:
    """Return whether somebody else set suspend or the queue since Powerhall did.

    In a Kueue queue only the queue counts: Kueue itself suspends and unsuspends the job.
    """
    wrote, now = notes_of(raw).get("wrote", ""), _wrote(raw)
    if not wrote or wrote == now:
        return False
    queue = wrote.partition(";queue=")[2]
    return not queue or queue != now.partition(";queue=")[2]


def decide(
    raw: Object, desired: Assignment | Waiting, settings: KubernetesSettings, now_s: float, *, stop: bool
) -> JobPatch | SkipReason | None:
    """Return the patch of a job, None where it is as planned, or why it is skipped."""
    status = status_of(raw)
    if status == "done":
        return SkipReason(Skip.ENDED)
    if _was_changed(raw):
        return SkipReason(Skip.JOB_CHANGED, f"{PREFIX}wrote")
    if isinstance(desired, Waiting):
        return SkipReason(Skip.RUNS_ALREADY) if status == "running" and not stop else _hold(raw, desired, status)
    if desired.running != (status == "running"):
        return SkipReason(Skip.WAITS_AGAIN if desired.running else Skip.RUNS_ALREADY)
    if desired.running:
        level: dict[str, str | None] = {"mode": desired.mode, "gpu-power-w": str(round(desired.gpu_power_w))}
        return _patched(raw, level, {}, "PowerLevel", f"runs at mode {desired.mode}")
    return _start(raw, desired, settings, now_s)


def _patched(raw: Object, notes: dict[str, str | None], more: Object, reason: str, message: str) -> JobPatch | None:
    annotations = _annotations(raw, notes)
    if not annotations and not more:
        return None
    version = part(raw, "metadata").get("resourceVersion")
    metadata: Object = {"resourceVersion": version}
    if annotations:
        metadata["annotations"] = annotations
    patch: Object = {"metadata": metadata} | {key: value for key, value in more.items() if key != "labels"}
    if "labels" in more:
        metadata["labels"] = more["labels"]
    return JobPatch(patch, reason, message)


def _hold(raw: Object, desired: Waiting, status: str) -> JobPatch | SkipReason | None:
    queue = part(raw, "metadata", "labels").get(QUEUE_LABEL, "")
    message = texts.waits_text(desired)
    notes: dict[str, str | None] = {"reason": message, "start": None}
    if status == "waiting":
        return _patched(raw, notes, {}, "Waiting", message)
    if queue:
        return SkipReason(Skip.KUEUE_PREEMPTS, str(queue))
    notes["wrote"] = "suspend=true;queue="
    return _patched(raw, notes, {"spec": {"suspend": True}}, "Stopped", message)


def _start(raw: Object, desired: Assignment, settings: KubernetesSettings, now_s: float) -> JobPatch | None:
    message = texts.planned_text(desired)
    notes: dict[str, str | None] = {"reason": message, "start": _stamp(desired.start_s)}
    if desired.start_s > now_s:
        return _patched(raw, notes, {}, "Planned", f"starts at {_stamp(desired.start_s)}: {message}")
    level = {"mode": desired.mode, "gpu-power-w": str(round(desired.gpu_power_w))}
    notes |= {"hall": desired.hall, **level}
    spec: Object = {"template": {"metadata": {"annotations": {PREFIX + key: value for key, value in level.items()}}}}
    labels = part(raw, "metadata", "labels")
    queue = str(labels.get(QUEUE_LABEL, "")) or settings.queues.get(desired.hall, "")
    if queue and labels.get(QUEUE_LABEL) == queue:
        return _patched(raw, notes, {}, "Queued", message)  # Kueue's turn already
    if queue:
        notes["wrote"] = f"suspend=true;queue={queue}"
        return _patched(raw, notes, {"spec": spec, "labels": {QUEUE_LABEL: queue}}, "Queued", message)
    notes["wrote"] = "suspend=false;queue="
    return _patched(raw, notes, {"spec": spec | {"suspend": False}}, "Started", message)
