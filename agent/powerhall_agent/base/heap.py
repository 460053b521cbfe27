"""Trims the heap once start-up is complete."""

import ctypes
import gc

__all__ = ["trim_heap"]

_COLLECT_EVERY = 10_000
"""New objects between two collections; Python's default of 700 means several a second that free almost nothing."""


def trim_heap() -> None:
    """Return free heap to the system (glibc): compiling modules without cached bytecode leaves megabytes behind."""
    gc.collect()
    gc.set_threshold(_COLLECT_EVERY, 10, 10)
    gc.freeze()  # objects made so far live as long as the process; later collections skip them
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
