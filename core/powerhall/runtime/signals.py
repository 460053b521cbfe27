"""Signals of long commands: stop on SIGTERM and SIGINT, read the settings again on SIGHUP.

Use both classes in the main thread, in a `with` block around everything that must not be cut short; the handlers that
were there before come back at its end.
"""

import ctypes
import os
import select
import signal
from collections.abc import Sequence
from types import FrameType
from typing import Final, Self

__all__ = ["ServiceSignals", "StopFlag", "end_with_parent"]

_PR_SET_PDEATHSIG: Final = 1
"""prctl(2): the signal that a process gets when its parent dies."""


class StopFlag:
    """A flag that a signal sets, for work that polls it, such as a solver. `flag()` reads it."""

    def __init__(
        self,
        stop_on: Sequence[signal.Signals] = (signal.SIGTERM, signal.SIGINT),
        reload_on: Sequence[signal.Signals] = (),
        ignore: Sequence[signal.Signals] = (),
    ) -> None:
        self.stopped = False
        self.reload = False
        """Set by a signal of `reload_on`; the caller clears it."""
        self._stop_on, self._reload_on, self._ignore = stop_on, reload_on, ignore
        self._before: dict[int, object] = {}

    def __call__(self) -> bool:
        """Return whether the command was asked to stop."""
        return self.stopped

    def __enter__(self) -> Self:
        """Install the handlers."""
        for number in (*self._stop_on, *self._reload_on):
            self._before[number] = signal.signal(number, self._note)
        for number in self._ignore:
            self._before[number] = signal.signal(number, signal.SIG_IGN)
        return self

    def __exit__(self, *_error: object) -> None:
        """Put back the handlers that were there before."""
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        self._before.clear()

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if number in self._reload_on:
            self.reload = True
        else:
            self.stopped = True


class ServiceSignals(StopFlag):
    """A StopFlag that also ends a wait at once, without the race between looking at the flag and going to sleep.

    `descriptor` becomes readable when a signal arrives; poll it beside others and call `drain`, or call `wait`.
    Not for a process that forks: a child would write into the same pipe.
    """

    def __enter__(self) -> Self:
        """Install the handlers and open the pipe that wakes a wait."""
        self.descriptor, self._write_end = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._wakeup_before = signal.set_wakeup_fd(self._write_end, warn_on_full_buffer=False)
        return super().__enter__()

    def __exit__(self, *error: object) -> None:
        """Put back what was there before and close the pipe."""
        super().__exit__(*error)
        signal.set_wakeup_fd(self._wakeup_before)
        os.close(self.descriptor)
        os.close(self._write_end)

    def wait(self, seconds: float) -> bool:
        """Wait this long, or until a signal arrives; return whether the command was asked to stop."""
        if not self.stopped:
            select.select([self.descriptor], [], [], max(0.0, seconds))
            self.drain()
        return self.stopped

    def drain(self) -> None:
        """Make `descriptor` wait for the next signal."""
        try:
            os.read(self.descriptor, 64)
        except BlockingIOError:
            return


def end_with_parent(number: signal.Signals) -> None:
    """Let the kernel send this process a signal when its parent dies, however that dies.

    Only a parent that dies after this call counts: compare os.getppid() with the expected parent afterwards.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(number), 0, 0, 0)
