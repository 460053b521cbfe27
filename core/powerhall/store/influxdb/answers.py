"""Classifies the error responses of InfluxDB; no other module reads the text of a server's message.

Queries are an exception: InfluxQL reports its errors with status 200, and `InfluxHttp` looks at them.
"""

import json
from enum import Enum, auto
from typing import Final

__all__ = ["AnswerKind", "InfluxRefused", "InfluxUnreachable", "classify", "one_line", "server_message"]

_MESSAGE_CHARS: Final = 300
_LINES_REFUSED: Final = (400, 413, 422)
_TOO_OLD: Final = ("beyond retention", "retention policy", "outside retention")


class AnswerKind(Enum):
    """Why a server did not fulfil a request."""

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
    """The certificate is not trusted; there was no answer of the server itself (status 0)."""
    BUSY = auto()
    """The same request may be answered later."""
    OTHER = auto()


_BY_STATUS: Final = {
    0: AnswerKind.TLS,
    401: AnswerKind.NOT_ALLOWED,
    403: AnswerKind.NOT_ALLOWED,
    408: AnswerKind.BUSY,
    429: AnswerKind.BUSY,
}


def classify(status: int, text: str) -> AnswerKind:
    """Classify an answer other than 2xx by its status (0: no answer) and its message."""
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    if status == 404:
        return AnswerKind.NO_BUCKET if "database" in text else AnswerKind.NO_ENDPOINT
    if 300 <= status < 400:
        return AnswerKind.REDIRECT
    if status >= 500 or "timeout" in text:
        return AnswerKind.BUSY
    if status in _LINES_REFUSED:
        return AnswerKind.TOO_OLD if any(words in text for words in _TOO_OLD) else AnswerKind.LINES
    return AnswerKind.OTHER


class InfluxRefused(Exception):  # noqa: N818 - named after what the server did
    """The server refused; `message` is the server's own text on one line, and holds no secret of ours."""

    def __init__(self, status: int, message: str, retry_after_s: float = 0.0) -> None:
        super().__init__(f"({status}): {message}")
        self.status, self.message, self.retry_after_s = status, message, retry_after_s
        self.kind = classify(status, message)


class InfluxUnreachable(Exception):  # noqa: N818 - named after what happened
    """No complete answer: connection refused, timeout, broken connection, or an answer that is not HTTP."""

    def __init__(self, error: Exception) -> None:
        super().__init__(f"does not answer: {type(error).__name__}: {one_line(error)}")


def server_message(text: str) -> str:
    """Take the server's own text out of its JSON answer, on one line."""
    try:
        data = json.loads(text)
    except ValueError:
        data = text
    if isinstance(data, dict):
        data = data.get("error") or data.get("message") or data
    return one_line(data)


def one_line(value: object) -> str:
    """Return text on one line, cut to a length that a log can take."""
    return " ".join(str(value).split())[:_MESSAGE_CHARS]
