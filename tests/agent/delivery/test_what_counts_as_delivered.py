"""Only what InfluxDB's API defines counts as delivered, and only the store's own refusal sets a line aside."""

import gzip
import io
import json
import re
import socket
import threading
import time
from contextlib import contextmanager, suppress

import pytest

from powerhall.runtime.errors import Rejected, Retryable
from powerhall.runtime.log import Log
from powerhall.store.influxdb.address import parse_influx_url
from powerhall.store.influxdb.answers import AnswerKind, classify, refused_write
from powerhall_agent.delivery.dead_letter import DeadLetters
from powerhall_agent.delivery.errors import StoreFault
from powerhall_agent.delivery.outputs.influxdb import InfluxOutput
from powerhall_agent.delivery.shipper import Shipper
from powerhall_agent.delivery.spool import Spool
from powerhall_agent.settings.agent_settings import ShipSettings
from rigs import answers, proxy

LINES = b"gpu,gpu=0 power_w=500.0 1700000000000\n"
HTML = b"<html><body>502 timeout, unable to parse, partial write</body></html>"
GOOD = b"HTTP/1.1 204 No Content\r\nX-Influxdb-Version: 1.8.10\r\nDate: Sat, 28 Nov 2026 20:00:00 GMT\r\n\r\n"


def output_to(port, version=2, bucket="site"):
    return InfluxOutput(parse_influx_url(f"influxdb://127.0.0.1:{port}/{bucket}?version={version}"), 5.0)


def read_request(stream):
    """Read one request whole."""
    size = 0
    while (line := stream.readline().strip()) != b"":
        if line.lower().startswith(b"content-length:"):
            size = int(line.split(b":")[1])
    stream.read(size)


@contextmanager
def closing(raw):
    """A server that reads one request whole, answers with these bytes, and closes; again and again."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve():
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            with client, client.makefile("rb") as stream:
                read_request(stream)
                with suppress(OSError):
                    client.sendall(raw())

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(5)


def test_a_204_counts_only_when_its_header_is_complete():
    """Cut anywhere before the empty line at its end, it is no answer."""
    cut = {"at": 0}
    with closing(lambda: GOOD[: cut["at"]]) as port:
        output = output_to(port)
        for cut["at"] in range(len(GOOD)):
            with pytest.raises(Retryable):
                output.send(LINES)
        cut["at"] = len(GOOD)
        output.send(LINES)


@pytest.mark.parametrize("interim", [b"103 Early Hints\r\nLink: </a>", b"102 Processing", b"199 X"])
def test_an_interim_answer_is_not_the_answer_to_the_lines(interim):
    """Its final one, which came late, was taken for the answer to the next lines, which the store had not written."""
    answered = iter([b"HTTP/1.1 " + interim + b"\r\n\r\n", GOOD, answers.http(500, b'{"error":"no space"}')])

    def serve():
        peer, _ = listener.accept()
        with peer, peer.makefile("rb") as stream:
            read_request(stream)
            peer.sendall(next(answered))
            time.sleep(0.1)
            peer.sendall(next(answered))
            read_request(stream)
            peer.sendall(next(answered))

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, daemon=True).start()
        output = output_to(listener.getsockname()[1])
        output.send(LINES)
        with pytest.raises((Retryable, StoreFault)):
            output.send(LINES)


def test_a_second_answer_to_a_request_is_not_that_to_the_next():
    """One that comes while the next is under way cannot be told from its own: see SECURITY.md."""
    refusal = answers.http(500, b'{"error":"no space"}')
    served = []

    def serve():
        while True:
            try:
                peer, _ = listener.accept()
            except OSError:
                return
            with peer, peer.makefile("rb") as stream, suppress(OSError):
                while stream.peek(1):
                    read_request(stream)
                    served.append(peer)
                    if len(served) > 1:
                        peer.sendall(refusal)
                        continue
                    peer.sendall(GOOD)
                    time.sleep(0.2)
                    peer.sendall(GOOD)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, daemon=True).start()
        output = output_to(listener.getsockname()[1])
        output.send(LINES)
        time.sleep(0.4)
        with pytest.raises((Retryable, StoreFault)):
            output.send(LINES)
        listener.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("behind", [HTML, GOOD, b"0\r\n\r\n"])
def test_a_204_that_goes_on_is_no_answer(behind):
    """A page whose length is not given, or the answer to another request."""
    with closing(lambda: GOOD + behind) as port, pytest.raises(Retryable, match=r"not an answer|after its end"):
        output_to(port).send(LINES)


@pytest.mark.parametrize("line", [b"<html>", b"Content-Length : 30", b"From x", b" folded"])
def test_a_204_with_a_malformed_header_is_no_answer(line):
    """What follows the line, such as the length of a page, is not read."""
    answer = b"HTTP/1.1 204 No Content\r\n" + line + b"\r\nContent-Length: 30\r\n\r\n"
    with closing(lambda: answer) as port, pytest.raises(Retryable, match=r"malformed|not an answer"):
        output_to(port).send(LINES)


@pytest.mark.parametrize("version", [1, 2, 3])
@pytest.mark.parametrize(
    "answer",
    [
        answers.http(200, HTML, "Content-Type: text/html\r\n"),
        answers.http(200),
        answers.http(200, b'{"results":[]}', "Content-Type: application/json\r\n"),
        answers.http(201, b"{}"),
        answers.http(202, b""),
        answers.http(203, HTML),
        answers.http(205),
        answers.http(206, HTML),
        answers.http(226),
        answers.http(204, HTML),
        answers.http(204, b"", "Content-Type: text/html\r\n"),
        b"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    ],
)
def test_any_other_success_is_sent_again_with_an_alarm(tmp_path, version, answer):
    text = io.StringIO()
    with answers.start(lambda _: answer) as store:
        rig = Rig(tmp_path, output_to(store.port, version), text)
        rig.step(3)
        assert rig.waiting == 1
        assert rig.shipper.stats.foreign_answers == 3
        rig.close()
    assert "event=store_answer_foreign" in text.getvalue()


@pytest.mark.parametrize("status", [400, 402, 405, 406, 409, 410, 411, 413, 414, 415, 417, 418, 421, 422, 431, 451])
@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (HTML, "Content-Type: text/html\r\n"),
        (HTML, "X-Influxdb-Version: 1.8\r\nContent-Type: text/html; charset=utf-8\r\n"),
        (b"", ""),
        (b"Bad Request", "Content-Type: text/plain\r\n"),
        (b'{"message":"Invalid request body"}', "Content-Type: application/json\r\n"),
        (b'{"error":"The plain HTTP request was sent to HTTPS port"}', ""),
        (b'{"error":{"code":400,"message":"partial write"}}', ""),
        (b'["unable to parse"]', ""),
        (b'{"message":', "X-Influxdb-Version: 1.8\r\n"),
        (b"\xff\xfe\x00", "X-Influxdb-Version: 1.8\r\n"),
        (gzip.compress(b'{"error":"unable to parse"}'), "Content-Encoding: gzip\r\n"),
    ],
)
def test_what_is_not_the_stores_own_sets_no_line_aside(tmp_path, status, body, headers):
    with answers.start(lambda _: answers.http(status, body, headers)) as store:
        rig = Rig(tmp_path, output_to(store.port), io.StringIO(), lines=LINES + LINES.replace(b"gpu=0", b"gpu=1"))
        rig.step(6)
        assert rig.dead_letters.points == 0
        assert rig.waiting == 2
        assert rig.shipper.stats.problem
        rig.close()


GATEWAYS = [
    (400, b'{"status":"error","error":"Bad Request","data":{}}'),
    (413, b'{"error":"Payload Too Large","data":[]}'),
    (400, b'{"message":"Unable to parse request body"}'),
    (400, b"Failed to parse HTTP request"),
    (422, b'invalid field name "X-Real-Ip" in header'),
    (500, b'{"error":"unable to parse upstream response"}'),
    (400, b'{"code":"forbidden","message":"blocked by policy"}'),
    (400, b'{"code":"invalid","message":"Content-Encoding not supported"}'),
    (400, b'{"error":"partial write: points beyond retention policy dropped=2"}'),
]


ABOUT_THE_REQUEST = [
    (400, b'{"code":"invalid","message":"gzip: invalid header"}'),
    (400, b'{"code":"invalid","message":"missing required query parameter org"}'),
    (400, b'{"code":"empty value","message":"writing requires points"}'),
    (413, b'{"code":"request too large","message":"unable to read data: points batch is too large"}'),
]
"""Refusals of the store itself, with its header, that say nothing about a line."""


@pytest.mark.parametrize(
    ("status", "body", "headers"),
    [(*entry, "") for entry in GATEWAYS] + [(*entry, "X-Influxdb-Version: v2.7.1\r\n") for entry in ABOUT_THE_REQUEST],
)
def test_a_gateway_that_answers_in_the_stores_forms_loses_no_line_and_is_not_hammered(tmp_path, status, body, headers):
    is_away, requests = True, 0

    def answer(request):
        nonlocal requests
        requests += 1
        return answers.http(status, body, headers) if is_away else answers.http(204)

    with answers.start(answer) as store:
        lines = b"".join(LINES.replace(b"gpu=0", b"gpu=%d" % gpu) for gpu in range(40))
        rig = Rig(tmp_path, output_to(store.port), io.StringIO(), lines=lines)
        rig.step(6)
        assert requests < 30
        assert (rig.dead_letters.points, rig.waiting) == (0, 40)
        assert rig.shipper.stats.problem
        is_away = False
        rig.step(60)
        assert (rig.dead_letters.points, rig.waiting) == (0, 0)
        rig.close()


def test_a_gateway_that_comes_between_while_a_bad_line_is_sought_loses_no_other(tmp_path):
    asked = 0

    def answer(request):
        nonlocal asked
        asked += 1
        if 4 <= asked < 20:
            return answers.http(*GATEWAYS[0])
        return answers.http(400, b'{"error":"unable to parse x"}') if b"bad" in request.lines else answers.http(204)

    with answers.start(answer) as store:
        lines = b"".join(LINES.replace(b"gpu=0", b"gpu=%d" % gpu) for gpu in range(40))
        rig = Rig(tmp_path, output_to(store.port), io.StringIO(), lines=lines + b"gpu,gpu=bad power_w=1.0 1\n" + lines)
        rig.step(60)
        assert (rig.dead_letters.points, rig.waiting) == (1, 0)
        rig.close()


INFLUX = "X-Influxdb-Version: 1.8.10\r\n"


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        ({"error": "unable to parse 'gpu power_w=oops': invalid number"}, INFLUX),
        ({"error": "max-values-per-tag limit exceeded (100000/100000): measurement=gpu"}, INFLUX),
        ({"error": 'partial write: field type conflict: input field "x" dropped=1'}, ""),
        ({"code": "invalid", "message": "unable to parse 'gpu': missing fields"}, ""),
        ({"code": "unprocessable entity", "message": "something new"}, ""),
        ({"message": "something new"}, "X-Platform-Error-Code: invalid\r\n"),
        ({"error": "partial write of line protocol occurred", "data": [{"line_number": 1, "original_line": "x"}]}, ""),
        ({"error": "parsing failed for write_lp endpoint", "data": {"line_number": 1}}, ""),
    ],
)
def test_the_stores_own_refusal_sets_the_line_aside(tmp_path, body, headers):
    text = json.dumps(body).encode()

    def answer(request):
        return answers.http(400, text, headers) if b"bad" in request.lines else answers.http(204)

    with answers.start(answer) as store:
        rig = Rig(tmp_path, output_to(store.port), io.StringIO(), lines=LINES + b"gpu,gpu=bad power_w=1.0 1\n" + LINES)
        rig.step(6)
        assert rig.dead_letters.points == 1
        assert rig.waiting == 0
        rig.close()


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("unable to parse 'gpu,node=timeout-1 power_w=oops 1': invalid number", AnswerKind.LINES),
        ("unable to parse 'x note=\"points beyond retention policy\"': bad timestamp", AnswerKind.LINES),
        ('partial write: field type conflict: input field "timeout" on measurement "job"', AnswerKind.LINES),
        ('partial write: field type conflict: input field "retention policy" on "job"', AnswerKind.LINES),
        ("partial write: points beyond retention policy dropped=2", AnswerKind.TOO_OLD),
        (
            "failure writing points to database: partial write: dropped 1 points outside retention policy of 1h",
            AnswerKind.TOO_OLD,
        ),
        ("timeout", AnswerKind.BUSY),
        ("write failed: timeout", AnswerKind.BUSY),
    ],
)
def test_what_a_message_quotes_does_not_choose_its_kind(text, kind):
    assert classify(400, text) is kind


@pytest.mark.parametrize("pause", ["9" * 5000, "-1", "1e308", "\u00b2", "Wed, 21 Oct 2099 07:28:00 GMT"])
def test_a_pause_that_cannot_be_is_none(pause):
    assert refused_write(503, {"Retry-After": pause}, "{}").retry_after_s == 0.0


def test_an_endless_answer_is_cut_and_sent_again(tmp_path):
    """Ten megabytes of a body that never ends."""
    head = b"HTTP/1.1 400 X\r\nContent-Type: application/json\r\n\r\n"
    with closing(lambda: head + b'{"error":"unable to parse ' + b"x" * 10_000_000) as port:
        rig = Rig(tmp_path, output_to(port), io.StringIO())
        rig.step(1)
        assert (rig.waiting, rig.dead_letters.points) == (1, 0)
        assert "larger than" in rig.shipper.stats.problem or "Reset" in rig.shipper.stats.problem
        rig.close()


class Rig:
    """Spool, shipper and dead letters around one output."""

    def __init__(self, folder, output, text, lines=LINES, **settings):
        log = Log(text)
        self.spool = Spool(folder, 8 << 20, 1 << 20, log)
        self.dead_letters = DeadLetters(folder, log)
        self.shipper = Shipper(self.spool, output, self.dead_letters, ShipSettings(**settings), log)
        for start in range(0, len(parts := lines.splitlines(keepends=True)), 100):
            self.spool.append(b"".join(parts[start : start + 100]))

    @property
    def waiting(self):
        return self.spool.stats().points_waiting

    def step(self, count):
        for _ in range(count):
            self.shipper.step()

    def close(self):
        self.spool.close()


@pytest.fixture
def nginx(influx):
    with proxy.start(influx.port) as running:
        yield running


def many(count):
    return b"".join(b"gpu,node=n1,gpu=%d power_w=500.0 %d\n" % (n % 8, 1700000000000 + n // 8) for n in range(count))


def stored(influx, database):
    text = influx.statement(f'SELECT count("power_w") FROM "{database}"."autogen"."gpu"')
    found = re.search(r",(\d+)\]\]", text)
    return int(found[1]) if found else 0


@pytest.mark.rig
@pytest.mark.parametrize("what", sorted(proxy.ANSWERS))
def test_a_real_proxy_that_answers_in_the_stores_place_loses_no_point(influx, nginx, tmp_path, what):
    database = influx.database(f"proxy_{what.replace('-', '_')}")
    text = io.StringIO()
    rig = Rig(tmp_path, output_to(nginx.port, bucket=database), text, lines=many(2000))
    nginx.say(what)
    rig.step(5)
    assert (rig.waiting, rig.dead_letters.points, stored(influx, database)) == (2000, 0, 0)
    assert ("store_unreachable" if what == "forbidden" else "store_answer_foreign") in text.getvalue()
    nginx.say("")
    rig.step(40)
    assert (rig.waiting, rig.dead_letters.points, stored(influx, database)) == (0, 0, 2000)
    rig.close()


@pytest.mark.rig
def test_a_batch_that_a_real_proxy_finds_too_large_goes_in_parts(influx, nginx, tmp_path):
    database = influx.database("proxy_small")
    rig = Rig(tmp_path, output_to(nginx.small_port, bucket=database), io.StringIO(), lines=many(4000))
    rig.step(40)
    assert (rig.waiting, rig.dead_letters.points, stored(influx, database)) == (0, 0, 4000)
    rig.close()


@pytest.mark.rig
def test_a_real_store_behind_a_real_proxy_still_names_the_bad_line(influx, nginx, tmp_path):
    database = influx.database("proxy_bad_line")
    lines = many(800) + b"gpu,node=timeout power_w=oops 1700000000000\n"
    rig = Rig(tmp_path, output_to(nginx.port, bucket=database), io.StringIO(), lines=lines)
    rig.step(20)
    assert (rig.waiting, rig.dead_letters.points, stored(influx, database)) == (0, 1, 800)
    with pytest.raises(Rejected, match="unable to parse"):
        output_to(nginx.port, bucket=database).send(b"gpu,node=timeout power_w=oops 1700000000000\n")
    rig.close()
