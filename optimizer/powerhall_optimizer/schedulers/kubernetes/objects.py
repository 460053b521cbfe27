"""Plain objects of the API: nested parts, lists, names, Powerhall's annotations."""

from collections.abc import Mapping
from typing import cast

from powerhall.runtime.decode.numbers_in import digits

__all__ = [
    "PREFIX",
    "Object",
    "done_s",
    "job_id",
    "merged",
    "named",
    "notes_of",
    "objects",
    "part",
    "started_at",
    "status_of",
]

Object = dict[str, object]
PREFIX = "powerhall.io/"
_ENDED = ("Complete", "Completed", "Failed")
_RAY_ENDED = ("Complete", "Failed", "ValidationFailed")


def part(of: Object, *path: str) -> Object:
    """Return a nested object, empty where it is not there."""
    for key in path:
        found = of.get(key)
        of = cast("Object", found) if isinstance(found, dict) else {}
    return of


def objects(value: object) -> list[Object]:
    """Return the objects of a list; whatever else is in it, or in its place, is left out."""
    return [cast("Object", item) for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def merged(of: Object, patch: Mapping[str, object]) -> Object:
    """Return an object with a merge patch (RFC 7396) in it."""
    made = dict(of)
    for key, value in patch.items():
        if value is None:
            made.pop(key, None)
        else:
            made[key] = merged(part(of, key), cast("Object", value)) if isinstance(value, dict) else value
    return made


def job_id(raw: Object) -> str:
    """Return NAMESPACE/NAME of a Job, NAMESPACE/KIND/NAME of any other kind."""
    meta = part(raw, "metadata")
    return named(str(raw.get("kind") or "Job"), meta.get("namespace"), meta.get("name"))


def named(kind: str, namespace: object, name: object) -> str:
    """Return the id of a job by its kind and name."""
    return f"{namespace}/{name}" if kind == "Job" else f"{namespace}/{kind.lower()}/{name}"


def notes_of(raw: Object) -> dict[str, str]:
    """Return Powerhall's annotations by their short names."""
    found = part(raw, "metadata", "annotations")
    return {key.removeprefix(PREFIX): str(value) for key, value in found.items() if key.startswith(PREFIX)}


def done_s(raw: Object) -> float:
    """Return the work in s that a job had done when it was stopped; 0 where the annotation is not a number."""
    return float(digits(notes_of(raw).get("done", "")) or 0)


def status_of(raw: Object) -> str:
    """Return waiting (suspended), running or done."""
    status = part(raw, "status")
    if any(c.get("type") in _ENDED and c.get("status") == "True" for c in objects(status.get("conditions"))):
        return "done"
    if status.get("jobDeploymentStatus") in _RAY_ENDED:  # of a RayJob
        return "done"
    return "waiting" if part(raw, "spec").get("suspend") else "running"


def started_at(raw: Object) -> str:
    """Return when a job that runs was started last, "" where that is not known; a JobSet says when it was resumed."""
    status = part(raw, "status")
    resumed = (
        c.get("lastTransitionTime")
        for c in objects(status.get("conditions"))
        if c.get("type") == "Suspended" and c.get("status") == "False" and raw.get("kind") == "JobSet"
    )
    return str(status.get("startTime") or next(resumed, "") or "")
