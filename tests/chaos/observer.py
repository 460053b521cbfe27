"""Watches an episode from outside, ten times a second. Shares no code with the product.

It reads the memory of the simulated GPUs by a layout of its own, the processes by /proc, and keeps what it saw for the
judge. What a busy machine takes from a process is measured: `run_delay` of the kernel's scheduler (the second number
of /proc/PID/task/TID/schedstat) is the time for which a thread was ready and had no CPU. The kernel adds it when the
wait is over; until then a thread that is ready (R) and has not run since the last look counts as waiting.
"""

import mmap
import struct
import time
from dataclasses import dataclass
from pathlib import Path

_MAGIC = b"PHHSIM01"
_HEADER_BYTES, _GPU_BYTES = 256 * 8, 1024 * 8
_GPUS, _DRIVER = 2 * 8, 5 * 8
_PACE_S = 0.1
_LIMIT_W, _FORCED = 2 * 8, 48 * 8  # then: hung until, time of each call
_SLOW_NS = 200_000_000
"""A GPU each of whose calls takes longer counts as one that does not answer: a look at it and a limit are many."""


class Gpus:
    """The GPUs of one node, as their memory holds them."""

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            self._memory = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        if self._memory[:8] != _MAGIC:
            raise ValueError(f"{path}: is no memory of simulated GPUs")
        (self.count,) = struct.unpack_from("q", self._memory, _GPUS)

    def limits_w(self) -> tuple[float, ...]:
        """Return the power limit of every GPU."""
        return tuple(struct.unpack_from("d", self._memory, self._at(gpu, _LIMIT_W))[0] for gpu in range(self.count))

    def answers(self) -> tuple[bool, ...]:
        """Return which GPUs answer: not lost, hung or very slow, and with a driver."""
        now_ns = time.monotonic_ns()
        (driver,) = struct.unpack_from("q", self._memory, _DRIVER)
        words = (struct.unpack_from("qqq", self._memory, self._at(gpu, _FORCED)) for gpu in range(self.count))
        return tuple(
            driver == 0 and forced == 0 and hang_ns <= now_ns and slow_ns <= _SLOW_NS
            for forced, hang_ns, slow_ns in words
        )

    @staticmethod
    def _at(gpu: int, offset: int) -> int:
        return _HEADER_BYTES + _GPU_BYTES * gpu + offset


@dataclass(frozen=True)
class Sample:
    """One look at all nodes at `time_s` of the monotonic clock; `starved_s` counts up from the start, per node."""

    time_s: float
    limits_w: dict[str, tuple[float, ...]]
    answers: dict[str, tuple[bool, ...]]
    starved_s: dict[str, float]


@dataclass(slots=True)
class _Thread:
    """What the kernel counted of a thread at the last look, and what of a wait under way was counted ahead, in ns."""

    ran_ns: int
    waited_ns: int
    ahead_ns: int = 0


class Starvation:
    """The time for which a node's cappers waited for a CPU, over all their lives."""

    def __init__(self, root: Path = Path("/proc")) -> None:
        self.total_s = 0.0
        self._root = root
        self._threads: dict[str, _Thread] = {}

    def look(self, pids: list[int], own_s: float, passed_s: float = 0.0) -> float:
        """Add what happened since the last look, `passed_s` ago: of all threads, the one that waited longest.

        `own_s` is what the observer waited in that time: it counts where it is more, as where a hypervisor has stopped
        the whole machine.
        """
        most_ns = int(own_s * 1e9)
        for pid in pids:
            for path in (self._root / str(pid) / "task").glob("*"):
                try:
                    ran_ns, waited_ns = map(int, (path / "schedstat").read_text().split()[:2])
                    is_ready = (path / "stat").read_text().rpartition(")")[2].split()[0] == "R"
                except (OSError, IndexError, ValueError):
                    continue
                most_ns = max(most_ns, self._waited_ns(str(path), ran_ns, waited_ns, is_ready, int(passed_s * 1e9)))
        self.total_s += most_ns / 1e9
        return self.total_s

    def _waited_ns(self, name: str, ran_ns: int, waited_ns: int, is_ready: bool, passed_ns: int) -> int:
        last = self._threads.setdefault(name, _Thread(0, 0))
        new_ns = max(0, waited_ns - last.waited_ns - last.ahead_ns)
        if waited_ns > last.waited_ns:
            last.ahead_ns = 0
        elif is_ready and ran_ns == last.ran_ns:
            last.ahead_ns += passed_ns
            new_ns = passed_ns
        last.ran_ns, last.waited_ns = ran_ns, waited_ns
        return new_ns


class Observer:
    """Keeps samples of all nodes."""

    def __init__(self, gpus: dict[str, Gpus]) -> None:
        self._gpus = gpus
        self._starved = {node: Starvation() for node in gpus}
        self.samples: list[Sample] = []
        self.late_s = 0.0
        """The longest that this observer itself came late."""

    def look(self, pids: dict[str, list[int]]) -> None:
        """Take a sample; `pids` are the processes that cap each node at present."""
        now_s = time.monotonic()
        passed_s = now_s - self.samples[-1].time_s if self.samples else 0.0
        gap_s = passed_s - _PACE_S
        self.late_s = max(self.late_s, gap_s)
        own_s = gap_s if gap_s > _PACE_S else 0.0
        self.samples.append(
            Sample(
                now_s,
                {node: gpus.limits_w() for node, gpus in self._gpus.items()},
                {node: gpus.answers() for node, gpus in self._gpus.items()},
                {node: self._starved[node].look(pids.get(node, []), own_s, passed_s) for node in self._gpus},
            )
        )
