"""The optional /metrics endpoint in Prometheus' text format or as OpenMetrics, with TLS and basic auth."""

import base64
import hmac
import http.server
import io
import re
import socket
import ssl
import threading
import time
from collections.abc import Iterable
from contextlib import suppress

from powerhall.runtime.errors import ConfigError, Rejected
from powerhall.runtime.files import check_regular
from powerhall.runtime.log import Log
from powerhall.runtime.settings import Secret
from powerhall.store.line_protocol import Point, parse_lines
from powerhall.store.schema import MEASUREMENTS
from powerhall_agent.daemon.dcgm_names import Sample, dcgm_samples
from powerhall_agent.daemon.metric_names import Metric, metric_of
from powerhall_agent.daemon.metrics_server import MetricsServer, Reply
from powerhall_agent.settings.agent_settings import PrometheusSettings

__all__ = ["Exposition", "render"]

_READINGS = ("gpu", "gpu_fast", "gpu_slow", "gpu_mig", "gpu_activity")
_INFO = Metric("powerhall_gpu_info", False, "identity of a GPU")
_JOB = re.compile(rb'job="(?:[^"\\]|\\.)*"')

_STALE_MS = 60_000
_CADENCES = 3
_OPEN_S = 900.0
"""An interval of a job that runs is written again every five minutes; without that it is over."""
_KEPT_S = 1.0
"""How long a rendered text is answered again: however many ask, it is rendered once a second."""
_OPEN_METRICS = "application/openmetrics-text"


class Exposition:
    """The newest line of every series; read by the endpoint, written by the daemon."""

    def __init__(self, names: str = "powerhall") -> None:
        """`names` is `powerhall`, `dcgm` or `both`."""
        self._names = names
        self._newest: dict[tuple[bytes, bytes], tuple[bytes, float]] = {}
        """Line and its time of arrival by series; a GPU has a line for each of its jobs."""
        self._lock = threading.Lock()
        self._rendered: dict[bool, tuple[bytes, float]] = {}
        self.server: MetricsServer | None = None

    def update(self, lines: bytes) -> None:
        """Keep the newest lines; they are parsed at a scrape."""
        now_s = time.monotonic()
        with self._lock:
            for line in lines.splitlines():
                self._newest[_series(line)] = line, now_s

    def clear(self) -> None:
        """Forget all lines: the wall clock was set, and the newest may lie in the future."""
        with self._lock:
            self._newest.clear()

    def text(self, *, is_open: bool = False) -> str:
        """Render the present points, as text or as OpenMetrics (`is_open`)."""
        points = self._points()
        fresh = [point for point in points if point.measurement != "event" or _is_fresh(point, _newest_ms(points))]
        samples = dcgm_samples(points) if self._names != "powerhall" else []
        samples += own_samples(fresh) if self._names != "dcgm" else []
        return render(samples, is_open=is_open)

    def _points(self) -> list[Point]:
        """Return the present points, and forget the others."""
        now_s = time.monotonic()
        with self._lock:
            kept = list(self._newest.items())
        read = []
        for key, (line, came_s) in kept:
            with suppress(Rejected):  # one line that cannot be read costs itself alone
                read += [(key, point, came_s) for point in parse_lines(line)]
        newest_ms = _newest_ms([point for _, point, _ in read])
        gone = [key for key, point, came_s in read if not _is_present(point, newest_ms, now_s - came_s)]
        with self._lock:
            for key in gone:
                self._newest.pop(key, None)
        left = set(gone)
        return _without_lost([point for key, point, _ in read if key not in left])

    def body(self, *, is_open: bool = False) -> bytes:
        """Return the text as bytes, which all answers within a second share."""
        now_s = time.monotonic()
        body, rendered_s = self._rendered.get(is_open, (b"", -_KEPT_S))
        if now_s - rendered_s >= _KEPT_S:
            body = self.text(is_open=is_open).encode()
            self._rendered[is_open] = body, now_s
        return body

    def serve(self, settings: PrometheusSettings, log: Log) -> None:
        """Serve in a thread; a port or certificate that cannot be used raises ConfigError."""
        host, _, port = settings.listen.rpartition(":")
        password = Secret(settings.password_file) if settings.password_file else None
        if password is not None:
            password.read()
        tls = None
        try:
            if settings.cert_file:
                tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                check_regular(settings.cert_file, settings.key_file)  # load_cert_chain would wait for a pipe
                tls.load_cert_chain(settings.cert_file, settings.key_file)
            family, *_, address = socket.getaddrinfo(
                host.strip("[]") or "127.0.0.1", int(port), type=socket.SOCK_STREAM
            )[0]
            listener = socket.create_server(address[:2], family=family)
        except (OSError, ssl.SSLError, OverflowError) as error:
            raise ConfigError(f"prometheus.listen: {settings.listen}: {error}") from None
        self.server = MetricsServer(listener, lambda request: self._respond(request, settings.user, password), log, tls)
        log.info("prometheus", listen=settings.listen, tls=bool(settings.cert_file), auth=bool(settings.user))

    def close(self) -> None:
        """Stop the server."""
        if self.server is not None:
            self.server.close()

    def _respond(self, request: bytes, user: str, password: Secret | None) -> Reply:
        handler = _Handler(request, self, user, password)
        return Reply(handler.out.getvalue(), handler.body, handler.authorised)


def own_samples(points: Iterable[Point]) -> list[Sample]:
    """Return our own metrics: a number per field, with the tags and texts of its point as labels.

    The texts of an identity stand on `powerhall_gpu_info` alone.
    """
    samples: list[Sample] = []
    for point in points:
        texts = {name: value for name, value in point.fields.items() if isinstance(value, str)}
        labels = {**point.tags, **texts}
        if point.measurement == "gpu_identity":
            samples.append((_INFO, labels, 1.0))
            labels = dict(point.tags)
        for name, value in point.fields.items():
            if not isinstance(value, str):
                metric = metric_of(point.measurement, name)
                samples.append((metric, labels, value * metric.factor))
    return samples


def render(samples: Iterable[Sample], *, is_open: bool = False) -> str:
    """Write samples in Prometheus' text format 0.0.4, or as OpenMetrics 1.0 with its end mark."""
    families: dict[str, list[str]] = {}
    for metric, labels, value in samples:
        text = ",".join(f'{key}="{_label(entry)}"' for key, entry in labels.items())
        family = families.setdefault(metric.name, _head(metric, is_open=is_open))
        family.append(f"{metric.name}{{{text}}} {value!r}")
    lines = [line for _, family in sorted(families.items()) for line in family]
    return "".join(f"{line}\n" for line in (*lines, *(["# EOF"] if is_open else [])))


def _head(metric: Metric, *, is_open: bool) -> list[str]:
    name, kind = metric.name, "counter" if metric.is_counter else "gauge"
    if is_open and metric.is_counter and name.endswith("_total"):
        name = metric.family
    elif is_open and metric is _INFO:
        name, kind = metric.family.removesuffix("_info"), "info"
    elif is_open and metric.is_counter:  # of dcgm-exporter, whose counters have no suffix
        kind = "unknown"
    return [f"# HELP {name} {metric.help}", f"# TYPE {name} {kind}"]


class _Handler(http.server.BaseHTTPRequestHandler):
    """GET /metrics of one request in memory; everything else is 404, a missing or wrong password 401."""

    server_version = "powerhall-agent"
    sys_version = ""

    def __init__(self, request: bytes, exposition: Exposition, user: str, password: Secret | None) -> None:
        self._exposition, self._user, self._password = exposition, user, password
        self.out = io.BytesIO()
        self.rfile, self.wfile = io.BytesIO(request), self.out
        self.client_address = ("", 0)
        self.body, self.authorised = b"", False
        self.handle()

    def do_GET(self) -> None:
        """Answer a scrape."""
        if not self._allowed():
            self._answer(401, b"a user and a password are needed\n", {"WWW-Authenticate": 'Basic realm="powerhall"'})
        elif self.path.partition("?")[0] != "/metrics":
            self._answer(404, b"metrics are at /metrics\n", {})
        else:
            is_open = _OPEN_METRICS in self.headers.get("Accept", "")
            self._answer(200, self._exposition.body(is_open=is_open), {}, is_open=is_open)

    def do_HEAD(self) -> None:
        """Answer as to GET, without the body."""
        self.do_GET()
        self.body = b""

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's name
        """Scrapes are not logged."""

    def _allowed(self) -> bool:
        if self._password is None:
            return True
        try:
            want = base64.b64encode(f"{self._user}:{self._password.read()}".encode()).decode()
        except ConfigError:
            return False
        given = self.headers.get("Authorization", "").encode("utf-8", "replace")
        self.authorised = hmac.compare_digest(given, f"Basic {want}".encode())
        return self.authorised

    def _answer(self, status: int, body: bytes, headers: dict[str, str], *, is_open: bool = False) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        kind = f"{_OPEN_METRICS}; version=1.0.0" if is_open else "text/plain; version=0.0.4"
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.body = body


def _series(line: bytes) -> tuple[bytes, bytes]:
    """Return measurement and tags, the part before the first space that is not escaped, and the job of an interval."""
    at = line.find(b" ")
    while at > 0 and line[at - 1 : at] == b"\\":
        at = line.find(b" ", at + 1)
    job = _JOB.search(line, at) if line.startswith(b"job_interval") else None
    return line[:at], job[0] if job else b""


def _without_lost(points: list[Point]) -> list[Point]:
    """Leave out the readings of GPUs that do not answer now; what they are and their state stays."""
    lost = {
        point.tags.get("gpu") for point in points if point.measurement == "gpu_state" and point.fields.get("up") == 0.0
    }
    return [p for p in points if p.measurement not in _READINGS or p.tags.get("gpu") not in lost]


def _newest_ms(points: Iterable[Point]) -> int:
    return max((point.time_ms for point in points if point.measurement != "job_interval"), default=0)


def _is_present(point: Point, newest_ms: int, age_s: float) -> bool:
    """Return whether a point still says what is: an interval while it is open, the last XID of a GPU always."""
    if point.measurement == "job_interval":
        return not point.fields.get("end_s") and age_s <= _OPEN_S
    return (point.measurement == "event" and point.tags.get("kind") == "xid") or _is_fresh(point, newest_ms)


def _is_fresh(point: Point, newest_ms: int) -> bool:
    """Return whether a point is of the last minute, counted from the newest, or of the last few of its kind."""
    entry = MEASUREMENTS.get(point.measurement)
    kept_ms = max(_STALE_MS, 1000.0 * _CADENCES * (entry.cadence_s if entry is not None else 0.0))
    return newest_ms - point.time_ms <= kept_ms


def _label(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
