"""Lines that a store never takes cost little, and block nothing: neither the live lines nor the backlog."""

import io
import json
import random

import pytest

from powerhall.runtime.errors import Rejected
from powerhall.runtime.log import Log
from powerhall.store import Query, Select, open_store
from powerhall.store.influxdb.address import parse_influx_url
from powerhall_agent.delivery.dead_letter import DeadLetters
from powerhall_agent.delivery.outputs.influxdb import InfluxOutput
from powerhall_agent.delivery.refused_series import RefusedSeries
from powerhall_agent.delivery.shipper import Shipper
from powerhall_agent.delivery.spool import Spool
from powerhall_agent.settings.agent_settings import ShipSettings
from rigs import answers

CONFLICT = (
    'partial write: field type conflict: input field "power_w" on measurement "node" is type float, already exists as '
    "type integer dropped=1"
)
TO_DATABASE = "writing points to database"
INFLUX_1 = "X-Influxdb-Version: 1.8.10\r\nX-Influxdb-Error: x\r\n"


def v2(code, message):
    return json.dumps({"code": code, "message": message}).encode()


class Server:
    """Refuses requests with a bad line; `keeps_good`: writes the others of a refused batch."""

    def __init__(self, bad, refuse, keeps_good=False):
        self.bad, self.refuse, self.keeps_good = bad, refuse, keeps_good
        self.lines = {}

    def __call__(self, request):
        lines = request.lines.splitlines(keepends=True)
        refused = [line for line in lines if self.bad in line]
        if not refused or self.keeps_good:
            self.lines |= dict.fromkeys(line for line in lines if self.bad not in line)
        return self.refuse(refused) if refused else answers.http(204)


class Rig:
    def __init__(self, folder, port, bucket="power"):
        self.log = io.StringIO()
        log, self.now = Log(self.log), 1000.0
        self.spool, self.dead_letters = Spool(folder, 1 << 26, 8192, log), DeadLetters(folder, log)
        output = InfluxOutput(parse_influx_url(f"influxdb://127.0.0.1:{port}/{bucket}?org=ops"), 5.0)
        self.shipper = Shipper(
            self.spool, output, self.dead_letters, ShipSettings(), log, clock=lambda: self.now, rng=random.Random(1)
        )

    def steps(self, count):
        for _ in range(count):
            self.now += max(1.0, self.shipper.step())


def good(first, count):
    return b"".join(
        b"gpu,node=gn01,gpu=0 power_w=%d.5 %d\n" % (n, 1700000000000 + n) for n in range(first, first + count)
    )


POISON = b"node,node=gn01 power_w=5 1700000000999\n"


@pytest.mark.parametrize("keeps_good", [True, False])
@pytest.mark.parametrize(
    ("poison", "answer"),
    [
        (POISON, lambda _: answers.http(500, v2("internal error", f"unexpected error {TO_DATABASE}: {CONFLICT}"))),
        (POISON, lambda _: answers.http(500, json.dumps({"error": CONFLICT}).encode(), INFLUX_1)),
        (POISON, lambda _: answers.http(500, v2("internal error", f"[shard 7] {CONFLICT}"))),
        # an error of the store's that says nothing about lines: only trying shows that it is about one
        (POISON, lambda _: answers.http(500, v2("internal error", "index out of range [3] with length 2"))),
        (POISON, lambda _: answers.http(500, b'{"error":"runtime error"}', INFLUX_1)),
        (
            b'job_interval,gpu=0 job="lr-timeout-sweep",end_s=0 1700000000999\n',
            lambda bad: answers.http(400, v2("invalid", f"unable to parse '{bad[0].decode().strip()}': bad timestamp")),
        ),
        (
            b'job_interval,gpu=0 job="it\'s \'points beyond retention policy\' timeout" 1700000000999\n',
            lambda bad: answers.http(400, v2("invalid", f"partial write: unable to parse '{bad[0].decode()}': x")),
        ),
        (
            b"job_interval,rack=retention\\ policy\\ experiment end_s=0 1700000000999\n",
            lambda bad: answers.http(
                400,
                json.dumps(
                    {
                        "error": "partial write of line protocol occurred",
                        "data": [{"original_line": bad[0].decode(), "error_message": "beyond retention"}],
                    }
                ).encode(),
            ),
        ),
    ],
)  # fmt: skip
def test_one_line_is_set_aside_alone_and_the_others_arrive(tmp_path, poison, answer, keeps_good):
    server = Server(poison[:24], answer, keeps_good)
    with answers.start(server) as store:
        rig = Rig(tmp_path, store.port)
        rig.spool.append(good(0, 20) + poison + good(20, 10))
        rig.steps(25)
        rig.spool.append(good(30, 10))
        rig.steps(25)
    assert set(server.lines) == set(good(0, 40).splitlines(keepends=True))
    assert rig.dead_letters.points == 1
    assert rig.dead_letters.path.read_bytes().endswith(poison)
    assert rig.spool.stats().points_waiting == 0
    assert rig.shipper.stats.requests < 60


def test_a_store_that_fails_on_everything_sets_nothing_aside_and_is_not_hammered(tmp_path):
    broken, arrived = [True], set()

    def answer(request):
        if broken[0]:
            return answers.http(500, v2("internal error", "engine is broken"))
        arrived.update(request.lines.splitlines(keepends=True))
        return answers.http(204)

    with answers.start(answer) as store:
        rig = Rig(tmp_path, store.port)
        rig.spool.append(good(0, 64))
        rig.steps(30)
        rig.spool.append(good(64, 64))
        rig.steps(30)
        assert (rig.dead_letters.points, rig.spool.stats().points_waiting) == (0, 128)
        assert rig.now - 1000.0 > 10 * 60
        assert rig.shipper.stats.requests < 80
        broken[0] = False
        rig.steps(30)
    assert (rig.dead_letters.points, rig.spool.stats().points_waiting) == (0, 0)
    assert arrived == set(good(0, 128).splitlines(keepends=True))


@pytest.mark.parametrize("text", ["engine: cache-max-memory-size exceeded: (9/8)", "timeout", "something passing"])
def test_a_store_that_fails_now_and_then_loses_no_line(tmp_path, text):
    """Half of all requests fail for a while, whatever is in them."""
    rng, sick, arrived = random.Random(3), [True], set()

    def answer(request):
        if sick[0] and rng.random() < 0.5:
            return answers.http(500, json.dumps({"error": text}).encode(), INFLUX_1)
        arrived.update(request.lines.splitlines(keepends=True))
        return answers.http(204)

    with answers.start(answer) as store:
        rig = Rig(tmp_path, store.port)
        for number in range(60):
            rig.spool.append(good(16 * number, 16))
            rig.steps(1)
        sick[0] = False
        rig.steps(60)
    assert rig.dead_letters.points == 0
    assert arrived == set(good(0, 960).splitlines(keepends=True))


def test_a_measurement_that_is_refused_for_good_costs_about_a_request_a_second(tmp_path):
    server = Server(b"gpu,", lambda bad: answers.http(422, v2("unprocessable entity", CONFLICT)))
    with answers.start(server) as store:
        rig = Rig(tmp_path, store.port)
        for second in range(300):
            at = 1_700_000_000_000 + 1000 * second
            gpus = b"".join(b"gpu,node=gn01,gpu=%d power_w=5.5 %d\n" % (gpu, at) for gpu in range(8))
            rig.spool.append(gpus + b"".join(b"node,node=gn0%d power_w=5.5 %d\n" % (node, at) for node in range(6)))
            rig.now += 1.0
            rig.shipper.step()
        assert (len(server.lines), rig.dead_letters.points) == (1800, 2400)
        assert rig.shipper.stats.requests < 450  # 5,700 before
        assert "event=series_held_back" in rig.log.getvalue()
        server.bad = b"nothing"  # the conflict is mended: within ten minutes all lines go again
        for second in range(300, 1000):
            at = 1_700_000_000_000 + 1000 * second
            rig.spool.append(b"".join(b"gpu,node=gn01,gpu=%d power_w=5.5 %d\n" % (gpu, at) for gpu in range(8)))
            rig.now += 1.0
            rig.shipper.step()
        assert sum(line.endswith(b"%d\n" % at) for line in server.lines) == 8


def test_a_bad_line_now_and_then_holds_no_series_back():
    held = RefusedSeries()
    line = b'gpu,node=a\\ b power_w=%d.0,text="a,b=c d" %d\n'
    for now_s in range(100):
        if now_s % 2:
            held.learn([], [line % (now_s, now_s)], float(now_s))
        else:
            held.learn([line % (now_s, now_s)], [], float(now_s))
        assert held.split(line % (1, 1), now_s + 0.5) == (line % (1, 1), b"")


def test_only_the_series_and_fields_that_were_refused_are_held_back():
    held = RefusedSeries()
    bad, other, fields = (
        b"gpu,gpu=0 power_w=1,temp_c=2 5\n",
        b"gpu,gpu=1 power_w=1,temp_c=2 5\n",
        b"gpu,gpu=0 power_w=1 5\n",
    )
    for now_s in (1.0, 2.0):
        held.learn([other, fields], [bad], now_s)
    assert held.split(bad + other + fields, 3.0) == (other + fields, bad)
    assert held.split(bad, 62.5) == (bad, b"")
    held.learn([], [bad], 63.0)
    assert held.split(bad, 180.0) == (b"", bad)
    assert held.split(bad, 184.0) == (bad, b"")


def test_of_a_batch_in_part_too_old_the_oldest_lines_are_set_aside(tmp_path):
    """The store says how many it has dropped; they are the oldest, and the others have been written."""
    oldest = 1_700_000_000_010

    def answer(request):
        old = [line for line in request.lines.splitlines() if int(line.split()[-1]) < oldest]
        text = f"partial write: points beyond retention policy dropped={len(old)}"
        return answers.http(400, json.dumps({"error": text}).encode(), INFLUX_1) if old else answers.http(204)

    with answers.start(answer) as store:
        rig = Rig(tmp_path, store.port)
        rig.spool.append(good(5, 30))
        rig.steps(5)
    kept = [line for line in rig.dead_letters.path.read_bytes().splitlines(keepends=True) if line[:1] != b"#"]
    assert b"".join(kept) == good(5, 5)
    assert rig.shipper.stats.requests == 2


def test_a_policy_that_is_missing_is_a_matter_for_a_person(tmp_path):
    """InfluxDB 1 answers 500 to it."""
    body = b'{"error":"retention policy not found: recent"}'
    with answers.start(lambda _: answers.http(500, body, INFLUX_1)) as store:
        rig = Rig(tmp_path, store.port)
        rig.spool.append(good(0, 8))
        rig.steps(12)
    assert (rig.dead_letters.points, rig.spool.stats().points_waiting) == (0, 8)
    assert "init-store" in rig.log.getvalue()


def test_the_kind_rejected_is_raised_only_for_lines(tmp_path):
    for body, words in (
        (v2("not found", 'organization name "acme" not found'), "check org"),
        (v2("not found", 'bucket "power" not found'), "one that the token has no right to"),
        (v2("not found", "path not found"), "prefix=PATH"),
    ):
        with answers.start(lambda _, body=body: answers.http(404, body)) as store:
            output = InfluxOutput(parse_influx_url(f"influxdb://127.0.0.1:{store.port}/power?org=acme"), 5.0)
            with pytest.raises(Exception, match=words) as refusal:
                output.send(good(0, 1))
            assert not isinstance(refusal.value, Rejected)


@pytest.mark.rig
@pytest.mark.parametrize("server", ["influx", "influx_1_8"])
def test_a_type_conflict_on_a_real_server_sets_its_lines_alone_aside(request, tmp_path, server):
    influx = request.getfixturevalue(server)
    name = influx.database("conflict")
    other = open_store(influx.url(name, "version=1"))
    other.write(b"gpu,node=gn01,gpu=0 power_w=1i 1700000000000\n")  # another tool's integers
    rig = Rig(tmp_path, influx.shim_port, name)
    for second in range(1, 60):
        at = 1_700_000_000_000 + 1000 * second
        gpus = b"".join(b"gpu,node=gn01,gpu=%d power_w=5.5 %d\n" % (gpu, at) for gpu in range(8))
        rig.spool.append(gpus + b"node,node=gn01 power_w=5.5 %d\n" % at)
        rig.now += 1.0
        rig.shipper.step()
    count = Query("node", (Select("power_w", "count", "n"),))
    assert other.query(count, 1.6e9, 1.8e9)[0].values == {"n": 59.0}
    assert rig.dead_letters.points == 59 * 8
    assert rig.shipper.stats.requests < 120
    other.close()
