"""Forks this process, with everything imported and compiled, for a batch of inputs at a time.

A child that hangs where no signal reaches it, or that a fault of native code ends, costs the one input that it was at:
the next child goes on behind it.
"""

import json
import os
import random
import resource
import select
import shutil
import signal
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from attempt import Limits, attempt
from mutators import mutate
from registry import Entry

__all__ = ["Batch", "Found", "run_batches"]

_GRACE_S = 10.0
"""A child whose alarm does not interrupt the input is ended this long after it."""
_PIECE = 65536


def changed(entry: Entry, seed: int, number: int) -> bytes:
    """Return one input: a changed seed of the entry point, the same at each run."""
    return mutate(entry.seeds, random.Random(f"{entry.name} {seed} {number}"))


@dataclass(frozen=True)
class Batch:
    """Some inputs of one entry point, by number; the seed and a number make the bytes."""

    name: str
    seed: int
    first: int
    inputs: int


@dataclass
class Found:
    """What was seen at the inputs of a batch; `failures` holds number of inputs, and the first of them, by problem."""

    batch: Batch
    refused: int = 0
    cpu_s: float = 0.0
    worst_s: float = 0.0
    worst_mib: float = 0.0
    failures: dict[str, tuple[int, int]] = field(default_factory=dict)

    def note(self, number: int, problem: str, cpu_s: float, memory_mib: float) -> None:
        """Count one input."""
        self.cpu_s += cpu_s
        self.worst_s, self.worst_mib = max(self.worst_s, cpu_s), max(self.worst_mib, memory_mib)
        if problem == "refused":
            self.refused += 1
        elif problem:
            count, first = self.failures.get(problem, (0, number))
            self.failures[problem] = count + 1, first


class _Child:
    """A forked process at the rest of a batch."""

    def __init__(self, entry: Entry, found: Found, first: int, limits: Limits) -> None:
        self.found, self.next, self.last_s = found, first, time.monotonic()
        self.entry, self.limits, self._rest = entry, limits, b""
        self.folder = Path(tempfile.mkdtemp(prefix="powerhall-fuzz-"))
        self.pipe, theirs = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            _in_child(entry, found.batch, first, limits, self.folder, theirs)
        os.close(theirs)

    @property
    def end(self) -> int:
        return self.found.batch.first + self.found.batch.inputs

    def read(self) -> bool:
        """Take what has come; return whether the child has ended."""
        piece = os.read(self.pipe, _PIECE)
        *lines, self._rest = (self._rest + piece).split(b"\n")
        for line in lines:
            problem, cpu_s, memory_mib = json.loads(line)
            self.found.note(self.next, problem, cpu_s, memory_mib)
            self.next, self.last_s = self.next + 1, time.monotonic()
        return not piece

    def hangs(self) -> bool:
        """Return whether an input takes so long that the child must be ended."""
        return time.monotonic() - self.last_s > self.limits.time_s + _GRACE_S

    def close(self, problem: str = "") -> "_Child | None":
        """Take the ended child away; return one for the rest of the batch, if there is a rest."""
        if problem:
            os.kill(self.pid, signal.SIGKILL)
        status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        os.close(self.pipe)
        shutil.rmtree(self.folder, ignore_errors=True)
        if self.next == self.end:
            return None
        ended = f"the process ended: signal {-status}" if status < 0 else f"the process ended: exit code {status}"
        self.found.note(self.next, problem or ended, time.monotonic() - self.last_s, 0.0)
        first = self.next + 1
        return None if first == self.end else _Child(self.entry, self.found, first, self.limits)


def _in_child(entry: Entry, batch: Batch, first: int, limits: Limits, folder: Path, pipe: int) -> None:
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        null = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(null, descriptor)
        most = _mapped_bytes() + int(limits.address_mib * 2**20)
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
        for number in range(first, batch.first + batch.inputs):
            seen = attempt(entry, folder, changed(entry, batch.seed, number), limits)
            os.write(pipe, json.dumps((seen.problem, round(seen.cpu_s, 4), round(seen.memory_mib, 1))).encode() + b"\n")
        os._exit(0)
    except BaseException:  # noqa: BLE001 - nothing of the parent's runs in the child
        os._exit(99)


def _mapped_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")


def run_batches(entries: dict[str, Entry], batches: Iterable[Batch], limits: Limits, jobs: int) -> Iterator[Found]:
    """Yield what was found in each batch, `jobs` of them at a time."""
    waiting = iter(batches)
    at_work: dict[int, _Child] = {}

    def start(child: _Child | None) -> None:
        if child is not None:
            at_work[child.pipe] = child

    try:
        while True:
            while len(at_work) < jobs and (batch := next(waiting, None)) is not None:
                start(_Child(entries[batch.name], Found(batch), batch.first, limits))
            if not at_work:
                return
            ready = set(select.select(list(at_work), [], [], 1.0)[0])
            for pipe, child in list(at_work.items()):
                ended = pipe in ready and child.read()
                problem = "" if ended or not child.hangs() else f"hangs for more than {limits.time_s + _GRACE_S} s"
                if ended or problem:
                    del at_work[pipe]
                    rest = child.close(problem)
                    start(rest)
                    if rest is None:
                        yield child.found
    finally:
        for child in at_work.values():
            os.kill(child.pid, signal.SIGKILL)
            os.waitpid(child.pid, 0)
            shutil.rmtree(child.folder, ignore_errors=True)
