"""Bytes from outside: files, UTF-8, compressed and base64 data, each up to a limit."""

import base64
import binascii
import io
import os
import re
import zlib
from pathlib import Path
from typing import TextIO

from powerhall.runtime.decode.limits import MOST_EXPANSION, MOST_TEXT_BYTES, enlarged, size_text
from powerhall.runtime.errors import ConfigError, Rejected
from powerhall.runtime.files import open_regular

__all__ = [
    "decode_base64",
    "gunzip",
    "inflate",
    "open_text",
    "read_expanded",
    "read_file",
    "read_text",
    "reason",
    "utf8",
]

_CHUNK = 1 << 20
_UNSUSPECTED_BYTES = 16 << 20
"""Expanded data of this size may have any ratio: a short file of zeros is no bomb."""
_MOST_MEMBERS = 10_000
_GZIP = b"\x1f\x8b"
_OPENED_BEFORE = re.compile(r"/dev/stdin|/dev/fd/\d+|/proc/self/fd/\d+", re.ASCII)


def reason(error: Exception) -> str:
    """Return why an operation failed, without the file's name, which the caller has."""
    return str(error.strerror) if isinstance(error, OSError) and error.strerror else str(error)


def read_file(path: str | Path, most_bytes: int, *, what: str = "") -> bytes:
    """Read a regular file whole; one that is larger, or cannot be read, raises ConfigError.

    What is no regular file is refused and never waited for, but for what the caller's shell has opened already, such as
    `/dev/stdin` and `<(COMMAND)`. `what` says what it is where the name does not: "the recording".
    """
    most_bytes = enlarged(most_bytes)
    try:
        with _open(Path(path)) as file:
            is_larger = os.fstat(file.fileno()).st_size > most_bytes  # refused before it takes memory
            body = b"" if is_larger else file.read(most_bytes + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise ConfigError(f"{os.fspath(path)}: cannot read{what and f' {what}'}: {reason(error)}") from None
    if is_larger or len(body) > most_bytes:
        raise ConfigError(f"{os.fspath(path)}: larger than {size_text(most_bytes)}, the most that is read")
    return body


def _open(path: Path) -> io.BufferedReader:
    if _OPENED_BEFORE.fullmatch(str(path)):
        return path.open("rb")
    return os.fdopen(open_regular(path), "rb")


def utf8(body: bytes, source: str) -> str:
    """Return the text of UTF-8, without a byte order mark; anything else raises Rejected with line and byte."""
    try:
        return body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise not_utf8(body, error, source) from None


def not_utf8(body: bytes, error: UnicodeDecodeError, source: str) -> Rejected:
    """Return the refusal of bytes that are no UTF-8."""
    at = error.start
    found = error.object[at : at + 1].hex()
    if error.object != body:  # the decoder counts from where its text begins
        return Rejected(f"{source}: not UTF-8: byte 0x{found}")
    line = body.count(b"\n", 0, at) + 1
    return Rejected(f"{source}: line {line}: not UTF-8: byte 0x{found} at offset {at}")


def inflate(body: bytes, source: str, most_bytes: int, form: int = zlib.MAX_WBITS) -> bytes:
    """Expand zlib data (`form` 31: gzip) up to a size and a ratio; damaged or cut data raises Rejected."""
    most_bytes = enlarged(most_bytes)
    out = bytearray()
    rest = memoryview(body)
    for _ in range(_MOST_MEMBERS):
        rest = _member(rest, out, source, most_bytes, form, len(body))
        if not rest or form == zlib.MAX_WBITS:
            return bytes(out)
    raise Rejected(f"{source}: compressed data of more than {_MOST_MEMBERS} parts")


def _member(  # noqa: PLR0917
    rest: memoryview, out: bytearray, source: str, most_bytes: int, form: int, size: int
) -> memoryview:
    """Expand one stream into `out` and return what follows it (a gzip file may have several, and zeros at its end)."""
    expander = zlib.decompressobj(form)
    at = 0
    pending: bytes = b""
    try:
        while not expander.eof:
            if not pending:
                pending = bytes(rest[at : at + _CHUNK])
                at += len(pending)
            part = expander.decompress(pending, _CHUNK)
            if not part and not pending:
                raise Rejected(f"{source}: compressed data is cut off at byte {size}")
            out += part
            pending = expander.unconsumed_tail
            _check_expansion(len(out), size, source, most_bytes)
    except zlib.error as error:
        raise Rejected(f"{source}: damaged compressed data: {error}") from None
    left = rest[at - len(expander.unused_data) :]
    return left if any(left[:_CHUNK]) else rest[:0]


def _check_expansion(expanded: int, size: int, source: str, most_bytes: int) -> None:
    if expanded > most_bytes:
        raise Rejected(f"{source}: expands to more than {size_text(most_bytes)}, the most that is read")
    if expanded > _UNSUSPECTED_BYTES and expanded > MOST_EXPANSION * size:
        raise Rejected(f"{source}: expands to more than {MOST_EXPANSION} times its {size_text(size)}")


def gunzip(body: bytes, source: str, most_bytes: int = MOST_TEXT_BYTES) -> bytes:
    """Expand gzip data up to a size and a ratio; damaged or cut data raises Rejected."""
    return inflate(body, source, most_bytes, zlib.MAX_WBITS | 16)


def decode_base64(text: str, source: str) -> bytes:
    """Decode standard base64; anything else raises Rejected."""
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Rejected(f"{source}: not base64: {error}") from None


def read_text(path: str | Path, most_bytes: int = MOST_TEXT_BYTES) -> str:
    """Read a text file, gzip or plain; one that cannot be read raises Rejected."""
    return utf8(read_expanded(path, most_bytes), str(path))


def open_text(path: str | Path, *, replace: bool = False) -> TextIO:
    """Read a text file, gzip or plain, whole, and return it as a stream; one that cannot be read raises Rejected.

    With `replace` bytes that are no UTF-8 are replaced: in files with free text of users, such as names.
    """
    body = read_expanded(path)
    if not replace:
        utf8(body, str(path))  # refused as a whole, before its first line counts
    errors = "replace" if replace else "strict"
    return io.TextIOWrapper(io.BytesIO(body), encoding="utf-8-sig", errors=errors, newline="")


def read_expanded(path: str | Path, most_bytes: int = MOST_TEXT_BYTES, what: str = "") -> bytes:
    """Read a file, gzip or plain; one that cannot be read raises Rejected."""
    body = read_file(path, most_bytes, what=what)
    return gunzip(body, str(path), most_bytes) if body.startswith(_GZIP) else body
