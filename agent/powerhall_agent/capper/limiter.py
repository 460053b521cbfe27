"""Sets and reads back the caps of the GPUs of this node through NVML, each GPU in a thread of its own.

Reading returns what the workers saw last and never waits; setting waits a short time for GPUs that are slow and not at
all for GPUs that hang. Limits do not survive a driver reload, after which only a new process can use the driver:
`DriverGone` ends the capper and systemd starts it anew. The same holds for a GPU that is added to a running host.
"""

import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Protocol

import pynvml

from powerhall.lease import GpuCap
from powerhall.runtime.errors import PowerhallError
from powerhall_agent.capper.gpu_calls import Range
from powerhall_agent.capper.gpu_worker import GpuWorker

__all__ = ["CapsNotHeld", "DriverGone", "Limiter", "NvmlLimiter", "Range"]

_CALL_LIMIT_S: Final = 0.5
_FIRST_LOOK_S: Final = 1.0
_INIT_LIMIT_S: Final = 8.0
_PROC_GPUS: Final = Path("/proc/driver/nvidia/gpus")


class DriverGone(PowerhallError):  # noqa: N818 - says what happened
    """The driver does not answer, or the one that this process had opened is no longer loaded."""


class CapsNotHeld(PowerhallError):  # noqa: N818 - says what happened
    """The GPUs `failed` do not hold their caps; of these, the GPUs `above` answer and may draw more than they should.

    `not_allowed` is true where the driver forbids this user to set them.
    """

    def __init__(
        self,
        text: str,
        *,
        not_allowed: bool = False,
        failed: frozenset[int] = frozenset(),
        above: frozenset[int] = frozenset(),
    ) -> None:
        super().__init__(text)
        self.not_allowed = not_allowed
        self.failed, self.above = failed, above


class Limiter(Protocol):
    """Sets and reads the caps of the GPUs of a node."""

    def ranges(self) -> dict[int, Range]:
        """Return the accepted range per GPU number; a GPU that does not answer is left out."""

    def read(self) -> tuple[GpuCap, ...]:
        """Return the caps in force; a GPU that does not answer is left out."""

    def clocks_mhz(self, gpus: Sequence[int]) -> dict[int, float]:
        """Return the SM clock of these GPUs; one that does not answer is left out."""

    def apply(self, caps: tuple[GpuCap, ...]) -> None:
        """Set caps and read them back; raises CapsNotHeld naming the GPUs that do not hold theirs."""


class NvmlLimiter:
    """The GPUs that the driver lists; simulated ones where the library has been replaced."""

    def __init__(self) -> None:
        """Open the driver and look at every GPU once; raises DriverGone where the driver does not answer."""
        self._gone = ""
        self._workers = [GpuWorker(index, self._note_gone) for index in range(_open_driver())]
        self._bus_ids = _bus_ids()
        until_s = time.monotonic() + _FIRST_LOOK_S
        for worker in self._workers:
            worker.wait_for_look(until_s)

    def ranges(self) -> dict[int, Range]:
        """Return the accepted range per GPU number; a GPU that does not answer is left out."""
        answers = ((worker.index, worker.answer) for worker in self._workers)
        return {index: answer.span for index, answer in answers if answer is not None}

    def read(self) -> tuple[GpuCap, ...]:
        """Return the requested power limits; NVML has no way to read a clock lock back. May raise DriverGone."""
        if not self._gone and not _bus_ids() <= self._bus_ids:
            self._gone = "a GPU was added: a new process takes it in"
        if self._gone:
            raise DriverGone(self._gone)
        answers = ((worker.index, worker.answer) for worker in self._workers)
        return tuple(GpuCap(index, answer.limit_w) for index, answer in answers if answer is not None)

    def clocks_mhz(self, gpus: Sequence[int]) -> dict[int, float]:
        """Return the SM clock of these GPUs as seen last; one that was not asked for is left out."""
        answers = ((worker.index, worker.answer) for worker in self._workers if worker.index in gpus)
        return {index: answer.clock_mhz for index, answer in answers if answer and answer.clock_mhz is not None}

    def apply(self, caps: tuple[GpuCap, ...]) -> None:
        """Set each cap and read it back; a GPU that fails does not stop the others, and gets it when it answers."""
        until_s = time.monotonic() + _CALL_LIMIT_S
        failed: dict[int, str] = {}
        asked: list[tuple[GpuWorker, int]] = []
        for cap in caps:
            if cap.gpu < len(self._workers):
                worker = self._workers[cap.gpu]
                asked.append((worker, worker.ask(cap)))
            else:
                failed[cap.gpu] = "not there"
        above, not_allowed = set(), False
        for worker, number in asked:
            outcome = worker.wait(number, until_s, _CALL_LIMIT_S)
            if outcome.text:
                failed[worker.index] = outcome.text
                not_allowed |= outcome.not_allowed
            if outcome.is_above:
                above.add(worker.index)
        if failed:
            text = "caps not held: " + "; ".join(f"GPU {gpu}: {failed[gpu]}" for gpu in sorted(failed))
            raise CapsNotHeld(text, not_allowed=not_allowed, failed=frozenset(failed), above=frozenset(above))

    def close(self) -> None:
        """Leave the GPUs as they are: nothing is set or looked at any more."""
        for worker in self._workers:
            worker.close()

    @property
    def count(self) -> int:
        """The number of GPUs that the driver lists, whether they answer or not."""
        return len(self._workers)

    def troubles(self) -> dict[int, str]:
        """Return why GPUs do not answer, by number."""
        return {worker.index: worker.trouble for worker in self._workers if worker.trouble}

    def _note_gone(self, text: str) -> None:
        self._gone = text


def _open_driver() -> int:
    """Initialise NVML, in a thread because that may block too, and return the number of GPUs."""
    counts: list[int] = []
    errors: list[str] = ["does not answer: its initialisation does not return"]

    def start() -> None:
        try:
            pynvml.nvmlInit()
            counts.append(int(pynvml.nvmlDeviceGetCount()))
        except pynvml.NVMLError as error:
            errors.append(str(error))

    thread = threading.Thread(target=start, name="nvml-init", daemon=True)
    thread.start()
    thread.join(_INIT_LIMIT_S)
    if not counts:
        raise DriverGone(f"driver: {errors[-1]}")
    return counts[0]


def _bus_ids() -> frozenset[str]:
    """Return the PCI addresses of the GPUs that the kernel driver has."""
    try:
        return frozenset(path.name for path in _PROC_GPUS.iterdir())
    except OSError:
        return frozenset()
