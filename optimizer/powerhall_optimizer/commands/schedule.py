"""`powerhall-optimizer schedule` and `queue`: the workload manager's side of a round."""

import argparse
import json
import sys
import time
from pathlib import Path

import msgspec

from powerhall.jobs.job_files import write_jobs
from powerhall.plan.plan import read_plan
from powerhall.runtime.command_line import Commands, add_command
from powerhall.runtime.errors import Rejected
from powerhall.runtime.extras import EXIT_OK, EXIT_REFUSED
from powerhall.runtime.files import replace_file
from powerhall.site.site_file import read_site
from powerhall.store import open_store
from powerhall_optimizer.schedulers.base import Queue, WriteReport
from powerhall_optimizer.schedulers.registry import (
    open_reader,
    open_releasing,
    open_withdrawing,
    open_writer,
    scheduler_names,
)

__all__ = ["add_parser"]

_SCHEDULE_EXAMPLES = """\
examples:
  powerhall-optimizer schedule --scheduler slurm --plan plan.json --dry-run
  powerhall-optimizer schedule --scheduler kubernetes --plan plan.json --settings scheduler.toml
  powerhall-optimizer schedule --scheduler slurm --release     restore every job as it was submitted
  powerhall-optimizer schedule --scheduler slurm --withdraw    restore jobs that wait for nodes of an old plan
  powerhall-optimizer schedule --scheduler kubernetes --withdraw    start what an optimizer that died left waiting
"""
_QUEUE_EXAMPLES = """\
examples:
  powerhall-optimizer queue --scheduler slurm --site site.toml --out jobs.json
  powerhall-optimizer queue --scheduler slurm --site site.toml --store sqlite:///powerhall.db
"""


def add_parser(commands: Commands) -> None:
    """Add `schedule` and `queue`."""
    schedule = add_command(
        commands,
        "schedule",
        run_schedule,
        help="write a plan into Slurm, Kubernetes or a file",
        description="Writes the differences to the plan and verifies every write. The same plan again writes nothing.",
        epilog=_SCHEDULE_EXAMPLES,
    )
    _common(schedule)
    what = schedule.add_mutually_exclusive_group(required=True)
    what.add_argument("--plan", type=Path, help="plan.json")
    what.add_argument(
        "--release", action="store_true", help="slurm: restore every job as submitted and delete all reservations"
    )
    what.add_argument(
        "--withdraw",
        action="store_true",
        help="free jobs that wait for a plan older than two rounds (or, slurm, for nodes that are refused)",
    )
    schedule.add_argument("--dry-run", action="store_true", help="print the commands, issue none")
    queue = add_command(
        commands,
        "queue",
        run_queue,
        help="read the queue of Slurm, Kubernetes or a file",
        description="Reads jobs and nodes in the format of `round`.",
        epilog=_QUEUE_EXAMPLES,
    )
    _common(queue)
    queue.add_argument("--site", type=Path, help="site.toml; needed for slurm and kubernetes")
    queue.add_argument("--out", type=Path, help="write the jobs here, .json or .csv (default: a summary only)")
    queue.add_argument("--store", help="write the queue to this store as the document `queue`, for `round --store`")


def _common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--scheduler", choices=scheduler_names(), required=True, help="the workload manager")
    parser.add_argument(
        "--settings", type=Path, help=f"TOML file with a table per workload manager: {', '.join(scheduler_names())}"
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run_schedule(args: argparse.Namespace) -> int:
    """Write a plan; exit code 1 when a write failed."""
    if args.release:
        report = open_releasing(args.scheduler, args.settings).release_all(dry_run=args.dry_run)
    elif args.withdraw:
        report = open_withdrawing(args.scheduler, args.settings).withdraw_pins(dry_run=args.dry_run)
    else:
        writer = open_writer(args.scheduler, args.settings)
        report = writer.apply(read_plan(args.plan), dry_run=args.dry_run)
    sys.stdout.write(_json(report) if args.json else _lines(report))
    return EXIT_REFUSED if report.failed else EXIT_OK


def _json(report: WriteReport) -> str:
    return json.dumps(_plain(report) | {"failed": len(report.failed)}) + "\n"


def _plain(report: WriteReport) -> dict[str, object]:
    skipped = [{"subject": one.subject, "reason": one.reason, "code": one.why.code} for one in report.skipped]
    return {
        "scheduler": report.scheduler,
        "plan_id": report.plan_id,
        "dry_run": report.dry_run,
        "commands": msgspec.to_builtins(report.commands),
        "skipped": skipped,
        "unchanged": report.unchanged,
    }


def _lines(report: WriteReport) -> str:
    lines = [command.text + (f"  # FAILED: {command.error}" if command.error else "") for command in report.commands]
    lines += [f"# {skipped.subject}: {skipped.reason}" for skipped in report.skipped]
    verb = "would be issued" if report.dry_run else "issued"
    lines.append(
        f"# {report.scheduler}: {len(report.commands)} commands {verb}, {len(report.failed)} failed, "
        f"{len(report.skipped)} left alone, {report.unchanged} jobs as planned already"
    )
    return "\n".join(lines) + "\n"


def run_queue(args: argparse.Namespace) -> int:
    """Read the queue, and write it where asked."""
    site = read_site(args.site)[0] if args.site else None
    queue = open_reader(args.scheduler, args.settings, site).read()
    if args.out:
        _write_jobs(queue, args.out)
    if args.store:
        store = open_store(args.store)
        store.put_document("queue", site.name if site else args.scheduler, time.time(), msgspec.json.encode(queue))
        store.close()
    sys.stdout.write(msgspec.json.encode(queue).decode() + "\n" if args.json else _summary(queue, args.scheduler))
    return EXIT_OK


def _write_jobs(queue: Queue, out: Path) -> None:
    if out.suffix not in (".json", ".csv"):
        raise Rejected.field("command line", "--out", str(out), "must end in .json or .csv")
    as_json = out.suffix == ".json"
    rows = msgspec.json.format(msgspec.json.encode(queue.jobs)) + b"\n" if as_json else write_jobs(queue.jobs).encode()
    replace_file(out, rows)


def _summary(queue: Queue, scheduler: str) -> str:
    running = sum(job.state == "running" for job in queue.jobs)
    lines = [f"job {job}: left out: {why}" for job, why in queue.left_out.items()]
    lines.append(
        f"{scheduler}: {len(queue.jobs) - running} jobs wait, {running} run, {len(queue.left_out)} left out, "
        f"{len(queue.down_nodes) + len(queue.off_nodes)} nodes unusable"
    )
    return "\n".join(lines) + "\n"
