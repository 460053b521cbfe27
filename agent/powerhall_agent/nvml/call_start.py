"""Start time of the current driver call of each thread, so that a watcher can detect a hung call."""

import threading
import time

__all__ = ["CallStart", "call_start", "note_call_start", "track_calls"]

_local = threading.local()


class CallStart:
    """Start of the latest driver call of a thread, by the monotonic clock."""

    __slots__ = ("call_ns",)

    def __init__(self) -> None:
        self.call_ns = 0


_NOBODY = CallStart()


def track_calls(watched: CallStart) -> None:
    """Record the calls of this thread in `watched` from now on."""
    _local.call_start = watched


def call_start() -> CallStart:
    """Return the record of this thread; a caller that makes several calls in a row sets `call_ns` before each."""
    found: CallStart = getattr(_local, "call_start", _NOBODY)
    return found


def note_call_start() -> None:
    """Record that this thread begins a driver call."""
    call_start().call_ns = time.monotonic_ns()
