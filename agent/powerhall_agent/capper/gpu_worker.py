"""One thread per GPU: it alone calls NVML for that GPU, so that a call that blocks or fails costs this GPU alone.

The worker brings its GPU to the caps that were asked for last, whenever it can: a GPU that was lost or hung when they
were asked for gets them as soon as it answers. A GPU with another UUID in the same place gets nothing until the capper
has seen it and asks anew.
"""

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

import pynvml

from powerhall.lease import GpuCap
from powerhall_agent.capper.gpu_calls import TOLERANCE_W, GpuLook, LimitNotHeld, look, open_gpu, set_caps
from powerhall_agent.nvml.codes import Action, action, reason

__all__ = ["GpuWorker", "Outcome"]

LOOK_S: Final = 0.4
"""Seconds between looks at a GPU: what comes back, changes or was changed is seen within this."""
STALE_S: Final = 3.0
"""A GPU whose latest answer is older than this does not answer."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The end of an attempt to set caps; `text` is "" where they hold.

    `answers` is false where the GPU could not be reached; `is_above` is true where it answers and draws, or may draw,
    more than was asked for.
    """

    text: str = ""
    answers: bool = True
    is_above: bool = False
    not_allowed: bool = False


@dataclass(frozen=True, slots=True)
class _Seen:
    answer: GpuLook
    at_s: float


class GpuWorker:
    """Looks at one GPU and sets its caps; every method returns at once, but for `wait`, which has a deadline."""

    def __init__(self, index: int, driver_gone: Callable[[str], None]) -> None:
        """`driver_gone` is called with the reason when the driver itself is no longer there."""
        self.index = index
        self._driver_gone = driver_gone
        self._changed = threading.Condition()
        self._wanted: GpuCap | None = None
        self._asked = self._done = 0
        self._outcome = Outcome()
        self._is_held = True
        self._seen: _Seen | None = None
        self._looks = 0
        self._busy_since_s: float | None = None
        self._handle: Any = None
        self._uuid = ""
        self._is_closed = False
        self.error = ""
        """Why the GPU does not answer; "" while it does."""
        threading.Thread(target=self._run, name=f"gpu-{index}", daemon=True).start()

    def ask(self, cap: GpuCap) -> int:
        """Ask for caps; they stay asked for until the next call. Returns the number to wait for.

        Asking again for the same caps makes no new attempt (the worker tries again by itself), unless the GPU strayed.
        """
        with self._changed:
            if cap != self._wanted or self._has_strayed():
                self._wanted, self._asked, self._is_held = cap, self._asked + 1, False
                self._changed.notify_all()
            return self._asked

    def wait(self, number: int, until_s: float, stuck_s: float) -> Outcome:
        """Return how an attempt ended; waits until `until_s` (monotonic), or until the GPU is stuck for so long."""
        with self._changed:
            while self._done < number:
                left_s = min(until_s, (self._busy_since_s or math.inf) + stuck_s) - time.monotonic()
                if left_s <= 0.0:
                    break
                self._changed.wait(left_s)
            if self._done >= number:
                return self._outcome
        return Outcome("does not answer in time", answers=False)

    def close(self) -> None:
        """End the thread at its next turn; the GPU keeps what it has."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    def wait_for_look(self, until_s: float) -> None:
        """Wait until the GPU was looked at once, with or without success."""
        with self._changed:
            self._changed.wait_for(lambda: self._looks > 0, max(0.0, until_s - time.monotonic()))

    @property
    def answer(self) -> GpuLook | None:
        """The latest look at the GPU; None while it does not answer."""
        seen = self._seen
        return seen.answer if seen is not None and time.monotonic() - seen.at_s <= STALE_S else None

    @property
    def trouble(self) -> str:
        """Why the GPU does not answer, or "" while it does."""
        if self.error:
            return self.error
        return "" if self.answer is not None else "hung: a call does not return"

    def _has_strayed(self) -> bool:
        """Return whether caps that were held may have been changed by somebody else."""
        if not self._is_held or self._wanted is None or self._seen is None:
            return False
        limit_w = self._wanted.power_limit_w
        strays = limit_w is not None and abs(self._seen.answer.limit_w - limit_w) > TOLERANCE_W
        return strays or self._wanted.sm_clock_mhz is not None

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._asked > self._done or self._is_closed, LOOK_S)
                if self._is_closed:
                    return
                wanted, number = self._wanted, self._asked
                self._busy_since_s = time.monotonic()
            outcome = self._turn(wanted)
            with self._changed:
                self._busy_since_s = None
                self._looks += 1
                if outcome is None and number > self._done:
                    outcome = Outcome("another GPU has taken its place", answers=False)
                if outcome is not None:
                    self._outcome = outcome
                    self._is_held = not outcome.text and number == self._asked
                self._done = number
                self._changed.notify_all()

    def _turn(self, wanted: GpuCap | None) -> Outcome | None:
        """Set the GPU's caps where they are not held yet, and look at it; None where there was nothing to set."""
        try:
            if self._handle is not None and self._uuid and wanted is not None and not self._is_held:
                outcome = self._set(wanted)
                if not outcome.text:
                    return outcome
            self._look(wanted)
            if wanted is None or self._wanted is None or self._is_held:
                return None
            return self._set(wanted)
        except pynvml.NVMLError as error:
            return self._lost(error)
        except Exception as error:  # noqa: BLE001 - nothing that one GPU answers may end its worker
            return self._gone(f"unexpected answer: {error!r}")

    def _look(self, wanted: GpuCap | None) -> None:
        if self._handle is None:
            self._handle = open_gpu(self.index)
            self._is_held = wanted is None
        answer = look(self._handle, with_clock=wanted is not None and wanted.sm_clock_mhz is not None)
        if self._uuid not in {"", answer.span.uuid}:
            with self._changed:
                self._wanted, self._is_held = None, True
        self._uuid = answer.span.uuid
        self._seen, self.error = _Seen(answer, time.monotonic()), ""

    def _set(self, wanted: GpuCap) -> Outcome:
        outcome = Outcome()
        try:
            held_w = set_caps(self._handle, wanted.power_limit_w, wanted.sm_clock_mhz)
        except pynvml.NVMLError as error:
            return self._refused(error, wanted)
        except LimitNotHeld as error:
            held_w = error.held_w
            outcome = Outcome(str(error), is_above=held_w > (wanted.power_limit_w or 0.0))
        if self._seen is not None:
            self._seen = _Seen(replace(self._seen.answer, limit_w=held_w), time.monotonic())
        return outcome

    def _lost(self, error: pynvml.NVMLError) -> Outcome:
        if action(error.value) in {Action.REINIT, Action.RESPAWN}:
            self._driver_gone(str(error))
        return self._gone(f"{reason(error.value)}: {error}")

    def _gone(self, text: str) -> Outcome:
        """The GPU does not answer: it is opened anew at the next look, and its caps are set again then."""
        self._handle, self._seen, self.error, self._is_held = None, None, text, False
        return Outcome(text, answers=False)

    def _refused(self, error: pynvml.NVMLError, wanted: GpuCap) -> Outcome:
        """A setter failed: the GPU answers and may hold too much, or it is gone since the look."""
        todo = action(error.value)
        if todo in {Action.REINIT, Action.RESPAWN, Action.QUARANTINE}:
            return self._lost(error)
        limit_w = self._seen.answer.limit_w if self._seen else None
        within = (
            limit_w is not None and wanted.power_limit_w is not None and (limit_w <= wanted.power_limit_w + TOLERANCE_W)
        )
        is_above = not within or wanted.sm_clock_mhz is not None
        return Outcome(str(error), is_above=is_above, not_allowed=todo is Action.NO_PERMISSION)
