"""A hall whose store is silent: at its worst in the sums, an alarm, and nothing else stops."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from powerhall.runtime.errors import Retryable
from powerhall.runtime.log import Log
from powerhall.site.site_file import read_site
from powerhall.store import Query, Select, Store
from powerhall.store.hall_stores import HallStores
from powerhall.store.line_protocol import Point, encode
from powerhall.store.sqlite import SqliteStore
from powerhall_optimizer.commands.rollup import _Service
from powerhall_optimizer.inputs.telemetry import node_state
from powerhall_optimizer.leases.acks import read_acks
from powerhall_optimizer.leases.clocks import Host, read_clocks
from powerhall_optimizer.rollup.rollup_cycle import Rollup
from rigs.node_types import H100_NODE

START_S = 1_790_000_100
HALL = '\n[[halls]]\nname = "{0}"\nrows = [{{name = "r", racks = [{{node_type = "h100", count = 1, nodes = 2}}]}}]\n'
TEXT = '[site]\nname = "s"\npower_limit = "100 kW"\n' + H100_NODE + HALL.format("a") + HALL.format("b")


class Flaky:
    """A hall's store that can be silent."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.silent = False

    def __getattr__(self, name: str) -> object:
        def call(*arguments: object) -> object:
            if self.silent and name != "close":
                raise Retryable("b: no connection")
            return getattr(self.store, name)(*arguments)

        return call


@pytest.fixture
def site(tmp_path: Path):
    (tmp_path / "site.toml").write_text(TEXT)
    return read_site(tmp_path / "site.toml")[0]


@pytest.fixture
def b() -> Flaky:
    return Flaky(SqliteStore(":memory:"))


@pytest.fixture
def stores(b: Flaky) -> Iterator[HallStores]:
    opened = HallStores(
        SqliteStore(":memory:"), {"a": SqliteStore(":memory:"), "b": b}, lambda: SqliteStore(":memory:")
    )
    yield opened
    opened.close()


def readings(site, at_s: float, power_w: float = 4000.0) -> bytes:
    return b"".join(
        encode(
            Point(
                "node",
                {"site": "s", "hall": hall.zone, "rack": rack.zone, "node": node},
                {"power_w": power_w, "gpus": 8.0, "gpus_up": 8.0},
                round(at_s * 1000),
            )
        )
        for hall in site.halls
        for rack in hall.racks()
        for node in rack.nodes
    )


def newest(store: Store, measurement: str, field: str, tag: str) -> dict[str, object]:
    query = Query(measurement, (Select(field),), group_by=(tag,), order="desc", limit=1)
    return {row.tags[tag]: row.values[field] for row in store.query(query, START_S - 60, START_S + 60)}


def test_a_silent_halls_nodes_count_at_their_worst_and_the_other_hall_as_measured(site, stores, b) -> None:
    stores.write(readings(site, START_S + 1))
    rollup = Rollup(stores, site, ("a", "b"), with_site=True)
    rollup.run(START_S, START_S + 10)
    measured = newest(stores, "hall_10s", "it_power_w", "hall")
    assert measured["a"] == measured["b"]
    assert rollup.silent == {}
    b.silent = True
    rollup.run(START_S, START_S + 10)
    worst = newest(stores, "hall_10s", "it_power_w", "hall")
    node_type = site.node_types["h100"]
    assert worst == {"a": measured["a"], "b": 2 * node_type.max_power_w}
    assert newest(stores, "hall_10s", "it_assumed_w", "hall") == {"a": 0.0, "b": worst["b"]}
    assert newest(stores, "site_10s", "it_power_w", "site") == {"s": worst["a"] + worst["b"]}
    assert rollup.silent == {"b": "b: no connection"}
    assert newest(stores, "alert", "active", "zone") == {"b": 1.0}
    b.silent = False
    rollup.run(START_S, START_S + 10)
    assert newest(stores, "hall_10s", "it_power_w", "hall") == measured
    assert newest(stores, "alert", "active", "zone") == {"b": 0.0}


def test_the_sites_own_store_must_answer(site, b) -> None:
    b.silent = True
    broken = HallStores(b, {"a": SqliteStore(":memory:")}, lambda: SqliteStore(":memory:"))
    with pytest.raises(Retryable):
        Rollup(broken, site, ("a",), with_site=True).run(START_S, START_S + 10)
    broken.close()


def test_a_round_counts_a_silent_halls_nodes_as_stale(site, stores, b) -> None:
    stores.write(readings(site, START_S))
    assert node_state(stores, site, START_S + 5, 120.0).stale == ()
    b.silent = True
    state = node_state(stores, site, START_S + 5, 120.0)
    assert state.known
    assert set(state.stale) == {node for rack in site.hall("b").racks() for node in rack.nodes}
    assert node_state(stores, site, START_S + 9000, 120.0).known  # not taken for a site without agents


def test_leases_ask_what_answers(stores, b) -> None:
    b.silent = True
    assert read_acks(stores, b"k" * 32, ["n1"], START_S).sequences == {}
    clocks = read_clocks(Host(float(START_S), "boot", 5.0), None, stores)
    assert any("store of b: b: no connection" in alarm for alarm in clocks.alarms)


def test_what_was_silent_is_rolled_up_anew_once_its_spools_have_come(site, stores, b) -> None:
    service = _Service(Rollup(stores, site, ("a", "b"), with_site=True), Log(quiet=True), 120.0, None)
    begins = {}
    for minute in range(60):
        b.silent = 10 <= minute < 20
        end_s = START_S + minute * 60.0
        begins[minute] = service.after_silence(end_s - 120.0, end_s)
        service.rollup.silent = {"b": "no connection"} if b.silent else {}
    early = {minute: at_s for minute, at_s in begins.items() if at_s != START_S + minute * 60.0 - 120.0}
    assert early == {35: START_S + 9 * 60.0}  # as the first silent cycle, 15 min after the last
