"""Memory that the start needed and the rest of the life does not."""

import ctypes
import gc

__all__ = ["trim_heap"]

_COLLECT_EVERY = 10_000
"""New objects between two collections: Python's 700 would make several a second, nearly all for nothing."""


def trim_heap() -> None:
    """Return free heap to the system (glibc): compiling modules without cached bytecode leaves megabytes behind."""
    gc.collect()
    gc.set_threshold(_COLLECT_EVERY, 10, 10)
    gc.freeze()  # what the start made lives as long as the process; later collections need not look at it
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
