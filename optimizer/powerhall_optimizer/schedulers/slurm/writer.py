"""Slurm through its own commands: reads the queue, writes the plan, reads every write back.

All state lies in Slurm itself (see `ownership_mark`), so a run may be killed at any point: the next one finishes the
work. With `hold = "lease"` no job is ever held: jobs that must wait get a start time that expires by itself, and the
power licence keeps the budget while no optimizer runs.
"""

import re
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec

from powerhall.hostlist import compress
from powerhall.plan.plan import Plan
from powerhall.runtime.errors import ConfigError
from powerhall.site.topology import Site
from powerhall_optimizer.schedulers.base import Command, Queue, WriteReport, check_fresh
from powerhall_optimizer.schedulers.skip_reasons import Skip, SkipReason
from powerhall_optimizer.schedulers.slurm import level_files as slurm_levels
from powerhall_optimizer.schedulers.slurm import reservations as slurm_reservations
from powerhall_optimizer.schedulers.slurm.apply import is_refused, read_records, restored, write_changes
from powerhall_optimizer.schedulers.slurm.cluster import PlacementRules, parse_partitions, parse_reserved_nodes
from powerhall_optimizer.schedulers.slurm.commands import SlurmTool
from powerhall_optimizer.schedulers.slurm.desired_state import Change, DesiredJob, decide, desired_jobs
from powerhall_optimizer.schedulers.slurm.ownership_mark import one_word, parse_mark
from powerhall_optimizer.schedulers.slurm.plan_refusals import refuse_foreign
from powerhall_optimizer.schedulers.slurm.power_saving import is_powering, power_changes, power_command
from powerhall_optimizer.schedulers.slurm.queue import to_queue
from powerhall_optimizer.schedulers.slurm.records import NodeRecord, Record, parse_nodes
from powerhall_optimizer.schedulers.slurm.slurm_settings import SlurmSettings
from powerhall_optimizer.schedulers.slurm.snapshot_match import SnapshotMatch
from powerhall_optimizer.schedulers.slurm.tokens import Tokens
from powerhall_optimizer.schedulers.slurm.tree_writer import CLOSED, TreeWriter

__all__ = ["SlurmReader", "SlurmWriter", "is_stale"]

Clock = Callable[[], float]


def _nodes(tool: SlurmTool) -> list[NodeRecord]:
    return parse_nodes(tool.ask("sinfo", "-N", "--all", "--json"))


def _queue(tool: SlurmTool, records: Sequence[Record], site: Site, settings: SlurmSettings, now_s: float) -> Queue:
    """Return jobs and nodes with what Slurm's partitions and reservations allow."""
    reserved = tool.ask("scontrol", "-o", "show", "reservation")
    rules = PlacementRules(
        parse_partitions(tool.ask("scontrol", "--all", "-o", "show", "partition")),
        tuple(one for one in parse_reserved_nodes(reserved) if one.name != CLOSED),  # the plan has the budget itself
    )
    return to_queue(records, _nodes(tool), site, settings, now_s, rules=rules)


class SlurmReader:
    """Reads the queue of a cluster whose nodes are those of `site`."""

    def __init__(
        self, site: Site, settings: SlurmSettings, tool: SlurmTool | None = None, clock: Clock = time.time
    ) -> None:
        self._site, self._settings, self._clock = site, settings, clock
        self._tool = tool or SlurmTool(settings.timeout_s)

    def read(self) -> Queue:
        """Return jobs and nodes as they are now."""
        records = list(read_records(self._tool).values())
        return _queue(self._tool, records, self._site, self._settings, self._clock())


class SlurmWriter:
    """Writes plans into Slurm; needs the rights of a Slurm operator."""

    def __init__(self, settings: SlurmSettings, tool: SlurmTool | None = None, clock: Clock = time.time) -> None:
        self._settings, self._clock = settings, clock
        self._tool = tool or SlurmTool(settings.timeout_s)
        self._tree = TreeWriter(self._tool, settings)

    def apply(self, plan: Plan, *, dry_run: bool = False) -> WriteReport:
        """Write the differences to the plan: tightening and delays first, then starts, loosening last."""
        report = WriteReport("slurm", plan.plan_id, dry_run)
        now_s = self._clock()
        check_fresh(plan, now_s)
        records = read_records(self._tool)
        queue = _queue(self._tool, list(records.values()), plan.snapshot.site, self._settings, now_s)
        known = {node.name for node in _nodes(self._tool)}
        refuse_foreign(
            plan,
            known,
            records.values(),
            self._reserved(self._settings),
            now_s=now_s,
            recent_s=2 * self._settings.round_s,
        )
        tokens = self._tree.write(plan, known, self._charges(records), now_s, report)
        settings = self._licensed(tokens, report)
        tighten, loosen = self._reservations(plan, settings, tokens, now_s)
        self._plain(tighten, "budget", report)
        self._levels(plan, report)  # before the jobs: one that starts at once reads its file
        self._withdraw([r for r in records.values() if is_refused(r)], settings, report)
        match = SnapshotMatch(plan, queue)
        self._jobs(plan, settings, now_s, report, match, is_tree=tokens.is_tree)
        if not dry_run and report.commands:
            refused = [record for record in read_records(self._tool).values() if is_refused(record)]
            self._withdraw(refused, settings, report)
        self._plain(loosen, "budget", report)
        self._power(plan, now_s, report)
        return report

    def release_all(self, *, dry_run: bool = False) -> WriteReport:
        """Restore every waiting job as its user submitted it, and delete Powerhall's reservations."""
        report = WriteReport("slurm", "", dry_run)
        settings, now_s = self._licensed(self._tree.tokens(), report), self._clock()
        changes = [
            restored(record, settings, now_s) for record in read_records(self._tool).values() if _is_ours(record)
        ]
        write_changes(self._tool, changes, settings, self._clock, report)
        _, loosen = slurm_reservations.changes([], self._reserved(settings), settings.licence, now_s)
        self._plain(loosen, "budget", report)
        self._tree.release(report)
        return report

    def withdraw_pins(self, *, dry_run: bool = False) -> WriteReport:
        """Restore waiting jobs whose nodes Slurm refuses, or were planned more than two rounds ago.

        Run it beside the optimizer, so that nobody waits for nodes of a plan that nobody renews.
        """
        report = WriteReport("slurm", "", dry_run)
        settings, now_s = self._licensed(self._tree.tokens(), report), self._clock()
        found = [record for record in read_records(self._tool).values() if is_stale(record, settings, now_s)]
        self._withdraw(found, settings, report)
        return report

    def _withdraw(self, records: Sequence[Record], settings: SlurmSettings, report: WriteReport) -> None:
        now_s = self._clock()
        changes = [restored(record, settings, now_s) for record in records]
        write_changes(self._tool, changes, settings, self._clock, report)

    def _charges(self, records: Mapping[str, Record]) -> list[int]:
        """Return what each waiting job charges."""
        waiting = [record for record in records.values() if record.state == "PENDING"]
        return [record.licences.get(self._settings.licence, 0) for record in waiting]

    def _licensed(self, tokens: Tokens, report: WriteReport) -> SlurmSettings:
        """Return the settings, without a licence where the cluster has none of this name."""
        name = self._settings.licence
        if name and not tokens.total and not tokens.is_tree:
            report.skip(f"licence {name}", SkipReason(Skip.NO_LICENCE))
            return _without_licence(self._settings)
        return self._settings

    def _reserved(self, settings: SlurmSettings) -> list[slurm_reservations.Curtailment]:
        if not settings.licence:
            return []
        return slurm_reservations.parse_reservations(
            self._tool.ask("scontrol", "-o", "show", "reservation"), settings.licence
        )

    def _reservations(
        self, plan: Plan, settings: SlurmSettings, tokens: Tokens, now_s: float
    ) -> tuple[list[str], list[str]]:
        """Return the changes of reservations; a power tree has none, since Slurm's mode 3 passes over them."""
        if not settings.licence or tokens.is_tree:
            return [], []
        want = slurm_reservations.wanted(plan, settings, tokens.total, now_s)
        by = slurm_reservations.writer_of(plan)
        return slurm_reservations.changes(want, self._reserved(settings), settings.licence, now_s, by)

    def _is_gone(self, line: str) -> bool:
        """Return whether the reservation of `delete ReservationName=NAME` is not there any more."""
        there = self._tool.ask("scontrol", "-o", "show", "reservation")
        return line.removeprefix("delete ") not in there.split()

    def _plain(self, lines: Sequence[str], subject: str, report: WriteReport) -> None:
        """Issue commands one by one; their exit status tells whether they succeeded."""
        for line in lines:
            error = "" if report.dry_run else self._tool.one(line)
            if error and line.startswith("delete ") and self._is_gone(line):
                error = ""  # it ended by itself, just before
            report.commands.append(Command(f"scontrol {line}", subject, error))

    def _jobs(
        self,
        plan: Plan,
        settings: SlurmSettings,
        now_s: float,
        report: WriteReport,
        match: SnapshotMatch,
        *,
        is_tree: bool,
    ) -> None:
        records = read_records(self._tool)
        planned = {job.job_id for job in plan.snapshot.jobs}
        site = one_word(plan.snapshot.site.name)
        forgotten = [r for r in records.values() if _is_ours(r, site) and r.job_id not in planned]
        changes = [restored(record, settings, now_s) for record in forgotten]
        for desired in desired_jobs(plan, settings, now_s, is_tree=is_tree):
            record = records.get(desired.job_id)
            changed = match.change_of(desired.job_id, record)
            if changed is not None:
                report.skip_job(desired.job_id, changed)
                continue
            change = self._change(record, desired, settings, now_s, report)
            if isinstance(change, SkipReason):
                report.skip_job(desired.job_id, change)
            elif change is not None:
                changes.append(change)
        write_changes(self._tool, changes, settings, self._clock, report)

    def _change(
        self, record: Record | None, desired: DesiredJob, settings: SlurmSettings, now_s: float, report: WriteReport
    ) -> Change | SkipReason | None:
        if record is None or record.state not in ("PENDING", "RUNNING"):
            return SkipReason(Skip.GONE)
        if desired.stop:
            return self._stop(record, report)
        if (record.state == "RUNNING") != desired.running:
            return SkipReason(Skip.WAITS_AGAIN if desired.running else Skip.RUNS_ALREADY)
        change = decide(record, desired, settings, now_s)
        if isinstance(change, SkipReason):
            return change
        for note in change.notes:
            report.skip_job(record.job_id, note)
        if change.is_empty:
            report.unchanged += 1
            return None
        return change

    def _stop(self, record: Record, report: WriteReport) -> SkipReason | None:
        """Requeue a running job that the plan preempts; the next round reschedules it."""
        if record.state != "RUNNING":
            return SkipReason(Skip.WAITS_ALREADY)
        if not self._settings.preempt:
            return SkipReason(Skip.PREEMPT_OFF)
        self._plain([f"requeue {record.job_id}"], f"job {record.job_id}", report)
        return None

    def _levels(self, plan: Plan, report: WriteReport) -> None:
        if not self._settings.level_dir:
            return
        folder = Path(self._settings.level_dir)
        if not folder.is_dir():
            raise ConfigError.field("settings", "slurm.level_dir", str(folder), "must be a folder that nodes can read")
        for job in plan.assignments:
            if not slurm_levels.is_job_id(job.job_id):
                continue
            text = slurm_levels.level_text(job.mode, round(job.gpu_power_w))
            path = folder / job.job_id
            if path.is_file() and path.read_bytes() == text.encode():
                continue
            report.commands.append(Command(f"write {path}: {' '.join(text.split())}", f"job {job.job_id}"))
            if not report.dry_run:
                slurm_levels.write_level(folder, job.job_id, text)
        live = {job.job_id for job in plan.snapshot.jobs}
        for path in slurm_levels.stale_levels(folder, live):
            report.commands.append(Command(f"remove {path}", f"job {path.name}"))
            if not report.dry_run:
                path.unlink(missing_ok=True)

    def _power(self, plan: Plan, now_s: float, report: WriteReport) -> None:
        if not self._settings.power_save_s:
            return
        if re.search(r"SuspendProgram\s*=\s*\(null\)", self._tool.ask("scontrol", "show", "config")):
            report.skip("power saving", SkipReason(Skip.NO_SUSPEND_PROGRAM))
            return
        for state, names in power_changes(plan, _nodes(self._tool), self._settings, now_s):
            line, error = power_command(state, names), ""
            if not report.dry_run:
                error = self._tool.one(line)
                states = {node.name: node.states for node in _nodes(self._tool)}
                wrong = [name for name in names if not is_powering(states[name], state)]
                error = error or (f"reads back otherwise on {compress(wrong)}" if wrong else "")
            report.commands.append(Command(f"scontrol {line}", compress(names), error))


def _is_ours(record: Record, site: str = "") -> bool:
    """Whether a waiting job carries a mark with values, of this site where one is given."""
    mark = parse_mark(record.admin_comment)
    is_written = mark is not None and (bool(mark.values) or not mark.no_pin)
    return record.state == "PENDING" and mark is not None and is_written and (not site or mark.site in ("", site))


def is_stale(record: Record, settings: SlurmSettings, now_s: float) -> bool:
    """Whether a waiting job has nodes that Slurm refuses, or nodes or a lower charge of a plan two rounds old."""
    mark = parse_mark(record.admin_comment)
    if record.state != "PENDING" or mark is None or not mark.is_tied:
        return False
    return is_refused(record) or abs(now_s - mark.at_s) > 2 * settings.round_s  # a clock was ahead


def _without_licence(settings: SlurmSettings) -> SlurmSettings:
    return msgspec.structs.replace(settings, licence="")
