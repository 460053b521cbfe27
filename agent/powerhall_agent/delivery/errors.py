"""Errors of delivery, beside those of every store."""

from powerhall.runtime.errors import Rejected, Retryable

__all__ = ["PointsTooOld", "SetupError", "StoreBusy"]


class StoreBusy(Retryable):
    """The store asks for a pause of `after_s` seconds."""

    def __init__(self, text: str, after_s: float = 0.0) -> None:
        super().__init__(text)
        self.after_s = after_s


class SetupError(Retryable):
    """A person has to act (token, bucket, address); the points wait in the spool until then."""


class PointsTooOld(Rejected):
    """Points of the batch are older than the store keeps; it has taken all the others."""
