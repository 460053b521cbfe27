"""Decorators that compile numerical kernels with numba, typed so that mypy still checks the calls.

A kernel runs without Python's global lock, so that threads share the work. Its machine code is cached on disk, keyed by
the kernel's own file: after a change of a kernel that another module calls, delete the cached code (`__pycache__`, or
the folder NUMBA_CACHE_DIR), or the caller keeps running the old version that was inlined into it.
"""

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, cast

import numba

__all__ = ["fast_inner_kernel", "inner_kernel", "kernel"]

P = ParamSpec("P")
R = TypeVar("R")
_INNER: dict[str, Any] = {"nogil": True, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}


def kernel(function: Callable[P, R]) -> Callable[P, R]:
    """Compile a function; floating-point operations keep the order in which they are written."""
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
