"""Says, on the thread that makes driver calls, that a call begins: so that a watcher can tell slow from hung."""

import threading
from collections.abc import Callable

__all__ = ["call_begins", "on_call"]

_local = threading.local()


def on_call(notify: Callable[[], None]) -> None:
    """Let `notify` be called before every driver call that this thread makes from now on."""
    _local.notify = notify


def call_begins() -> None:
    """Tell this thread's watcher, if it has one, that a driver call begins."""
    notify: Callable[[], None] | None = getattr(_local, "notify", None)
    if notify is not None:
        notify()
