"""Keeps, for the thread that makes driver calls, when its current call began: a watcher can tell slow from hung."""

import threading
import time

__all__ = ["CallStart", "call_start", "note_call_start", "track_calls"]

_local = threading.local()


class CallStart:
    """When the latest driver call of a thread began, by the monotonic clock."""

    __slots__ = ("call_ns",)

    def __init__(self) -> None:
        self.call_ns = 0


_NOBODY = CallStart()


def track_calls(watched: CallStart) -> None:
    """Keep the calls that this thread makes from now on in `watched`."""
    _local.call_start = watched


def call_start() -> CallStart:
    """Return this thread's call_start; whoever makes several calls in a row sets its `call_ns` before each."""
    found: CallStart = getattr(_local, "call_start", _NOBODY)
    return found


def note_call_start() -> None:
    """Note that this thread begins a driver call."""
    call_start().call_ns = time.monotonic_ns()
