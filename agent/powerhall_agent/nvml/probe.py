"""A reading with alternatives for older drivers: the first that works is kept."""

from collections.abc import Callable
from typing import Generic, TypeVar

import pynvml

from powerhall_agent.nvml.call_start import note_call_start
from powerhall_agent.nvml.codes import Action, action

__all__ = ["Probe"]

T = TypeVar("T")


class Probe(Generic[T]):
    """Tries alternatives in order until one works in this driver session; None where none does.

    An alternative that has worked is kept, even when it answers "not supported" later. Errors that mean the GPU or the
    driver is gone are raised as NVMLError.
    """

    __slots__ = ("_ways", "_worked")

    def __init__(self, *ways: Callable[[], T]) -> None:
        """Take the alternatives, best first."""
        self._ways = list(ways)
        self._worked = False

    def read(self) -> T | None:
        """Return the reading, or None when there is none now."""
        while self._ways:
            note_call_start()
            try:
                value = self._ways[0]()
            except pynvml.NVMLError as error:
                todo = action(error.value)
                if todo is Action.UNSUPPORTED:
                    if self._worked:
                        return None
                    self._ways.pop(0)
                    continue
                if todo in {Action.NO_SAMPLE, Action.NO_PERMISSION}:
                    return None
                raise
            self._worked = True
            return value
        return None
