"""Compile the solver before a round's time begins, where no round has done so on this machine."""

import time
from collections.abc import Callable

from powerhall.runtime.errors import PowerhallError
from powerhall.runtime.log import Log
from powerhall_optimizer.solve.child_process import guarded

__all__ = ["compile_all", "compile_when_cold"]

_MOST_S = 600.0


def compile_all() -> None:
    """Compile every kernel that a round may use, and note in the cache that this is done."""
    from powerhall_optimizer.jit import cache_state
    from powerhall_optimizer.solve.jit_warmup import compile_solver
    from powerhall_optimizer.storage.best_response import compile_best_response

    compile_solver()
    compile_best_response()
    cache_state().mark_warm()


def _load(log: Log) -> None:
    """Load the kernels before the solver's process is forked; a fault is left to the solver."""
    from powerhall_optimizer.solve.jit_warmup import compile_solver

    try:
        compile_solver()
    except Exception as error:  # noqa: BLE001 - the plan falls back to what needs no kernels
        log.error("stage_failed", stage="load", reason=error)


def compile_when_cold(log: Log, stop: Callable[[], bool]) -> float:
    """Compile where the cache is cold, in a child process; return the seconds that it took, 0 for a warm cache."""
    try:
        from powerhall_optimizer.jit import cache_state
    except ImportError:  # the plan falls back to what needs no kernels
        return 0.0
    state = cache_state()
    if state.warm:
        _load(log)
        return 0.0
    began = time.monotonic()
    log.warning("compiling", cache=str(state.folder), hint="once per installation; powerhall-optimizer warm-up does it")
    try:
        guarded(lambda _send: compile_all(), deadline_s=began + _MOST_S, grace_s=0.0, stop=stop)
    except (PowerhallError, OSError) as error:
        log.error("stage_failed", stage="compile", reason=error)
    _load(log)
    took_s = time.monotonic() - began
    log.info("compiled", seconds=took_s)
    return took_s
