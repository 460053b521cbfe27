"""Write changes of jobs into Slurm: the mark, the fields, the verification, the final mark."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from powerhall.runtime.errors import Rejected
from powerhall_optimizer.schedulers.base import Command, WriteReport
from powerhall_optimizer.schedulers.slurm.commands import SlurmTool, time_text
from powerhall_optimizer.schedulers.slurm.desired_state import Change, current_values
from powerhall_optimizer.schedulers.slurm.ownership_mark import OwnershipMark, parse_mark
from powerhall_optimizer.schedulers.slurm.records import Record, parse_queue
from powerhall_optimizer.schedulers.slurm.slurm_settings import SlurmSettings

__all__ = ["is_refused", "read_records", "restored", "write_changes"]

_RETRIED = 20
"""Refused changes that are retried one by one, at most; more have one cause, such as missing rights."""


def read_records(tool: SlurmTool) -> dict[str, Record]:
    """Return every job that Slurm shows, by id."""
    return {record.job_id: record for record in parse_queue(tool.ask("squeue", "--all", "--json"))}


def _mark_line(change: Change, now: dict[str, str] | None) -> str:
    """Return the command that writes the mark and the comment; with the fields as they are `now` it is pending."""
    mark = change.mark
    if now is not None:
        mark = replace(mark, pending=True, old={name: now[name] for name in change.values})
    text = mark.encode()
    quoted = f'"{text}"' if " " in text else text
    line = f"update jobid={change.record.job_id} AdminComment={quoted}"
    return line if change.comment is None else f'{line} Comment="{change.comment}"'


def _field_lines(change: Change, settings: SlurmSettings) -> list[str]:
    """Return the commands for a change's fields: a release before the priority, a hold after everything."""
    job, values = change.record.job_id, change.values
    for name, value in values.items():
        if any(char.isspace() or not char.isprintable() or char in "\"';" for char in value):
            raise Rejected.field("plan", f"job {job}: {name}", value, "must be one word without quotes and ;")
    fields = []
    if "start" in values:
        start_s = int(values["start"])
        fields.append(f"StartTime={time_text(start_s) if start_s else 'now'}")
    if "prio" in values:
        fields.append(f"Priority={values['prio']}")
    if "nodes" in values:
        fields.append(f"ReqNodeList={values['nodes']}")
    if "feat" in values:
        fields.append(f"Features={values['feat']}")
    if "lic" in values:
        counts = change.record.licences | {settings.licence: int(values["lic"])}
        fields.append("Licenses=" + ",".join(f"{name}:{count}" for name, count in counts.items() if count))
    lines = [f"release {job}"] if values.get("hold") == "0" else []
    if fields:
        lines.append(f"update jobid={job} {' '.join(fields)}")
    return [*lines, f"hold {job}"] if values.get("hold") == "1" else lines


def restored(record: Record, settings: SlurmSettings, now_s: float) -> Change:
    """Return the change that releases a job: restore every field that Powerhall wrote last, then remove the mark."""
    mark = parse_mark(record.admin_comment)
    assert mark is not None
    current = current_values(record, settings, now_s)
    back = {"start": str(mark.begin_s) if mark.begin_s > now_s else "0", "nodes": "", "feat": "", "hold": "0"}
    if mark.charge:  # the planned level may have been a lower one, which nobody keeps any more
        back["lic"] = str(mark.charge)
    values = {name: to for name, to in back.items() if current[name] != to and mark.owns(name, current[name])}
    if is_refused(record):
        values["hold"] = "0"  # Slurm holds what it cannot start
        begin_s, rest, charge = mark.begin_s, mark.rest, mark.charge
        refused = OwnershipMark(begin_s=begin_s, restarts=record.restarts, rest=rest, no_pin=True, charge=charge)
        comment = "" if record.comment.startswith("powerhall: ") else None
        return Change(record, values, refused, comment)
    comment = "" if record.comment.startswith("powerhall: ") else None
    return Change(record, values, replace(mark, values={}, old={}, pending=False), comment)


def is_refused(record: Record) -> bool:
    """Whether Slurm refuses the nodes that Powerhall asked for."""
    mark = parse_mark(record.admin_comment)
    pinned = mark is not None and bool({"nodes", "feat"} & mark.values.keys())
    return record.state == "PENDING" and pinned and record.reason == "BadConstraints"


def _job_lines(change: Change, settings: SlurmSettings, now_s: float) -> list[str]:
    if not change.mark.values:  # a release: fields first, so that a kill in between leaves the mark
        return [*_field_lines(change, settings), _clear_line(change)]
    now = current_values(change.record, settings, now_s) if change.values else None
    return [_mark_line(change, now), *_field_lines(change, settings)]


def _clear_line(change: Change) -> str:
    text = change.mark.encode() if change.mark.no_pin else change.mark.rest
    line = f'update jobid={change.record.job_id} AdminComment="{text}"'
    return line if change.comment is None else f'{line} Comment="{change.comment}"'


def _differences(change: Change, after: Record | None, settings: SlurmSettings, now_s: float) -> list[str]:
    if after is None or after.state not in ("PENDING", "RUNNING"):
        return []  # it ended in between: nothing to verify
    now = current_values(after, settings, now_s)
    wrong = [
        f"{name} reads back as {now[name] or 'none'}, not {value or 'none'}"
        for name, value in change.values.items()
        if now[name] != (value if name != "start" or int(value) > now_s else "0")
        and (after.state == "PENDING" or name == "lic")
    ]
    if change.comment is not None and after.comment != change.comment:
        wrong.append(f"comment reads back as {after.comment!r}")
    return wrong


def write_changes(
    tool: SlurmTool, changes: Sequence[Change], settings: SlurmSettings, clock: Callable[[], float], report: WriteReport
) -> None:
    """Issue marks and fields in one go, read them back, then write the final marks."""
    now_s = clock()
    todo = [(change, _job_lines(change, settings, now_s)) for change in changes if not change.is_empty]
    if report.dry_run or not todo:
        for change, lines in todo:
            report.commands.extend(Command(f"scontrol {line}", f"job {change.record.job_id}") for line in lines)
        return
    tool.batch([line for _, lines in todo for line in lines])
    after = read_records(tool)
    errors: list[str] = []
    for change, lines in todo:
        again = sum(map(bool, errors)) < _RETRIED
        errors.append(_verified(tool, change, lines if again else [], after, settings=settings, clock=clock))
    final: list[str] = []
    for (change, lines), error in zip(todo, errors, strict=True):
        job = change.record.job_id
        report.commands.extend(Command(f"scontrol {line}", f"job {job}", error) for line in lines)
        if change.values and change.mark.values and not error and job in after:
            final.append(_mark_line(replace(change, comment=None), None))
            report.commands.append(Command(f"scontrol {final[-1]}", f"job {job}"))
    tool.batch(final)


def _verified(
    tool: SlurmTool,
    change: Change,
    lines: Sequence[str],
    after: dict[str, Record],
    *,
    settings: SlurmSettings,
    clock: Callable[[], float],
) -> str:
    """Return the differences after a change; its commands are issued once more to get Slurm's error messages."""
    job = change.record.job_id
    wrong = _differences(change, after.get(job), settings, clock())
    if not wrong or not lines:
        return "; ".join(wrong)
    said = [error for line in lines if (error := tool.one(line))]
    wrong = _differences(change, read_records(tool).get(job), settings, clock())
    return "; ".join([*wrong, *said]) if wrong else ""
