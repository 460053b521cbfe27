"""Logs of the daemon: one key=value line per event on stderr; an event that repeats is written once a minute."""

import sys
import time
from collections.abc import Callable
from typing import TextIO

__all__ = ["Log"]

_REPEAT_S = 60.0


class Log:
    """Writes `level=warning event=store_busy detail="..."`; systemd's journal adds time and process."""

    def __init__(self, out: TextIO | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._out = out
        self._clock = clock
        self._last: dict[str, tuple[float, int]] = {}

    def info(self, event: str, **values: object) -> None:
        """Write an event that is part of ordinary life."""
        self._write("info", event, values)

    def warning(self, event: str, *, key: str = "", **values: object) -> None:
        """Write an event that a person may want to act on; repeats of event and key are counted, not written."""
        name, now = f"{event}/{key}", self._clock()
        last_s, held = self._last.get(name, (-_REPEAT_S, 0))
        if now - last_s < _REPEAT_S:
            self._last[name] = (last_s, held + 1)
            return
        self._last[name] = (now, 0)
        self._write("warning", event, {**values, "repeated": held} if held else values)

    def forget(self, event: str, *, key: str = "") -> None:
        """Let the next warning of this kind through at once: its cause had gone away in between."""
        self._last.pop(f"{event}/{key}", None)

    def _write(self, level: str, event: str, values: dict[str, object]) -> None:
        parts = [f"level={level} event={event}", *(f"{key}={_text(value)}" for key, value in values.items())]
        out = self._out or sys.stderr
        try:
            out.write(" ".join(parts) + "\n")
            out.flush()
        except (OSError, ValueError):  # nobody reads our log any more; the daemon goes on
            return


def _text(value: object) -> str:
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    text = " ".join(text.split())
    return text if text and not any(c in text for c in ' "=') else '"' + text.replace('"', "'") + '"'
