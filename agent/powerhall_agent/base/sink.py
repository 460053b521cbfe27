"""The seam between measuring and shipping: finished line-protocol bytes go in, nothing comes back."""

from typing import Protocol

__all__ = ["Sink"]


class Sink(Protocol):
    """Where records go; `lines` is one or more newline-terminated lines with their final timestamps."""

    def write(self, lines: bytes) -> None:
        """Take the lines; must return quickly and must not raise for a full or slow destination."""
