"""Calls in a child process with a hard time limit, so that a solver that hangs or crashes loses only its result.

A call may send what it has so far; where it is not done in time, the last of these is its answer.
"""

import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from powerhall.runtime.errors import PowerhallError
from powerhall.runtime.signals import end_with_parent

__all__ = ["guarded"]

T = TypeVar("T")
_POLL_S = 0.1
_Limits = tuple[float, float, float]


def _alone(answer: Connection) -> None:
    """End with the parent and close its files, so that a killed round frees its lock and its store at once."""
    end_with_parent(signal.SIGKILL)
    keep = answer.fileno()
    most = os.sysconf("SC_OPEN_MAX")
    os.closerange(3, keep)
    os.closerange(keep + 1, most if most > 0 else 4096)


def _child(call: Callable[[Callable[[T], None]], T], answer: Connection) -> None:
    try:
        _alone(answer)
        answer.send((True, call(lambda part: answer.send((None, part)))))
    except Exception as error:  # noqa: BLE001 - carried to the parent, which logs it
        answer.send((False, f"{type(error).__name__}: {error}"))
    finally:
        answer.close()
        os._exit(0)  # threads of a library must not keep the child


def guarded(
    call: Callable[[Callable[[T], None]], T],
    *,
    deadline_s: float,
    grace_s: float,
    stop: Callable[[], bool],
    first_grace_s: float = 0.0,
) -> T:
    """Return what `call` returns, or what it sent last where it is not done `grace_s` after its deadline.

    PowerhallError when it fails, dies, or has sent nothing `first_grace_s` (at least `grace_s`) after its deadline;
    one answer alone is taken only then.
    `call` gets a function that sends an answer to fall back on. The deadline is on the monotonic clock. A request to
    stop is passed on as SIGTERM, and shortens it to now.
    """
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(target=_child, args=(call, theirs), daemon=True)
    child.start()
    theirs.close()
    try:
        done, result = _last_answer(ours, child.pid, (deadline_s, max(grace_s, first_grace_s), grace_s), stop)
    except EOFError:
        raise PowerhallError("died without an answer") from None
    finally:
        if child.is_alive():
            child.kill()
        child.join()
        ours.close()
    if done is False:
        raise PowerhallError(str(result))
    value: T = result
    return value


def _last_answer(
    ours: Connection, pid: int | None, limits: tuple[float, float, float], stop: Callable[[], bool]
) -> Any:  # noqa: ANN401 - what the call returns, as it came through the pipe
    """Return the final answer as (done, result), or the last one to fall back on where that fails or is late.

    The first one sent is a makeshift: a second is worth waiting for.

    `limits` are the deadline, and how much later the first answer and the next ones may come.
    """
    deadline_s, grace_s, next_grace_s = limits
    found: Any = None
    try:
        while (answer := _answer(ours, pid, deadline_s + grace_s, stop, grace_s))[0] is None:
            found, grace_s = answer, grace_s if found is None else next_grace_s
    except (PowerhallError, EOFError):
        if found is None:
            raise
        return found
    return answer if answer[0] or found is None else found


def _answer(ours: Connection, pid: int | None, end_s: float, stop: Callable[[], bool], grace_s: float) -> Any:  # noqa: ANN401 - what the call returns, as it came through the pipe
    told = False
    while not ours.poll(max(0.0, min(_POLL_S, end_s - time.monotonic()))):
        if stop() and not told and pid is not None:
            os.kill(pid, signal.SIGTERM)
            told, end_s = True, min(end_s, time.monotonic() + grace_s)
        if time.monotonic() > end_s:
            raise PowerhallError(f"not done {grace_s:.0f} s after its deadline; ended")
    return ours.recv()
