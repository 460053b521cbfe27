"""Calls in a child process with a hard time limit, so that a solver that hangs or crashes loses only its result.

The child first prepares (compiles, on a fresh installation), with a time limit of its own; the deadline moves by the
time that this took.
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
_PREPARE_LIMIT_S = 400.0


def _alone(answer: Connection) -> None:
    """End with the parent and close its files, so that a killed round frees its lock and its store at once."""
    end_with_parent(signal.SIGKILL)
    keep = answer.fileno()
    most = os.sysconf("SC_OPEN_MAX")
    os.closerange(3, keep)
    os.closerange(keep + 1, most if most > 0 else 4096)


def _child(prepare: Callable[[], None], call: Callable[[float], T], answer: Connection) -> None:
    try:
        _alone(answer)
        began = time.monotonic()
        prepare()
        late_s = time.monotonic() - began
        answer.send(late_s)
        answer.send((True, call(late_s)))
    except Exception as error:  # noqa: BLE001 - carried to the parent, which logs it
        answer.send((False, f"{type(error).__name__}: {error}"))
    finally:
        answer.close()
        os._exit(0)  # threads of a library must not keep the child


def guarded(
    prepare: Callable[[], None],
    call: Callable[[float], T],
    *,
    deadline_s: float,
    grace_s: float,
    stop: Callable[[], bool],
) -> T:
    """Return what `call` returns; PowerhallError when it fails, dies, or is not done `grace_s` after its deadline.

    `call` gets the seconds that `prepare` took, by which the deadline (on the monotonic clock) has moved. A request to
    stop is passed on as SIGTERM, and shortens the deadline to now.
    """
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(target=_child, args=(prepare, call, theirs), daemon=True)
    child.start()
    theirs.close()
    try:
        first = _answer(ours, child.pid, time.monotonic() + _PREPARE_LIMIT_S, stop)
        if isinstance(first, float):  # ready; a failure to get ready comes as (False, text)
            first = _answer(ours, child.pid, deadline_s + first + grace_s, stop, grace_s)
    except EOFError:
        raise PowerhallError("died without an answer") from None
    finally:
        if child.is_alive():
            child.kill()
        child.join()
        ours.close()
    done, result = first
    if not done:
        raise PowerhallError(str(result))
    value: T = result
    return value


def _answer(ours: Connection, pid: int | None, end_s: float, stop: Callable[[], bool], grace_s: float = 0.0) -> Any:  # noqa: ANN401 - what the call returns, as it came through the pipe
    told = False
    while not ours.poll(_POLL_S):
        if stop() and not told and pid is not None:
            os.kill(pid, signal.SIGTERM)
            told, end_s = True, min(end_s, time.monotonic() + grace_s)
        if time.monotonic() > end_s:
            raise PowerhallError(f"not done {grace_s:.0f} s after its deadline; ended")
    return ours.recv()
