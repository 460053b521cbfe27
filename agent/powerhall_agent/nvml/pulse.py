"""Keeps, for the thread that makes driver calls, when its current call began: a watcher can tell slow from hung."""

import threading
import time

__all__ = ["Pulse", "call_begins", "on_call", "pulse"]

_local = threading.local()


class Pulse:
    """When the latest driver call of a thread began, by the monotonic clock."""

    __slots__ = ("call_ns",)

    def __init__(self) -> None:
        self.call_ns = 0


_NOBODY = Pulse()


def on_call(watched: Pulse) -> None:
    """Keep the calls that this thread makes from now on in `watched`."""
    _local.pulse = watched


def pulse() -> Pulse:
    """Return this thread's pulse; whoever makes several calls in a row sets its `call_ns` before each."""
    found: Pulse = getattr(_local, "pulse", _NOBODY)
    return found


def call_begins() -> None:
    """Note that this thread begins a driver call."""
    pulse().call_ns = time.monotonic_ns()
