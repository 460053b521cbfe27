"""HTTP endpoint for grid operators: POST an event, GET its state.

    POST /v1/events        one event as JSON (see `signals`), Authorization: Bearer TOKEN
    GET  /v1/events        all events, newest first
    GET  /v1/events/ID     one
    GET  /v1/health        "ok", without a token
    GET  /v1/ready         "ready", or 503 with the parts that do not work, without a token

Answers: 200 done (also for a repeated event), 202 accepted, not done yet, 400 refused with the reason, 401, 404, 408,
409 an older modification than the one in force, 411, 413, 429 with Retry-After, 501, 503. The token is read from its
file for every request, so that it can be changed. `http_server` has the deadlines and the bounds.
"""

import asyncio
import hmac
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import tzinfo
from pathlib import Path
from typing import TypeVar

import msgspec

from powerhall.runtime.errors import ConfigError, PowerhallError, Rejected
from powerhall.runtime.log import Log
from powerhall.runtime.settings import Secret
from powerhall.serving.http_server import Answer, Exchange, HttpServer, Limits
from powerhall.serving.listener import bind, check_reach, checked_token, read_address
from powerhall.serving.rate_limit import RateLimit
from powerhall.serving.server_tls import ServerTls
from powerhall_optimizer.shed.event_manager import EventManager, ShedEvent
from powerhall_optimizer.shed.health import Health
from powerhall_optimizer.shed.signals import Signal, parse_signals

__all__ = ["HttpEndpoint", "RateLimit"]

T = TypeVar("T")

_SERVE, _HEALTH = "shed: --serve", "shed: --health"
_LOOK_S = 0.05
_WORKERS = 4
_EVENTS = "/v1/events"
_READS = ("GET", "HEAD")


class HttpEndpoint:
    """The server of the events and, where `health_address` is given, a second one for health alone; one thread."""

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
        health: Health | None = None,
        health_address: str | None = None,
        allow_http: bool = False,
        limits: Limits | None = None,
        zone: tzinfo | None = None,
    ) -> None:
        """Bind; beyond loopback only with TLS. `right` paces requests with the token, `wrong` those without.

        `zone` is that of local times.
        """
        host, port = read_address(address, _SERVE, "127.0.0.1:8470")
        check_reach(host, _SERVE, address, tls=cert is not None, allow_http=allow_http)
        self._token = Secret(token_file)
        checked_token(self._token)
        self.manager, self.site, self.log, self._zone = manager, site, log, zone
        self.health = health or Health()
        self.right, self.wrong = right or RateLimit(1.0, 20.0), wrong or RateLimit(0.2, 5.0)
        tls = None if cert is None else ServerTls(cert, key, log)
        self._pool = ThreadPoolExecutor(_WORKERS, thread_name_prefix="endpoint")
        listener = bind(host, port, _SERVE, address)
        self.port: int = listener.getsockname()[1]
        self._servers = [HttpServer(listener, self._answer, log, limits or Limits(), tls)]
        self.health_port = 0
        if health_address is not None:
            try:
                listener = _health_listener(health_address)
            except ConfigError:
                self._servers[0].close()
                raise
            self.health_port = listener.getsockname()[1]
            self._servers.append(HttpServer(listener, self._answer_health, log, limits or Limits()))
        self._loop: asyncio.AbstractEventLoop | None = None
        self._begun, self._stop = threading.Event(), asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="endpoint", daemon=True)

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()
        self._begun.wait(5)

    def close(self) -> None:
        """Stop answering."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._stop.set)
        if self._thread.is_alive():
            self._thread.join(5)
        for server in self._servers:
            server.close()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def is_token(self, header: str) -> bool:
        """Compare a request's token in constant time."""
        kind, _, given = header.partition(" ")
        return kind.lower() == "bearer" and hmac.compare_digest(
            given.strip().encode(), checked_token(self._token).encode()
        )

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._begun.set()
        tasks = [asyncio.create_task(server.run()) for server in self._servers]
        await self._stop.wait()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _in_thread(self, call: Callable[..., T], *args: object) -> T:
        """Call what waits for a lock or a disk outside the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, call, *args)

    async def _answer_health(self, exchange: Exchange) -> Answer:
        if exchange.method not in _READS:
            return Answer(501, {"error": f"{exchange.method[:20]}: not supported"})
        path = exchange.path.partition("?")[0]
        if path == "/v1/health":
            return Answer(200, {"status": "ok"})
        if path == "/v1/ready":
            problems = self.health.problems()
            if problems:
                return Answer(503, {"status": "not ready", "parts": sorted(problems)})
            return Answer(200, {"status": "ready"})
        return Answer(404, {"error": f"{exchange.path[:200]}: not known"})

    async def _answer(self, exchange: Exchange) -> Answer:
        if exchange.method not in {*_READS, "POST"}:
            return Answer(501, {"error": f"{exchange.method[:20]}: not supported"})
        if exchange.method in _READS and exchange.path.partition("?")[0] in {"/v1/health", "/v1/ready"}:
            return await self._answer_health(exchange)
        refused = self._refused(exchange)
        if refused is not None:
            return refused
        exchange.keep()
        if exchange.method in _READS:
            return await self._get(exchange)
        if exchange.path != _EVENTS:
            return Answer(404, {"error": f"{exchange.path[:200]}: not known; post to {_EVENTS}"})
        return await self._post(await exchange.body())

    async def _get(self, exchange: Exchange) -> Answer:
        if exchange.path == _EVENTS:
            events = await self._in_thread(self.manager.events)
            return Answer(200, {"events": [msgspec.to_builtins(known) for known in events]})
        if exchange.path.startswith(_EVENTS + "/"):
            known = await self._in_thread(self.manager.event, exchange.path.removeprefix(_EVENTS + "/"))
            if known is not None:
                return Answer(200, known)
        return Answer(404, {"error": f"{exchange.path[:200]}: not known"})

    async def _post(self, body: bytes) -> Answer:
        """Register an event and wait for its outcome, at most until its own deadline."""
        try:
            signals = parse_signals(body, "request", self.site, self.manager.now_s(), self._zone)
            if len(signals) != 1:
                raise Rejected("request: must hold one event")  # noqa: TRY301 - one answer for all refusals
            if signals[0].is_test:
                return Answer(200, {"event_id": signals[0].event_id, "state": "test"})
            known = await self._in_thread(self.manager.receive, signals[0])
        except Rejected as error:
            return Answer(400, {"error": str(error)})
        except PowerhallError as error:
            return Answer(503, {"error": str(error)})
        except Exception as error:  # noqa: BLE001 - an input that meets a defect is refused, and the service goes on
            self.log.error("signal_defect", source="request", detail=repr(error))
            return Answer(400, {"error": "request: cannot be used: it met a defect, which is in the log"})
        return await self._outcome(signals[0], known)

    async def _outcome(self, signal: Signal, known: ShedEvent) -> Answer:
        if signal.modification < known.modification:
            text = f"event {known.event_id}: modification {signal.modification} is older than {known.modification}"
            return Answer(409, {"error": f"{text}, which stays in force", "event": msgspec.to_builtins(known)})
        deadline_s = time.monotonic() + min(known.within_s + 5.0, 30.0)
        while known.state == "announced" and known.start_s <= self.manager.now_s() and not known.problem:
            if time.monotonic() > deadline_s:
                break
            await asyncio.sleep(_LOOK_S)
            now = await self._in_thread(self.manager.event, known.event_id)
            known = now or known
        return Answer(202 if known.state == "announced" else 200, known)

    def _refused(self, exchange: Exchange) -> Answer | None:
        """Check the token and the rate limit; return the answer where the request is refused."""
        try:
            is_token = self.is_token(exchange.headers.get("authorization", ""))
        except ConfigError as error:
            self.log.error("token", detail=error)
            return Answer(503, {"error": "the token file cannot be read"})
        wait_s = (self.right if is_token else self.wrong).wait_s()
        if wait_s:
            return Answer(429, {"error": "too many requests"}, {"Retry-After": str(int(wait_s) + 1)})
        if not is_token:
            self.log.warning("refused", client=exchange.peer, detail="no token, or a wrong one")
            text = "Authorization: must be Bearer and the token"
            return Answer(401, {"error": text}, {"WWW-Authenticate": "Bearer"})
        return None


def _health_listener(address: str) -> socket.socket:
    """Bind the address of the health endpoint, which must be on loopback: it has no token."""
    host, port = read_address(address, _HEALTH, "127.0.0.1:8470")
    if not host.is_loopback:
        raise ConfigError(f"{_HEALTH}: {address!r}: must be on loopback, such as 127.0.0.1:8471")
    return bind(host, port, _HEALTH, address)
