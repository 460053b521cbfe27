"""A one-shot timer that wakes one waiting thread only when it expires.

Linux' timerfd: setting and clearing are single system calls, and the waiting thread sleeps in `read` until the timer
expires. A condition with a timeout would wake its thread at every setting.
"""

import ctypes
import functools
import os
from typing import Final

__all__ = ["TimerFd"]

_CLOCK_MONOTONIC: Final = 1
_CLOEXEC: Final = os.O_CLOEXEC
_NS: Final = 1_000_000_000


class TimerFd:
    """One timer and its waiter."""

    def __init__(self, usual_ns: int) -> None:
        """Make the timer, cleared; raises OSError where the kernel has none."""
        libc = ctypes.CDLL(None, use_errno=True)
        self._settime = libc.timerfd_settime
        self._file: int = libc.timerfd_create(_CLOCK_MONOTONIC, _CLOEXEC)
        if self._file < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        self.set_usual = functools.partial(self._settime, self._file, 0, _spec(usual_ns), None)
        """Expire after the usual time from now."""
        self.clear = functools.partial(self._settime, self._file, 0, _spec(0), None)
        """Do not expire."""

    def set(self, after_ns: int) -> None:
        """Expire after this many nanoseconds from now, in place of the earlier setting."""
        self._settime(self._file, 0, _spec(max(1, after_ns)), None)

    def wait(self) -> None:
        """Sleep until the timer has expired."""
        os.read(self._file, 8)

    def close(self) -> None:
        """Free the timer; no thread may be waiting."""
        os.close(self._file)


def _spec(after_ns: int) -> "ctypes.Array[ctypes.c_int64]":
    """Make a struct itimerspec: interval s and ns, value s and ns."""
    return (ctypes.c_int64 * 4)(0, 0, *divmod(after_ns, _NS))
