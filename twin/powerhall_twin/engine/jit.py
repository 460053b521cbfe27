"""Decorators that compile the engine's kernels with numba, typed so that mypy still checks the calls.

Machine code is cached in a folder named after the content of all kernel modules, so that a changed kernel that was
inlined into an unchanged one is compiled anew: in NUMBA_CACHE_DIR, beside this file, or in the user's cache.
"""

import hashlib
import os
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, cast

import numba

__all__ = ["cache_folder", "inlined_kernel", "inner_kernel", "kernel"]

P = ParamSpec("P")
R = TypeVar("R")
_KERNEL_SOURCES = (
    "columns",
    "hall_power",
    "job_arrays",
    "meter",
    "node_search",
    "occupancy",
    "plant_curves",
    "queue_passes",
    "reservations",
    "site_arrays",
)
"""Modules with kernels, or with the tuples that they take."""
_OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy"}
_INNER: dict[str, Any] = _OPTIONS | {"no_cpython_wrapper": True, "no_cfunc_wrapper": True, "_nrt": False}
"""Inner kernels borrow their arrays. With counted references every call would count those of all arrays of a `World`,
which took most of the time; without, they cannot make arrays, and numba refuses to compile one that does."""


@cache
def cache_folder() -> Path:
    """Return the folder of the machine code of this version."""
    here = Path(__file__).parent
    digest = hashlib.sha256()
    for name in _KERNEL_SOURCES:
        digest.update((here / f"{name}.py").read_bytes())
    folder_name = f"engine-{digest.hexdigest()[:16]}"
    named = os.environ.get("NUMBA_CACHE_DIR")
    users = os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()
    for folder in [*([Path(named)] if named else []), here / "__pycache__", Path(users, "powerhall")]:
        try:
            (folder / folder_name).mkdir(parents=True, exist_ok=True)
        except OSError:
            continue
        if os.access(folder / folder_name, os.W_OK):
            return folder / folder_name
    return Path(tempfile.mkdtemp(prefix="powerhall-"))


def kernel(function: Callable[P, R]) -> Callable[P, R]:
    """Compile a function; floating-point operations keep the order in which they are written."""
    settings = vars(numba.config)  # its attributes are made at run time, unseen by type checkers
    before = settings["CACHE_DIR"]
    settings["CACHE_DIR"] = str(cache_folder())
    try:
        return cast("Callable[P, R]", numba.njit(cache=True, **_OPTIONS)(function))
    finally:
        settings["CACHE_DIR"] = before


def inlined_kernel(function: Callable[P, R]) -> Callable[P, R]:
    """Compile like `inner_kernel`, into each caller: passing the arrays of a site costs more than a small loop."""
    return cast("Callable[P, R]", numba.njit(forceinline=True, **_INNER)(function))


def inner_kernel(function: Callable[P, R]) -> Callable[P, R]:
    """Compile a function that only other kernels call; a direct call from Python ends the process."""
    return cast("Callable[P, R]", numba.njit(**_INNER)(function))
