"""Structured log: one line of key=value per event on stderr."""

import sys
import time
from typing import TextIO

__all__ = ["Log"]


class Log:
    """Writes events; `quiet` keeps only warnings and errors."""

    def __init__(self, stream: TextIO | None = None, *, quiet: bool = False) -> None:
        self.stream = stream or sys.stderr
        self.quiet = quiet

    def __call__(self, event: str, level: str = "info", **fields: object) -> None:
        """Write one event."""
        if self.quiet and level == "info":
            return
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        pairs = "".join(f" {key}={_text(value)}" for key, value in fields.items())
        self.stream.write(f"ts={stamp} level={level} event={event}{pairs}\n")
        self.stream.flush()


def _text(value: object) -> str:
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    if any(c in text for c in ' "=\n') or not text:
        return '"' + text.replace("\\", "\\\\").replace('"', "'").replace("\n", " ") + '"'
    return text
