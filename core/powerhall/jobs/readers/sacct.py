"""Slurm's accounting: the output of `sacct --parsable2`, of jobs that ended or of jobs that run and wait now.

Where a line says that its job runs or waits, the file is a queue: ended jobs are passed over. Otherwise it is a trace,
and every job that used GPUs is one. Names are free text: bytes that are no UTF-8 are replaced, a bar in a name is its
own. What runs counts, however little of its line is understood: times that are none leave it its longest work, a line
that does not fit the header its GPUs. So do several lines of one job: each run of its own that goes on counts.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import datetime, tzinfo
from pathlib import Path

from powerhall.jobs.job_reader import JobReader, require_columns
from powerhall.jobs.left_out import JobList, LeftOut, LeftOutCode
from powerhall.jobs.model import Job
from powerhall.jobs.readers.sacct_states import Phase, phase_of
from powerhall.jobs.readers.skipped import TraceLines
from powerhall.runtime.decode.bytes_in import open_text
from powerhall.timeseries import parse_moment, parse_time

__all__ = [
    "SACCT",
    "allocated_gpus",
    "elapsed_s",
    "is_step",
    "read_sacct",
    "read_sacct_list",
    "read_sacct_trace",
    "sacct_rows",
]

_ELAPSED = re.compile(r"(?:([0-9]{1,6})-)?(?:([0-9]{1,6}):)?([0-9]{1,6}):([0-9]{1,6})(?:\.[0-9]+)?")
_GRES = re.compile(r"gres/(gpu|shard|mps)(?:=([0-9]{1,9}[kKmM]?)|:[^=,|]+=([0-9]{1,9}[kKmM]?))(?![0-9])")
_MPS_PER_GPU = 100
_ARRAY = re.compile(r"([0-9]+)_\[([0-9,:-]+?)(?:,?\.\.\.)?(?:%([0-9]+))?\]")
_FREE_TEXT = ("JobName", "Comment", "AdminComment", "SystemComment", "WorkDir", "SubmitLine", "Extra", "WCKey")
_NO_LIMIT_S = 86_400.0
"""Work of a job without a time limit."""
_MOST_TASKS = 10_000

Cells = Mapping[str, str]


def elapsed_s(text: str) -> float:
    """Read a time of Slurm's in seconds; ValueError where it is none."""
    found = _ELAPSED.fullmatch(text)
    if found is None:
        raise ValueError("must be a time such as '1-02:03:04'")
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60.0 + seconds


def _count(text: str) -> int:
    factor = {"K": 1024, "M": 1024**2}.get(text[-1].upper(), 1)
    return int(text.rstrip("kKmM")) * factor


def _gres(tres: str, name: str) -> int:
    """Return the count of a resource: an item without a type repeats those with one."""
    found = [(plain, typed) for each, plain, typed in _GRES.findall(tres) if each == name]
    plain = [_count(a) for a, _ in found if a]
    return plain[0] if plain else sum(_count(b) for _, b in found)


def allocated_gpus(tres: str) -> int:
    """Return the GPUs of a list of trackable resources: at worst each shard, and each 100 MPS units, is on its own."""
    return _gres(tres, "gpu") + _gres(tres, "shard") + -(-_gres(tres, "mps") // _MPS_PER_GPU)


def sacct_rows(path: str | Path) -> tuple[list[str], Iterator[tuple[int, Cells | list[str]]]]:
    """Return the header, and line number and cells of every row, by column where they fit the header."""
    lines = open_text(path, replace=True)
    header = lines.readline().rstrip("\r\n").split("|")
    free = [number for number, name in enumerate(header) if name in _FREE_TEXT]
    together = len(free) if free and free[-1] - free[0] == len(free) - 1 else 0

    def rows() -> Iterator[tuple[int, Cells | list[str]]]:
        for number, line in enumerate(lines, 2):
            cells = line.rstrip("\r\n").split("|")
            more = len(cells) - len(header)
            if more == 1 and not cells[-1] and not line.rstrip("\r\n").endswith("||"):
                cells, more = cells[:-1], 0  # sacct --parsable ends each line with a bar
            if more > 0 and together:
                at, end = free[0], free[0] + together + more
                cells = [*cells[:at], "|".join(cells[at:end]), *[""] * (together - 1), *cells[end:]]
            if line.strip():
                yield number, dict(zip(header, cells, strict=True)) if len(cells) == len(header) else cells

    return header, rows()


def _tasks(text: str) -> list[int]:
    tasks: list[int] = []
    for part in text.split(","):
        span, _, step = part.partition(":")
        low, _, high = span.partition("-")
        numbers = range(int(low), int(high or low) + 1, max(1, int(step or 1)))
        if len(tasks) + len(numbers) > _MOST_TASKS:
            raise ValueError(f"an array of more than {_MOST_TASKS} tasks")
        tasks += numbers
    return tasks


class _Reader:
    """Makes jobs of lines; times without an offset are local to `zone`."""

    def __init__(self, path: str | Path, zone: tzinfo | None) -> None:
        self.zone = zone
        self.lines = TraceLines(str(path))
        self.runs: dict[str, dict[tuple[str, str], str]] = {}
        """Names of the runs of a job that go on, by start and nodes."""

    def time_s(self, text: str) -> float:
        moment = parse_moment(text)
        if isinstance(moment, datetime) and moment.tzinfo is None and self.zone is None:
            self.lines.note("times without an offset are taken as UTC; name the cluster's time zone if it is another")
        return parse_time(text, self.zone)

    def limit_s(self, row: Cells) -> float:
        """Return a job's time limit; a day where it has none."""
        text = row.get("Timelimit", "")
        return elapsed_s(text) if _ELAPSED.fullmatch(text) else _NO_LIMIT_S

    def ended(self, job_id: str, row: Cells) -> None:
        """Add a job that ended: what it used."""
        gpus, duration_s = allocated_gpus(row["AllocTRES"]), elapsed_s(row["Elapsed"])
        if gpus == 0:
            self.lines.skip("without a GPU")
        elif duration_s <= 0:
            self.lines.skip("that never ran")
        else:
            job = Job(job_id, gpus, duration_s, self.time_s(row["Submit"]), job_class=row.get("Partition") or "default")
            self.lines.add(job, "of an earlier run of a job")

    def running(self, job_id: str, row: Cells) -> None:
        """Add a running job: counted where it is, as far as the line says."""
        gpus = allocated_gpus(row["AllocTRES"]) or allocated_gpus(row.get("ReqTRES", ""))
        if gpus == 0:
            self.lines.skip("without a GPU")
            return
        left_s, submit_s = 0.0, 0.0
        with suppress(ValueError):
            left_s = self.limit_s(row) - elapsed_s(row["Elapsed"])
        with suppress(ValueError):
            submit_s = self.time_s(row["Submit"])
        work_s = left_s if left_s > 0 else _NO_LIMIT_S
        partition, nodes = row.get("Partition") or "default", row.get("NodeList", "")
        runs = self.runs.setdefault(job_id, {})
        name = runs.setdefault((row.get("Start", ""), nodes), f"{job_id}#{len(runs) + 1}" if runs else job_id)
        job = Job(name, gpus, work_s, submit_s, partition, state="running", nodes=nodes)
        self.lines.add(job, "of an earlier run of a job")

    def unlike(self, job_id: str, cells: list[str], *, is_live: bool) -> None:
        """Count a line that does not fit the header; one of a running job is left out with its GPUs."""
        self.lines.skip("with other cells than the header")
        gpus = max(map(allocated_gpus, cells), default=0)
        runs = (phase_of({"State": cell}) is Phase.RUNS for cell in cells if cell.isupper())
        if is_live and gpus and any(runs) and "." not in job_id:
            why = "its line has other cells than the header"
            self.lines.left_out.append(LeftOut(job_id, LeftOutCode.FIELD, why, running=True, gpus=gpus))

    def waiting(self, job_id: str, row: Cells) -> None:
        """Add a waiting job, or the tasks of a waiting array: as many as may run at once."""
        gpus = allocated_gpus(row.get("ReqTRES", "")) or allocated_gpus(row["AllocTRES"])
        if gpus == 0:
            self.lines.skip("without a GPU")
            return
        if not _gres(row.get("ReqTRES", "") or row["AllocTRES"], "gpu"):
            self.lines.left_out.append(LeftOut(job_id, LeftOutCode.SCHEDULER, "asks for parts of GPUs"))
            return
        partition = row.get("Partition") or "default"
        submit_s, limit_s = self.time_s(row["Submit"]), self.limit_s(row)
        array = _ARRAY.fullmatch(row.get("JobID", ""))
        tasks = [job_id] if array is None else [f"{array[1]}_{task}" for task in _tasks(array[2])]
        most = int(array[3]) if array is not None and array[3] else len(tasks)
        for name in tasks[:most]:
            if name in self.runs:
                self.lines.skip("of a later run of a job that still runs")
                continue
            self.lines.add(Job(name, gpus, limit_s, submit_s, partition), "of an earlier run of a job")
        for name in tasks[most:]:
            self.lines.left_out.append(LeftOut(name, LeftOutCode.SCHEDULER, "waits for another task of its array"))


def is_step(row: Cells, id_column: str) -> bool:
    """Whether a row is a step of a job."""
    return any("." in name.partition("[")[0] for name in (row[id_column], row.get("JobID", "")))


def read_sacct_list(path: str | Path, zone: tzinfo | None = None) -> JobList:
    """Read `sacct --parsable2 --format=JobIDRaw,Submit,Elapsed,AllocTRES[,JobID,State,Timelimit,ReqTRES,NodeList,...]`.

    Steps are passed over; lines that give no job are counted by reason in the notes. Times without an offset are local
    to `zone`, the time zone of the cluster; without one they are taken as UTC, which is noted.
    """
    return _read(path, zone, as_queue=True)


def read_sacct_trace(path: str | Path, zone: tzinfo | None = None) -> JobList:
    """Read the ended jobs of `sacct` output as a trace, with notes on the lines that give none."""
    return _read(path, zone, as_queue=False)


def read_sacct(path: str | Path, zone: tzinfo | None = None) -> tuple[Job, ...]:
    """Read the ended jobs of `sacct` output as a trace, whatever else runs or waits."""
    return read_sacct_trace(path, zone).jobs


def _read(path: str | Path, zone: tzinfo | None, *, as_queue: bool) -> JobList:
    header, found = sacct_rows(path)
    require_columns(path, header, ("Submit", "Elapsed", "AllocTRES"))
    id_column = "JobIDRaw" if "JobIDRaw" in header else "JobID"
    require_columns(path, header, (id_column,))
    rows = list(found)
    jobs = [row for _, row in rows if not isinstance(row, list) and not is_step(row, id_column)]
    is_live = as_queue and any(phase_of(row) in (Phase.RUNS, Phase.WAITS) for row in jobs)
    reader = _Reader(path, zone)
    for _, row in rows:
        if isinstance(row, list):
            reader.unlike((row + ["?"] * len(header))[header.index(id_column)], row, is_live=is_live)
        elif not is_step(row, id_column):
            _line(reader, row[id_column], row, is_live=is_live)
    return reader.lines.found()


def _line(reader: _Reader, job_id: str, row: Cells, *, is_live: bool) -> None:
    phase = phase_of(row)
    try:
        if phase in (Phase.RUNS, Phase.WAITS) and not is_live:
            reader.lines.skip("that have not ended")
        elif phase is Phase.RUNS or (phase is Phase.UNKNOWN and is_live):
            reader.running(job_id, row)
        elif phase is Phase.WAITS:
            reader.waiting(job_id, row)
        elif is_live:
            reader.lines.skip("that have ended")
        else:
            reader.ended(job_id, row)
    except ValueError:
        reader.lines.skip("with a time that is none")


def _recognises(first_line: str) -> bool:
    return "|" in first_line


SACCT = JobReader("sacct", "sacct --parsable2", read_sacct, _recognises, (), read_sacct_list, read_sacct_trace)
