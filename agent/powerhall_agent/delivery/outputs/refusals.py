"""What a refusing answer of InfluxDB means. Nothing else reads the status or the words of the server's message."""

from enum import Enum, auto
from typing import Final

from powerhall.runtime.errors import Rejected

__all__ = ["PointsTooOld", "Refusal", "classify"]

_LINES_REFUSED: Final = (400, 413, 422)
_TOO_OLD: Final = ("beyond retention", "retention policy", "outside retention")


class Refusal(Enum):
    """Why a server did not take a batch."""

    LINES = auto()
    """Some line is not well-formed or does not fit its series; the others may have been written."""
    TOO_OLD = auto()
    """Some points are older than the store keeps; the others have been written."""
    NOT_ALLOWED = auto()
    NO_BUCKET = auto()
    NO_ENDPOINT = auto()
    """There is no such URL; InfluxDB before 1.8 has no v2 endpoint."""
    REDIRECT = auto()
    TLS = auto()
    """No answer of the server at all, but of the TLS layer."""
    BUSY = auto()
    """Anything else: the same batch may be taken later."""


def classify(status: int, text: str) -> Refusal:
    """Return what an answer other than 2xx means, from its status (0: none came) and its message."""
    if status in {401, 403}:
        return Refusal.NOT_ALLOWED
    if status == 404:
        return Refusal.NO_BUCKET if "database" in text else Refusal.NO_ENDPOINT
    if status == 0:
        return Refusal.TLS
    if 300 <= status < 400:
        return Refusal.REDIRECT
    if status in _LINES_REFUSED and "timeout" not in text:
        return Refusal.TOO_OLD if any(words in text for words in _TOO_OLD) else Refusal.LINES
    return Refusal.BUSY


class PointsTooOld(Rejected):
    """Points of the batch are older than the store keeps; it has taken all the others."""
