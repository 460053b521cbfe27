"""HTTP endpoint for grid operators: POST an event, GET its state.

    POST /v1/events        one event as JSON (see `signals`), Authorization: Bearer TOKEN
    GET  /v1/events        all events, newest first
    GET  /v1/events/ID     one
    GET  /v1/health        "ok", without a token

Answers: 200 done (also for a repeated event), 202 accepted, not done yet, 400 refused with the reason, 401, 404, 405,
411, 413, 429 with Retry-After, 503. The token is read from its file for every request, so that it can be changed.
"""

import hmac
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

import msgspec

from powerhall.runtime.errors import ConfigError, PowerhallError, Rejected
from powerhall.runtime.log import Log
from powerhall.runtime.settings import Secret
from powerhall_optimizer.shed.event_manager import EventManager, ShedEvent
from powerhall_optimizer.shed.signals import MOST_BYTES, parse_signals

__all__ = ["HttpEndpoint", "RateLimit"]

_SHORTEST_TOKEN = 32
_TIMEOUT_S = 5.0
_MOST_AT_ONCE = 16
_LOOK_S = 0.05
_EVENTS = "/v1/events"


@dataclass(slots=True)
class RateLimit:
    """A token bucket: `burst` at once, then `per_s`."""

    per_s: float
    burst: float
    clock: Callable[[], float] = time.monotonic
    _left: float = field(init=False, default=0.0)
    _at_s: float = field(init=False, default=0.0)
    _lock: threading.Lock = field(init=False, default_factory=threading.Lock)

    def __post_init__(self) -> None:
        """Begin with a full bucket."""
        self._left, self._at_s = self.burst, self.clock()

    def wait_s(self) -> float:
        """Take one token; return 0, or the seconds to wait when there is none."""
        with self._lock:
            now_s = self.clock()
            self._left, self._at_s = min(self.burst, self._left + (now_s - self._at_s) * self.per_s), now_s
            if self._left >= 1.0:
                self._left -= 1.0
                return 0.0
            return (1.0 - self._left) / self.per_s


class HttpEndpoint:
    """The server; it answers each request in a thread until it is closed."""

    def __init__(
        self,
        address: str,
        token_file: Path,
        manager: EventManager,
        site: str,
        log: Log,
        *,
        cert: Path | None = None,
        key: Path | None = None,
        right: RateLimit | None = None,
        wrong: RateLimit | None = None,
    ) -> None:
        """Bind; beyond loopback only with TLS. `right` paces requests with the token, `wrong` those without."""
        host, port = _address(address)
        if not host.is_loopback and cert is None:
            raise ConfigError(f"shed: --serve: {address!r}: beyond loopback needs --tls-cert and --tls-key")
        self._token = Secret(token_file)
        _checked(self._token)
        self.manager, self.site, self.log = manager, site, log
        self.right, self.wrong = right or RateLimit(1.0, 20.0), wrong or RateLimit(0.2, 5.0)
        try:
            self._server = _Server((str(host), port), self, host.version == 6)
            if cert is not None:
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                context.minimum_version = ssl.TLSVersion.TLSv1_2
                context.load_cert_chain(cert, key)
                self._server.tls = context
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(f"shed: --serve: {address!r}: {error.strerror or error}") from None
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), name="endpoint", daemon=True)

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def close(self) -> None:
        """Stop answering."""
        self._server.shutdown()
        self._thread.join(5)
        self._server.server_close()

    def is_token(self, header: str) -> bool:
        """Compare a request's token in constant time."""
        kind, _, given = header.partition(" ")
        return kind.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), _checked(self._token).encode())


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, address: tuple[str, int], endpoint: HttpEndpoint, is_v6: bool) -> None:
        self.address_family = socket.AF_INET6 if is_v6 else socket.AF_INET
        self.endpoint = endpoint
        self.tls: ssl.SSLContext | None = None
        self.slots = threading.BoundedSemaphore(_MOST_AT_ONCE)
        super().__init__(address, _Handler)

    def process_request(self, request: socket.socket, client_address: tuple[str, int]) -> None:  # type: ignore[override]
        """Hand a connection to a thread, as long as there are not too many."""
        request.settimeout(_TIMEOUT_S)
        if not self.slots.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: socket.socket, client_address: tuple[str, int]) -> None:  # type: ignore[override]
        """Do the TLS handshake in the thread, where a slow client blocks no other."""
        try:
            if self.tls is not None:
                request = self.tls.wrap_socket(request, server_side=True)
        except OSError:
            self.shutdown_request(request)
        else:
            super().process_request_thread(request, client_address)
        finally:
            self.slots.release()

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignore a client that closed its connection."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    server_version = "powerhall"
    sys_version = ""
    timeout = _TIMEOUT_S
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Answer with the known events."""
        if self.path == "/v1/health":
            self._answer(200, {"status": "ok"})
        elif self._is_allowed():
            manager, event_id = self.server.endpoint.manager, self.path.removeprefix(_EVENTS + "/")
            if self.path == _EVENTS:
                self._answer(200, {"events": [msgspec.to_builtins(known) for known in manager.events()]})
            elif self.path.startswith(_EVENTS + "/") and (known := manager.event(event_id)) is not None:
                self._answer(200, known)
            else:
                self._answer(404, {"error": f"{self.path[:200]}: not known"})

    def do_POST(self) -> None:
        """Register an event and wait for its outcome, at most until its own deadline."""
        if not self._is_allowed():
            return
        if self.path != _EVENTS:
            self._answer(404, {"error": f"{self.path[:200]}: not known; post to {_EVENTS}"})
            return
        length = self.headers.get("Content-Length", "")
        if not length.isdigit():
            self._answer(411, {"error": "Content-Length: must be given"})
            return
        if int(length) > MOST_BYTES:
            self._answer(413, {"error": f"body: must be at most {MOST_BYTES} bytes"})
            return
        endpoint = self.server.endpoint
        try:
            signals = parse_signals(self.rfile.read(int(length)), "request", endpoint.site, time.time())
            if len(signals) != 1:
                raise Rejected("request: must hold one event")  # noqa: TRY301 - one answer for all refusals
            self._answer_done(endpoint.manager.receive(signals[0]))
        except Rejected as error:
            self._answer(400, {"error": str(error)})
        except PowerhallError as error:
            self._answer(503, {"error": str(error)})

    def _answer_done(self, known: ShedEvent) -> None:
        deadline_s = time.monotonic() + min(known.within_s + 5.0, 30.0)
        manager = self.server.endpoint.manager
        while known.state == "announced" and known.start_s <= time.time() and not known.problem:
            if time.monotonic() > deadline_s:
                break
            time.sleep(_LOOK_S)
            known = manager.event(known.event_id) or known
        self._answer(202 if known.state == "announced" else 200, known)

    def _is_allowed(self) -> bool:
        """Check the token and the rate limit; answer the request where it is refused."""
        endpoint = self.server.endpoint
        try:
            is_token = endpoint.is_token(self.headers.get("Authorization", ""))
        except ConfigError as error:
            endpoint.log.error("token", detail=error)
            self._answer(503, {"error": "the token file cannot be read"})
            return False
        wait_s = (endpoint.right if is_token else endpoint.wrong).wait_s()
        if wait_s:
            self._answer(429, {"error": "too many requests"}, {"Retry-After": str(int(wait_s) + 1)})
        elif not is_token:
            endpoint.log.warning("refused", client=self.client_address[0], detail="no token, or a wrong one")
            self._answer(401, {"error": "Authorization: must be Bearer and the token"}, {"WWW-Authenticate": "Bearer"})
        return is_token and not wait_s

    def _answer(self, status: int, body: object, headers: dict[str, str] | None = None) -> None:
        text = json.dumps(msgspec.to_builtins(body)).encode()
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(text)
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Do not log per request."""


def _checked(token: Secret) -> str:
    text = token.read()
    if len(text) < _SHORTEST_TOKEN:
        raise ConfigError(f"{token.path}: token: must have at least {_SHORTEST_TOKEN} characters")
    return text


def _address(text: str) -> tuple[IPv4Address | IPv6Address, int]:
    """Read IP:PORT, an IPv6 address in brackets; a name would leave open where the endpoint listens."""
    host, _, port = text.rpartition(":")
    try:
        return ip_address(host.strip("[]").replace("localhost", "127.0.0.1")), int(port)
    except ValueError:
        raise ConfigError(f"shed: --serve: {text!r}: must be IP:PORT, such as 127.0.0.1:8470") from None
