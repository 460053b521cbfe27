"""The first screen answers: is it safe, what comes next, what to do. Each answer against points written for it."""

from collections.abc import Iterator
from datetime import UTC
from pathlib import Path

import pytest

from powerhall.store import Row, Store, open_store
from powerhall.store.line_protocol import Point, encode
from powerhall_dashboards.preview.ahead_chart import AheadChart, ahead_chart
from powerhall_dashboards.preview.overview import Overview, overview

NOW_S = 1_790_000_100
HALL = {"it_power_w": 60e3, "budget_w": 100e3, "heat_w": 60e3, "cooling_capacity_w": 120e3}
PLAN = {"value": 5.0, "verified": 1.0, "plan_id": "p1"}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = open_store(f"sqlite:///{tmp_path / 'site.db'}")
    yield made
    made.close()


def look(store: Store, *points: Point, meter_w: float = 150e3, hall: dict[str, float] | None = None) -> Overview:
    every = [
        Point("site_10s", {"site": "s"}, {"facility_power_w": meter_w, "budget_w": 200e3}, (NOW_S - 10) * 1000),
        Point("hall_10s", {"site": "s", "hall": "h1"}, HALL | (hall or {}), (NOW_S - 10) * 1000),
        Point("plan", {"site": "s"}, PLAN, (NOW_S - 60) * 1000),
        *points,
    ]
    store.write(b"".join(map(encode, every)))
    return overview(store, ("s",), NOW_S)


def test_a_site_within_its_limits_is_safe_and_names_the_tightest(store: Store) -> None:
    found = look(store)
    assert (found.verdict, found.role) == ("SAFE: within every limit; tightest is s at the meter at 75 %", "good")
    assert [(line.name, round(line.used_percent), line.left) for line in found.limits] == [
        ("s at the meter", 75, "50 kW left"),
        ("h1 power", 60, "40 kW left"),
        ("h1 cooling", 50, "60 kW left"),
    ]
    assert found.alarms == []


def test_a_full_medium_is_not_hidden_by_the_other_one(store: Store) -> None:
    """82 % of all capacity used, the liquid loop beyond its own: a green figure of the sum would be wrong."""
    liquid = {"heat_liquid_w": 51e3, "cooling_capacity_liquid_w": 50e3, "heat_w": 82e3, "cooling_capacity_w": 100e3}
    found = look(store, hall=liquid | {"heat_air_w": 31e3, "cooling_capacity_air_w": 50e3})
    assert (found.verdict, found.role) == ("NOT SAFE: over the limit: h1 cooling (liquid)", "critical")
    assert found.limits[0].left == "1 kW OVER"
    assert "h1 cooling" not in [line.name for line in found.limits]


def test_without_a_roll_up_nothing_is_called_safe(store: Store) -> None:
    assert overview(store, ("s",), NOW_S).role == "critical"
    look(store)
    assert overview(store, ("s",), NOW_S + 600).verdict.startswith("UNKNOWN")


def test_the_next_two_hours_tell_budget_steps_and_the_tightest_moment_and_place(store: Store) -> None:
    ahead = [
        Point(
            "plan_zone",
            {"site": "s", "zone": zone},
            {"planned_w": planned_w, "budget_w": budget_w, "heat_w": 1.0, "cooling_capacity_w": 2.0},
            (NOW_S + minutes * 60) * 1000,
        )
        for minutes, zone, planned_w, budget_w in (
            (0, "s", 150e3, 200e3),
            (30, "s", 110e3, 120e3),
            (90, "s", 110e3, 200e3),
            (60, "h1", 98e3, 100e3),
            (180, "s", 10e3, 20e3),
        )
    ]
    lines = look(store, *ahead).ahead
    assert [(line.what, line.role) for line in lines] == [
        ("budget falls from 200 kW to 120 kW", "warning"),
        ("tightest power: h1 planned at 98 % of its limit", "warning"),
        ("tightest cooling: h1 planned at 50 % of its limit", "good"),
        ("budget rises from 120 kW to 200 kW", "neutral"),
    ]
    assert [line.when for line in lines] == ["14:45", "15:15", "15:15", "15:45"], "in the order of time"


def test_the_chart_holds_each_value_until_the_next_one(store: Store) -> None:
    def chart(*steps: tuple[int, float, float]) -> AheadChart | None:
        rows = [
            Row((NOW_S + 60.0 * minutes), {"zone": "s"}, {"planned_w": planned_w, "budget_w": budget_w})
            for minutes, planned_w, budget_w in steps
        ]
        return ahead_chart(rows, NOW_S, NOW_S + 7200, UTC)

    drawn = chart((-5, 100e3, 200e3), (30, 50e3, 100e3), (60, 75e3, 200e3))
    assert drawn is not None
    assert drawn.budget == "M0.0 2.0H75.0V41.0H150.0V2.0H300"
    assert drawn.planned == "M0.0 41.0H75.0V60.5H150.0V50.8H300"
    assert (drawn.most, drawn.ticks) == ("200 kW", ("14:15", "14:45", "15:15", "15:45", "16:15"))
    assert chart((0, 1.0, 2.0)) is None


def test_without_a_plan_for_them_that_is_said(store: Store) -> None:
    (line,) = look(store).ahead
    assert (line.what, line.role) == ("no plan covers the next two hours", "critical")


def test_alarms_come_with_place_and_first_action_the_critical_ones_first(store: Store) -> None:
    tags = {"site": "s", "hall": "h1", "rack": "r1", "node": "n1", "gpu": "0", "kind": "xid"}
    xid = Point("event", tags, {"code": 79.0, "severity": 2.0}, (NOW_S - 30) * 1000)
    found = look(store, xid, hall={"nodes_stale": 2.0})
    assert [(alarm.what, alarm.where, alarm.role) for alarm in found.alarms] == [
        ("Fatal XID error", "h1 n1", "critical"),
        ("Nodes without fresh telemetry", "h1", "warning"),
    ]
    assert found.alarms[0].do.startswith("Drain the node")
    assert found.verdict.startswith("Within every limit, 1 critical alarm; ")


def test_an_old_plan_is_an_alarm(store: Store) -> None:
    look(store)
    assert "Plan older than two rounds" in [alarm.what for alarm in overview(store, ("s",), NOW_S + 1000).alarms]


def test_waiting_jobs_stand_together_by_reason_with_what_would_help(store: Store) -> None:
    rows = [
        Point(
            "plan_job",
            {"site": "s", "row": str(row)},
            {"job": f"j{row}", "state": "waiting", "gpus": 8.0, "reason": reason, "what_if": "+2 kW", "plan_id": plan},
            (NOW_S - 60) * 1000,
        )
        for row, (reason, plan) in enumerate(
            [("needs 3 kW in h1", "p1"), ("needs 5.5 kW in h1", "p1"), ("no nodes", "p1"), ("old", "p0")]
        )
    ]
    waiting = look(store, *rows).waiting
    assert [(entry.where, entry.what) for entry in waiting] == [
        ("2 jobs, 16 GPUs", "needs 3 kW in h1"),
        ("1 job, 8 GPUs", "no nodes"),
    ]
    assert waiting[0].do == "Would start: +2 kW"


def hall_point(hall: str, before_s: float, **fields: float | str) -> Point:
    return Point("hall_10s", {"site": "s", "hall": hall}, fields, int(NOW_S - before_s) * 1000)


def test_a_silent_hall_is_unknown_beside_one_that_is_safe(store: Store) -> None:
    found = look(store, hall_point("h2", 3600, **HALL))
    assert found.verdict == "UNKNOWN: nothing of the last two minutes says h2 cooling, h2 power"
    assert found.role == "critical"


def test_a_hall_of_the_plan_that_never_reported_is_unknown(store: Store) -> None:
    fields = {"planned_w": 5.0, "budget_w": 9.0, "heat_w": 1.0, "cooling_capacity_w": 2.0}
    zone = Point("plan_zone", {"site": "s", "zone": "h3"}, fields, (NOW_S - 100) * 1000)
    rack = Point("plan_zone", {"site": "s", "zone": "h3/r1"}, {"planned_w": 5.0, "budget_w": 9.0}, (NOW_S - 100) * 1000)
    assert look(store, zone, rack).verdict == "UNKNOWN: nothing of the last two minutes says h3 cooling, h3 power"


def test_cooling_whose_capacity_ended_is_unknown(store: Store) -> None:
    """Without weather the roll-up has neither heat nor capacity."""
    now = hall_point("h2", 10, it_power_w=60e3, budget_w=100e3)
    assert look(store, hall_point("h2", 3600, **HALL), now).verdict.endswith("says h2 cooling")


@pytest.mark.parametrize("limit", ["budget_w", "cooling_capacity_w"])
def test_a_limit_of_nothing_is_exceeded_by_anything(store: Store, limit: str) -> None:
    found = look(store, hall={limit: 0.0})
    assert found.verdict.startswith("NOT SAFE: over the limit: h1")
    assert found.limits[0].left == "60 kW OVER"


def test_a_rack_over_its_limit_is_not_safe(store: Store) -> None:
    fields = {"it_power_w": 12e3, "budget_w": 10e3, "headroom_w": -2e3}
    rack = Point("rack_10s", {"site": "s", "hall": "h1", "rack": "h1/r/k"}, fields, (NOW_S - 10) * 1000)
    found = look(store, rack)
    assert found.verdict == "NOT SAFE: over the limit: rack h1/r/k"
    assert found.limits[0].left == "2 kW OVER"


def test_what_is_not_known_comes_with_a_first_action(store: Store) -> None:
    """`No alarm` beside UNKNOWN would be read as good news."""
    empty = overview(store, ("s",), NOW_S)
    assert (empty.alarms[0].what, empty.alarms[0].role) == ("Nothing is known", "critical")
    assert "start nothing" in empty.alarms[0].do
    silent = look(store, hall_point("h2", 3600, **HALL), hall_point("h3", 3600, **HALL))
    assert [(entry.what, entry.where) for entry in silent.alarms] == [
        ("Nothing is known of", "h2 cooling, h2 power, h3 cooling and 1 more")
    ]


def test_weather_that_ended_comes_with_its_own_first_action(store: Store) -> None:
    now = hall_point("h2", 10, it_power_w=60e3, budget_w=100e3)
    (entry,) = look(store, hall_point("h2", 3600, **HALL), now).alarms
    assert (entry.what, entry.where) == ("Cooling capacity is not known of", "h2 cooling")
    assert "planning.weather" in entry.do


def test_a_site_without_any_limit_is_not_called_silent(store: Store) -> None:
    points = [
        Point("site_10s", {"site": "s"}, {"it_power_w": 5e3, "facility_power_w": 6e3}, (NOW_S - 10) * 1000),
        Point("plan", {"site": "s"}, PLAN, (NOW_S - 60) * 1000),
    ]
    store.write(b"".join(map(encode, points)))
    found = overview(store, ("s",), NOW_S)
    assert found.verdict == "UNKNOWN: no limit is known of site or halls"
    assert "site.toml" in found.alarms[0].do


def test_a_limit_that_is_exceeded_without_an_alert_comes_with_a_first_action(store: Store) -> None:
    found = look(store, hall={"cooling_capacity_w": 50e3})
    assert [(entry.what, entry.where) for entry in found.alarms] == [("Over the limit", "h1 cooling")]
