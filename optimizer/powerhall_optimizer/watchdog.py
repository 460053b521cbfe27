"""A call in a child process that ends in time, whatever it does: a solver that hangs or dies costs only its result."""

import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import TypeVar

from powerhall.errors import PowerhallError

__all__ = ["guarded"]

T = TypeVar("T")
_POLL_S = 0.1


def _child(call: Callable[[], T], answer: Connection) -> None:
    try:
        answer.send((True, call()))
    except Exception as error:  # noqa: BLE001 - carried to the parent, which logs it
        answer.send((False, f"{type(error).__name__}: {error}"))
    finally:
        answer.close()
        os._exit(0)  # threads of a library must not keep the child


def guarded(call: Callable[[], T], deadline_s: float, grace_s: float, stop: Callable[[], bool]) -> T:
    """Return what `call` returns; PowerhallError when it fails, dies, or is not done `grace_s` after its deadline.

    The deadline is on the monotonic clock. A wish to stop is passed on as SIGTERM, and shortens the deadline to now.
    """
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(target=_child, args=(call, theirs), daemon=True)
    child.start()
    theirs.close()
    told = False
    try:
        while not ours.poll(_POLL_S):
            if stop() and not told and child.pid is not None:
                os.kill(child.pid, signal.SIGTERM)
                told, deadline_s = True, min(deadline_s, time.monotonic())
            if time.monotonic() > deadline_s + grace_s:
                raise PowerhallError(f"not done {grace_s:.0f} s after its deadline; ended")
        done, result = ours.recv()
    except EOFError:
        raise PowerhallError("died without an answer") from None
    finally:
        if child.is_alive():
            child.kill()
        child.join()
        ours.close()
    if not done:
        raise PowerhallError(str(result))
    value: T = result
    return value
