"""The InfluxDB store: classes of refusals, login, TLS, rotation of secrets, and refusals of a real server."""

import base64
import gzip
import json
import ssl
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from powerhall.runtime.errors import ConfigError, Rejected, Retryable
from powerhall.store import Query, Select, open_store
from powerhall.store.influxdb.store import InfluxStore

LINE = b"gpu,site=s,node=a power_w=1.0 1700000000000\n"
COUNT = Query("gpu", (Select("power_w", "count", "n"),))
EMPTY = b'{"results":[{"statement_id":0}]}'


class Server:
    """An HTTP server that gives the answers that a test sets, and keeps the requests."""

    def __init__(self) -> None:
        self.status, self.body, self.reply = 204, b"", None
        self.seen: list[tuple[str, dict[str, str], bytes]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                outer.seen.append((self.path, {k.lower(): v for k, v in self.headers.items()}, body))
                status, answer = outer.reply(self.path) if outer.reply else (outer.status, outer.body)
                self.send_response(status)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.port = self.http.server_address[1]
        self.thread = threading.Thread(target=self.http.serve_forever, args=(0.01,))
        self.thread.start()

    def close(self) -> None:
        self.http.shutdown()
        self.thread.join()
        self.http.server_close()


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.close()


@pytest.fixture
def connect(server: Server) -> Iterator[Callable[[str], InfluxStore]]:
    opened = []

    def open_(options: str = "") -> InfluxStore:
        opened.append(open_store(f"influxdb://127.0.0.1:{server.port}/power?{options}"))
        return opened[-1]

    yield open_
    for store in opened:
        store.close()


@pytest.mark.parametrize("version", [1, 2, 3])
@pytest.mark.parametrize(
    ("status", "body", "error", "words"),
    [
        (400, b'{"code":"invalid","message":"unable to parse line"}', Rejected, "refused (400): unable to parse line"),
        (422, b'{"message":"partial write"}', Rejected, "refused (422): partial write"),
        (413, b"too large", Rejected, "refused (413)"),
        (401, b'{"error":"authorization failed"}', ConfigError, "not allowed (401)"),
        (403, b'{"message":"forbidden"}', ConfigError, "not allowed (403)"),
        (404, b'{"error":"database not found: \\"power\\""}', ConfigError, "init-store"),
        (429, b"slow down", Retryable, "busy (429): slow down"),
        (500, b"", Retryable, "busy (500)"),
        (503, b'{"error":"engine: cache-max-memory-size exceeded"}', Retryable, "busy (503): engine"),
    ],
)
def test_each_refusal_becomes_the_error_class_for_the_caller(
    server: Server,
    connect: Callable[[str], InfluxStore],
    version: int,
    status: int,
    body: bytes,
    error: type,
    words: str,
) -> None:
    server.status, server.body = status, body
    store = connect(f"version={version}")
    for call in (lambda: store.write(LINE), lambda: store.query(COUNT, 0, 1)):
        with pytest.raises(error) as refusal:
            call()
        assert type(refusal.value) is error
        assert words in str(refusal.value)
        assert str(refusal.value).startswith(f"http://127.0.0.1:{server.port}/power: ")
        assert "\n" not in str(refusal.value)


def test_an_error_inside_an_answer_is_an_error(server: Server, connect: Callable[[str], InfluxStore]) -> None:
    server.status = 200
    store = connect()
    for text, error in (
        ("database not found: power", ConfigError),
        ("query timeout reached", Retryable),
        ("bad", Rejected),
    ):
        server.body = b'{"results":[{"statement_id":0,"error":"%s"}]}' % text.encode()
        with pytest.raises(error, match=text):
            store.query(COUNT, 0, 1)
    server.body = b"<html>a proxy's page</html>"
    with pytest.raises(Rejected, match="not InfluxQL's JSON"):
        store.query(COUNT, 0, 1)


def test_a_server_that_is_down_or_silent_is_retryable(server: Server, connect: Callable[[str], InfluxStore]) -> None:
    silent = threading.Event()
    server.reply = lambda _path: (silent.wait(5), (204, b""))[1]
    store = connect("timeout_s=0.2")
    for call in (lambda: store.write(LINE), lambda: store.query(COUNT, 0, 1)):
        with pytest.raises(Retryable, match="does not answer"):
            call()
    silent.set()
    gone = open_store("influxdb://127.0.0.1:1/power")
    for call in (
        lambda: gone.write(LINE),
        lambda: gone.query(COUNT, 0, 1),
        lambda: gone.put_document("a", "b", 1, b"c"),
    ):
        with pytest.raises(Retryable, match=r"http://127\.0\.0\.1:1/power: does not answer"):
            call()
    gone.close()


def test_version_2_writes_with_its_token_and_reads_with_it_as_basic_password(
    server: Server, connect: Callable[[str], InfluxStore], tmp_path: Path
) -> None:
    (tmp_path / "token").write_text("first\n")
    store = connect(f"org=ops&token_file={tmp_path / 'token'}")
    store.write(LINE)
    path, headers, body = server.seen[-1]
    assert path == "/api/v2/write?org=ops&bucket=power&precision=ms"
    assert (headers["authorization"], headers["content-encoding"], body.strip()) == (
        "Token first",
        "gzip",
        LINE.strip(),
    )
    server.status, server.body = 200, EMPTY
    assert store.query(COUNT, 0, 1) == []
    path, headers, body = server.seen[-1]
    assert path == "/query"
    assert b"db=power&epoch=ms&q=SELECT" in body
    assert base64.b64decode(headers["authorization"].removeprefix("Basic ")) == b"powerhall:first"


def test_a_rotated_token_is_used_at_the_next_write(
    server: Server, connect: Callable[[str], InfluxStore], tmp_path: Path
) -> None:
    token = tmp_path / "token"
    store = connect(f"token_file={token}")
    for text in ("first", "second"):
        token.write_text(text)
        store.write(LINE)
    assert [headers["authorization"] for _, headers, _ in server.seen] == ["Token first", "Token second"]


def test_a_missing_token_file_is_named(server: Server, connect: Callable[[str], InfluxStore], tmp_path: Path) -> None:
    store = connect(f"token_file={tmp_path / 'absent'}")
    with pytest.raises(ConfigError, match="absent: cannot read the secret"):
        store.write(LINE)
    assert server.seen == []


def test_a_proxy_gets_every_request_under_its_path(server: Server, connect: Callable[[str], InfluxStore]) -> None:
    store = connect("prefix=influx&version=1")
    server.reply = lambda path: (404, b"404 page not found\n") if "/api/v2" in path else (204, b"")
    store.write(LINE)
    server.reply, server.status, server.body = None, 200, EMPTY
    assert store.query(COUNT, 0, 1) == []
    assert [path.partition("?")[0] for path, _, _ in server.seen] == [
        "/influx/api/v2/write",
        "/influx/write",
        "/influx/query",
    ]


def test_a_token_file_of_two_lines_shows_its_text_nowhere(
    server: Server, connect: Callable[[str], InfluxStore], tmp_path: Path
) -> None:
    (tmp_path / "token").write_text("# a comment\ncanary-token\n")
    store = connect(f"token_file={tmp_path / 'token'}")
    for call in (
        lambda: store.write(LINE),
        lambda: store.query(COUNT, 0, 1),
        lambda: store._http.api("GET", "/api/v2/buckets"),
    ):
        with pytest.raises(ConfigError, match="token: has 2 lines") as refusal:
            call()
        assert "canary" not in "".join(traceback.format_exception(refusal.value)) + repr(store.address)
    assert server.seen == []


def test_a_refused_token_is_not_repeated_in_the_error(
    server: Server, connect: Callable[[str], InfluxStore], tmp_path: Path
) -> None:
    (tmp_path / "token").write_text("hunter2")
    server.status, server.body = 401, b'{"message":"unauthorized access"}'
    store = connect(f"token_file={tmp_path / 'token'}")
    with pytest.raises(ConfigError) as refusal:
        store.write(LINE)
    assert "hunter2" not in str(refusal.value) + repr(store.address)


def test_an_old_server_is_written_to_by_its_own_endpoint(server: Server, connect: Callable[[str], InfluxStore]) -> None:
    server.reply = lambda path: (404, b"404 page not found\n") if path.startswith("/api/v2") else (204, b"")
    store = connect("version=1")
    store.write(LINE)
    store.write(LINE)
    assert [path.partition("?")[0] for path, _, _ in server.seen] == ["/api/v2/write", "/write", "/write"]
    assert server.seen[-1][0] == "/write?db=power&precision=ms"


def test_an_untrusted_certificate_is_refused(server: Server, tmp_path: Path) -> None:
    made = subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1",
         "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", tmp_path / "key", "-out", tmp_path / "cert"],
        capture_output=True, check=False,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert", tmp_path / "key")
    server.http.socket = context.wrap_socket(server.http.socket, server_side=True)
    server.http.handle_error = lambda *_: None
    url = f"influxdb://127.0.0.1:{server.port}/power?tls=true"
    distrusting, trusting = open_store(url), open_store(f"{url}&ca_file={tmp_path / 'cert'}")
    for call in (lambda: distrusting.write(LINE), lambda: distrusting.query(COUNT, 0, 1)):
        with pytest.raises(ConfigError, match="TLS"):
            call()
    trusting.write(LINE)
    assert server.seen[-1][2].strip() == LINE.strip()
    distrusting.close()
    trusting.close()


@pytest.mark.rig
@pytest.mark.parametrize("server", ["influx", "influx_1_8"])
def test_refusals_of_a_real_server_are_classified(request: pytest.FixtureRequest, server: str) -> None:
    influx = request.getfixturevalue(server)
    store = open_store(influx.url("absent_bucket"))
    for call in (lambda: store.write(LINE), lambda: store.query(COUNT, 0, 1)):
        with pytest.raises(ConfigError, match="database not found"):
            call()
    store.close()
    store = open_store(influx.url(influx.database("refusals")))
    with pytest.raises(Rejected, match="unable to parse"):
        store.write(b"gpu,site=s power_w\n")
    store.write(LINE)
    with pytest.raises(Rejected, match="field type conflict"):
        store.write(b"gpu,site=s,node=b power_w=2i 1700000001000\n" + LINE.replace(b"node=a", b"node=c"))
    assert store.query(COUNT, 1.6e9, 1.8e9)[0].values == {"n": 2.0}, "the good lines of a partly refused batch arrive"
    store.close()


@pytest.mark.rig
def test_rights_of_a_real_user_are_respected(influx: object, tmp_path: Path) -> None:
    from rigs import influxdb

    with influxdb.start(auth=True) as rig:
        rig.statement("CREATE USER admin WITH PASSWORD 'a' WITH ALL PRIVILEGES")
        as_admin = open_store(
            f"influxdb://127.0.0.1:{rig.port}/x?version=1&user=admin&password_file={tmp_path / 'admin'}"
        )
        (tmp_path / "admin").write_text("a")
        for text in ("CREATE DATABASE power", "CREATE USER reader WITH PASSWORD 'r'", "GRANT READ ON power TO reader"):
            as_admin._http.statement(text)
        (tmp_path / "reader").write_text("r")
        (tmp_path / "wrong").write_text("w")
        for port in (rig.port, rig.shim_port):
            base = f"influxdb://127.0.0.1:{port}/power?version=1"
            admin = open_store(f"{base}&user=admin&password_file={tmp_path / 'admin'}")
            admin.write(LINE)
            reader = open_store(f"{base}&user=reader&password_file={tmp_path / 'reader'}")
            assert reader.query(COUNT, 1.6e9, 1.8e9)[0].values == {"n": 1.0}
            stranger, wrong = open_store(base), open_store(f"{base}&user=reader&password_file={tmp_path / 'wrong'}")
            for call in (
                partial(reader.write, LINE),
                partial(stranger.write, LINE),
                partial(stranger.query, COUNT, 0, 1),
                partial(wrong.query, COUNT, 0, 1),
            ):
                with pytest.raises(ConfigError, match="not allowed"):
                    call()
            for store in (admin, reader, stranger, wrong):
                store.close()
        as_admin.close()


def test_the_store_package_needs_no_influxdb_client_until_one_is_opened() -> None:
    code = """
import sys
sys.modules["influxdb_client"] = None
from powerhall.store import open_store
from powerhall.runtime.errors import ConfigError
try:
    open_store("influxdb://127.0.0.1/power")
except ConfigError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "needs influxdb-client; pip install 'powerhall[agent]'" in done.stdout


@pytest.mark.rig
def test_each_class_of_retention_lies_in_its_own_policy(influx: object) -> None:
    name = influx.database("by_class")
    for policy in ("recent", "history"):
        influx.statement(f'CREATE RETENTION POLICY "{policy}" ON "{name}" DURATION INF REPLICATION 1')
    store = open_store(influx.url(name, "version=2&retention=classes"))
    store.write(
        b"gpu,site=s,node=n,gpu=0 power_w=1.0 1700000000000\n"
        b"agent,site=s,node=n lag_s=1.0 1700000000000\n"
        b"plan,site=s value=1.0 1700000000000\n"
    )
    store.put_document("plan", "s", 1_700_000_000, b"body")
    assert store.latest_document("plan", "s") == b"body"
    store.close()
    found = {}
    for policy in ("autogen", "recent", "history"):
        answer = influx.statement(f'SELECT * FROM "{name}"."{policy}"./.*/')
        found[policy] = sorted(series["name"] for series in json.loads(answer)["results"][0].get("series", []))
    assert found == {"autogen": ["gpu"], "recent": ["agent", "document"], "history": ["plan"]}


@pytest.mark.rig
def test_a_class_whose_policy_is_absent_is_a_set_up_error_that_names_it(influx: object) -> None:
    name = influx.database("half_made")
    store = open_store(influx.url(name, "version=1&retention=classes"))
    with pytest.raises(ConfigError, match=f"{name}/history: not found .*init-store"):
        store.write(b"plan,site=s value=1.0 1700000000000\n")
    store.close()
