"""The interface between sampling and delivery: finished line-protocol bytes."""

from typing import Protocol

__all__ = ["Sink"]


class Sink(Protocol):
    """Takes records as newline-terminated lines with their final timestamps."""

    def write(self, lines: bytes) -> None:
        """Take the lines; must return quickly and must not raise for a full or slow destination."""
