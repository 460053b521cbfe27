"""Files as a workload manager: jobs from CSV or JSON, orders to CSV or JSON."""

import csv
import io
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import msgspec

from powerhall.jobs.job_files import read_job_list
from powerhall.plan.plan import Assignment, Plan
from powerhall.runtime.errors import ConfigError
from powerhall.runtime.files import replace_file
from powerhall_optimizer.schedulers.base import Command, Queue, Scheduler, WriteReport, check_fresh, counted_job

__all__ = ["SCHEDULER", "FileReader", "FileSettings", "FileWriter", "Order", "orders"]


class FileSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Files of jobs and orders; their suffix selects CSV or JSON."""

    jobs: str = "jobs.csv"
    """The queue, `.csv` or `.json`."""
    orders: str = "orders.csv"
    """Where orders are written, `.csv` or `.json`."""
    down_nodes: tuple[str, ...] = ()
    """Nodes that cannot be used."""


class Order(msgspec.Struct, frozen=True):
    """Order for one job. `order`: run (keeps running), start, wait, stop. Times in s since the epoch.

    `nodes` is a host list; `gpu_power_w` the planned draw per GPU; `power_w` that of the whole job. A job that takes a
    part of a GPU beside another one, which has it, names that one in `beside` and has 0 `gpus` and `power_w`.
    """

    job_id: str
    order: Literal["run", "start", "wait", "stop"]
    start_s: int | None = None
    end_s: int | None = None
    hall: str = ""
    nodes: str = ""
    mode: str = ""
    gpus: int = 0
    gpu_power_w: int = 0
    power_w: int = 0
    reason: str = ""
    beside: str = ""


def _place(job: Assignment) -> Order:
    return Order(
        job.job_id,
        "run" if job.running else "start",
        job.start_s,
        job.end_s,
        job.hall,
        ",".join(placement.nodes for placement in job.placements),
        job.mode,
        job.gpus,
        round(job.gpu_power_w),
        round(job.gpus * job.gpu_power_w),
        job.reason,
        job.beside,
    )


def orders(plan: Plan) -> list[Order]:
    """Return the plan as orders: running and starting jobs in order of time, then stopping and waiting ones."""
    ran = {job.job_id for job in plan.snapshot.jobs if job.state == "running"}
    placed = [_place(job) for job in sorted(plan.assignments, key=lambda job: (job.start_s, job.job_id))]
    return placed + [
        Order(job.job_id, "stop" if job.job_id in ran else "wait", job.earliest_start_s, reason=job.reason)
        for job in plan.waiting
    ]


def _text(found: list[Order], path: Path) -> str:
    if path.suffix == ".json":
        return msgspec.json.format(msgspec.json.encode(found)).decode() + "\n"
    out = io.StringIO()
    names = [field.name for field in msgspec.structs.fields(Order)]
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(names)
    for order in found:
        cells = (getattr(order, name) for name in names)
        writer.writerow("" if cell is None else cell for cell in cells)
    return out.getvalue()


class FileReader:
    """Reads jobs from a file."""

    def __init__(self, settings: FileSettings, clock: Callable[[], float] = time.time) -> None:
        self._settings, self._clock = settings, clock

    def read(self) -> Queue:
        """Return the jobs of the file."""
        found = read_job_list(self._settings.jobs)
        left_out = {entry.job_id: entry.reason for entry in found.left_out}
        counted = tuple(counted_job(entry) for entry in found.left_out if entry.running)
        return Queue(int(self._clock()), (*found.jobs, *counted), self._settings.down_nodes, left_out)


class FileWriter:
    """Writes orders into a file, in one step, and only when they differ."""

    def __init__(self, settings: FileSettings, clock: Callable[[], float] = time.time) -> None:
        self._path, self._clock = Path(settings.orders), clock
        if self._path.suffix not in (".csv", ".json"):
            raise ConfigError.field("settings", "file.orders", settings.orders, "must end in .csv or .json")

    def apply(self, plan: Plan, *, dry_run: bool = False) -> WriteReport:
        """Write the orders of a plan."""
        check_fresh(plan, self._clock())
        report = WriteReport("file", plan.plan_id, dry_run)
        found = orders(plan)
        text = _text(found, self._path)
        if self._path.is_file() and self._path.read_bytes() == text.encode():
            report.unchanged = len(found)
            return report
        error = "" if dry_run else self._write(text)
        report.commands.append(Command(f"write {self._path}: {len(found)} orders", str(self._path), error))
        return report

    def _write(self, text: str) -> str:
        try:
            replace_file(self._path, text.encode())
            read = self._path.read_bytes()
        except OSError as error:
            return f"cannot write: {error.strerror}"
        return "" if read == text.encode() else "reads back otherwise"


SCHEDULER = Scheduler(
    name="file",
    settings=FileSettings,
    needs_site=False,
    reader=lambda settings, _site: FileReader(settings),
    writer=FileWriter,
)
