"""Structured log of every command: one `key=value` line per event on stderr."""

import select
import sys
import time
import traceback
from collections.abc import Callable
from typing import Final, TextIO

__all__ = ["Log"]

_REPEAT_S: Final = 60.0
"""An event that is logged under a key is written at most this often, in seconds."""
_MOST_TEXT: Final = 4000
"""Characters of a value in a line: names of jobs come from anybody."""
_WAIT_MS: Final = 200
"""A reader that stands still is waited for this long, once; lines are dropped then until it reads again."""
_PIECE_CHARS: Final = 1000
"""A pipe that says it has room takes 4096 bytes without waiting."""


class Log:
    """Writes lines such as `ts=2026-07-01T12:00:00Z level=warning event=store_unreachable output=store`.

    `quiet` leaves out level info. Without `out` the lines go to the stderr of the moment. A log that can no longer be
    written (a closed pipe, a full disk, a reader that stands still) never stops the caller.
    """

    def __init__(
        self, out: TextIO | None = None, clock: Callable[[], float] = time.monotonic, *, quiet: bool = False
    ) -> None:
        self._out = out
        self._clock = clock
        self._quiet = quiet
        self._last: dict[str, tuple[float, int]] = {}
        self._is_stalled = False

    def info(self, event: str, **values: object) -> None:
        """Write an event of normal operation."""
        if not self._quiet:
            self._write("info", event, values)

    def warning(self, event: str, *, key: str | None = None, **values: object) -> None:
        """Write an event that may need a person.

        With a `key`, repeats of the same event and key are counted for a minute and not written; the next written line
        has their number (`repeated=3`).
        """
        if key is None:
            self._write("warning", event, values)
            return
        name, now_s = f"{event}/{key}", self._clock()
        last_s, held = self._last.get(name, (-_REPEAT_S, 0))
        if now_s - last_s < _REPEAT_S:
            self._last[name] = (last_s, held + 1)
            return
        self._last[name] = (now_s, 0)
        self._write("warning", event, {**values, "repeated": held} if held else values)

    def error(self, event: str, **values: object) -> None:
        """Write an event that needs a person: something that was asked for did not happen."""
        self._write("error", event, values)

    def exception(self, event: str, *, error: BaseException | None = None, **values: object) -> None:
        """Write an error and, on the lines below it, the traceback of `error`, else of the one being handled."""
        trace = traceback.format_exc() if error is None else "".join(traceback.format_exception(error))
        self._write("error", event, values, trace)

    def forget(self, event: str, *, key: str = "") -> None:
        """Write the next warning of this event and key at once; call it when the cause has gone away."""
        self._last.pop(f"{event}/{key}", None)

    def _write(self, level: str, event: str, values: dict[str, object], more: str = "") -> None:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        pairs = "".join(f" {name}={_text(value)}" for name, value in values.items())
        out = self._out or sys.stderr
        try:
            text = f"ts={stamp} level={level} event={event}{pairs}\n{more}"
            for at in range(0, len(text), _PIECE_CHARS):
                if not self._has_room(out):
                    return
                out.write(text[at : at + _PIECE_CHARS])
                out.flush()
        except (OSError, ValueError):  # a closed or full stderr must not end a service
            return

    def _has_room(self, out: TextIO) -> bool:
        """Return whether a piece can be written at once."""
        try:
            descriptor = out.fileno()
        except (OSError, ValueError, AttributeError):
            return True  # in memory
        poll = select.poll()
        poll.register(descriptor, select.POLLOUT)
        self._is_stalled = not poll.poll(0 if self._is_stalled else _WAIT_MS)
        return not self._is_stalled


def _text(value: object) -> str:
    """Return a value as one word, or quoted on one line; the middle of a very long one is left out."""
    text = " ".join((f"{value:.6g}" if isinstance(value, float) else str(value)).split())
    if len(text) > _MOST_TEXT:
        text = f"{text[: _MOST_TEXT // 2]} ... {text[-_MOST_TEXT // 2 :]}"
    if text and not any(mark in text for mark in ' "='):
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', "'") + '"'
