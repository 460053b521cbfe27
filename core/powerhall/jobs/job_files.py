"""Powerhall's own job files: CSV with a header, or a JSON array, with the fields of `Job`.

CSV: lists are separated by blanks; empty cells take the default; times may be ISO 8601, durations may carry units
("90 min"). Only job_id (or id), gpus and duration_s (or duration) are required.
"""

import csv
import io
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec

from powerhall.jobs.job_reader import JobReader, header_cells
from powerhall.jobs.model import Job, check_jobs
from powerhall.runtime.errors import Rejected
from powerhall.runtime.settings import read_json
from powerhall.timeseries import open_text, parse_time
from powerhall.units import parse_duration

__all__ = ["OWN", "read_jobs", "write_jobs"]

_ALIASES = {
    "id": "job_id",
    "duration": "duration_s",
    "submit": "submit_s",
    "earliest": "earliest_s",
    "class": "job_class",
}
_ALIASES |= {"deadline": "deadline_s", "start": "start_s", "checkpoint_cost": "checkpoint_cost_s"}


def _seconds(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return parse_duration(text)


def _flag(text: str) -> bool:
    if text.lower() in ("1", "true", "yes"):
        return True
    if text.lower() in ("0", "false", "no"):
        return False
    raise ValueError("must be true or false")


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError("must be a whole number") from None


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError("must be a number") from None


_PARSERS: dict[str, Callable[[str], object]] = {
    "gpus": _whole,
    "duration_s": _seconds,
    "checkpoint_cost_s": _seconds,
    "submit_s": parse_time,
    "earliest_s": parse_time,
    "deadline_s": parse_time,
    "start_s": parse_time,
    "weight": _number,
    "preemptible": _flag,
    "node_types": lambda text: text.split(),
    "halls": lambda text: text.split(),
    "sites": lambda text: text.split(),
}
_FIELDS = tuple(field.name for field in msgspec.structs.fields(Job))


def _row(source: str, number: int, row: dict[str, str | None]) -> Job:
    values: dict[str, object] = {}
    for column, text in row.items():
        field = _ALIASES.get(column, column)
        if text is None:
            raise Rejected.field(source, f"line {number}: {column}", text, "the line has fewer cells than the header")
        if text.strip() == "":
            continue
        try:
            values[field] = _PARSERS.get(field, str)(text.strip())
        except ValueError as error:
            raise Rejected.field(source, f"line {number}: {column}", text, str(error)) from None
    try:
        return msgspec.convert(values, Job, strict=True)
    except msgspec.ValidationError as error:
        raise Rejected(f"{source}: line {number}: {error}") from None


def _read_csv(path: Path) -> list[Job]:
    rows = csv.DictReader(open_text(path), restkey="extra cells")
    header = [_ALIASES.get(name, name) for name in rows.fieldnames or ()]
    for name in header:
        if name not in _FIELDS:
            raise Rejected.field(str(path), "header", name, f"must be one of {', '.join(_FIELDS)}")
    for name in ("job_id", "gpus", "duration_s"):
        if name not in header:
            raise Rejected.field(str(path), "header", ",".join(header), f"must have the column {name}")
    return [_row(str(path), number, row) for number, row in enumerate(rows, 2)]


def read_jobs(path: str | Path) -> tuple[Job, ...]:
    """Read jobs from `.json` (array of objects) or CSV (`.csv`, `.csv.gz`); an empty or wrong file raises Rejected."""
    path = Path(path)
    jobs = read_json(path, list[Job]) if path.suffix == ".json" else _read_csv(path)
    if not jobs:
        raise Rejected(f"{path}: no jobs: must have at least one")
    return check_jobs(jobs, str(path))


def write_jobs(jobs: Iterable[Job]) -> str:
    """Write jobs as CSV text that `read_jobs` reads back."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(_FIELDS)
    for job in jobs:
        cells = (getattr(job, field) for field in _FIELDS)
        writer.writerow(" ".join(c) if isinstance(c, tuple) else "" if c is None else c for c in cells)
    return out.getvalue()


def _recognises(first_line: str) -> bool:
    return not header_cells(first_line).isdisjoint(("job_id", "id"))


OWN = JobReader("own", "own CSV or JSON", read_jobs, _recognises, (".json",))
