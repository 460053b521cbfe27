"""The HTTP side of the live pages: what may be asked for, by whom, and how much of it.

    GET /                the first screen, which keeps itself up to date
    GET /now             its changing part
    GET /d/DASHBOARD     a dashboard, such as /d/powerhall-hall?hall=h1
    GET /overview.json   the answers of the first screen as data
    GET /health          "ok", without a token
    GET /plotly.js       the chart library

Only GET and HEAD are answered: nothing can be changed. With a token a request must show it, as `Authorization: Bearer
TOKEN` or as the password of any user, for which a browser asks. Without one, only requests to a name of this machine
are answered, so that no other web page can read along through a name of its own (DNS rebinding).
"""

import asyncio
import base64
import binascii
import hmac
import signal
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from ipaddress import ip_address
from typing import TypeVar
from urllib.parse import parse_qsl, unquote, urlsplit

from powerhall.runtime.errors import ConfigError, PowerhallError
from powerhall.runtime.log import Log
from powerhall.runtime.settings import Secret
from powerhall.serving.http_server import Answer, Exchange, HttpServer, Limits, RefusedError
from powerhall.serving.listener import checked_token
from powerhall.serving.rate_limit import RateLimit
from powerhall.serving.server_tls import ServerTls
from powerhall_dashboards.boards import BOARDS
from powerhall_dashboards.served.live_pages import BOARD_NAMES, LivePages, Page

__all__ = ["PageServer"]

T = TypeVar("T")
_CHOICES = frozenset(choice.name for board in BOARDS for choice in board.choices)
_MOST_WAITING = 16
"""Requests that may wait for the store; the others are asked to come again."""
_LIMITS = Limits(connections=64, per_peer=32, answer_s=60.0, write_s=20.0, body_bytes=0)
_SECURE = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
}


class PageServer:
    """Answers requests for the pages of one store."""

    def __init__(
        self,
        listener: socket.socket,
        pages: LivePages,
        token: Secret | None,
        log: Log,
        *,
        tls: ServerTls | None = None,
        wrong: RateLimit | None = None,
        limits: Limits = _LIMITS,
    ) -> None:
        """Take over a bound socket; `wrong` paces requests with a wrong token."""
        self.pages, self._token, self._log = pages, token, log
        self._wrong = wrong or RateLimit(0.5, 10.0)
        self._server = HttpServer(listener, self._answer, log, limits, tls)
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="pages")
        self._waiting = 0

    async def run(self) -> None:
        """Serve until cancelled."""
        try:
            await self._server.run()
        finally:
            self._pool.submit(self.pages.close)
            self._pool.shutdown(wait=True, cancel_futures=False)

    async def run_until_told(self) -> None:
        """Serve until SIGTERM or Ctrl-C."""
        serving = asyncio.ensure_future(self.run())
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, serving.cancel)
        with suppress(asyncio.CancelledError):
            await serving

    async def _answer(self, exchange: Exchange) -> Answer:
        target = urlsplit(exchange.path)
        if exchange.method not in {"GET", "HEAD"}:
            return Answer(405, {"error": "only GET and HEAD: nothing can be changed here"}, {"Allow": "GET, HEAD"})
        if target.path == "/health":
            return Answer(200, {"status": "ok"})
        refused = self._refused(exchange)
        if refused is not None:
            return refused
        exchange.keep()
        if target.path == "/plotly.js":
            return Answer(200, await self._in_thread(_plotly), {**_SECURE, **_SCRIPT})
        try:
            given = _given(target.query)
        except ValueError as error:
            return Answer(400, {"error": str(error)}, _SECURE)
        return await self._page(unquote(target.path), given)

    async def _page(self, path: str, given: dict[str, tuple[str, ...]]) -> Answer:
        if path == "/overview.json":
            try:
                return Answer(200, await self._in_thread(self.pages.state, given), _SECURE)
            except PowerhallError as error:
                return Answer(503, {"error": str(error)}, _SECURE)
        uid = path.removeprefix("/d/")
        make: Callable[[], Page]
        if path == "/":
            make = lambda: self.pages.first_screen(given)  # noqa: E731
        elif path == "/now":
            make = lambda: self.pages.now(given)  # noqa: E731
        elif path.startswith("/d/") and uid in BOARD_NAMES:
            make = lambda: self.pages.board(uid, given)  # noqa: E731
        else:
            return Answer(404, {"error": f"{path[:200]}: not known; the first screen is at /"}, _SECURE)
        page = await self._in_thread(make)
        return Answer(200 if page.is_known else 503, page.html, _SECURE)

    async def _in_thread(self, call: Callable[..., T], *args: object) -> T:
        """Call what waits for the store outside the event loop, one call at a time."""
        if self._waiting >= _MOST_WAITING:
            raise RefusedError(503, "busy: the store is slow, and many look at it; come again")
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, call, *args)
        finally:
            self._waiting -= 1

    def _refused(self, exchange: Exchange) -> Answer | None:
        """Return the answer to a request that may not see the pages."""
        if self._token is None:
            if _is_this_machine(exchange.headers.get("host", "")):
                return None
            return Answer(403, {"error": "Host: must be a name of this machine: there is no token"}, _SECURE)
        try:
            wanted = checked_token(self._token)
        except ConfigError as error:
            self._log.error("token", detail=error)
            return Answer(503, {"error": "the token file cannot be read"}, _SECURE)
        if hmac.compare_digest(_shown(exchange.headers.get("authorization", "")).encode(), wanted.encode()):
            return None
        wait_s = self._wrong.wait_s()
        if wait_s:
            return Answer(429, {"error": "too many requests"}, {"Retry-After": str(int(wait_s) + 1)})
        ask = {"WWW-Authenticate": 'Basic realm="Powerhall: any user, the token as password", charset="UTF-8"'}
        return Answer(401, {"error": "a token is needed: any user, the token as password"}, {**_SECURE, **ask})


_SCRIPT = {"Content-Type": "text/javascript; charset=utf-8", "Cache-Control": "private, max-age=86400"}


def _plotly() -> bytes:
    from plotly.offline import get_plotlyjs

    script: str = get_plotlyjs()
    return script.encode()


def _given(query: str) -> dict[str, tuple[str, ...]]:
    """Return the choices of a query string; a name that no dashboard has raises ValueError."""
    given: dict[str, tuple[str, ...]] = {}
    for name, value in parse_qsl(query, max_num_fields=32):
        if name not in _CHOICES:
            raise ValueError(f"{name[:60]}: must be one of {', '.join(sorted(_CHOICES))}")
        given[name] = (*given.get(name, ()), value[:300])
    return given


def _shown(header: str) -> str:
    """Return the token of an Authorization header: that of Bearer, or the password of Basic; "" for any other."""
    kind, _, text = header.partition(" ")
    if kind.lower() == "bearer":
        return text.strip()
    if kind.lower() != "basic":
        return ""
    try:
        return base64.b64decode(text.strip(), validate=True).decode().partition(":")[2]
    except (binascii.Error, UnicodeDecodeError):
        return ""


def _is_this_machine(host: str) -> bool:
    name = urlsplit(f"//{host}").hostname or ""
    try:
        return name == "localhost" or ip_address(name).is_loopback
    except ValueError:
        return False
