"""Every answer of a store is delivered, refused (halve the batch) or retryable; secrets are in no message."""

import io
import subprocess
import sys
import threading
import time

import pytest

from powerhall.runtime.errors import Rejected, Retryable
from powerhall.runtime.log import Log
from powerhall.store.influxdb.address import parse_influx_url
from powerhall_agent.delivery.dead_letter import DeadLetters
from powerhall_agent.delivery.errors import SetupError, StoreBusy
from powerhall_agent.delivery.outputs.influxdb import InfluxOutput
from powerhall_agent.delivery.outputs.open import open_output
from powerhall_agent.delivery.shipper import Shipper
from powerhall_agent.delivery.spool import Spool
from powerhall_agent.settings.agent_settings import ShipSettings
from rigs import answers

LINES = b"gpu,gpu=0 power_w=500.0 1700000000000\n"
CANARY = "canary-7f3e-token"


def _output(port: int, options: str = "version=2", timeout_s: float = 2.0) -> InfluxOutput:
    return InfluxOutput(parse_influx_url(f"influxdb://127.0.0.1:{port}/site?{options}"), timeout_s)


def test_lines_go_gzipped_to_the_v2_endpoint_with_millisecond_precision():
    with answers.start(lambda _: answers.http(204)) as store:
        _output(store.port, "org=ops").send(LINES)
    request = store.requests[0]
    assert request.path.startswith("/api/v2/write?")
    assert {"org=ops", "bucket=site", "precision=ms"} <= set(request.path.partition("?")[2].split("&"))
    assert request.headers["content-encoding"] == "gzip"
    assert request.lines == LINES


def test_a_server_before_1_8_is_written_by_its_own_endpoint():
    def answer(request: answers.Request) -> bytes:
        return answers.http(404, b"404 page not found\n") if request.path.startswith("/api/v2") else answers.http(204)

    with answers.start(answer) as store:
        output = _output(store.port, "version=1")
        output.send(LINES)
        output.send(LINES)
    assert [request.path.partition("?")[0] for request in store.requests] == ["/api/v2/write", "/write", "/write"]
    assert "db=site" in store.requests[1].path
    assert "precision=ms" in store.requests[1].path


@pytest.mark.parametrize("status", [400, 413, 422])
def test_refused_lines_are_rejected(status):
    with (
        answers.start(lambda _: answers.http(status, b'{"message":"unable to parse"}')) as store,
        pytest.raises(Rejected, match="unable to parse"),
    ):
        _output(store.port).send(LINES)


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_a_busy_store_is_retryable_and_its_retry_after_is_honoured(status):
    with (
        answers.start(lambda _: answers.http(status, b"later", "Retry-After: 7\r\n")) as store,
        pytest.raises(StoreBusy) as caught,
    ):
        _output(store.port).send(LINES)
    assert caught.value.after_s == 7.0


@pytest.mark.parametrize(
    ("status", "words"), [(404, "does the bucket 'site' exist"), (401, "check the token"), (302, "redirects")]
)
def test_setup_errors_name_their_remedy_and_are_retryable(status, words):
    with (
        answers.start(lambda _: answers.http(status, b"", "Location: http://127.0.0.1:1/\r\n")) as store,
        pytest.raises(SetupError, match=words),
    ):
        _output(store.port).send(LINES)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\x00\xff\xfe garbage\r\n\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n\xff\xfe",
        b"HTTP/1.1 503 X\r\nContent-Encoding: gzip\r\nContent-Length: 5\r\n\r\n\x1f\x8b\x08\x00\x00",
        b"HTTP/1.1 204 X\r\n" + b"A: b\r\n" * 300 + b"\r\n",
    ],
)
def test_a_malformed_or_missing_answer_is_retryable(raw):
    with answers.start(lambda _: raw) as store, pytest.raises(Retryable):
        _output(store.port).send(LINES)


def test_a_closed_port_is_retryable():
    with pytest.raises(Retryable, match="does not answer"):
        _output(21199).send(LINES)


def test_a_connection_works_again_after_garbage():
    script = iter([b"\x00garbage\r\n\r\n", answers.http(204)])
    with answers.start(lambda _: next(script)) as store:
        output = _output(store.port)
        with pytest.raises(Retryable):
            output.send(LINES)
        output.send(LINES)


def test_a_slow_answer_is_cut_at_the_deadline(tmp_path):
    """Every byte comes before the socket's timeout, so that only a deadline for the whole request ends it."""
    with answers.start(lambda _: answers.http(204, b"", "X: " + "y" * 500 + "\r\n"), drip_s=0.1) as store:
        log = Log(io.StringIO())
        spool = Spool(tmp_path, 1 << 20, 4096, log)
        settings = ShipSettings(timeout_s=0.4)
        shipper = Shipper(spool, _output(store.port, timeout_s=0.4), DeadLetters(tmp_path, log), settings, log)
        spool.append(LINES)
        watching = threading.Event()

        def watch() -> None:
            while not watching.wait(0.1):
                shipper.enforce_deadline()

        thread = threading.Thread(target=watch)
        thread.start()
        started_s = time.monotonic()
        shipper.step()
        took_s = time.monotonic() - started_s
        watching.set()
        thread.join()
        assert took_s < 5.0
        assert shipper.stats.problem
        assert spool.stats().points_waiting == 1
        spool.close()


def test_a_rotated_token_is_read_again_without_a_restart(tmp_path):
    token = tmp_path / "token"
    token.write_text("old\n")
    good = {"value": "old"}

    def answer(request: answers.Request) -> bytes:
        return answers.http(204 if request.headers.get("authorization") == f"Token {good['value']}" else 401)

    with answers.start(answer) as store:
        output = _output(store.port, f"version=2&token_file={token}")
        output.send(LINES)
        good["value"] = "new"
        with pytest.raises(SetupError):
            output.send(LINES)
        token.write_text("new\n")
        output.send(LINES)
    assert store.requests[-1].headers["authorization"] == "Token new"


def test_a_token_is_in_no_log_no_error_and_no_repr(tmp_path):
    token = tmp_path / "token"
    token.write_text(CANARY)
    text = io.StringIO()
    log = Log(text)
    for raw in (answers.http(401, b"no"), answers.http(404), answers.http(400, b"bad"), b"junk\r\n\r\n", b""):
        with answers.start(lambda _, raw=raw: raw) as store:
            output = _output(store.port, f"version=2&token_file={token}")
            folder = tmp_path / str(store.port)
            spool = Spool(folder, 1 << 20, 4096, log)
            shipper = Shipper(spool, output, DeadLetters(folder, log), ShipSettings(), log, name=str(store.port))
            spool.append(LINES)
            shipper.step()
            text.write(repr(vars(shipper)) + repr(vars(output)["_address"]) + shipper.stats.problem)
            spool.close()
            assert store.requests[0].headers["authorization"] == f"Token {CANARY}"
    assert CANARY not in text.getvalue()
    assert "store_unreachable" in text.getvalue()


def _python(script: str) -> str:
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout


def test_the_transport_comes_without_the_rest_of_the_client():
    """Memory of every GPU host depends on it: neither NumPy nor ReactiveX nor the 400 management modules."""
    script = (
        "import sys; from powerhall.store.influxdb.client import write_client; "
        "before = len(sys.modules); "
        "import urllib3, multiprocessing.pool, tempfile, mimetypes, ssl; between = len(sys.modules); "
        "write_client(lambda c: None); "
        "print([m for m in ('numpy', 'pandas', 'reactivex', 'influxdb_client') if m in sys.modules])"
    )
    assert _python(script) == "[]\n"


def test_the_partial_import_does_not_affect_the_whole_client_before_or_after():
    script = (
        "from powerhall.store.influxdb.client import write_client; write_client(lambda c: None); "
        "from influxdb_client.client.write_api import WriteApi; import influxdb_client; "
        "client, error = write_client(lambda c: None); "
        "assert influxdb_client.InfluxDBClient and 'influxdb_client.domain.bucket' in __import__('sys').modules; "
        "print(type(client).__name__, client.rest_client.request.__name__, error.__name__)"
    )
    assert _python(script) == "ApiClient request ApiException\n"


def test_a_sqlite_store_is_an_output_too(tmp_path):
    output = open_output(f"sqlite:///{tmp_path}/t.db", 5.0)
    output.send(b"gpu,site=s,node=n,gpu=0 power_w=500.0 1700000000000\n")
    with pytest.raises(Rejected):
        output.send(b"nonsense,node=n x=1.0 1700000000000\n")


@pytest.mark.rig
def test_a_real_server_takes_the_lines_and_names_the_bad_one(influx):
    database = influx.database("agent_output")
    output = InfluxOutput(parse_influx_url(influx.url(database)), 5.0)
    output.send(LINES)
    with pytest.raises(Rejected, match="refused \\(400\\)"):
        output.send(b"gpu,gpu=0 power_w=oops 1700000000001\n")
    with pytest.raises(SetupError, match="not found"):
        InfluxOutput(parse_influx_url(influx.url("no_such_database")), 5.0).send(LINES)
