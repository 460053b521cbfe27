"""One input at one entry point: what went wrong, how long it took and how much memory."""

import re
import signal
import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from registry import Entry

from powerhall.runtime.errors import PowerhallError

__all__ = ["Limits", "Seen", "attempt"]


@dataclass(frozen=True)
class Limits:
    """What one input may take: time on the clock, and memory above that of the process before it."""

    time_s: float = 20.0
    memory_mib: float = 512.0
    address_mib: float = 4096.0
    """Hard end of what a process may map, above its own at the start, so that a finding does not fill the machine."""


@dataclass(frozen=True)
class Seen:
    """`problem` is "" for an input that was read, "refused", or what went wrong."""

    problem: str
    cpu_s: float
    memory_mib: float


class Slow(BaseException):
    """An input took longer than its time."""


def attempt(entry: Entry, folder: Path, body: bytes, limits: Limits) -> Seen:
    """Read the input, and look at the clock and at the highest memory since its begin."""
    before_mib = _memory_mib("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    began_s = time.process_time()
    problem = _read(entry, folder, body, limits.time_s)
    cpu_s = time.process_time() - began_s
    memory_mib = max(0.0, _memory_mib("VmHWM") - before_mib)
    if memory_mib > limits.memory_mib:
        problem = f"more than {limits.memory_mib:.0f} MiB; {problem or 'read'}"
    return Seen(problem, cpu_s, memory_mib)


def _memory_mib(kind: str) -> float:
    found = re.search(rf"{kind}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) / 1024


def _slow(*_: object) -> None:
    raise Slow


def _read(entry: Entry, folder: Path, body: bytes, limit_s: float) -> str:
    signal.signal(signal.SIGALRM, _slow)
    signal.setitimer(signal.ITIMER_REAL, limit_s)
    try:
        entry.read(folder, body)
    except PowerhallError as error:
        line = str(error)
        return "refused" if line and "\n" not in line and len(line) <= 2000 else f"not one line: {line[:200]!r}"
    except Slow:
        return f"slower than {limit_s} s: {_place(sys.exc_info()[2])}"
    except BaseException as error:  # noqa: BLE001 - whatever it is, it is the finding
        said = str(error)
        if "Traceback" in said:  # of a command
            return " | ".join(said.replace("\\n", "\n").strip().splitlines()[-3:])[-300:]
        return f"{type(error).__name__}: {said[:120]} at {_place(error.__traceback__)}"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
    return ""


def _place(trace: TracebackType | None) -> str:
    steps = [step for step in traceback.extract_tb(trace) if step.filename != __file__]
    ours = [step for step in steps if "/powerhall" in step.filename] or steps
    return f"{Path(ours[-1].filename).name}:{ours[-1].lineno}"
