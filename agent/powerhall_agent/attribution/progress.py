"""What jobs say of their progress, set beside their energy: J per token or per step.

A job keeps a file in the agent's folder of reports, with a line for each thing that it counts and how many there are
so far, such as `tokens 81264640`. The file is called as the job is, `4711` or `NAMESPACE_POD`, with `.RANK` behind it
where several processes report: each its own part, which are added up. A count that falls begins anew, as a job does
that goes on from a checkpoint.
"""

import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Final

from powerhall.runtime.decode.bytes_in import read_file, utf8
from powerhall.runtime.decode.numbers_in import digits, finite
from powerhall.runtime.errors import Rejected
from powerhall.runtime.log import Log
from powerhall_agent.base.encoder import Record, Series
from powerhall_agent.base.gpu_snapshot import Holder

__all__ = ["Progress", "read_report"]

_log = Log(quiet=True)
_EVERY_S: Final = 60.0
_MOST_BYTES: Final = 4096
_MOST_FILES: Final = 4096
_MOST_UNITS: Final = 8
_UNIT: Final = re.compile(r"[a-z][a-z0-9_]{0,31}")
_ROOT: Final = 0
_UNKNOWN: Final = -1


def read_report(path: Path) -> dict[str, float]:
    """Return how many of each thing a report counts; one that cannot be understood raises Rejected."""
    found: dict[str, float] = {}
    for number, line in enumerate(utf8(read_file(path, _MOST_BYTES), str(path)).splitlines(), 1):
        words = line.split()
        if not words:
            continue
        if len(words) != 2 or not _UNIT.fullmatch(words[0]):
            raise Rejected(f"{path}: line {number}: must be 'NAME COUNT', such as 'tokens 81264640'")
        try:
            count = finite(words[1])
        except ValueError as error:
            raise Rejected(f"{path}: line {number}: {words[0]}: {error}") from None
        if count < 0.0 or words[0] in found:
            raise Rejected(f"{path}: line {number}: {words[0]}: must be there once, and at least 0")
        found[words[0]] = count
    if len(found) > _MOST_UNITS:
        raise Rejected(f"{path}: counts {len(found)} things: at most {_MOST_UNITS} are read")
    return found


@dataclass(slots=True)
class _Job:
    """A job on this node: its energy now and at the last report, and the counts of then by file and thing."""

    user: int
    energy_j: float = 0.0
    told_j: float = 0.0
    counts: dict[tuple[str, str], float] = field(default_factory=dict)


class Progress:
    """Compares the reports of this node's jobs with their energy, once a minute and when a job ends."""

    def __init__(self, tags: Mapping[str, str], folder: Path) -> None:
        """`folder` is where jobs write; it need not be there."""
        self._series = Series("job_progress", tags)
        self._folder = folder
        self._jobs: dict[str, _Job] = {}
        self._due_s = self._newest_ms = 0
        self._refused: set[str] = set()

    def observe(self, now_s: float, energies: Iterable[tuple[Holder, float]]) -> list[Record]:
        """Take the energy in J of each job on each of its GPUs; return the points that are due."""
        present: dict[str, float] = {}
        for holder, energy_j in energies:
            present[holder.job] = present.get(holder.job, 0.0) + energy_j
            self._jobs.setdefault(holder.job, _Job(holder.user)).user = holder.user
        ended = [name for name in self._jobs if name not in present]
        for name, energy_j in present.items():
            self._jobs[name].energy_j = energy_j
        if not ended and now_s < self._due_s:
            return []
        due = list(self._jobs) if now_s >= self._due_s else ended
        if now_s >= self._due_s:
            self._due_s = int(now_s + _EVERY_S)
        reports = self._reports()
        found = [record for name in due for record in self._compared(name, reports.get(_called(name), {}), now_s)]
        for name in ended:
            del self._jobs[name]
        return found

    def _compared(self, name: str, files: Mapping[str, tuple[int, dict[str, float]]], now_s: float) -> Iterator[Record]:
        """Yield what a job did of each thing since its last report, and the energy of that time."""
        job = self._jobs[name]
        done: dict[str, float] = {}
        total: dict[str, float] = {}
        for file, (owner, counts) in files.items():
            if owner not in {job.user, _ROOT} and job.user != _UNKNOWN:
                self._refuse(f"{file}: is another user's than the job")
                continue
            for unit, count in counts.items():
                before = job.counts.get((file, unit))
                total[unit] = total.get(unit, 0.0) + count
                if before is not None:
                    done[unit] = done.get(unit, 0.0) + (count - before if count >= before else count)
                job.counts[file, unit] = count
        energy_j, job.told_j = max(0.0, job.energy_j - job.told_j), job.energy_j
        for unit, count in done.items():
            self._newest_ms = max(round(now_s * 1000), self._newest_ms + 1)
            fields: dict[str, float | str] = {"job": name, "unit": unit, "done": count, "total": total[unit]}
            yield Record(self._series, fields | {"energy_j": round(energy_j, 3)}, self._newest_ms)

    def _reports(self) -> dict[str, dict[str, tuple[int, dict[str, float]]]]:
        """Return owner and counts of each readable report, by the name of its job and of the file."""
        found: dict[str, dict[str, tuple[int, dict[str, float]]]] = {}
        try:
            with os.scandir(self._folder) as entries:
                files = list(islice(entries, _MOST_FILES))
        except OSError:
            return {}  # no job has ever reported
        for file in files:
            try:
                about = file.stat(follow_symlinks=False)
                if stat.S_ISREG(about.st_mode):
                    counts = read_report(Path(file.path))
                    stem, _, rank = file.name.rpartition(".")
                    for name in {file.name, stem if digits(rank) is not None else file.name}:
                        found.setdefault(name, {})[file.name] = about.st_uid, counts
            except OSError:
                continue  # gone meanwhile
            except Rejected as error:
                self._refuse(str(error))
        return found

    def _refuse(self, why: str) -> None:
        """Log why a report is not read, once."""
        if why not in self._refused and len(self._refused) < _MOST_FILES:
            self._refused.add(why)
            _log.warning("progress_refused", detail=why)


def _called(job: str) -> str:
    """Return the name of a job's reports: that of a pod is `NAMESPACE_POD`; a process goes by its number."""
    return job.rpartition(":")[2].replace("/", "_")
