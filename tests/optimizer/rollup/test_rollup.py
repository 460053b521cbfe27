"""Roll-ups: sums, late data, repetition, missing telemetry, shards; and the plan's Gantt rows."""

import io
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from powerhall.physics.plants.plant import Plant
from powerhall.runtime.errors import Retryable
from powerhall.runtime.log import Log
from powerhall.site.topology import Hall, Losses, Mode, NodeType, Rack, RackRow, Site
from powerhall.store import Query, Row, Select, Store, open_store
from powerhall.store.line_protocol import Point, encode
from powerhall.store.schema import MEASUREMENTS
from powerhall.timeseries import Series
from powerhall_optimizer.commands import rollup as command_module
from powerhall_optimizer.rollup.node_power import node_power
from powerhall_optimizer.rollup.planned_power import GANTT_ROWS, PlannedPower, gantt_points
from powerhall_optimizer.rollup.readings import NodeReading
from powerhall_optimizer.rollup.rollup_cycle import Rollup, buckets

START_S = 1_790_000_100
KIND = NodeType(
    "hgx", "H100", 2, 500.0, 2000.0, 800.0, 0.5,
    (Mode("p700", "power_limit", 1000.0, 1.0, 700.0), Mode("p400", "power_limit", 600.0, 0.8, 400.0)),
)  # fmt: skip


def hall(name: str) -> Hall:
    racks = tuple(Rack(f"{name}/a/r{n}", "hgx", (f"{name}n{2 * n}", f"{name}n{2 * n + 1}"), 3500.0) for n in (0, 1))
    plant = Plant("chiller", "fixed", 8000.0, cop=5.0)
    return Hall(name, (RackRow(f"{name}/a", racks),), (plant,), Losses(100.0, 0.02), 7000.0)


CURTAILED = Series((0.0, START_S + 30.0), (6000.0, 5000.0))
SITE = Site("s", (hall("h1"), hall("h2")), {"hgx": KIND}, power_limit_w=20_000.0, budgets={"h2": CURTAILED})


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = open_store(f"sqlite:///{tmp_path / 'store.db'}")
    yield opened
    opened.close()


def readings(node: str, start_s: int, end_s: int, power_w: float = 700.0, **more: float) -> bytes:
    name = node[:2]
    rack = next(rack.zone for rack in SITE.racks() if node in rack.nodes)
    tags = {"site": "s", "hall": name, "rack": rack, "node": node}
    fields = {"power_w": power_w, "temp_c": 60.0, "util_percent": 90.0, "clocks_event_reasons": 0.0} | more
    return b"".join(
        encode(Point("gpu", {**tags, "gpu": str(gpu)}, {**fields, "temp_c": fields["temp_c"] + gpu}, at * 1000))
        + encode(Point("gpu_state", {**tags, "gpu": str(gpu)}, {"up": 1.0, "reason": "ok"}, at * 1000))
        for at in range(start_s, end_s, 5)
        for gpu in (0, 1)
    )


def all_nodes(site: Site = SITE) -> list[str]:
    return [node for rack in site.racks() for node in rack.nodes]


def rollup(store: Store, halls: tuple[str, ...] = ("h1", "h2"), *, with_site: bool = True) -> Rollup:
    return Rollup(store, SITE, halls, with_site)


def stored(store: Store, measurement: str, **where: str) -> list[Row]:
    entry = MEASUREMENTS[measurement]
    query = Query(measurement, tuple(Select(field.name) for field in entry.fields), where, entry.tags)
    return store.query(query, START_S - 1000, START_S + 100_000)


def test_powers_counts_and_limits_of_racks_halls_and_site_add_up(store: Store) -> None:
    for node in all_nodes():
        store.write(readings(node, START_S, START_S + 40))
    assert rollup(store).run(START_S, START_S + 40) == 4 * (4 + 2 + 1) + 1, "and the event of the curtailment"
    (rack, *_) = stored(store, "rack_10s", rack="h1/a/r0")
    assert rack.number("it_power_w") == pytest.approx(2 * 2 * 1000)
    assert (rack.number("gpus"), rack.number("gpus_busy"), rack.number("temp_max_c")) == (4.0, 4.0, 61.0)
    assert (rack.number("budget_w"), rack.number("headroom_w")) == (3500.0, -500.0)
    first, *_, last = stored(store, "hall_10s", hall="h2")
    it_w = 8000.0
    assert first.number("it_power_w") == it_w
    assert first.number("loss_power_w") == pytest.approx(100 + 0.02 * it_w)
    assert first.number("heat_w") == pytest.approx(it_w + 260)
    assert first.number("cooling_capacity_w") == 8000.0
    assert first.number("facility_power_w") == pytest.approx(it_w + 260 + first.number("cooling_power_w"))
    assert (first.number("budget_w"), last.number("budget_w")) == (6000.0, 5000.0), "a curtailment comes into force"
    (site, *_) = stored(store, "site_10s")
    assert site.number("it_power_w") == 2 * it_w
    assert site.number("headroom_w") == pytest.approx(20_000 - site.number("facility_power_w"))
    assert site.number("nodes") == 8.0


def test_a_node_with_a_bmc_counts_the_bmcs_reading(store: Store) -> None:
    for node in all_nodes():
        store.write(readings(node, START_S, START_S + 10))
    tags = {"site": "s", "hall": "h1", "rack": "h1/a/r0", "node": "h1n0"}
    store.write(encode(Point("node", tags, {"power_w": 1634.0}, START_S * 1000)))
    rollup(store).run(START_S, START_S + 10)
    (rack,) = stored(store, "rack_10s", rack="h1/a/r0")
    assert rack.number("it_power_w") == pytest.approx(1634 + 2000)
    sources = ("it_measured_w", "it_estimated_w", "it_assumed_w", "readings_dropped")
    assert [rack.number(name) for name in sources] == [1634, 2000, 0, 0]


@pytest.mark.parametrize(
    ("gpu_w", "node_w"),
    [([700, 700], 2000), ([400, 400], 1200), ([550, 550], 1600), ([200, 200], 600), ([30, 30], 500),
     ([800, 400], 800 / 0.7 + 600)],
)  # fmt: skip
def test_without_a_bmc_gpus_carry_their_share_of_the_node(gpu_w: list[float], node_w: float) -> None:
    assert node_power(NodeReading(gpu_w), KIND).power_w == pytest.approx(node_w)


def test_a_silent_node_keeps_its_last_reading_for_a_while_then_counts_at_its_worst(store: Store) -> None:
    for node in all_nodes():
        store.write(readings(node, START_S, START_S + (10 if node == "h1n0" else 80), 400.0))
    rollup(store).run(START_S, START_S + 80)
    rows = stored(store, "rack_10s", rack="h1/a/r0")
    assert [row.number("nodes_stale") for row in rows] == [0, 0, 0, 0, 1, 1, 1, 1]
    assert [row.number("it_power_w") for row in rows] == [2400] * 4 + [1200 + 2000] * 4


def test_a_hall_without_telemetry_has_no_roll_up(store: Store) -> None:
    for rack in SITE.hall("h1").racks():
        for node in rack.nodes:
            store.write(readings(node, START_S, START_S + 20))
    rollup(store).run(START_S, START_S + 20)
    assert stored(store, "hall_10s", hall="h1")
    assert stored(store, "hall_10s", hall="h2") == []
    assert stored(store, "rack_10s", hall="h2") == []
    assert stored(store, "site_10s") == [], "the site is not the sum of some of its halls"


def test_throttled_and_lost_gpus_are_counted(store: Store) -> None:
    for node in all_nodes():
        reasons = {"h1n0": 0x04, "h1n1": 0x20, "h1n2": 0x01}.get(node, 0)
        store.write(readings(node, START_S, START_S + 10, clocks_event_reasons=float(reasons)))
    tags = {"site": "s", "hall": "h1", "rack": "h1/a/r0", "node": "h1n0", "gpu": "1"}
    store.write(encode(Point("gpu_state", tags, {"up": 0.0, "reason": "lost"}, (START_S + 5) * 1000)))
    rollup(store).run(START_S, START_S + 10)
    (row,) = stored(store, "hall_10s", hall="h1")
    assert (row.number("gpus_throttled"), row.number("gpus_lost")) == (4.0, 1.0), "an idle GPU is not throttled"


def test_computing_again_changes_nothing_and_late_readings_are_counted(store: Store) -> None:
    for node in all_nodes():
        if node != "h2n3":
            store.write(readings(node, START_S - 60, START_S + 60))
    rollup(store).run(START_S, START_S + 60)
    before = stored(store, "hall_10s", hall="h2")
    assert all(row.number("nodes_stale") == 1.0 for row in before)
    rollup(store).run(START_S, START_S + 60)
    assert stored(store, "hall_10s", hall="h2") == before
    store.write(readings("h2n3", START_S - 60, START_S + 60))
    rollup(store).run(START_S, START_S + 60)
    after = stored(store, "hall_10s", hall="h2")
    assert len(after) == len(before)
    assert all(row.number("nodes_stale") == 0.0 for row in after)


def test_one_roll_up_per_hall_and_one_for_the_site_give_the_same_as_one_for_all(store: Store, tmp_path: Path) -> None:
    other = open_store(f"sqlite:///{tmp_path / 'other.db'}")
    for node in all_nodes():
        for one in (store, other):
            one.write(readings(node, START_S, START_S + 30, 500.0 + len(node)))
    rollup(store).run(START_S, START_S + 30)
    for halls in (("h2",), ("h1",)):
        rollup(other, halls, with_site=False).run(START_S, START_S + 30)
    rollup(other, (), with_site=True).run(START_S, START_S + 30)
    for measurement in ("rack_10s", "hall_10s", "site_10s"):
        assert stored(store, measurement) == stored(other, measurement)
        assert stored(store, measurement)
    other.close()


def test_five_minutes_keep_the_mean_power_and_the_worst_of_budget_heat_and_faults(store: Store) -> None:
    for node in all_nodes():
        store.write(readings(node, START_S, START_S + 150, 700.0) + readings(node, START_S + 150, START_S + 310, 400.0))
    store.write(readings("h1n0", START_S + 100, START_S + 110, temp_c=80.0, clocks_event_reasons=4.0))
    rollup(store).run(START_S, START_S + 290)
    assert stored(store, "hall_5m") == [], "the five minutes are not over"
    rollup(store).run(START_S + 180, START_S + 300)
    fine, (coarse,) = stored(store, "hall_10s", hall="h1"), stored(store, "hall_5m", hall="h1")
    assert coarse.time_s == START_S
    powers = [row.number("it_power_w") or 0.0 for row in fine]
    assert len(powers) == 30
    assert coarse.number("it_power_w") == pytest.approx(sum(powers) / 30)
    assert coarse.number("headroom_w") == 7000.0 - max(powers)
    assert coarse.number("temp_max_c") == 81.0
    assert coarse.number("gpus_throttled") == max(row.number("gpus_throttled") or 0.0 for row in fine) == 2.0
    (curtailed,) = stored(store, "hall_5m", hall="h2")
    assert curtailed.number("budget_w") == 5000.0, "the least that was in force"
    assert len(stored(store, "rack_5m")) == 4
    (site,) = stored(store, "site_5m")
    assert site.number("nodes") == 8.0


def test_readings_that_come_late_are_in_the_five_minutes_too(store: Store) -> None:
    late = "h2n3"
    for node in all_nodes():
        if node != late:
            store.write(readings(node, START_S, START_S + 310))
    rollup(store).run(START_S, START_S + 300)
    (before,) = stored(store, "hall_5m", hall="h2")
    assert before.number("nodes_stale") == 1.0
    store.write(readings(late, START_S - 60, START_S + 310))
    rollup(store).run(START_S, START_S + 400)
    first, *_ = stored(store, "hall_5m", hall="h2")
    assert first.number("nodes_stale") == 0.0


def test_a_budget_that_falls_or_rises_is_an_event_once(store: Store) -> None:
    steps = Series((0.0, START_S + 30.0, START_S + 60.0, START_S + 90.0), (6000.0, 5000.0, 6000.0, 6010.0))
    site = msgspec.structs.replace(SITE, budgets={"h2": steps, "s": Series((0.0,), (20_000.0,))})
    for _ in range(2):
        Rollup(store, site, ("h1", "h2"), True).run(START_S, START_S + 120)
    found = [(row.time_s - START_S, row.values["detail"], row.values["severity"]) for row in stored(store, "event")]
    assert found == [
        (30.0, "budget of h2 falls from 6 kW to 5 kW", 1.0),
        (60.0, "budget of h2 rises from 5 kW to 6 kW", 0.0),
    ], "a tenth of a percent is no event"
    assert {row.tags["hall"] for row in stored(store, "event", kind="curtailment")} == {"h2"}


def test_a_plan_that_moves_jobs_is_an_event_and_one_that_goes_on_is_none(store: Store) -> None:
    service = rollup(store)
    jobs = [job("a", 8, START_S, START_S + 900), job("b", 4, START_S, START_S + 900)]
    for name, now in (("one", jobs), ("two", jobs), ("three", [jobs[0] | {"mode": "p400"}, *jobs[2:]])):
        store.put_document("plan", "s", START_S + len(name), plan(name, now))
        service.run(START_S, START_S + 20)
    (event,) = stored(store, "event", kind="plan_change")
    assert event.values["detail"] == "plan three: of 1 jobs 1 stop, 1 change power mode"


def test_the_plan_in_force_is_shown_and_its_gantt_rows_replace_those_of_the_last_plan(store: Store) -> None:
    for node in all_nodes():
        store.write(readings(node, START_S, START_S + 20))
    jobs = [
        job("a", 8, START_S, START_S + 600),
        job("b", 4, START_S + 600, START_S + 1200),
        job("c", 2, START_S, START_S + 900),
    ]
    store.put_document("plan", "s", START_S, plan("one", jobs))
    assert rollup(store).run(START_S, START_S + 20)
    (first, *_) = stored(store, "hall_10s", hall="h1")
    assert first.number("planned_w") == 4200.0
    assert lanes(store, "h1") == {"00": ["a", "a", "b", "b"], "01": ["c", "c", "c", "-"]}
    store.put_document("plan", "s", START_S + 300, plan("two", [job("c", 2, START_S, START_S + 300)]))
    rollup(store).run(START_S, START_S + 20)
    assert lanes(store, "h1") == {"00": ["c", "-", "-", "-"]}


def test_gantt_rows_are_bounded_and_never_hold_two_jobs_at_once() -> None:
    jobs = [job(str(n), n % 5 + 1, START_S + 300 * (n % 3), START_S + 300 * (n % 3) + 400) for n in range(200)]
    found = msgspec.json.decode(plan("many", jobs), type=PlannedPower)
    points = list(gantt_points(found, "s", ("h1",)))
    assert len(points) == GANTT_ROWS * 4
    assert len({(point.tags["lane"], point.time_ms) for point in points}) == len(points)
    assert points[0].fields["gpus"] == 5.0, "the largest first"


def job(name: str, gpus: int, start_s: int, end_s: int) -> dict:
    return {
        "job_id": name, "hall": "h1", "node_type": "hgx", "mode": "p700", "gpus": gpus, "gpu_power_w": 1000.0,
        "start_s": start_s, "end_s": end_s, "placements": [],
    }  # fmt: skip


def plan(name: str, jobs: list[dict]) -> bytes:
    horizon = {"start_s": START_S, "slot_s": 300, "slots": 4, "unknown": [1]}
    zones = [{"zone": "h1", "planned_w": [4200, 4100, 4000, 3900]}]
    return msgspec.json.encode(
        {"version": 1, "plan_id": name, "snapshot": horizon, "zones": zones, "assignments": jobs}
    )


def lanes(store: Store, hall_name: str) -> dict[str, list[object]]:
    found: dict[str, list[object]] = {}
    for row in stored(store, "plan_slot", hall=hall_name):
        found.setdefault(row.tags["lane"], []).append(row.values["job"])
    return {lane: jobs for lane, jobs in found.items() if set(jobs) != {"-"}}


def test_buckets_are_whole_and_aligned() -> None:
    assert list(buckets(15.0, 42.0)) == [20, 30]
    assert list(buckets(20, 40)) == [20, 30]
    assert list(buckets(21, 29)) == []


def test_a_busy_store_delays_the_roll_up_and_leaves_no_gap(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = {"now": START_S + 13.0}
    busy_until_s = START_S + 60

    class Busy:
        def __getattr__(self, name: str) -> object:
            if clock["now"] < busy_until_s:
                raise Retryable("store: busy")
            return getattr(store, name)

    for node in all_nodes():
        store.write(readings(node, START_S, START_S + 100))
    out = io.StringIO()
    service = command_module._Service(Rollup(Busy(), SITE, ("h1", "h2"), True), Log(out), 20.0, None)
    monkeypatch.setattr(command_module.time, "time", lambda: clock["now"])

    def wait(_seconds: float) -> None:
        clock["now"] += 10.0
        if clock["now"] > START_S + 100:
            service.signals.stopped = True

    monkeypatch.setattr(service.signals, "wait", wait)
    service.loop(START_S, once=False)
    events = [line.split("event=")[1].split()[0] for line in out.getvalue().splitlines()]
    assert events[:5] == ["rollup_delayed"] * 5
    assert "rollup" in events
    assert [row.time_s - START_S for row in stored(store, "hall_10s", hall="h1")] == list(range(0, 90, 10))
