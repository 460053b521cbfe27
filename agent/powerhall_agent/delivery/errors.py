"""Errors of delivery, beside those of every store."""

from powerhall.runtime.errors import Rejected, Retryable

__all__ = [
    "ForeignAnswerError",
    "PointsTooOld",
    "RefusedByForm",
    "RequestTooLarge",
    "SetupError",
    "StoreBusy",
    "StoreFault",
]


class StoreBusy(Retryable):
    """The store asks for a pause of `after_s` seconds."""

    def __init__(self, text: str, after_s: float = 0.0) -> None:
        super().__init__(text)
        self.after_s = after_s


class StoreFault(StoreBusy):
    """The store itself has failed on this request (500): it may be busy, or a line may be at fault."""


class SetupError(Retryable):
    """A person has to act (token, bucket, address); the points wait in the spool until then."""


class ForeignAnswerError(SetupError):
    """Something other than the store has answered, such as a proxy or a login page; nothing counts as delivered."""


class PointsTooOld(Rejected):
    """`points` of the batch (0: not told) are older than the store keeps; it has taken all the others."""

    def __init__(self, text: str, points: int = 0) -> None:
        super().__init__(text)
        self.points = points


class RefusedByForm(Rejected):
    """Refused in the form of the store's answers, but without its header, or with no word about lines."""


class RequestTooLarge(Rejected):
    """Something before the store takes no request of this size: no line is at fault, and none may be set aside."""
