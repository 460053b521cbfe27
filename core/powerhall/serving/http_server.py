"""HTTP/1.1 server with a deadline for every step and a bound for everything that a client can make it keep.

h11 parses the requests; sockets and time are asyncio's. One request per connection. The deadlines count from the start
of a step, however slowly its bytes come in: TLS handshake and header together, body, answer, and its transmission.
"""

import asyncio
import asyncio.sslproto
import json
import re
import socket
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus

import h11
import msgspec

from powerhall.runtime.admission import Admission, Visitor, peer_of
from powerhall.runtime.decode.numbers_in import digits
from powerhall.runtime.log import Log
from powerhall.serving.server_tls import ServerTls

__all__ = ["Answer", "Exchange", "Handler", "HttpServer", "Limits", "RefusedError"]

_PIECE = 16 * 1024
asyncio.sslproto.SSLProtocol.max_size = _PIECE
"""Of the buffer of each TLS connection: asyncio's own 256 KiB make 128 MiB of 512 clients that say nothing."""
_LINGER_S = 1.0
_LINGER_BYTES = 256 * 1024
_BACKLOG = 1024
_ABSOLUTE = re.compile(r"^https?://[^/?#]+/?", re.IGNORECASE)
"""Scheme and authority of a target in absolute form, which a server must take (RFC 9112, 3.2.2)."""
_ACCEPTED_AT_ONCE = 8
"""Connections that are let in before those inside go on: a full backlog must not push out who has just come."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What clients may use of the server."""

    connections: int = 512
    per_peer: int = 256
    header_s: float = 5.0
    """For the TLS handshake and the header."""
    body_s: float = 5.0
    answer_s: float = 40.0
    write_s: float = 5.0
    header_bytes: int = 16 * 1024
    body_bytes: int = 64 * 1024


@dataclass(frozen=True, slots=True)
class Answer:
    """A response: `body` is a page where it is a text, bytes of their own `Content-Type`, else sent as JSON."""

    status: int
    body: object
    headers: Mapping[str, str] = field(default_factory=dict)


class RefusedError(Exception):
    """A request that is refused while it is read."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.answer = Answer(status, {"error": text})


class _GoneError(Exception):
    """The client closed its connection."""


class _Wire:
    """h11 on the streams of one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, limits: Limits) -> None:
        self.reader, self.writer = reader, writer
        self.h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=limits.header_bytes)
        self.is_head = False

    async def event(self) -> object:
        """Return the next event of the client."""
        while True:
            try:
                found = self.h11.next_event()
            except h11.RemoteProtocolError as error:
                raise RefusedError(error.error_status_hint, f"request: not HTTP: {error}") from None
            if found is not h11.NEED_DATA:
                return found
            if self.h11.they_are_waiting_for_100_continue:
                self.writer.write(self.h11.send(h11.InformationalResponse(status_code=100, headers=[])) or b"")
            self.h11.receive_data(await self.reader.read(_PIECE))

    async def send(self, answer: Answer) -> None:
        """Send a response and end the connection's sending side."""
        kind, text = _content(answer.body)
        headers = {
            "Content-Type": kind,
            **answer.headers,
            "Server": "powerhall",
            "Content-Length": str(len(text)),
            "Connection": "close",
        }
        reason = HTTPStatus(answer.status).phrase
        head = h11.Response(status_code=answer.status, headers=list(headers.items()), reason=reason)
        for event in (head, h11.Data(data=b"" if self.is_head else text), h11.EndOfMessage()):
            self.writer.write(self.h11.send(event) or b"")
        await self.writer.drain()
        if self.writer.can_write_eof():
            self.writer.write_eof()

    async def linger(self) -> None:
        """Take what the client is still sending, so that closing does not destroy the response on its way."""
        left = _LINGER_BYTES
        while left > 0 and (data := await self.reader.read(_PIECE)):
            left -= len(data)


def _content(body: object) -> tuple[str, bytes]:
    if isinstance(body, bytes):
        return "application/octet-stream", body
    if isinstance(body, str):
        return "text/html; charset=utf-8", body.encode()
    return "application/json", json.dumps(msgspec.to_builtins(body)).encode()


class Exchange:
    """One request as its handler sees it."""

    def __init__(self, head: h11.Request, wire: _Wire, keep: Callable[[], None], limits: Limits, peer: str) -> None:
        self.method, self.peer = head.method.decode("latin-1"), peer
        self.path = _ABSOLUTE.sub("/", head.target.decode("latin-1"))
        self.headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in head.headers}
        if sum(name == b"authorization" for name, _ in head.headers) > 1:  # which of them counts is for nobody to guess
            raise RefusedError(400, "Authorization: must be given once")
        self.keep = keep
        """Call it when the request is authorised: its connection then stays however many others come."""
        self._wire, self._limits = wire, limits

    async def body(self) -> bytes:
        """Read the body; one that is too large, too slow or without a length raises RefusedError."""
        if "transfer-encoding" in self.headers and "content-length" in self.headers:  # chunks have no such bound
            raise RefusedError(400, "Content-Length and Transfer-Encoding: must not both be given")
        length = digits(self.headers.get("content-length", ""))
        if length is None:
            raise RefusedError(411, "Content-Length: must be given")
        if length > self._limits.body_bytes:
            raise RefusedError(413, f"body: must be at most {self._limits.body_bytes} bytes")
        try:
            async with asyncio.timeout(self._limits.body_s):
                return await self._read()
        except TimeoutError:
            raise RefusedError(408, f"body: must arrive within {self._limits.body_s:g} s") from None

    async def _read(self) -> bytes:
        parts = []
        while not isinstance(event := await self._wire.event(), h11.EndOfMessage):
            if not isinstance(event, h11.Data):
                raise _GoneError
            parts.append(bytes(event.data))
        return b"".join(parts)


Handler = Callable[[Exchange], Awaitable[Answer]]
"""Answers one request; RefusedError becomes its answer, any other exception 500 and an error in the log."""


class HttpServer:
    """One listener; `run` serves it in the running event loop until it is cancelled."""

    def __init__(
        self, listener: socket.socket, handler: Handler, log: Log, limits: Limits, tls: ServerTls | None = None
    ) -> None:
        """Take over a bound socket."""
        listener.setblocking(False)
        listener.listen(_BACKLOG)
        self._listener, self._handler, self._log, self._limits, self._tls = listener, handler, log, limits, tls
        self.admission = Admission(limits.connections, limits.per_peer)
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Accept connections for ever; what goes wrong with one of them ends that one alone."""
        loop = asyncio.get_running_loop()
        accepted = 0
        try:
            while True:
                try:
                    connection, address = await loop.sock_accept(self._listener)
                except OSError as error:  # no descriptors left, or the client is gone already
                    self._log.warning("endpoint_accept", key="", detail=error.strerror)
                    self.admission.make_room()
                    await asyncio.sleep(0.05)
                    continue
                self._admit(connection, str(address[0]))
                accepted += 1
                if accepted % _ACCEPTED_AT_ONCE == 0:
                    await asyncio.sleep(0)
        finally:
            self.close()
            for visitor in self.admission.all():
                visitor.leave()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def close(self) -> None:
        """Give the address back; more than once does no harm."""
        self._listener.close()

    def _admit(self, connection: socket.socket, host: str) -> None:
        visitor = Visitor(peer_of(host), lambda: None)
        if not self.admission.enter(visitor):
            connection.close()
            return
        task = asyncio.get_running_loop().create_task(self._serve(connection, visitor, host))
        visitor.leave = task.cancel
        self._tasks.add(task)

        def end(task: asyncio.Task[None]) -> None:  # also of a task that was cancelled before it began
            self._tasks.discard(task)
            self.admission.exit(visitor)
            connection.close()

        task.add_done_callback(end)

    async def _serve(self, connection: socket.socket, visitor: Visitor, host: str) -> None:
        wire: _Wire | None = None
        try:
            async with asyncio.timeout(self._limits.header_s):
                wire = await self._open(connection)
                answer: Answer | Exchange = await self._head(wire, visitor, host)
            if isinstance(answer, Exchange):
                answer = await self._answer(answer)
            async with asyncio.timeout(self._limits.write_s):
                await wire.send(answer)
            async with asyncio.timeout(_LINGER_S):
                await wire.linger()
        except (TimeoutError, OSError, _GoneError, h11.LocalProtocolError, asyncio.CancelledError):
            pass  # the client is too slow, has gone, or yields its place
        except Exception as error:  # noqa: BLE001 - one connection, whatever it sent, must not end the service
            self._log.error("endpoint_defect", client=host, detail=repr(error))
        finally:
            if wire is not None:
                wire.writer.transport.abort()

    async def _open(self, connection: socket.socket) -> _Wire:
        loop = asyncio.get_running_loop()
        connection.setblocking(False)
        reader = asyncio.StreamReader(limit=_PIECE)
        protocol = asyncio.StreamReaderProtocol(reader)
        tls = None if self._tls is None else self._tls.context()
        transport, _ = await loop.connect_accepted_socket(
            lambda: protocol,
            connection,
            ssl=tls,
            ssl_handshake_timeout=None if tls is None else self._limits.header_s,
            ssl_shutdown_timeout=None if tls is None else _LINGER_S,
        )
        return _Wire(reader, asyncio.StreamWriter(transport, protocol, reader, loop), self._limits)

    async def _head(self, wire: _Wire, visitor: Visitor, host: str) -> Exchange | Answer:
        try:
            event = await wire.event()
            if isinstance(event, h11.Request):
                wire.is_head = event.method == b"HEAD"
                return Exchange(event, wire, lambda: self.admission.keep(visitor), self._limits, host)
        except RefusedError as error:
            return error.answer
        raise _GoneError

    async def _answer(self, exchange: Exchange) -> Answer:
        try:
            async with asyncio.timeout(self._limits.answer_s + self._limits.body_s):
                return await self._handler(exchange)
        except RefusedError as error:
            return error.answer
        except TimeoutError:
            return Answer(503, {"error": "no answer in time; ask for the event's state"}, {"Retry-After": "5"})
        except (_GoneError, OSError):
            raise
        except Exception as error:  # noqa: BLE001 - a defect costs the one request that met it
            self._log.error("endpoint_defect", client=exchange.peer, path=exchange.path[:200], detail=repr(error))
            return Answer(500, {"error": "the request met a defect, which is in the log"})
