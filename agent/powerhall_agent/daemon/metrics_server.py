"""HTTP server of /metrics: one thread, whatever number of clients, with a bound for all that they can make it keep.

A client has a total deadline for its request and one for taking the answer. All answers share the bytes of one body.
Where connections are full, the one that has waited longest yields (see `powerhall.runtime.admission`), so that slow
clients keep no scraper out.
"""

import selectors
import socket
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from powerhall.runtime.admission import Admission, Visitor, peer_of
from powerhall.runtime.log import Log

__all__ = ["MetricsServer", "Reply", "ServerLimits"]

_PIECE = 16 * 1024
_TICK_S = 0.25
_BACKLOG = 256
_LINGER_BYTES = 64 * 1024
_AGAIN = (BlockingIOError, InterruptedError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """What clients may use of the server."""

    connections: int = 64
    per_peer: int = 32
    request_s: float = 5.0
    """For the TLS handshake and the request together."""
    answer_s: float = 10.0
    header_bytes: int = 8 * 1024


@dataclass(frozen=True, slots=True)
class Reply:
    """Header and body of an answer; `authorised`: the client has shown a password."""

    head: bytes
    body: bytes
    authorised: bool = False


Respond = Callable[[bytes], Reply]
"""Answers a request, whose header is complete."""


class _Client:
    """One connection: `step` does what the socket allows and returns the events to wait for, 0 when it has ended."""

    def __init__(self, sock: socket.socket, limits: ServerLimits, respond: Respond, keep: Callable[[], None]) -> None:
        self.sock, self._limits, self._respond, self._keep = sock, limits, respond, keep
        self.deadline_s = time.monotonic() + limits.request_s
        self._request = bytearray()
        self._left: list[memoryview] = []
        self._shaking = isinstance(sock, ssl.SSLSocket)
        self._lingering = 0

    def step(self) -> int:
        """Go on until the socket would block; raises OSError where the client is gone."""
        try:
            if self._shaking:
                assert isinstance(self.sock, ssl.SSLSocket)
                self.sock.do_handshake()
                self._shaking = False
            while not self._left and not self._lingering:
                if not self._read():
                    return 0
            while self._left:
                self._write()
            if self._lingering == 0:
                self._end_of_answer()
            while self._lingering > 0:
                self._lingering -= len(self.sock.recv(_PIECE)) or self._lingering
        except (ssl.SSLWantWriteError, ssl.SSLWantReadError) as wanted:
            return selectors.EVENT_WRITE if isinstance(wanted, ssl.SSLWantWriteError) else selectors.EVENT_READ
        except _AGAIN:
            return selectors.EVENT_WRITE if self._left else selectors.EVENT_READ
        return 0

    def _read(self) -> bool:
        """Take a piece of the request, and prepare the answer when its header is complete; False at the end."""
        piece = self.sock.recv(_PIECE)
        self._request += piece
        is_whole = b"\r\n\r\n" in self._request or b"\n\n" in self._request
        if is_whole:
            reply = self._respond(bytes(self._request))
            self._request.clear()
            self._left = [memoryview(part) for part in (reply.head, reply.body) if part]
            self.deadline_s = time.monotonic() + self._limits.answer_s
            if reply.authorised:
                self._keep()
        return bool(piece) and (is_whole or len(self._request) <= self._limits.header_bytes)

    def _write(self) -> None:
        sent = self.sock.send(self._left[0][: 4 * _PIECE])
        self._left[0] = self._left[0][sent:]
        if not self._left[0]:
            self._left.pop(0)

    def _end_of_answer(self) -> None:
        """Let the client close first, so that what it still sends does not destroy the answer on its way."""
        self._lingering = -1 if isinstance(self.sock, ssl.SSLSocket) else _LINGER_BYTES
        self.deadline_s = time.monotonic() + 1.0
        if self._lingering > 0:
            self.sock.shutdown(socket.SHUT_WR)


class MetricsServer:
    """Serves a listener in one thread until `close`."""

    def __init__(
        self,
        listener: socket.socket,
        respond: Respond,
        log: Log,
        tls: ssl.SSLContext | None = None,
        limits: ServerLimits | None = None,
    ) -> None:
        """Take over a bound socket."""
        listener.setblocking(False)
        listener.listen(_BACKLOG)
        self.port: int = listener.getsockname()[1]
        self._listener, self._respond, self._log, self._tls = listener, respond, log, tls
        self._limits = limits or ServerLimits()
        self._admission = Admission(self._limits.connections, self._limits.per_peer)
        self._clients: dict[_Client, Visitor] = {}
        self._selector = selectors.DefaultSelector()
        self._wake, self._woken = socket.socketpair()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="prometheus", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread and every connection."""
        self._wake.send(b"x")  # before it may end: the thread closes this socket at its end
        self._stopped.set()
        self._thread.join(5)

    def _run(self) -> None:
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._selector.register(self._woken, selectors.EVENT_READ)
        while not self._stopped.is_set():
            for key, _ in self._selector.select(_TICK_S):
                if key.fileobj is self._listener:
                    self._accept()
                elif isinstance(key.data, _Client) and key.data in self._clients:
                    self._step(key.data)
            now_s = time.monotonic()
            for client in [one for one in self._clients if one.deadline_s <= now_s]:
                self._drop(client)
        for client in list(self._clients):
            self._drop(client)
        for part in (self._listener, self._wake, self._woken, self._selector):
            part.close()

    def _accept(self) -> None:
        try:
            sock, address = self._listener.accept()
        except OSError as error:
            if not isinstance(error, _AGAIN):  # no descriptors left
                self._log.warning("prometheus_accept", key="", detail=error.strerror)
                self._admission.make_room()
            return
        try:
            sock.setblocking(False)
            if self._tls is not None:
                sock = self._tls.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
        except OSError:
            sock.close()
            return
        visitor = Visitor(peer_of(str(address[0])), lambda: None)
        client = _Client(sock, self._limits, self._respond, lambda: self._admission.keep(visitor))
        visitor.leave = lambda: self._drop(client)
        if not self._admission.enter(visitor):
            sock.close()
            return
        self._clients[client] = visitor
        self._selector.register(sock, selectors.EVENT_READ, client)

    def _step(self, client: _Client) -> None:
        try:
            events = client.step()
        except OSError:
            events = 0
        except Exception as error:  # noqa: BLE001 - one request, whatever it holds, must not end the endpoint
            self._log.warning("prometheus_defect", key="", detail=repr(error))
            events = 0
        if events:
            self._selector.modify(client.sock, events, client)
        else:
            self._drop(client)

    def _drop(self, client: _Client) -> None:
        visitor = self._clients.pop(client, None)
        if visitor is None:
            return
        self._admission.exit(visitor)
        self._selector.unregister(client.sock)
        client.sock.close()
