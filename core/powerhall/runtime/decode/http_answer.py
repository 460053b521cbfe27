"""Answers of HTTP servers: a limit of bytes and a total deadline for status, headers and body together.

urllib3 limits the wait for each piece alone, and reads as much as comes. Here every piece that arrives is counted
where it leaves the socket, so that neither an endless answer nor one byte a second holds a client.
"""

import email.errors
import http.client
import io
import socket
import time
from typing import TYPE_CHECKING, ClassVar, Final, TypeVar

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection

from powerhall.runtime.decode.bytes_in import gunzip, inflate
from powerhall.runtime.decode.limits import enlarged, size_text
from powerhall.runtime.errors import Rejected, Retryable

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

__all__ = ["limit_manager", "limit_pool", "read_answer"]

Connection = TypeVar("Connection", bound=HTTPConnection)

_LEAST_BYTES_PER_S: Final = float(1 << 20)
"""A large answer may take longer than the timeout, if it comes at least this fast."""
_HEADER_BYTES: Final = 1 << 20
_PIECE_BYTES: Final = 1 << 20
_UNLIMITED_S: Final = 60.0
"""The time for an answer on a connection without a timeout."""
_BAD_HEADER: Final = (
    email.errors.FirstHeaderLineIsContinuationDefect,
    email.errors.MisplacedEnvelopeHeaderDefect,
    email.errors.MissingHeaderBodySeparatorDefect,
)


class _MeteredSocket(io.RawIOBase):
    """The reading side of a connection for one answer."""

    def __init__(self, raw: io.RawIOBase, sock: socket.socket, most_bytes: int) -> None:
        self._raw, self._sock, self._most_bytes = raw, sock, most_bytes
        timeout_s = sock.gettimeout()
        self._end_s = time.monotonic() + (_UNLIMITED_S if timeout_s is None else timeout_s)
        self.got = 0
        """Bytes that have come."""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "WriteableBuffer") -> int | None:
        left_s = self._end_s + self.got / _LEAST_BYTES_PER_S - time.monotonic()
        if left_s <= 0:
            raise TimeoutError("the answer was not complete in time")
        self._sock.settimeout(left_s)
        got = self._raw.readinto(buffer)
        self.got += got or 0
        if self.got > self._most_bytes:
            raise ConnectionError(f"the answer is larger than {size_text(self._most_bytes)}, the most that is read")
        return int(got) if got is not None else None

    def close(self) -> None:
        self._raw.close()
        super().close()


class _LineReader(io.BufferedReader):
    """Remembers how the last line ended, and reads no pieces of an impossible length, nor lines without end."""

    ended = False
    _line_bytes = 0
    """Of the lines since the last piece: a header, or a trailer."""
    _lines_bytes = 0
    """Of all lines."""

    def __init__(self, raw: _MeteredSocket, most_bytes: int) -> None:
        super().__init__(raw)
        self._source, self._most_bytes = raw, most_bytes

    def behind_lines(self) -> bytes:
        """Return what has come behind the lines that were read, where nothing else was read; waits for no more."""
        return self.peek() if self._source.got > self._lines_bytes else b""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and not -1 <= size <= self._most_bytes:  # as its header or a chunk says
            raise ConnectionError(f"the answer announces {size} bytes; at most {size_text(self._most_bytes)} are read")
        self._line_bytes = 0
        return super().read(size)

    def readline(self, size: int | None = -1, /) -> bytes:
        line = super().readline(size)
        self._line_bytes += len(line)
        self._lines_bytes += len(line)
        if self._line_bytes > _HEADER_BYTES:
            raise ConnectionError(f"the answer has more than {size_text(_HEADER_BYTES)} of header")
        self.ended = line in (b"\r\n", b"\n")
        return line


class _LimitedAnswer(http.client.HTTPResponse):
    """An answer within limits, whose header is complete: http.client takes the end of the connection for its end."""

    most_bytes: ClassVar[int]

    def __init__(
        self, sock: socket.socket, debuglevel: int = 0, method: str | None = None, url: str | None = None
    ) -> None:
        super().__init__(sock, debuglevel, method, url)
        raw = self.fp.detach()
        most_bytes = self.most_bytes + _HEADER_BYTES
        self._lines = _LineReader(_MeteredSocket(raw, sock, most_bytes), most_bytes)
        self.fp = self._lines

    def begin(self) -> None:
        """Read the header of the final answer. http.client takes an interim one (103) for final, and the next request
        on the connection would get the answer to this one."""
        super().begin()
        while 100 <= self.status < 200:
            self._check_header()
            if self.status == http.client.SWITCHING_PROTOCOLS:
                raise ConnectionError("the answer goes on in another protocol, which was not asked for")
            self.headers = self.msg = None  # type: ignore[assignment]  # as before its first header
            super().begin()
        self._check_header()

    def _check_header(self) -> None:
        if not self._lines.ended:
            raise ConnectionError("the answer is cut off in its header")
        is_bad = any(isinstance(defect, _BAD_HEADER) for defect in self.headers.defects)
        if is_bad and self.length == 0:  # all that it says is in its header, which is not read beyond the bad line
            raise ConnectionError("the answer has a malformed line in its header")
        is_announced = self.headers.get("Content-Length", "0") != "0" or "Transfer-Encoding" in self.headers
        if self.length == 0 and self.status >= 200 and not is_announced and self._lines.behind_lines().strip(b"\r\n"):
            raise ConnectionError("the answer goes on after its end")  # a page, or the answer to another request


def _limited(base: type[Connection], most_bytes: int) -> type[Connection]:
    answer = type("LimitedAnswer", (_LimitedAnswer,), {"most_bytes": enlarged(most_bytes)})
    return type(f"Limited{base.__name__}", (base,), {"response_class": answer})


def limit_pool(pool: urllib3.HTTPConnectionPool, most_bytes: int) -> None:
    """Limit every answer of a pool of connections; its timeout becomes that of a whole answer."""
    is_tls = isinstance(pool, urllib3.HTTPSConnectionPool)
    pool.ConnectionCls = _limited(HTTPSConnection if is_tls else HTTPConnection, most_bytes)


def limit_manager(manager: urllib3.PoolManager, most_bytes: int) -> None:
    """Limit every answer of a manager's pools, those of the future."""
    plain, tls = _limited(HTTPConnection, most_bytes), _limited(HTTPSConnection, most_bytes)
    manager.pool_classes_by_scheme = {
        "http": type("LimitedPool", (urllib3.HTTPConnectionPool,), {"ConnectionCls": plain}),
        "https": type("LimitedTlsPool", (urllib3.HTTPSConnectionPool,), {"ConnectionCls": tls}),
    }


def read_answer(answer: urllib3.BaseHTTPResponse, source: str, most_bytes: int) -> bytes:
    """Read the body of an answer that was asked for with `preload_content=False`, expanded where it is compressed.

    Raises Retryable for a body that is too large or damaged, besides the errors of urllib3.
    """
    most_bytes = enlarged(most_bytes)
    found = bytearray()
    while part := answer.read(_PIECE_BYTES, decode_content=False):
        found += part
        if len(found) > most_bytes:
            answer.close()
            raise Retryable(f"{source}: the answer is larger than {size_text(most_bytes)}, the most that is read")
    answer.release_conn()
    body = bytes(found)
    encoding = answer.headers.get("Content-Encoding", "").strip().lower()
    try:
        if encoding in {"gzip", "x-gzip"}:
            return gunzip(body, source, most_bytes)
        if encoding == "deflate":
            return inflate(body, source, most_bytes)
    except Rejected as error:
        raise Retryable(str(error)) from None
    if encoding not in {"", "identity"}:
        raise Retryable(f"{source}: the answer is compressed as {encoding[:40]!r}, which was not asked for")
    return body
