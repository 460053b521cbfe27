"""A real InfluxDB 1.6 on loopback, and nginx in front of it as the /api/v2/write endpoint of later versions; or 1.8.3.

Both are started once per test run on free ports, with configuration written here, and stopped at its end. The programs
come from Debian's packages `influxdb` and `nginx`; where one is absent `start` says so and tests skip. InfluxDB 1.8.3,
which has the endpoint itself, is built from its Go module by `.ci/run` (or `make influxd`); `start_1_8` runs it.
"""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_DEADLINE_S = 20.0

_INFLUXD = """\
reporting-disabled = true
bind-address = "127.0.0.1:{rpc_port}"
[meta]
  dir = "{folder}/meta"
[data]
  dir = "{folder}/data"
  wal-dir = "{folder}/wal"
  index-version = "tsi1"
  query-log-enabled = false
{tuning}[monitor]
  store-enabled = false
[http]
  bind-address = "127.0.0.1:{http_port}"
  log-enabled = false
  auth-enabled = {auth}
[subscriber]
  enabled = false
[continuous_queries]
  enabled = false
"""

# The v2 write endpoint over a version 1 server: bucket "db/rp" becomes db and rp, precisions get their old names.
_NGINX = """\
worker_processes 1;
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/nginx.log warn;
events {{ worker_connections 256; }}
http {{
  access_log off;
  client_max_body_size 64m;
  client_body_buffer_size 8m;
  client_body_temp_path {folder}/tmp/body;
  proxy_temp_path {folder}/tmp/proxy;
  fastcgi_temp_path {folder}/tmp/fastcgi;
  uwsgi_temp_path {folder}/tmp/uwsgi;
  scgi_temp_path {folder}/tmp/scgi;
  map $arg_precision $v1_precision {{ default n; ns n; us u; ms ms; s s; }}
  map $arg_bucket $v1_db {{ default $arg_bucket; "~^(?<a>.+?)(?:/|%2[Ff]).+$" $a; }}
  map $arg_bucket $v1_rp {{ default ""; "~^.+?(?:/|%2[Ff])(?<b>.+)$" $b; }}
  upstream influx {{ server 127.0.0.1:{http_port}; keepalive 16; }}
  server {{
    listen 127.0.0.1:{shim_port};
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    proxy_set_header Host $host;
    location = /api/v2/write {{
      rewrite ^ /write?db=$v1_db&rp=$v1_rp&precision=$v1_precision? break;
      proxy_pass http://influx;
    }}
    location = /write {{ proxy_pass http://influx; }}
    location = /query {{ proxy_pass http://influx; }}
    location = /ping {{ proxy_pass http://influx; }}
    location / {{ default_type application/json; return 404 '{{"code":"not found","message":"path not found"}}'; }}
  }}
}}
"""


@dataclass(frozen=True, slots=True)
class InfluxRig:
    """A running server: `port` is influxd's own (no v2 endpoint), `shim_port` has the v2 write endpoint too."""

    port: int
    shim_port: int
    pid: int
    folder: Path

    def statement(self, text: str) -> str:
        """Run one InfluxQL statement and return the answer's JSON text."""
        body = urllib.parse.urlencode({"q": text}).encode()
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/query", body, timeout=30) as answer:
            return answer.read().decode()

    def database(self, name: str) -> str:
        """Make the database anew and return its name."""
        self.statement(f'DROP DATABASE "{name}"')
        self.statement(f'CREATE DATABASE "{name}"')
        return name

    def url(self, name: str, options: str = "version=2") -> str:
        """Return the store URL of a database behind the v2 endpoint."""
        return f"influxdb://127.0.0.1:{self.shim_port}/{name}?{options}"


def missing() -> str:
    """Say which program is absent; "" when the rig can start."""
    absent = [name for name in ("influxd", "nginx") if shutil.which(name, path=_PATH) is None]
    return f"{', '.join(absent)} not installed (apt install influxdb nginx)" if absent else ""


_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


BUILT = Path.home() / ".cache" / "powerhall-tools" / "influxd"
"""InfluxDB 1.8.3: `GOBIN=~/.cache/powerhall-tools go install github.com/influxdata/influxdb/cmd/influxd@v1.8.3`."""


@contextmanager
def start_1_8() -> Iterator[InfluxRig]:
    """Start InfluxDB 1.8.3, whose own port has the v2 write endpoint, and stop it at the end."""
    folder = Path(tempfile.mkdtemp(prefix="powerhall-influx18-"))
    ports = {"http_port": _free_port(), "rpc_port": _free_port()}
    (folder / "influxd.conf").write_text(_INFLUXD.format(folder=folder, auth="false", tuning="", **ports))
    influxd = _spawn(str(BUILT), "run", "-config", str(folder / "influxd.conf"), log=folder / "influxd.log")
    try:
        _wait(f"http://127.0.0.1:{ports['http_port']}/ping", influxd)
        yield InfluxRig(ports["http_port"], ports["http_port"], influxd.pid, folder)
    finally:
        _stop(influxd)
        shutil.rmtree(folder, ignore_errors=True)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def start(*, auth: bool = False, keep: Path | None = None, tuning: str = "") -> Iterator[InfluxRig]:
    """Start influxd and nginx, wait until both answer, and stop them at the end.

    `keep` is a folder that holds the data from one start to the next; `tuning` are more lines for `[data]`.
    """
    folder = keep or Path(tempfile.mkdtemp(prefix="powerhall-influx-"))
    folder.joinpath("tmp").mkdir(parents=True, exist_ok=True)
    ports = {"http_port": _free_port(), "rpc_port": _free_port(), "shim_port": _free_port()}
    words = {"folder": folder, "auth": "true" if auth else "false", "tuning": tuning}
    (folder / "influxd.conf").write_text(_INFLUXD.format(**words, **ports))
    (folder / "nginx.conf").write_text(_NGINX.format(folder=folder, **ports))
    influxd = _spawn("influxd", "run", "-config", str(folder / "influxd.conf"), log=folder / "influxd.log")
    nginx = _spawn("nginx", "-c", str(folder / "nginx.conf"), "-p", str(folder), log=folder / "nginx.out")
    try:
        _wait(f"http://127.0.0.1:{ports['http_port']}/ping", influxd)
        _wait(f"http://127.0.0.1:{ports['shim_port']}/ping", nginx)
        yield InfluxRig(ports["http_port"], ports["shim_port"], influxd.pid, folder)
    finally:
        for process in (nginx, influxd):
            _stop(process)
        if keep is None:
            shutil.rmtree(folder, ignore_errors=True)


def _spawn(name: str, *arguments: str, log: Path) -> subprocess.Popen[bytes]:
    program = shutil.which(name, path=_PATH)
    assert program, missing()
    with log.open("wb") as out:
        return subprocess.Popen([program, *arguments], stdout=out, stderr=out, start_new_session=True)


def _wait(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _DEADLINE_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"{process.args} ended with {process.returncode} before it answered")
        try:
            urllib.request.urlopen(url, timeout=2).close()
        except (urllib.error.URLError, OSError):
            time.sleep(0.05)
        else:
            return
    raise RuntimeError(f"{url} did not answer within {_DEADLINE_S} s")


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End the whole process group: nginx has workers."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)
