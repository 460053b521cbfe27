"""Decorators that compile numerical kernels with numba, typed so that mypy still checks the calls.

A kernel runs without Python's global lock, so that threads share the work. Its machine code is cached on disk, in a
folder named after the content of all kernel modules: numba itself looks at the kernel's own file only, and would go on
running the old version of a changed kernel that was inlined into an unchanged one. The folder lies in NUMBA_CACHE_DIR,
or beside this file; where neither can be written, numba's own choice of a folder holds.
"""

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, cast

import numba

__all__ = ["KERNEL_SOURCES", "fast_inner_kernel", "inner_kernel", "kernel"]

P = ParamSpec("P")
R = TypeVar("R")
KERNEL_SOURCES = ("jit.py", "solve/kernels/*.py", "storage/best_response.py", "rcpsp/*.py")
"""Modules with kernels, as patterns below this package."""
_INNER: dict[str, Any] = {"nogil": True, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}


@cache
def _cache_folder() -> Path:
    package = Path(__file__).parent
    digest = hashlib.sha256()
    for path in sorted(path for pattern in KERNEL_SOURCES for path in package.glob(pattern)):
        digest.update(path.read_bytes())
    base = os.environ.get("NUMBA_CACHE_DIR")
    return Path(base or package / "__pycache__") / f"kernels-{digest.hexdigest()[:16]}"


@contextmanager
def _cached() -> Iterator[None]:
    """Let numba cache what is decorated within in this version's folder."""
    settings = vars(numba.config)  # its attributes are made at run time, unseen by type checkers
    before = settings["CACHE_DIR"]
    settings["CACHE_DIR"] = str(_cache_folder())
    try:
        yield
    finally:
        settings["CACHE_DIR"] = before


def kernel(function: Callable[P, R]) -> Callable[P, R]:
    """Compile a function; floating-point operations keep the order in which they are written."""
    with _cached():
        return cast("Callable[P, R]", numba.njit(cache=True, nogil=True)(function))


def inner_kernel(function: Callable[P, R]) -> Callable[P, R]:
    """Compile a function that only other kernels call; to call it from Python, use its `py_func`.

    It has no compiled entry from Python, whose unpacking of named tuples would take a fifth of the compile time: a
    direct call ends the process. It is cached as part of its callers.
    """
    return cast("Callable[P, R]", numba.njit(**_INNER)(function))


def fast_inner_kernel(function: Callable[P, R]) -> Callable[P, R]:
    """Compile like `inner_kernel`; floating-point operations may be reordered, so that a maximum runs on vectors."""
    return cast("Callable[P, R]", numba.njit(fastmath=True, **_INNER)(function))
