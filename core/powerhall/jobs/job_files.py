"""Powerhall's own job files: CSV with a header, or a JSON array, with the fields of `Job`.

CSV: lists are separated by blanks; empty cells take the default; times may be ISO 8601, durations may carry units
("90 min"). Only job_id (or id), gpus and duration_s (or duration) are required.
"""

import csv
import io
from collections.abc import Callable, Iterable, Mapping
from datetime import tzinfo
from pathlib import Path

import msgspec

from powerhall.jobs.job_reader import JobReader, header_cells
from powerhall.jobs.left_out import JobList, LeftOut, LeftOutCode, sound_jobs
from powerhall.jobs.model import Job, check_jobs
from powerhall.runtime.decode.csv_table import read_csv
from powerhall.runtime.decode.numbers_in import finite, whole
from powerhall.runtime.errors import Rejected
from powerhall.runtime.settings import read_json
from powerhall.timeseries import parse_time
from powerhall.units import parse_duration

__all__ = ["OWN", "decode_job_list", "read_job_list", "read_jobs", "write_jobs"]

_ALIASES = {
    "id": "job_id",
    "duration": "duration_s",
    "submit": "submit_s",
    "earliest": "earliest_s",
    "class": "job_class",
}
_ALIASES |= {"deadline": "deadline_s", "start": "start_s", "checkpoint_cost": "checkpoint_cost_s"}


def _seconds(text: str) -> float:
    return finite(text) if _is_number(text) else parse_duration(text)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _flag(text: str) -> bool:
    if text.lower() in ("1", "true", "yes"):
        return True
    if text.lower() in ("0", "false", "no"):
        return False
    raise ValueError("must be true or false")


_PARSERS: dict[str, Callable[[str], object]] = {
    "gpus": whole,
    "block_nodes": whole,
    "gpu_number": whole,
    "duration_s": _seconds,
    "checkpoint_cost_s": _seconds,
    "submit_s": parse_time,
    "earliest_s": parse_time,
    "deadline_s": parse_time,
    "start_s": parse_time,
    "weight": finite,
    "preemptible": _flag,
    "node_types": lambda text: text.split(),
    "halls": lambda text: text.split(),
    "sites": lambda text: text.split(),
    "gpus_on_nodes": lambda text: tuple(whole(part) for part in text.split()),
}
_FIELDS = tuple(field.name for field in msgspec.structs.fields(Job))


def _row(source: str, line: int, row: dict[str, str | None], zone: tzinfo | None) -> Job:
    values: dict[str, object] = {}
    for column, text in row.items():
        field = _ALIASES.get(column, column)
        if text is None:
            raise Rejected.field(source, f"line {line}: {column}", text, "the line has fewer cells than the header")
        if text.strip() == "":
            continue
        try:
            is_time = _PARSERS.get(field) is parse_time
            values[field] = parse_time(text, zone) if is_time else _PARSERS.get(field, str)(text.strip())
        except ValueError as error:
            raise Rejected.field(source, f"line {line}: {column}", text, str(error)) from None
    try:
        return msgspec.convert(values, Job, strict=True)
    except msgspec.ValidationError as error:
        raise Rejected(f"{source}: line {line}: {error}") from None


def _read_csv(path: Path) -> list[tuple[str, int, dict[str, str | None]]]:
    """Return (source, line, cells) of every row."""
    rows = read_csv(path)
    header = [_ALIASES.get(name, name) for name in rows.header]
    for name in header:
        if name not in _FIELDS:
            raise Rejected.field(str(path), "header", name, f"must be one of {', '.join(_FIELDS)}")
    for name in ("job_id", "gpus", "duration_s"):
        if name not in header:
            raise Rejected.field(str(path), "header", ",".join(header), f"must have the column {name}")
    return [(str(path), line, row) for line, row in rows]


def read_jobs(path: str | Path, zone: tzinfo | None = None) -> tuple[Job, ...]:
    """Read jobs from `.json` (array of objects) or CSV (`.csv`, `.csv.gz`); a wrong file raises Rejected.

    A file without jobs is an empty queue.
    """
    path = Path(path)
    jobs = read_json(path, list[Job]) if path.suffix == ".json" else [_row(*row, zone) for row in _read_csv(path)]
    return check_jobs(jobs, str(path))


def read_job_list(path: str | Path, zone: tzinfo | None = None) -> JobList:
    """Read a queue like `read_jobs`; a job that is wrong is left out with its reason, a wrong file raises Rejected."""
    path = Path(path)
    source = str(path)
    if path.suffix == ".json":
        return decode_job_list(read_json(path, list[msgspec.Raw]), source)
    jobs: list[Job] = []
    left_out: list[LeftOut] = []
    for _, line, row in _read_csv(path):
        try:
            jobs.append(_row(source, line, row, zone))
        except Rejected as error:
            left_out.append(_left_out(row, f"line {line}", error, source))
    found = sound_jobs(jobs, source)
    return JobList(found.jobs, (*left_out, *found.left_out))


def decode_job_list(items: Iterable[msgspec.Raw], source: str) -> JobList:
    """Return the jobs of a JSON array; one that is wrong is left out with its reason."""
    jobs: list[Job] = []
    left_out: list[LeftOut] = []
    for number, item in enumerate(items, 1):
        try:
            jobs.append(msgspec.json.decode(item, type=Job))
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            cells = _plain_cells(bytes(item))
            left_out.append(_left_out(cells, f"job {number}", Rejected(f"{source}: {error}"), source))
    found = sound_jobs(jobs, source)
    return JobList(found.jobs, (*left_out, *found.left_out))


def _plain_cells(item: bytes) -> dict[str, str | None]:
    """Return what can be read of a job that does not fit, as texts."""
    try:
        values = msgspec.json.decode(item, type=dict[str, object])
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return {}
    return {name: str(value) for name, value in values.items() if isinstance(value, str | int | float)}


def _left_out(cells: Mapping[str, str | None], otherwise: str, error: Rejected, source: str) -> LeftOut:
    """Return the entry of a job that cannot be read; what it says of its place counts where it runs."""
    values = {_ALIASES.get(name, name): (text or "").strip() for name, text in cells.items()}
    running = values.get("state", "waiting") not in ("", "waiting")
    try:
        gpus = max(0, whole(values.get("gpus", "0")))
    except ValueError:
        gpus = 0
    reason = str(error).removeprefix(f"{source}: ")
    place = (values.get("hall") or None, values.get("nodes") or None) if running else (None, None)
    return LeftOut(values.get("job_id") or otherwise, LeftOutCode.FIELD, reason, running, gpus, *place)


def write_jobs(jobs: Iterable[Job]) -> str:
    """Write jobs as CSV text that `read_jobs` reads back; columns of blocks and parts only where a job has them."""
    jobs = list(jobs)
    optional = ("within", "block_nodes", "gpu_share", "gpu_number")
    unused = {name for name in optional if all(getattr(job, name) is None for job in jobs)}
    fields = tuple(field for field in _FIELDS if field not in unused)
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(fields)
    for job in jobs:
        cells = (getattr(job, field) for field in fields)
        writer.writerow(" ".join(map(str, c)) if isinstance(c, tuple) else "" if c is None else c for c in cells)
    return out.getvalue()


def _recognises(first_line: str) -> bool:
    return not header_cells(first_line).isdisjoint(("job_id", "id"))


OWN = JobReader("own", "own CSV or JSON", read_jobs, _recognises, (".json",), read_job_list)
