"""What ran when, by Slurm's accounting: every run of a job with GPUs, from submission to end.

A trace has what jobs asked of a scheduler; this has what the scheduler did with them. A job that was requeued has a run
for each time (`sacct --duplicates`).
"""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, tzinfo
from pathlib import Path

import msgspec

from powerhall.jobs.job_reader import require_columns
from powerhall.jobs.readers.sacct import allocated_gpus, elapsed_s, is_step, sacct_rows
from powerhall.jobs.readers.sacct_states import Phase, phase_of
from powerhall.runtime.errors import Rejected
from powerhall.timeseries import parse_moment, parse_time

__all__ = ["Run", "Runs", "read_sacct_runs"]

_UNKNOWN = frozenset({"", "unknown", "none", "n/a"})


class Run(msgspec.Struct, frozen=True):
    """One run. It could begin from `ready_s` on: when it was submitted, or eligible where that is known.

    Times are seconds since the epoch, `nodes` is a host list or empty; `ended` is false for one that still ran.
    """

    job_id: str
    partition: str
    gpus: int
    ready_s: float
    start_s: float
    end_s: float
    nodes: str = ""
    ended: bool = True


class Runs(msgspec.Struct, frozen=True):
    """The runs in the order of their starts, and a line on each thing that was passed over or assumed."""

    runs: tuple[Run, ...]
    notes: tuple[str, ...] = ()


@dataclass(slots=True)
class _RunReader:
    zone: tzinfo | None
    skipped: Counter[str] = field(default_factory=Counter)
    known: Counter[str] = field(default_factory=Counter)
    notes: dict[str, None] = field(default_factory=dict)

    def time_s(self, text: str) -> float:
        moment = parse_moment(text)
        if isinstance(moment, datetime) and moment.tzinfo is None and self.zone is None:
            self.notes["times without an offset are taken as UTC; name the cluster's time zone if it is another"] = None
        return parse_time(text, self.zone)

    def run(self, job_id: str, row: Mapping[str, str]) -> Run | None:
        """Return the run of a row; None, counted by reason, where it used no GPU."""
        phase, gpus = phase_of(row), allocated_gpus(row["AllocTRES"])
        if phase is Phase.WAITS and not re.search("[1-9]", row["Elapsed"]):  # one that was requeued has run
            self.skipped["that had not started: how long they will run is not known"] += 1
            return None
        if gpus == 0:
            self.skipped["without a GPU"] += 1
            return None
        length_s = elapsed_s(row["Elapsed"])
        if length_s <= 0:
            self.skipped["that never ran"] += 1
            return None
        start_s = self._start_s(row, length_s)
        if start_s is None:
            self.skipped["without a start"] += 1
            return None
        ready_s = max(self.time_s(row["Submit"]), self._known_s(row, "Eligible") or 0.0)
        if ready_s > start_s:
            self.skipped["kept: ready at their start, since it lies before their submission"] += 1
        self.known[job_id] += 1
        name = job_id if self.known[job_id] == 1 else f"{job_id}#{self.known[job_id]}"
        partition, nodes = row.get("Partition") or "default", row.get("NodeList", "")
        nodes = "" if nodes.strip().lower() in _UNKNOWN or nodes.startswith("None") else nodes
        times = min(ready_s, start_s), start_s, start_s + length_s
        return Run(name, partition, gpus, *times, nodes, ended=phase is not Phase.RUNS)

    def _start_s(self, row: Mapping[str, str], length_s: float) -> float | None:
        start_s = self._known_s(row, "Start")
        if start_s is None and (end_s := self._known_s(row, "End")) is not None:
            start_s = end_s - length_s
        return start_s

    def _known_s(self, row: Mapping[str, str], column: str) -> float | None:
        text = row.get(column, "").strip()
        return None if text.lower() in _UNKNOWN else self.time_s(text)


def read_sacct_runs(path: str | Path, zone: tzinfo | None = None) -> Runs:
    """Read `sacct --parsable2 --format=JobIDRaw,Submit,Start,Elapsed,AllocTRES[,Eligible,End,State,NodeList,...]`.

    Of the columns Start and End one is needed. Jobs that still run count up to the time at which the file was made.
    Times without an offset are local to `zone`. A file without a run raises Rejected.
    """
    header, rows = sacct_rows(path)
    require_columns(path, header, ("Submit", "Elapsed", "AllocTRES"))
    if not {"Start", "End"} & set(header):
        raise Rejected.field(str(path), "header", "|".join(header)[:200], "must have the column Start or End")
    id_column = "JobIDRaw" if "JobIDRaw" in header else "JobID"
    require_columns(path, header, (id_column,))
    reader = _RunReader(zone)
    found: list[Run] = []
    for _, row in rows:
        if isinstance(row, list):
            reader.skipped["with other cells than the header"] += 1
        elif not is_step(row, id_column):
            try:
                run = reader.run(row[id_column], row)
            except ValueError:
                reader.skipped["with a time that is none"] += 1
                continue
            found += [] if run is None else [run]
    notes = [*reader.notes, *(f"{count} lines {why}" for why, count in reader.skipped.most_common())]
    if open_runs := sum(not run.ended for run in found):
        notes.append(f"{open_runs} jobs still ran: counted up to when the file was made")
    if not found:
        raise Rejected(f"{path}: no run with a GPU{': ' if notes else ''}{'; '.join(notes)}")
    return Runs(tuple(sorted(found, key=lambda run: (run.start_s, run.job_id))), tuple(notes))
