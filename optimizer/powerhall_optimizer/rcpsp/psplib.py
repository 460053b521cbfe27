"""Reader of single-mode PSPLIB project files (`.sm`), as published by Kolisch and Sprecher (PSPLIB, 1996)."""

import re
from pathlib import Path

from powerhall.runtime.decode.bytes_in import read_file
from powerhall.runtime.decode.limits import MOST_TOML_BYTES
from powerhall.runtime.decode.numbers_in import whole
from powerhall.runtime.errors import Rejected
from powerhall_optimizer.rcpsp.instance import Instance

__all__ = ["parse", "read"]

_SECTIONS = ("PRECEDENCE RELATIONS:", "REQUESTS/DURATIONS:", "RESOURCEAVAILABILITIES:")


def read(path: Path) -> Instance:
    """Read one `.sm` file; refuse any other file in one line."""
    return parse(read_file(path, MOST_TOML_BYTES).decode("ascii", "replace"), str(path))


def parse(text: str, source: str) -> Instance:
    """Build the project that the text describes; `source` names it in refusals."""
    lines = text.splitlines()
    tasks = _header(lines, r"jobs \(incl\. supersource/sink \):\s*(\S+)", source, "jobs")
    renewable = _header(lines, r"- renewable\s*:\s*(\S+)\s+R", source, "renewable")
    for kind in ("nonrenewable", "doubly constrained"):
        if _header(lines, rf"- {kind}\s*:\s*(\S+)", source, kind, 0) != 0:
            raise Rejected.field(source, kind, "> 0", "only renewable resources are supported")
    successors = _precedence(_section(lines, _SECTIONS[0], source), tasks, source)
    durations, demands = _requests(_section(lines, _SECTIONS[1], source), tasks, renewable, source)
    rows = [row for row in _section(lines, _SECTIONS[2], source) if row]
    if len(rows) != 1 or len(rows[0]) != renewable:
        raise Rejected.field(source, "RESOURCEAVAILABILITIES", rows, f"must be one line of {renewable} numbers")
    name = Path(source).stem.lower()
    return Instance(name, durations, successors, demands, tuple(rows[0]))


def _header(lines: list[str], pattern: str, source: str, field: str, default: int | None = None) -> int:
    for line in lines:
        found = re.search(pattern, line)
        if found:
            return _integer(found.group(1), source, field)
    if default is None:
        raise Rejected.field(source, field, "missing", "must be given in the header of a PSPLIB .sm file")
    return default


def _section(lines: list[str], title: str, source: str) -> list[list[int]]:
    """Return the numbers of every line between the title and the next row of stars, headings left out."""
    begin = next((at for at, line in enumerate(lines) if line.strip() == title), None)
    if begin is None:
        raise Rejected.field(source, title.rstrip(":"), "missing", "must be a section of a PSPLIB .sm file")
    rows = []
    for line in lines[begin + 1 :]:
        if line.startswith("***"):
            break
        if line.strip()[:1] in set("0123456789-") and not line.startswith("---"):
            rows.append([_integer(word, source, title.rstrip(":")) for word in line.split()])
    return rows


def _integer(word: str, source: str, field: str) -> int:
    try:
        return whole(word)
    except ValueError as error:
        raise Rejected.field(source, field, word, str(error)) from None


def _precedence(rows: list[list[int]], tasks: int, source: str) -> tuple[tuple[int, ...], ...]:
    field = "PRECEDENCE RELATIONS"
    _check_rows(rows, tasks, source, field)
    for row in rows:
        if len(row) < 3 or len(row) != 3 + row[2]:
            raise Rejected.field(source, field, row, "must be job, modes, number of successors, that many successors")
        if row[1] != 1:
            raise Rejected.field(source, f"{field}: modes of job {row[0]}", row[1], "must be 1 (single-mode projects)")
    return tuple(tuple(other - 1 for other in row[3:]) for row in rows)


def _requests(
    rows: list[list[int]], tasks: int, renewable: int, source: str
) -> tuple[tuple[int, ...], tuple[tuple[int, ...], ...]]:
    field = "REQUESTS/DURATIONS"
    _check_rows(rows, tasks, source, field)
    for row in rows:
        if len(row) != 3 + renewable:
            raise Rejected.field(source, field, row, f"must be job, mode, duration and {renewable} demands")
    return tuple(row[2] for row in rows), tuple(tuple(row[3:]) for row in rows)


def _check_rows(rows: list[list[int]], tasks: int, source: str, field: str) -> None:
    """Jobs must be 1..tasks in order, each once; multi-mode files repeat or abbreviate them."""
    numbers = [row[0] for row in rows]
    if len(numbers) != tasks or numbers != list(range(1, tasks + 1)):
        raise Rejected.field(source, field, f"{len(rows)} rows", f"must list the jobs 1..{tasks} in order, each once")
