"""The interface of an output: where the shipper sends batches of lines."""

from typing import Protocol

__all__ = ["Output"]


class Output(Protocol):
    """A place that takes lines whole and synchronously."""

    def send(self, lines: bytes) -> None:
        """Deliver newline-terminated lines; returns when the store has them.

        Retryable (with its children StoreBusy and SetupError): nothing may have arrived, send the same again.
        Rejected: some line of them is refused; the others may have arrived.
        """
        ...

    def cut(self) -> None:
        """End a request that takes too long; its `send` then raises Retryable."""
        ...
