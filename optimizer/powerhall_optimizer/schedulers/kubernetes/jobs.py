"""Convert Jobs, JobSets and RayJobs to the planner's jobs.

What tenants write is parsed with bounds: a wrong value leaves its job out, with the reason.
"""

import math
import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import msgspec

from powerhall.hostlist import compress, expand
from powerhall.jobs.model import Job
from powerhall.runtime.decode.numbers_in import digits
from powerhall.runtime.errors import Rejected
from powerhall.site.index import SiteIndex
from powerhall.site.topology import NodeType, Site
from powerhall.timeseries import parse_time
from powerhall.units import parse_duration
from powerhall_optimizer.schedulers.kubernetes.confinement import Confinement, host_list
from powerhall_optimizer.schedulers.kubernetes.gangs import gpu_groups, owner, pod_groups, unlike_a_gang
from powerhall_optimizer.schedulers.kubernetes.gpu_parts import PartNodes
from powerhall_optimizer.schedulers.kubernetes.kubernetes_settings import KubernetesSettings
from powerhall_optimizer.schedulers.kubernetes.objects import (
    PREFIX,
    Object,
    done_s,
    job_id,
    notes_of,
    objects,
    part,
    started_at,
    status_of,
)
from powerhall_optimizer.schedulers.kubernetes.ownership import was_changed
from powerhall_optimizer.schedulers.kubernetes.pod_requests import (
    Holding,
    asks_for_slices,
    claims_devices,
    gpus_of,
    quantity,
)
from powerhall_optimizer.schedulers.kubernetes.topology import blocks_of
from powerhall_optimizer.schedulers.kubernetes.written_modes import mode_key
from powerhall_optimizer.schedulers.skip_reasons import LeftOut, LeftOutCause

__all__ = ["gpus_by_node", "job_gpus", "to_job"]

_GO_DURATION = re.compile(r"(?:([0-9.]{1,12})h)?(?:([0-9.]{1,12})m)?(?:([0-9.]{1,12})s)?")
_LONGEST_S = 10 * 366 * 86400.0
"""No job takes more than ten years."""


def to_job(
    raw: Object,
    site: Site,
    settings: KubernetesSettings,
    held: Sequence[Holding] = (),
    offers: PartNodes = PartNodes(),  # noqa: B008 - it is frozen
    *,
    now_s: float,
    choice: Confinement | None = None,
    modes: Mapping[str, str] = MappingProxyType({}),
) -> Job | LeftOut:
    """Return a job for the planner, or why it is left out; `held` are the GPUs that its pods hold.

    `choice` are the cluster's nodes, among which it may ask for some; `modes` are those that rounds wrote, by the
    marks of their jobs.
    """
    choice = choice or Confinement(site, (), settings)
    try:
        job = _asked(raw, site, settings, offers, now_s)
        if isinstance(job, LeftOut):
            return job
        if status_of(raw) != "running":
            changed = LeftOut(LeftOutCause.JOB_CHANGED, f"{PREFIX}wrote")
            return changed if was_changed(raw) else _on_its_nodes(job, raw, site, choice)
        notes = notes_of(raw)
        mode = notes["mode"] if notes.get("mode") and modes.get(mode_key(raw)) == notes["mode"] else None
        running = _running(job, raw, site, held, choice, mode=mode)
        duration_s, is_ours = _running_s(running, raw, settings, now_s), not was_changed(raw)
        return msgspec.structs.replace(running, duration_s=duration_s, preemptible=job.preemptible and is_ours)
    except (Rejected, ValueError, TypeError, OverflowError) as error:
        return LeftOut(LeftOutCause.BAD_FIELD, value=str(error)[:200])


def job_gpus(raw: Object, resource: str) -> int:
    """Return the GPUs that a job may hold at once, all of its pods together."""
    return sum(group.count * gpus_of(group.spec, resource) for group in pod_groups(raw))


def _asked(raw: Object, site: Site, settings: KubernetesSettings, offers: PartNodes, now_s: float) -> Job | LeftOut:
    """Return the job as its user asks for it."""
    if by := owner(raw):
        return LeftOut(LeftOutCause.PART_OF_JOB, by)
    if why := unlike_a_gang(raw, settings.gpu_resource):
        return why
    claims = any(claims_devices(group.spec) for group in pod_groups(raw))
    gpus, groups = job_gpus(raw, settings.gpu_resource), gpu_groups(raw, settings.gpu_resource)
    if gpus == 0 and not claims:
        return LeftOut(LeftOutCause.NO_GPUS, settings.gpu_resource)
    slices = claims or any(asks_for_slices(group.spec, settings.gpu_resource) for group in groups)
    piece = offers.part_of(groups[0].spec, settings.gpu_resource, site) if slices and gpus == 1 else None
    if slices and (piece is None or claims):
        return LeftOut(LeftOutCause.SLICES)
    spec, notes, meta = groups[0].spec, notes_of(raw), part(raw, "metadata")
    priority = str(spec.get("priorityClassName") or "")
    is_preemptible = notes.get("preemptible") == "true" or priority in settings.fields.preemptible
    submit_s = parse_time(str(meta["creationTimestamp"])) if meta.get("creationTimestamp") else 0.0
    whole_s = _duration(notes, raw, settings)
    left_s = whole_s - _done_s(raw, submit_s, now_s) if is_preemptible else whole_s
    pods = part(groups[0].template, "metadata", "annotations")
    within, block_nodes = blocks_of(notes, pods, gpus_of(spec, settings.gpu_resource), site)
    return Job(
        job_id(raw),
        gpus,
        max(1.0, min(left_s, whole_s * _remaining_share(raw))),
        submit_s=submit_s,
        job_class=notes.get("class", "default"),
        weight=settings.fields.weights.get(priority, 1.0),
        halls=tuple(notes["halls"].split()) if notes.get("halls") else (),
        earliest_s=_moment(notes, "earliest"),
        deadline_s=_moment(notes, "deadline"),
        preemptible=is_preemptible,
        checkpoint_cost_s=settings.fields.checkpoint_cost_s,
        within=within if piece is None else None,
        block_nodes=block_nodes if piece is None else None,
        node_types=() if piece is None else piece.node_types,
        allowed_nodes=None if piece is None else piece.nodes,
        gpu_share=None if piece is None else piece.share,
    )


def _on_its_nodes(job: Job, raw: Object, site: Site, choice: Confinement) -> Job | LeftOut:
    """Return a waiting job with the nodes that it asks for as the only ones, or why none may have it."""
    may = choice.eligible(raw)
    if may is None or isinstance(may, LeftOut):
        return job if may is None else may
    if job.allowed_nodes is not None:
        may &= set(expand(job.allowed_nodes))
    index = SiteIndex.of(site)
    halls = {index.hall_of(node).zone for node in may}
    inside = {node for node in may if not job.halls or index.hall_of(node).zone in job.halls}
    if not inside:
        return LeftOut(LeftOutCause.NO_NODES)
    return msgspec.structs.replace(
        job,
        halls=tuple(hall for hall in index.halls if hall in halls and (not job.halls or hall in job.halls)),
        node_types=tuple(sorted({index.node_type(node).name for node in inside})),
        allowed_nodes=host_list(inside),
    )


def _duration(notes: dict[str, str], raw: Object, settings: KubernetesSettings) -> float:
    """Return the seconds that the whole job takes at the fastest mode."""
    text = notes.get("duration")
    if text is None:
        inner = [part(one, "template", "spec") for one in objects(part(raw, "spec").get("replicatedJobs"))]
        limits = [one.get("activeDeadlineSeconds") for one in inner or [part(raw, "spec")]]
        if not all(limits):
            return settings.fields.default_duration_s
        return min(_LONGEST_S, max(map(_deadline, limits)))
    try:
        seconds = float(text) if digits(text.replace(".", "", 1)) is not None else _span(text)
    except (ValueError, OverflowError) as error:
        raise Rejected(f"{PREFIX}duration: {text[:40]!r}: {error}") from None
    if not (math.isfinite(seconds) and 0 < seconds <= _LONGEST_S):
        raise Rejected(f"{PREFIX}duration: {text[:40]!r}: must be above 0 and at most 10 years")
    return seconds


def _deadline(limit: object) -> float:
    try:
        return float(max(1, quantity(limit)))
    except Rejected as error:
        raise Rejected(f"activeDeadlineSeconds: {error}") from None


def _done_s(raw: Object, submit_s: float, now_s: float) -> float:
    """Return the work in s that a job had done when it was stopped: at most the time since it was submitted."""
    return min(done_s(raw), max(0.0, now_s - submit_s))


def _running_s(job: Job, raw: Object, settings: KubernetesSettings, now_s: float) -> float:
    """Return the time in s that a running job is taken to go on: at least a round, whatever its tenant says.

    One that runs longer than it said is taken to go on for as long again as it is late, so that no plan counts on its
    nodes round after round.
    """
    said_s = _duration(notes_of(raw), raw, settings)
    if job.preemptible:
        said_s -= _done_s(raw, job.submit_s, now_s)
    late_s = now_s - (now_s if job.start_s is None else job.start_s) - max(0.0, said_s)
    return min(_LONGEST_S, max(job.duration_s, settings.round_s, late_s))


def _span(text: str) -> float:
    """Read a duration of ours, or as Kubernetes writes them: `6h30m`."""
    found = _GO_DURATION.fullmatch(text.strip()) if text.strip() else None
    if found is None:
        return parse_duration(text)
    hours, minutes, seconds = (float(each or 0) for each in found.groups())
    return hours * 3600 + minutes * 60 + seconds


def _remaining_share(raw: Object) -> float:
    """Return the share of a job of several completions that is still to be done."""
    completions = quantity(part(raw, "spec").get("completions") or 1)
    succeeded = quantity(part(raw, "status").get("succeeded") or 0)
    return max(1, completions - succeeded) / completions if completions > 1 else 1.0


def _moment(notes: dict[str, str], key: str) -> float | None:
    if key not in notes:
        return None
    try:
        return parse_time(notes[key])
    except ValueError as error:
        raise Rejected(f"{PREFIX}{key}: {notes[key][:40]!r}: {error}") from None


def _running(
    job: Job, raw: Object, site: Site, held: Sequence[Holding], choice: Confinement, *, mode: str | None
) -> Job:
    """Return a job that runs: on the nodes of its pods; before they are bound, in the hall to which it is confined."""
    started = started_at(raw)
    start_s = parse_time(started) if started else job.submit_s
    begun = msgspec.structs.replace(job, state="running", start_s=start_s)
    if held:
        return _on_nodes(begun, site, held, mode)
    index = SiteIndex.of(site)
    may = choice.reach(raw)
    halls = {index.hall_of(node).zone for node in may}
    if len(halls) != 1:
        return msgspec.structs.replace(begun, hall=None, nodes="")  # counted, wherever it is
    kinds = {index.node_type(node).name for node in may}
    kind = max((site.node_types[name] for name in kinds), key=lambda one: one.max_power_w / one.gpus)
    placed = msgspec.structs.replace(begun, hall=halls.pop(), node_type=kind.name, mode=_mode(kind, mode))
    is_exact = len(kinds) == 1 and len(may) * kind.gpus < job.gpus + kind.gpus  # it needs them all
    return msgspec.structs.replace(placed, nodes=host_list(may)) if is_exact else placed


def _on_nodes(job: Job, site: Site, held: Sequence[Holding], mode: str | None) -> Job:
    index, on = SiteIndex.of(site), gpus_by_node(site, held)
    nodes = tuple(on)
    placed = msgspec.structs.replace(
        job, gpus=sum(on.values()), nodes=compress(nodes), gpus_on_nodes=tuple(on.values())
    )
    racks = [index.rack_of[node] for node in nodes]
    kinds = {rack.node_type for rack in racks}
    halls = {index.hall_of_rack[rack.zone].zone for rack in racks}
    if len(kinds) != 1 or len(halls) != 1:
        return placed  # counted where it runs, and not planned with
    kind = site.node_types[kinds.pop()]
    return msgspec.structs.replace(placed, hall=halls.pop(), node_type=kind.name, mode=_mode(kind, mode))


def gpus_by_node(site: Site, held: Sequence[Holding]) -> dict[str, int]:
    """Return GPUs by node; where a pod's are not known, all of its node."""
    racks, on = SiteIndex.of(site).rack_of, dict[str, int]()
    for one in sorted(held, key=lambda one: one.node):
        whole = site.node_types[racks[one.node].node_type].gpus
        on[one.node] = on.get(one.node, 0) + (one.gpus or whole)
    return on


def _mode(kind: NodeType, written: str | None) -> str:
    """Return the mode of a running job: as a round wrote it, and the one of most power where none did."""
    worst = max(kind.modes, key=lambda mode: mode.gpu_power_w)
    return (kind.find_mode(written) or worst).name
