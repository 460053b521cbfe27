"""Classifies the responses of InfluxDB; no other module reads the text of a server's message.

Lines are delivered by the status 204 alone: that is what InfluxDB 1 and 2 and the write endpoints of version 3 define.
Lines are refused by an answer that is the store's own alone: JSON as the store writes it, with a header of InfluxDB's,
with the form of version 2 or 3, or with a text that only its parser of lines has. Only the header makes it certain: a
gateway may answer in these forms too. A page of a proxy, a gateway or a login portal, whatever its status, is neither:
the lines are sent again.

Queries are an exception: InfluxQL reports its errors with status 200, and `InfluxHttp` looks at them.
"""

import re
from collections.abc import Mapping
from contextlib import suppress
from enum import Enum, auto
from typing import Final

from powerhall.runtime.decode.json_data import decode_plain_json
from powerhall.runtime.decode.numbers_in import digits
from powerhall.runtime.errors import Rejected

__all__ = [
    "DELIVERED",
    "AnswerKind",
    "InfluxRefused",
    "InfluxUnreachable",
    "advice",
    "classify",
    "has_own_header",
    "is_own",
    "one_line",
    "refused_write",
    "server_message",
    "too_old_points",
]

DELIVERED: Final = 204

_MESSAGE_CHARS: Final = 300
_LINES_REFUSED: Final = (400, 413, 422)
_BEFORE: Final = (
    r"(?:write failed: |failure writing points(?: to database)?: |unexpected error writing points to database: |"
    r"\[shard \d+\] |line \d+: )*"
)
"""What the layers of a server put before the message of the one that found the fault."""
_TOO_OLD: Final = re.compile(
    _BEFORE
    + r"(?:partial write: )?(?:points (?:beyond|outside)|dropped (?P<points>\d+) points outside) retention policy"
    r"(?: dropped=(?P<dropped>\d+)$)?"
)
_TIMEOUT: Final = re.compile(r"(?:(?:write failed|engine): |query[ -])?timeout(?: limit)?(?: reached| exceeded)?")
_BUSY: Final = re.compile(
    r"(?:write failed: |engine: |\[shard \d+\] )*(?:cache-max-memory-size exceeded|timeout|hinted handoff|"
    r"service unavailable|too many open files|no space left on device)"
)
"""How a store's 500 begins that is about the store and no line."""
_MISSING: Final = re.compile(r"(?:database|retention policy) not found")
_NO_ORG: Final = re.compile(r"(?:organization|org)\b")
_NOT_ALLOWED: Final = re.compile(
    r"authorization failed|unable to parse authentication|error authorizing|unauthorized|insufficient permissions"
)
_NO_PATH: Final = ("path not found", "404 page not found")
_HINTED_HANDOFF: Final = "partial write"
"""A cluster of version 1 says this alone where a replica is away: no line is at fault."""
_HEADERS: Final = ("x-influxdb-version", "x-influxdb-build", "x-influxdb-error", "x-platform-error-code")
_CODES: Final = frozenset(
    {
        "conflict",
        "empty value",
        "forbidden",
        "internal error",
        "invalid",
        "method not allowed",
        "not found",
        "request too large",
        "too many requests",
        "unauthorized",
        "unavailable",
        "unprocessable entity",
        "unsupported media type",
    }
)
"""Error codes of InfluxDB 2 (`kit/platform/errors`)."""
_OF_LINES: Final = re.compile(
    _BEFORE + r"(?:partial write|unable to parse|failed to parse|error parsing|field type conflict|"
    r"points? (?:beyond|outside)|invalid field|max key length|time outside range|line protocol)",
    re.IGNORECASE,
)
"""How InfluxDB's messages about lines begin."""
_MAX_PAUSE_S: Final = 3600.0


class AnswerKind(Enum):
    """Why a server did not fulfil a request."""

    LINES = auto()
    """Some line is not well-formed or does not fit its series; the others may have been written."""
    TOO_OLD = auto()
    """Some points are older than the store keeps; the others have been written."""
    NOT_ALLOWED = auto()
    NO_BUCKET = auto()
    """No such database, retention policy, bucket or organization, or none that this token may see."""
    NO_ENDPOINT = auto()
    """There is no such URL; InfluxDB before 1.8 has no v2 endpoint."""
    REDIRECT = auto()
    TLS = auto()
    """The certificate is not trusted; there was no answer of the server itself (status 0)."""
    BUSY = auto()
    """The same request may be answered later."""
    FAULT = auto()
    """The store has failed on this request (500) and does not say why: busy, or a line that it cannot take."""
    FOREIGN = auto()
    """Not an answer of InfluxDB's, such as the page of a proxy; the lines may not have arrived."""
    TOO_LARGE = auto()
    """Something on the way takes no request of this size; no line is at fault."""
    OTHER = auto()


_BY_STATUS: Final = {
    0: AnswerKind.TLS,
    401: AnswerKind.NOT_ALLOWED,
    403: AnswerKind.NOT_ALLOWED,
    408: AnswerKind.BUSY,
    429: AnswerKind.BUSY,
}


def classify(status: int, text: str, *, own: bool = True) -> AnswerKind:
    """Classify an answer by its status (0: no answer) and its message; `own`: it is the store's, see `is_own`.

    A message counts by how it begins or as a whole, never by words within: what it quotes further on is ours.
    """
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    if status == 404:
        return (
            AnswerKind.NO_BUCKET if text not in _NO_PATH and (own or _MISSING.match(text)) else AnswerKind.NO_ENDPOINT
        )
    if 300 <= status < 400:
        return AnswerKind.REDIRECT
    if status >= 500:
        return _kind_of_failure(status, text) if own else AnswerKind.BUSY
    if not own:
        return AnswerKind.TOO_LARGE if status == 413 else AnswerKind.FOREIGN
    return _kind_of_refusal(status, text)


def _kind_of_failure(status: int, text: str) -> AnswerKind:
    """Classify a 5xx of the store itself: versions 1 and 2.0 answer so to some errors that are ours."""
    if _MISSING.match(text):
        return AnswerKind.NO_BUCKET
    if _TOO_OLD.match(text):
        return AnswerKind.TOO_OLD
    if _OF_LINES.match(text) and text != _HINTED_HANDOFF:
        return AnswerKind.LINES
    return AnswerKind.FAULT if status == 500 and not _BUSY.match(text) else AnswerKind.BUSY


def _kind_of_refusal(status: int, text: str) -> AnswerKind:
    if _TIMEOUT.fullmatch(text):
        return AnswerKind.BUSY
    if status in _LINES_REFUSED:
        return AnswerKind.TOO_OLD if _TOO_OLD.match(text) else AnswerKind.LINES
    if _MISSING.match(text):  # InfluxQL's errors come with status 200
        return AnswerKind.NO_BUCKET
    return AnswerKind.NOT_ALLOWED if _NOT_ALLOWED.match(text) else AnswerKind.OTHER


def too_old_points(text: str) -> int:
    """Return how many points were too old by a message of the kind TOO_OLD, 0 where it does not tell."""
    found = _TOO_OLD.match(text)
    return digits((found["points"] or found["dropped"] or "") if found else "") or 0


def advice(kind: AnswerKind, text: str, bucket: str) -> str:
    """Return what a person can do about an answer of this kind, "" where nothing is known."""
    if kind is AnswerKind.NO_BUCKET and _NO_ORG.match(text):
        return "check org in the store's URL, and that the token belongs to it"
    if kind is AnswerKind.NO_BUCKET:
        return (
            f"does the bucket {bucket!r} exist? 'powerhall-dashboards init-store' makes it; a bucket of another org, "
            "or one that the token has no right to, is answered alike"
        )
    if kind is AnswerKind.NO_ENDPOINT:
        return (
            f"does the bucket {bucket!r} exist, is this an InfluxDB of that version, and does it lie behind a path "
            "(prefix=PATH in the URL)?"
        )
    return "check the token file, or user and password, and the rights" if kind is AnswerKind.NOT_ALLOWED else ""


def is_own(headers: Mapping[str, str], body: str) -> bool:
    """Return whether an error answer is InfluxDB's own and not one of something between it and us."""
    names = {name.lower(): value for name, value in headers.items()}
    if "html" in names.get("content-type", "").lower():
        return False
    data: object = None
    with suppress(Rejected):
        data = decode_plain_json(body.encode("utf-8", "replace"), "answer")
    if not isinstance(data, dict):
        return _OF_LINES.match(body.strip()) is not None  # version 3 has plain text too
    text = data.get("error") or data.get("message")
    if not isinstance(text, str):
        return False
    if has_own_header(headers):
        return True
    is_of_version_2 = data.get("code") in _CODES and "message" in data
    is_of_version_3 = "error" in data and isinstance(data.get("data"), list | dict)
    return is_of_version_2 or is_of_version_3 or _OF_LINES.match(text) is not None


def has_own_header(headers: Mapping[str, str]) -> bool:
    """Return whether an answer has a header that InfluxDB alone sets."""
    return any(name.lower() in _HEADERS for name in headers)


class InfluxRefused(Exception):  # noqa: N818 - named after what the server did
    """The server refused; `message` is the server's own text on one line, and holds no secret of ours.

    `certain`: the answer has a header that InfluxDB alone sets, and not only the form of its answers; where it is said
    to be about lines, its message begins as those do.
    """

    def __init__(
        self, status: int, message: str, retry_after_s: float = 0.0, *, own: bool = True, certain: bool = True
    ) -> None:
        super().__init__(f"({status}): {message}")
        self.status, self.message, self.retry_after_s = status, message, retry_after_s
        self.kind = classify(status, message, own=own)
        self.certain = certain and (self.kind is not AnswerKind.LINES or _OF_LINES.match(message) is not None)


class InfluxUnreachable(Exception):  # noqa: N818 - named after what happened
    """No complete answer: connection refused, timeout, broken connection, or an answer that is not HTTP."""

    def __init__(self, error: Exception) -> None:
        why = f"{type(error).__name__}: {one_line(error)}"
        if isinstance(error, UnicodeError):  # a body that no InfluxDB sends, such as compressed data
            why = "what comes is no text"
        elif type(error) is ValueError:  # of the HTTP library, which quotes headers
            why = "the request or the answer is not HTTP"
        super().__init__(f"does not answer: {why}")


def refused_write(status: int, headers: Mapping[str, str], body: str, reason: str = "") -> InfluxRefused:
    """Return the error for an answer to a write that does not say that the lines are delivered."""
    own = status >= 300 and is_own(headers, body)
    pause_s = min(float(digits(headers.get("Retry-After") or "") or 0), _MAX_PAUSE_S)
    return InfluxRefused(status, server_message(body or reason), pause_s, own=own, certain=has_own_header(headers))


def server_message(text: str) -> str:
    """Take the server's own text out of its JSON answer, on one line."""
    data: object = text
    with suppress(Rejected):
        data = decode_plain_json(text.encode("utf-8", "replace"), "answer")
    if isinstance(data, dict):
        data = data.get("error") or data.get("message") or data
    return one_line(data)


def one_line(value: object) -> str:
    """Return text on one line, cut to a length that a log can take."""
    return " ".join(str(value).split())[:_MESSAGE_CHARS]
