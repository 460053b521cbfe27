"""Decorators that compile numerical kernels with numba, typed so that mypy still checks the calls.

A kernel runs without Python's global lock, so that threads share the work. Its machine code is cached on disk, in a
folder named after the content of all kernel modules: numba itself looks at the kernel's own file only, and would go on
running the old version of a changed kernel that was inlined into an unchanged one. The folder lies in NUMBA_CACHE_DIR,
or beside this file, or, where that cannot be written, in the user's cache. A new folder begins as a copy of what was
compiled at installation. numba compiles anew for another version of itself and for another CPU.
"""

import hashlib
import os
import platform
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, cast

import llvmlite.binding
import numba

__all__ = ["KERNEL_SOURCES", "CacheState", "cache_state", "fast_inner_kernel", "inner_kernel", "kernel"]

P = ParamSpec("P")
R = TypeVar("R")
KERNEL_SOURCES = ("jit.py", "problem/meter.py", "solve/kernels/*.py", "storage/best_response.py", "rcpsp/*.py")
"""Modules with kernels, as patterns below this package."""
_INNER: dict[str, Any] = {"nogil": True, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}


@cache
def _cache_folder() -> Path:
    package = Path(__file__).parent
    digest = hashlib.sha256()
    for path in sorted(path for pattern in KERNEL_SOURCES for path in package.glob(pattern)):
        digest.update(path.read_bytes())
    name = f"kernels-{digest.hexdigest()[:16]}"
    installed = package / "__pycache__" / name
    named = os.environ.get("NUMBA_CACHE_DIR")
    users = os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()
    for folder in [*([Path(named, name)] if named else []), installed, Path(users, "powerhall", name)]:
        if _prepared(folder, installed):
            return folder
    return Path(tempfile.mkdtemp(prefix="powerhall-"), name)  # of this process alone: cached code is trusted


def _prepared(folder: Path, installed: Path) -> bool:
    """Make the folder, a new one as a copy of the installed one; False where it cannot be written."""
    try:
        if not folder.exists() and installed != folder and installed.is_dir():
            part = folder.with_name(f"{folder.name}.{os.getpid()}")
            shutil.copytree(installed, part)
            part.replace(folder)
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return folder.is_dir() and os.access(folder, os.W_OK)
    return os.access(folder, os.W_OK)


@dataclass(frozen=True, slots=True)
class CacheState:
    """The folder with the machine code of this version, and the file that says that all of it was compiled here."""

    folder: Path
    mark: Path

    @property
    def warm(self) -> bool:
        """All kernels were compiled for this CPU and these versions."""
        return self.mark.exists()

    def mark_warm(self) -> None:
        """Remember that all kernels are compiled."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.mark.touch()
        except OSError:
            return


def cache_state(folder: Path | None = None) -> CacheState:
    """Return the state of the optimizer's cache, or of another folder, for this CPU, Python and numba."""
    cpu = f"{platform.python_version()} {numba.__version__} {llvmlite.binding.get_host_cpu_name()}"
    cpu += f" {llvmlite.binding.get_host_cpu_features().flatten()}"
    folder = folder or _cache_folder()
    return CacheState(folder, folder / f"compiled-{hashlib.sha256(cpu.encode()).hexdigest()[:16]}")


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
