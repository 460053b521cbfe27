"""The optional /metrics endpoint in Prometheus' text format, with TLS and basic auth."""

import base64
import hmac
import http.server
import ssl
import threading
from collections.abc import Iterable

from powerhall.runtime.errors import ConfigError
from powerhall.runtime.log import Log
from powerhall.runtime.settings import Secret
from powerhall.store.line_protocol import Point, parse_lines
from powerhall.store.schema import MEASUREMENTS
from powerhall_agent.settings.agent_settings import PrometheusSettings

__all__ = ["Exposition", "render"]

_STALE_MS = 60_000
_TIMEOUT_S = 10.0


class Exposition:
    """The newest line of every series; read by the endpoint, written by the daemon."""

    def __init__(self) -> None:
        self._newest: dict[bytes, bytes] = {}
        self._lock = threading.Lock()
        self.server: http.server.ThreadingHTTPServer | None = None

    def update(self, lines: bytes) -> None:
        """Keep the newest lines; they are parsed at a scrape."""
        with self._lock:
            for line in lines.splitlines():
                self._newest[_series(line)] = line

    def text(self) -> str:
        """Render the points of the last minute, counted from the newest."""
        with self._lock:
            lines = b"\n".join(self._newest.values())
        points = list(parse_lines(lines))
        newest_ms = max((point.time_ms for point in points), default=0)
        return render(point for point in points if newest_ms - point.time_ms <= _STALE_MS)

    def serve(self, settings: PrometheusSettings, log: Log) -> None:
        """Serve in a thread; a port or certificate that cannot be used raises ConfigError."""
        host, _, port = settings.listen.rpartition(":")
        password = Secret(settings.password_file) if settings.password_file else None
        if password is not None:
            password.read()
        handler = type("Handler", (_Handler,), {"exposition": self, "user": settings.user, "password": password})
        try:
            server = http.server.ThreadingHTTPServer((host.strip("[]") or "127.0.0.1", int(port)), handler)
            if settings.cert_file:
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                context.load_cert_chain(settings.cert_file, settings.key_file)
                server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        except (OSError, ssl.SSLError, OverflowError) as error:
            raise ConfigError(f"prometheus.listen: {settings.listen}: {error}") from None
        server.daemon_threads = True
        self.server = server
        threading.Thread(target=server.serve_forever, name="prometheus", daemon=True).start()
        log.info("prometheus", listen=settings.listen, tls=bool(settings.cert_file), auth=bool(settings.user))

    def close(self) -> None:
        """Stop the server."""
        if self.server is not None:
            self.server.shutdown()
            self.server.server_close()


def render(points: Iterable[Point]) -> str:
    """Write numeric fields as gauges `powerhall_MEASUREMENT_FIELD{tags}`; text fields of identities become labels."""
    families: dict[str, list[str]] = {}
    for point in points:
        labels = {**point.tags, **{k: v for k, v in point.fields.items() if isinstance(v, str)}}
        text = ",".join(f'{key}="{_label(value)}"' for key, value in labels.items())
        for field, value in point.fields.items():
            if isinstance(value, str):
                continue
            name = f"powerhall_{point.measurement}_{field}"
            help_ = _help(point.measurement, field)
            family = families.setdefault(name, [f"# HELP {name} {help_}", f"# TYPE {name} gauge"])
            family.append(f"{name}{{{text}}} {value!r}")
    return "".join("\n".join(lines) + "\n" for _, lines in sorted(families.items()))


class _Handler(http.server.BaseHTTPRequestHandler):
    """GET /metrics; everything else is 404, a missing or wrong password 401."""

    exposition: Exposition
    user: str
    password: Secret | None
    timeout = _TIMEOUT_S
    server_version = "powerhall-agent"
    sys_version = ""

    def do_GET(self) -> None:
        """Answer a scrape."""
        if not self._allowed():
            self._answer(401, "a user and a password are needed\n", {"WWW-Authenticate": 'Basic realm="powerhall"'})
        elif self.path.partition("?")[0] != "/metrics":
            self._answer(404, "metrics are at /metrics\n", {})
        else:
            self._answer(200, self.exposition.text(), {})

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's name
        """Scrapes are not logged."""

    def _allowed(self) -> bool:
        if self.password is None:
            return True
        try:
            want = base64.b64encode(f"{self.user}:{self.password.read()}".encode()).decode()
        except ConfigError:
            return False
        return hmac.compare_digest(self.headers.get("Authorization", "").encode(), f"Basic {want}".encode())

    def _answer(self, status: int, text: str, headers: dict[str, str]) -> None:
        body = text.encode()
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _series(line: bytes) -> bytes:
    """Return measurement and tags: the part before the first space that is not escaped."""
    at = line.find(b" ")
    while at > 0 and line[at - 1 : at] == b"\\":
        at = line.find(b" ", at + 1)
    return line[:at]


def _help(measurement: str, field: str) -> str:
    entry = MEASUREMENTS.get(measurement)
    found = [known for known in entry.fields if known.name == field] if entry is not None else []
    return f"{found[0].text} [{found[0].unit}]" if found and found[0].unit else found[0].text if found else field


def _label(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ")
