"""Desired state of each job in Slurm by field, and the changes that may be written."""

import math
from dataclasses import dataclass, replace

from powerhall.hostlist import expand
from powerhall.plan.plan import Assignment, Plan, Waiting
from powerhall.runtime.decode.numbers_in import digits
from powerhall_optimizer.schedulers import texts
from powerhall_optimizer.schedulers.allowed import units
from powerhall_optimizer.schedulers.skip_reasons import Skip, SkipReason
from powerhall_optimizer.schedulers.slurm.ownership_mark import OwnershipMark, canonical, one_word, parse_mark
from powerhall_optimizer.schedulers.slurm.power_tree import node_charge
from powerhall_optimizer.schedulers.slurm.prepaid import are_prepaid
from powerhall_optimizer.schedulers.slurm.records import Record
from powerhall_optimizer.schedulers.slurm.slurm_settings import SlurmSettings

__all__ = ["Change", "DesiredJob", "current_values", "decide", "desired_jobs"]

_EPOCH_S = 14 * 86400
_COMMENT = "powerhall: "
_COMMENT_LENGTH = 240


@dataclass(frozen=True, slots=True)
class DesiredJob:
    """Desired state of one job: fields as in `ownership_mark.FIELDS`, and the text for its comment."""

    job_id: str
    values: dict[str, str]
    reason: str
    mode: str = ""
    power_w: int = 0
    running: bool = False
    stop: bool = False
    at_s: int = 0
    """Time of the plan."""
    site: str = ""


@dataclass(frozen=True, slots=True)
class Change:
    """Fields of one job that are to be written, its mark after that, and a comment (None: leave it)."""

    record: Record
    values: dict[str, str]
    mark: OwnershipMark
    comment: str | None
    notes: tuple[SkipReason, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Nothing to write at all."""
        return not self.values and self.comment is None and not self.is_mark_stale

    @property
    def is_mark_stale(self) -> bool:
        """The job's mark has other values, or pending writes."""
        return self.record.admin_comment != self.mark.encode()


def _priority(start_s: int, plan: Plan, settings: SlurmSettings) -> int:
    """Return a priority that falls by one per minute of planned start, above what Slurm gives by itself.

    The origin stays for 14 days, so that a job keeps its priority from round to round.
    """
    origin_s = plan.snapshot.start_s // _EPOCH_S * _EPOCH_S
    return settings.top_priority - min(60_000, max(0, (start_s - origin_s) // 60))


def _charge(job: Assignment, plan: Plan, settings: SlurmSettings, *, is_tree: bool) -> str:
    """Return the licences that a job holds: for all its GPUs, or in a power tree for each of its nodes above idle.

    A part of a GPU holds those of the whole, since any of them may be the last one on it.
    """
    if not is_tree:
        return str(units(max(1, job.gpus) * job.gpu_power_w, settings.licence_w))
    idle_w = plan.snapshot.site.node_types[job.node_type].idle_gpu_power_w
    each = max((placement.gpus_per_node for placement in job.placements), default=job.gpus)
    return str(node_charge(max(1, each), job.gpu_power_w, idle_w, settings.licence_w))


def _start(job: Assignment, plan: Plan, settings: SlurmSettings, now_s: float, *, is_tree: bool) -> DesiredJob:
    values = {"hold": "0", "start": str(job.start_s) if job.start_s > now_s else "0"}
    values["prio"] = str(_priority(job.start_s, plan, settings))
    if settings.pin == "nodes":
        values["nodes"] = canonical(",".join(placement.nodes for placement in job.placements))
    elif settings.pin == "features":
        values["feat"] = job.hall
    if settings.licence:
        values["lic"] = _charge(job, plan, settings, is_tree=is_tree)
    reason = texts.planned_text(job)
    return DesiredJob(job.job_id, values, reason, one_word(job.mode), round(job.gpu_power_w))


def _running(job: Assignment, plan: Plan, settings: SlurmSettings, *, is_tree: bool) -> DesiredJob:
    values = {"lic": _charge(job, plan, settings, is_tree=is_tree)} if settings.licence else {}
    reason = texts.runs_text(job)
    return DesiredJob(job.job_id, values, reason, one_word(job.mode), round(job.gpu_power_w), running=True)


def _wait(job: Waiting, settings: SlurmSettings, *, stop: bool) -> DesiredJob:
    values = {"hold": "1"} if settings.hold == "hold" else {"hold": "0", "start": "lease"}
    return DesiredJob(job.job_id, values, texts.waits_text(job), stop=stop)


def desired_jobs(plan: Plan, settings: SlurmSettings, now_s: float, *, is_tree: bool = False) -> list[DesiredJob]:
    """Return the desired state of every job: waiting ones first, then running ones, then starts in order."""
    ran = {job.job_id for job in plan.snapshot.jobs if job.state == "running"}
    stoppable = {job.job_id for job in plan.snapshot.jobs if job.state == "running" and job.preemptible}
    waiting = [_wait(job, settings, stop=job.job_id in stoppable) for job in plan.waiting]
    waiting = [desired for desired in waiting if desired.stop or desired.job_id not in ran]
    running = [_running(job, plan, settings, is_tree=is_tree) for job in plan.assignments if job.running]
    starts = sorted((job for job in plan.assignments if not job.running), key=lambda job: (job.start_s, job.job_id))
    found = waiting + running + [_start(job, plan, settings, now_s, is_tree=is_tree) for job in starts]
    site = one_word(plan.snapshot.site.name)
    return [replace(desired, at_s=plan.snapshot.taken_s, site=site) for desired in found]


def _past(value: str, now_s: float) -> str:
    time_s = digits(value)
    return "0" if time_s is not None and time_s <= now_s else value


def current_values(record: Record, settings: SlurmSettings, now_s: float) -> dict[str, str]:
    """Return a job's fields as a mark writes them."""
    return {
        "start": _past(str(record.begin_s), now_s),
        "prio": str(record.priority),
        "nodes": canonical(record.required_nodes) if record.required_nodes else "",
        "feat": record.features,
        "lic": str(record.licences.get(settings.licence, 0)),
        "hold": "1" if record.is_held else "0",
    }


def _known_mark(record: Record, now_s: float) -> OwnershipMark | None:
    """Return the job's mark with past starts as "at once"; after a requeue only the values that the user asked for."""
    mark = parse_mark(record.admin_comment)
    if mark is None:
        return None
    if mark.restarts != record.restarts:
        return OwnershipMark(begin_s=mark.begin_s, restarts=record.restarts, rest=mark.rest, charge=mark.charge)
    values = {name: _past(value, now_s) if name == "start" else value for name, value in mark.values.items()}
    old = {name: _past(value, now_s) if name == "start" else value for name, value in mark.old.items()}
    return replace(mark, values=values, old=old)


def _wanted_start(desired: str, current: str, mark: OwnershipMark, settings: SlurmSettings, now_s: float) -> str:
    """Resolve "lease" to a time that is renewed at half of its length; never before what the user asked for."""
    if desired == "lease":
        if current != "0" and int(current) >= now_s + settings.lease_s / 2:
            return current
        desired = str(math.ceil((now_s + settings.lease_s) / 60) * 60)
    return str(max(int(desired), mark.begin_s)) if mark.begin_s > now_s else desired


def decide(record: Record, desired: DesiredJob, settings: SlurmSettings, now_s: float) -> Change | SkipReason:
    """Return the change to write for a job, or why it is skipped.

    A field that somebody else changed since Powerhall wrote it is not written.
    """
    current = current_values(record, settings, now_s)
    known = _known_mark(record, now_s)
    if record.is_held and not (known and known.owns("hold", "1")):
        return SkipReason(Skip.HELD_BY_USER if record.reason == "JobHeldUser" else Skip.HELD_BY_ADMIN)
    mark = known or OwnershipMark(
        begin_s=int(current["start"]),
        restarts=record.restarts,
        rest=_plain(record.admin_comment),
        charge=int(current["lic"]),
    )
    values: dict[str, str] = {}
    settled = dict(mark.values)
    notes: list[SkipReason] = []
    for name, value in desired.values.items():
        if name in ("nodes", "feat") and mark.no_pin:
            notes.append(SkipReason(Skip.NOT_PINNED))
            continue
        if name == "lic" and (record.has_licence_choice or _is_unpaid(record, current[name], desired, settings)):
            continue
        wanted = _wanted_start(value, current[name], mark, settings, now_s) if name == "start" else value
        if current[name] == wanted:
            settled[name] = wanted
        elif name in mark.values and not mark.owns(name, current[name]):
            notes.append(SkipReason(Skip.FIELD_CHANGED, name, current[name]))
        elif name in ("nodes", "feat") and current[name] and name not in mark.values:
            notes.append(SkipReason(Skip.ASKED_BY_USER, value=current[name]))
        elif name == "nodes" and len(expand(wanted)) != record.node_count:
            notes.append(SkipReason(Skip.NODE_COUNT, count=record.node_count, planned=len(expand(wanted))))
        else:
            settled[name] = values[name] = wanted
    if settled.get("hold") == "1":
        settled.pop("prio", None)  # a held job has no priority, and gets a new one from Slurm when it is released
    done = replace(
        mark,
        values=settled,
        old={},
        pending=False,
        mode=desired.mode or mark.mode,
        power_w=desired.power_w or mark.power_w,
        site=desired.site or mark.site,
    )
    done = replace(done, at_s=_time_of(done, mark, desired, settings))
    return Change(record, values, _keep_past(done, record), _comment(record, desired), tuple(notes))


def _is_unpaid(record: Record, charge: str, desired: DesiredJob, settings: SlurmSettings) -> bool:
    """Whether a job was charged nothing and is, or will be, on prepaid nodes alone."""
    if charge != "0" or not settings.prepaid:
        return False
    nodes = record.nodes if desired.running else desired.values.get("nodes", "")
    return are_prepaid(nodes, frozenset(expand(settings.prepaid)))


def _time_of(done: OwnershipMark, mark: OwnershipMark, desired: DesiredJob, settings: SlurmSettings) -> int:
    """Return the plan's time for a mark: that of one that is tied is renewed once a round, others with what changes."""
    age_s = desired.at_s - mark.at_s
    is_fresh = age_s >= 0 and (age_s < settings.round_s or not done.is_tied)
    return mark.at_s if done == mark and mark.at_s and is_fresh else desired.at_s or mark.at_s


def _keep_past(mark: OwnershipMark, record: Record) -> OwnershipMark:
    """Leave a start that has passed as it stands in the job's mark: it means the same, and is no reason to write."""
    before = parse_mark(record.admin_comment)
    if before is None or before.restarts != record.restarts or mark.values.get("start") != "0":
        return mark
    return replace(mark, values=mark.values | {"start": before.values.get("start", "0")})


def _plain(text: str) -> str:
    """Return text that scontrol takes between quotes on one line."""
    return "".join(char if char.isprintable() and char not in '"\\' else " " for char in text)


def _comment(record: Record, desired: DesiredJob) -> str | None:
    """Return the reason as a comment where it differs; a comment that the user wrote stays."""
    if record.comment and not record.comment.startswith(_COMMENT):
        return None
    text = (_COMMENT + _plain(desired.reason))[:_COMMENT_LENGTH].strip()
    return None if text == record.comment else text
