"""Parts that the store and the agent's output share: credentials, and the class of each status."""

import base64
import gzip
import os
import subprocess
import sys

import pytest

from powerhall.runtime.errors import ConfigError
from powerhall.store.influxdb.address import parse_influx_url
from powerhall.store.influxdb.answers import (
    AnswerKind,
    InfluxRefused,
    InfluxUnreachable,
    classify,
    one_line,
    server_message,
)
from powerhall.store.influxdb.credentials import basic_authorization, token_authorization, write_authorization
from powerhall.store.influxdb.writer import InfluxWriter
from rigs import answers

LINES = b"gpu,gpu=0 power_w=500.0 1700000000000\n"


@pytest.fixture
def address(tmp_path):
    (tmp_path / "token").write_text("t0ken\n")
    (tmp_path / "password").write_text("pass\n")
    (tmp_path / "empty").write_text("\n")

    def parse(options):
        return parse_influx_url("influxdb://127.0.0.1/power?" + options.format(tmp=tmp_path))

    return parse


def decoded(header):
    return base64.b64decode(header.removeprefix("Basic ")).decode() if header.startswith("Basic ") else header


@pytest.mark.parametrize(
    ("options", "write", "query", "api"),
    [
        ("version=2", "", "", ""),
        ("version=2&token_file={tmp}/token", "Token t0ken", "powerhall:t0ken", "Token t0ken"),
        ("version=3&token_file={tmp}/token&user=u", "Token t0ken", "u:t0ken", "Token t0ken"),
        ("version=2&user=u&password_file={tmp}/password", "Token u:pass", "u:pass", "Token u:pass"),
        ("version=1&user=u&password_file={tmp}/password", "u:pass", "u:pass", "Token u:pass"),
        ("version=1&token_file={tmp}/token", "powerhall:t0ken", "powerhall:t0ken", "Token t0ken"),
        ("version=2&token_file={tmp}/empty", "", "", ""),
    ],
)
def test_every_version_gets_its_own_authorization_header(address, options, write, query, api):
    found = address(options)
    assert decoded(write_authorization(found)) == write
    assert decoded(basic_authorization(found)) == query
    assert token_authorization(found) == api


def test_a_secret_that_cannot_be_read_is_named(address):
    with pytest.raises(ConfigError, match="absent: cannot read the secret"):
        write_authorization(address("token_file={tmp}/absent"))


@pytest.mark.parametrize(
    ("status", "text", "kind"),
    [
        (400, "unable to parse 'gpu power_w=oops': invalid number", AnswerKind.LINES),
        (422, "failure writing points: field type conflict", AnswerKind.LINES),
        (413, "request entity too large", AnswerKind.LINES),
        (400, "partial write: points beyond retention policy dropped=8", AnswerKind.TOO_OLD),
        (422, "write failed: points outside retention policy", AnswerKind.TOO_OLD),
        (400, "timeout", AnswerKind.BUSY),
        (401, "unauthorized", AnswerKind.NOT_ALLOWED),
        (403, "forbidden", AnswerKind.NOT_ALLOWED),
        (404, 'database not found: "power"', AnswerKind.NO_BUCKET),
        (404, "404 page not found", AnswerKind.NO_ENDPOINT),
        (301, "", AnswerKind.REDIRECT),
        (0, "CERTIFICATE_VERIFY_FAILED", AnswerKind.TLS),
        (408, "", AnswerKind.BUSY),
        (429, "", AnswerKind.BUSY),
        (500, "partial write: points beyond retention policy dropped=8", AnswerKind.TOO_OLD),
        (503, "", AnswerKind.BUSY),
        (599, "", AnswerKind.BUSY),
        (405, "", AnswerKind.OTHER),
        (200, "query timeout reached", AnswerKind.BUSY),
    ],
)
def test_status_and_message_have_one_meaning(status, text, kind):
    assert classify(status, text) is kind
    assert InfluxRefused(status, text).kind is kind


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"error":"database not found"}', "database not found"),
        ('{"code":"invalid","message":"unable\\nto  parse"}', "unable to parse"),
        ("{}", "{}"),
        ("[1]", "[1]"),
        ("not json\n at all", "not json at all"),
        ("", ""),
    ],
)
def test_the_text_of_a_server_is_taken_out_of_its_json(text, message):
    assert server_message(text) == message


def test_a_long_text_is_cut():
    assert len(one_line("x" * 5000)) == 300


def test_a_refusal_has_its_status_text_and_pause():
    raw = answers.http(503, b'{"error":"engine: cache full"}', "Retry-After: 7\r\n")
    with answers.start(lambda _: raw) as server:
        writer = InfluxWriter(parse_influx_url(f"influxdb://127.0.0.1:{server.port}/power"), 2.0)
        with pytest.raises(InfluxRefused) as refused:
            writer.write(LINES, "Token x")
        writer.close()
    assert (refused.value.status, refused.value.message, refused.value.retry_after_s) == (503, "engine: cache full", 7)
    assert server.requests[0].headers["authorization"] == "Token x"
    assert server.requests[0].lines == LINES


def test_no_answer_is_another_error_than_a_refusal():
    writer = InfluxWriter(parse_influx_url("influxdb://127.0.0.1:1/power"), 2.0)
    with pytest.raises(InfluxUnreachable, match="does not answer: NewConnectionError"):
        writer.write(LINES, "")
    writer.close()


def test_a_foreign_answer_that_is_no_text_is_told_in_plain_words():
    bomb = gzip.compress(bytes(10 << 20))
    raw = answers.http(500, bomb, "Content-Encoding: gzip\r\nContent-Type: application/json\r\n")
    with answers.start(lambda _: raw) as server:
        writer = InfluxWriter(parse_influx_url(f"influxdb://127.0.0.1:{server.port}/power"), 2.0)
        with pytest.raises(InfluxUnreachable) as told:
            writer.write(LINES, "")
        writer.close()
    assert str(told.value) == "does not answer: what comes is no text"


def test_a_certificate_file_that_is_a_pipe_is_refused(tmp_path):
    os.mkfifo(tmp_path / "ca.pem")
    with pytest.raises(ConfigError, match=r"ca_file: .*ca.pem: must be a regular file"):
        InfluxWriter(parse_influx_url(f"influxdb://127.0.0.1:1/power?tls=true&ca_file={tmp_path}/ca.pem"), 2.0)


def test_two_writers_keep_their_headers_apart():
    """Two stores of one process share the modules of the client, and nothing else."""
    with answers.start(lambda _: answers.http(204)) as server:
        url = f"influxdb://127.0.0.1:{server.port}/"
        first, second = (InfluxWriter(parse_influx_url(url + name), 2.0) for name in ("a", "b"))
        first.write(LINES, "Token a")
        second.write(LINES, "Token b")
        first.write(LINES, "Token a")
    seen = [(r.headers["authorization"], r.path.partition("bucket=")[2][0]) for r in server.requests]
    assert seen == [("Token a", "a"), ("Token b", "b"), ("Token a", "a")]


def test_a_store_loads_a_part_of_the_client_only():
    code = (
        "import sys; from powerhall.store import open_store; store = open_store('influxdb://127.0.0.1:1/power');"
        "print([m for m in ('numpy', 'pandas', 'reactivex', 'influxdb_client') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
