"""The lease command beside clocks that are off: the planner's, the store's, a node's."""

import math
import time
from datetime import UTC, datetime
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import msgspec
import pytest

from powerhall.store import open_store
from powerhall.store.line_protocol import Point, encode
from powerhall_optimizer.leases import clocks
from powerhall_optimizer.leases.clocks import Host, read_clocks
from powerhall_optimizer.leases.ledger import Ledger
from rigs.confirmed import confirmed_ledger


class Clock(BaseHTTPRequestHandler):
    """An InfluxDB that only tells its time, off by `ahead_s`."""

    ahead_s = 0.0

    def do_GET(self):
        self.send_response_only(204)
        moment = datetime.fromtimestamp(time.time() + self.ahead_s, UTC)
        self.send_header("Date", format_datetime(moment, usegmt=True))
        self.end_headers()

    def do_POST(self):
        body = b'{"results":[{"statement_id":0}]}'
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def influx():
    server = HTTPServer(("127.0.0.1", 0), Clock)
    Thread(target=server.serve_forever, daemon=True).start()
    store = open_store(f"influxdb://127.0.0.1:{server.server_port}/power?version=1")
    yield store
    store.close()
    server.shutdown()
    server.server_close()
    Clock.ahead_s = 0.0


@pytest.mark.parametrize("ahead_s", [-1200.0, -30.0, 0.0, 30.0, 1200.0])
def test_the_stores_time_is_compared(influx, ahead_s):
    Clock.ahead_s = ahead_s
    found = read_clocks(Host(time.time(), 0.0, ""), None, influx)
    assert found.ahead_s == pytest.approx(-ahead_s, abs=2.0)
    assert bool(found.alarms) == bool(ahead_s)
    assert found.low_s == pytest.approx(time.time() + min(0.0, ahead_s), abs=2.0)
    assert found.high_s == pytest.approx(time.time() + max(0.0, ahead_s), abs=2.0)


def report(url, *ages_s):
    store = open_store(url)
    for number, age_s in enumerate(ages_s):
        tags = {"site": "phx", "hall": "a", "rack": "a/r1/k1", "node": f"n{number}"}
        store.write(encode(Point("agent", tags, {"lag_s": 0.1}, int((time.time() - age_s) * 1000))))
    store.close()


@pytest.mark.parametrize("boot", ["same", "another", "none"])
def test_a_clock_20_minutes_ahead_for_one_round_grants_nothing(desk, boot):
    """Neither with a step that shows against the time since boot, nor with the nodes' reports alone."""
    report(desk.url, 1.0, 2.0, 3.0)
    desk.lease()
    before, held_w = desk.ledger.read_bytes(), desk.held_w(time.time())
    if boot != "same":
        name = "" if boot == "none" else "x"  # up for 5 s: another boot
        desk.monkeypatch.setattr(clocks.Host, "now", classmethod(lambda _cls, wall_s: Host(wall_s, 5.0, name)))
    with desk.monkeypatch.context() as patch:
        real = time.time
        patch.setattr(time, "time", lambda: real() + 1200.0)
        later = msgspec.structs.replace(desk.plan, created_s=int(real()) + 1200)
        desk.put(later)
        assert "nothing is granted" in desk.lease(code=1)
        assert "lease_clock" in desk.log
    assert desk.ledger.read_bytes() == before
    assert desk.held_w(time.time()) == held_w
    desk.put(msgspec.structs.replace(desk.plan, created_s=int(time.time())))
    desk.lease()


def test_with_a_clock_five_minutes_ahead_leases_are_five_minutes_shorter(desk):
    desk.lease()
    real = time.time
    desk.monkeypatch.setattr(time, "time", lambda: real() + 300.0)
    figures = desk.lease()
    assert figures["expires_s"] == pytest.approx(real() + 900.0, abs=10.0)
    assert "set forward" in figures["note"]


def test_one_node_with_a_wrong_clock_is_named_and_stops_nothing(desk):
    report(desk.url, 1.0, 2.0, -600.0)
    figures = desk.lease()
    assert figures["leases"] > 0
    assert "1 of 3 nodes are ahead" in figures["note"]


def test_nodes_that_are_all_ahead_show_a_clock_that_is_behind(desk):
    report(desk.url, -1200.0, -1201.0, -1199.0)
    assert "behind most nodes'" in desk.lease(code=1)


def test_silent_agents_stop_nothing_where_the_clock_is_known(desk):
    confirmed_ledger(desk.ledger, desk.nodes)
    desk.lease()
    report(desk.url, 1200.0, 1300.0)
    assert desk.lease()["leases"] > 0


def test_figures_go_to_the_store_for_alerts(desk):
    from powerhall.store import Query, Select

    desk.lease()
    desk.ledger.write_bytes(b"\xff")
    desk.lease()
    store = open_store(desk.url)
    fields = ("leases", "unknown", "ledger_doubted", "clock_ahead_s", "refused")
    rows = store.query(Query("lease_round", tuple(map(Select, fields))), time.time() - 60, time.time() + 60)
    store.close()
    assert [row.number("ledger_doubted") for row in rows] == [0.0, 1.0]
    assert rows[1].number("unknown") == len(desk.nodes)
    assert all(math.isfinite(row.number(name)) for row in rows for name in fields)


def test_a_clock_that_was_ahead_forgets_nothing(tmp_path):
    """Even a ledger that nobody warned counts its leases again when the clock is back."""
    path, budget = tmp_path / "ledger.json", []
    ledger = Ledger({"a": 100, "b": 100}, path)
    ledger.grant({"a": 900}, budget, 1e6, 1e6 + 900)
    Ledger({"a": 100, "b": 100}, path).grant({"b": 100}, budget, 1e6 + 1200, 1e6 + 2100)
    assert Ledger({"a": 100, "b": 100}, path).exposure_w("a", 1e6 + 10) == 900
