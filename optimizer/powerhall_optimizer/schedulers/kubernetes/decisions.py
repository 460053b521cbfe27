"""What a plan changes of one Job: a merge patch, an event, and the word to Kueue."""

from dataclasses import dataclass, field
from datetime import UTC, datetime

import msgspec

from powerhall.hostlist import expand
from powerhall.plan.plan import Assignment, Waiting
from powerhall_optimizer.schedulers import texts
from powerhall_optimizer.schedulers.kubernetes.confinement import Confined, confined_spec, freed_spec
from powerhall_optimizer.schedulers.kubernetes.kubernetes_settings import KubernetesSettings
from powerhall_optimizer.schedulers.kubernetes.node_demands import OWN_NODES, REFUSED, own_nodes
from powerhall_optimizer.schedulers.kubernetes.objects import PREFIX, Object, done_s, merged, notes_of, part, status_of
from powerhall_optimizer.schedulers.kubernetes.ownership import QUEUE_LABEL, was_changed, wrote
from powerhall_optimizer.schedulers.skip_reasons import Skip, SkipReason

__all__ = ["JobPatch", "Stop", "decide", "explain", "is_left_alone", "level_notes", "release", "replan"]


@dataclass(frozen=True, slots=True)
class JobPatch:
    """A merge patch of one job (empty: none) and the event that goes with it.

    The server takes `patch` as the job is now. `admit` is whether Kueue may run it; None leaves its Workload alone.
    """

    patch: Object
    event_reason: str
    message: str
    admit: bool | None = None
    spec_after_reset: Object = field(default_factory=dict)
    """More of the spec, which the server takes only once the time of the last start is cleared (`jobs/status`): the pod
    template of a job that ran and was stopped."""


@dataclass(frozen=True, slots=True)
class Stop:
    """That the plan stops a running job, and the work that it has done by then, in s at the fastest mode."""

    done_s: float


def level_notes(desired: Assignment) -> dict[str, str | None]:
    """Return the annotations of a power level."""
    return {"mode": desired.mode, "gpu-power-w": str(round(desired.gpu_power_w))}


def decide(
    raw: Object,
    desired: Assignment | Waiting,
    settings: KubernetesSettings,
    now_s: float,
    *,
    stop: Stop | None = None,
    where: Confined | SkipReason | None = None,
) -> JobPatch | SkipReason | None:
    """Return the patch of a job, None where it is as planned, or why it is skipped.

    A job that starts is confined to `where`, without it to the planned nodes by name.
    """
    if skip := _skipped(raw, desired, is_stopped=stop is not None):
        return skip
    if isinstance(desired, Waiting):
        return _hold(raw, desired, stop)
    if desired.running:
        notes = level_notes(desired)
        if "wrote" not in notes_of(raw):  # so that its user's next change of it is seen
            notes["wrote"] = wrote(raw)
        if part(raw, "status").get("ready"):
            notes[REFUSED] = None
        return _patched(raw, notes, {}, "PowerLevel", f"runs at mode {desired.mode}")
    return _start(raw, desired, settings, now_s, where)


def _skipped(raw: Object, desired: Assignment | Waiting, *, is_stopped: bool) -> SkipReason | None:
    """Return why a job is left alone, or None."""
    if why := is_left_alone(raw):
        return why
    status = status_of(raw)
    runs, should_run = status == "running", isinstance(desired, Assignment) and desired.running
    if runs and not should_run and not is_stopped:
        return SkipReason(Skip.RUNS_ALREADY)
    return SkipReason(Skip.WAITS_AGAIN) if should_run and not runs else None


def is_left_alone(raw: Object) -> SkipReason | None:
    """Return why nothing is written to a job: it has ended, goes, or somebody else changed it."""
    if status_of(raw) == "done":
        return SkipReason(Skip.ENDED)
    if part(raw, "metadata").get("deletionTimestamp"):
        return SkipReason(Skip.GONE)
    return SkipReason(Skip.JOB_CHANGED, f"{PREFIX}wrote") if was_changed(raw) else None


def explain(raw: Object, message: str) -> JobPatch | None:
    """Return the patch that says on a job why it is left out of plans; None where it is said, or it is left alone."""
    if is_left_alone(raw) or status_of(raw) != "waiting":
        return None
    return _patched(raw, {"reason": message, "start": None}, {}, "LeftOut", message)


def replan(raw: Object, refused: str) -> JobPatch | SkipReason | None:
    """Return the patch that makes an admitted job wait again whose pods no node took: the next plan places it.

    `refused` (host list) are the nodes on which it may not be planned at once again.
    """
    if why := is_left_alone(raw):
        return why
    message = "no node that the plan gave it took one of its pods: the next plan places it"
    notes: dict[str, str | None] = {"reason": message, "start": None, REFUSED: refused}
    if part(raw, "metadata", "labels").get(QUEUE_LABEL):
        return _patched(raw, notes, {}, "Unplaced", message, admit=False)
    notes["wrote"] = "suspend=true;queue="
    return _patched(raw, notes, {"spec": {"suspend": True}}, "Unplaced", message)


def release(raw: Object, queue: str, message: str, resource: str) -> JobPatch | None:
    """Return the patch that lets a waiting job start without a plan: by Kueue where there is a queue, else at once.

    The nodes of a plan that is over confine it no more; `resource` is that of a GPU.
    """
    labels = part(raw, "metadata", "labels")
    in_queue = bool(labels.get(QUEUE_LABEL))
    notes: dict[str, str | None] = {"reason": message, "start": None}
    spec, later = _freely(raw, freed_spec(raw, resource))
    if queue:
        notes["wrote"] = f"suspend=true;queue={queue}"
        more: Object = {"spec": spec} if spec else {}
        if not in_queue:
            more["labels"] = {QUEUE_LABEL: queue}
        return _patched(raw, notes, more, "Released", message, admit=True if in_queue else None, spec_after_reset=later)
    notes["wrote"] = "suspend=false;queue="
    return _patched(raw, notes, {"spec": spec | {"suspend": False}}, "Released", message, spec_after_reset=later)


def _freely(raw: Object, spec: Object) -> tuple[Object, Object]:
    """Return which part of a spec the server takes at once, and which only once the last start is cleared.

    That is the template of a Job that ran; the controllers of other kinds see to it themselves.
    """
    is_fixed = raw.get("kind", "Job") == "Job" and bool(part(raw, "status").get("startTime"))
    return ({}, spec) if is_fixed else (spec, {})


def _stamp(time_s: float) -> str:
    return datetime.fromtimestamp(time_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _annotations(raw: Object, wanted: dict[str, str | None]) -> dict[str, str | None]:
    """Return those annotations that differ; None removes one."""
    now = notes_of(raw)
    return {PREFIX + key: value for key, value in wanted.items() if now.get(key) != value}


def _patched(
    raw: Object,
    notes: dict[str, str | None],
    more: Object,
    reason: str,
    message: str,
    *,
    admit: bool | None = None,
    spec_after_reset: Object | None = None,
) -> JobPatch | None:
    annotations = _annotations(raw, notes)
    if not annotations and not more and not spec_after_reset:
        return None if admit is None else JobPatch({}, reason, message, admit)
    metadata: Object = {"resourceVersion": part(raw, "metadata").get("resourceVersion")}
    if annotations:
        metadata["annotations"] = annotations
    patch: Object = {"metadata": metadata} | {key: value for key, value in more.items() if key != "labels"}
    if "labels" in more:
        metadata["labels"] = more["labels"]
    return JobPatch(patch, reason, message, admit, spec_after_reset or {})


def _hold(raw: Object, desired: Waiting, stop: Stop | None) -> JobPatch | None:
    in_queue = bool(part(raw, "metadata", "labels").get(QUEUE_LABEL))
    message = texts.waits_text(desired)
    notes: dict[str, str | None] = {"reason": message, "start": None}
    admit = False if in_queue else None
    if status_of(raw) == "waiting":
        return _patched(raw, notes, {}, "Waiting", message, admit=admit)
    if stop is not None and stop.done_s > 0:
        notes["done"] = f"{done_s(raw) + stop.done_s:.0f}"
    if in_queue:  # Kueue suspends it
        return _patched(raw, notes, {}, "Stopped", message, admit=False)
    notes["wrote"] = "suspend=true;queue="
    return _patched(raw, notes, {"spec": {"suspend": True}}, "Stopped", message)


def _start(
    raw: Object, desired: Assignment, settings: KubernetesSettings, now_s: float, where: Confined | SkipReason | None
) -> JobPatch | SkipReason | None:
    message = texts.planned_text(desired)
    labels = part(raw, "metadata", "labels")
    in_queue = bool(labels.get(QUEUE_LABEL))
    notes: dict[str, str | None] = {"reason": message, "start": _stamp(desired.start_s)}
    if desired.start_s > now_s:
        text = f"starts at {_stamp(desired.start_s)}: {message}"
        return _patched(raw, notes, {}, "Planned", text, admit=False if in_queue else None)
    if isinstance(where, SkipReason):
        return where
    level = level_notes(desired)
    notes |= {"hall": desired.hall, **level}
    nodes = tuple(node for place in desired.placements for node in expand(place.nodes))
    confined = confined_spec(raw, settings.gpu_resource, where or Confined(nodes)) if nodes else {}
    if confined:
        notes[OWN_NODES] = msgspec.json.encode(own_nodes(raw)).decode()
    spec, later = _freely(raw, merged(_template(raw, level), confined))
    queue = str(labels.get(QUEUE_LABEL, "")) or settings.queues.get(desired.hall, "")
    if queue:
        notes["wrote"] = f"suspend=true;queue={queue}"
        more: Object = {"spec": spec} if spec else {}
        if not in_queue:
            more["labels"] = {QUEUE_LABEL: queue}
        return _patched(raw, notes, more, "Queued", message, admit=True if in_queue else None, spec_after_reset=later)
    notes["wrote"] = "suspend=false;queue="
    return _patched(raw, notes, {"spec": spec | {"suspend": False}}, "Started", message, spec_after_reset=later)


def _template(raw: Object, level: dict[str, str | None]) -> Object:
    """Return the part of a patch that puts the power level into the pods to come; empty where it is there.

    Those of a JobSet or RayJob, whose templates are in lists, get it once they run.
    """
    if raw.get("kind", "Job") != "Job":
        return {}
    now = part(raw, "spec", "template", "metadata", "annotations")
    wanted = {PREFIX + key: value for key, value in level.items()}
    if all(now.get(key) == value for key, value in wanted.items()):
        return {}
    return {"template": {"metadata": {"annotations": wanted}}}
