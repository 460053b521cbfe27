"""JSON from outside: typed, or plain where its form is unknown. NaN and Infinity are no JSON; a byte order mark is."""

import codecs
import re
from pathlib import Path
from typing import TypeVar

import msgspec

from powerhall.runtime.decode.bytes_in import not_utf8, read_file
from powerhall.runtime.decode.limits import MOST_DOCUMENT_BYTES, MOST_JSON_BYTES, enlarged, size_text
from powerhall.runtime.decode.plain_data import check_plain
from powerhall.runtime.errors import Rejected
from powerhall.runtime.refusals import refusal

__all__ = ["decode_json", "decode_plain_json", "read_json"]

T = TypeVar("T")

_LARGE = re.compile(rb"[:,\[\s]-?(?:\d+(?:\.\d+)?[eE]\+?\d{2}|\d{36})")
"""A number that may be beyond the largest; text that looks like one is told apart by a second look."""


def decode_json(
    body: bytes, kind: type[T], source: str, most_bytes: int = MOST_JSON_BYTES, *, any_number: bool = False
) -> T:
    """Decode JSON of a known form; what does not fit raises Rejected with source, field, value and what is allowed.

    `any_number` leaves it to the caller to see to numbers that are beyond every quantity.
    """
    try:
        found = _decoded(body, kind, source, most_bytes)
    except msgspec.ValidationError as error:
        raise Rejected(f"{source}: {refusal(_plain(body), kind, error)}") from None
    if not any_number and _LARGE.search(body):
        check_plain(_plain(body), source)
    return found


def decode_plain_json(body: bytes, source: str, most_bytes: int = MOST_DOCUMENT_BYTES) -> object:
    """Decode JSON of unknown form into dicts, lists, text and numbers, of limited depth and magnitude."""
    try:
        found: object = _decoded(body, object, source, most_bytes)
    except msgspec.ValidationError as error:
        raise Rejected(f"{source}: {str(error)[:1].lower()}{str(error)[1:]}") from None
    check_plain(found, source)
    return found


def read_json(path: str | Path, kind: type[T]) -> T:
    """Read a JSON file into `kind`; a missing, truncated or unfitting file raises ConfigError or Rejected."""
    return decode_json(read_file(path, MOST_JSON_BYTES), kind, str(path))


def _decoded(body: bytes, kind: type[T], source: str, most_bytes: int) -> T:
    body = body.removeprefix(codecs.BOM_UTF8)
    if len(body) > enlarged(most_bytes):
        raise Rejected(f"{source}: larger than {size_text(enlarged(most_bytes))}, the most that is read")
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError:
        raise
    except msgspec.DecodeError as error:
        raise Rejected(f"{source}: not valid JSON: {error}") from None
    except UnicodeDecodeError as error:
        raise _not_utf8(body, error, source) from None
    except RecursionError:
        raise Rejected(f"{source}: not valid JSON: nested too deep") from None


def _not_utf8(body: bytes, error: UnicodeDecodeError, source: str) -> Rejected:
    """Return the refusal with the offset in the whole body: msgspec counts from where a text begins."""
    try:
        body.decode("utf-8")
    except UnicodeDecodeError as found:
        error = found
    return not_utf8(body, error, source)


def _plain(body: bytes) -> object:
    """Return the data once more without a form, to show what did not fit; None where that would take long or fails."""
    if len(body) > MOST_DOCUMENT_BYTES:
        return None
    try:
        return msgspec.json.decode(body.removeprefix(codecs.BOM_UTF8))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None  # broken further on than where it first did not fit
