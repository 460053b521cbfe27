"""Alert rules: each is raised by its own condition, on a real InfluxDB, and by no other."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from powerhall.store import open_store
from powerhall.store.line_protocol import Point, encode
from powerhall_dashboards.alerts import RULES
from powerhall_dashboards.boards import BOARDS
from powerhall_dashboards.grafana.alert_files import provisioning_json
from rigs.grafana_alerts import evaluate

NOW_S = 1_790_000_100
GROUP = json.loads(provisioning_json())["groups"][0]
BY_UID = {rule["uid"]: rule for rule in GROUP["rules"]}
NODE = {"site": "s", "hall": "h", "rack": "r", "node": "n"}
ZONE = {"site_10s": ("site",), "hall_10s": ("site", "hall"), "rack_10s": ("site", "hall", "rack")}


def points(measurement: str, tags: dict[str, str], *fields: dict[str, float], every_s: int = 20) -> list[Point]:
    """Points that end 15 s ago, the last one newest."""
    count = len(fields)
    return [
        Point(measurement, tags, values, (NOW_S - 15 - (count - 1 - number) * every_s) * 1000)
        for number, values in enumerate(fields)
    ]


def zone(measurement: str, **fields: float) -> list[Point]:
    return points(measurement, {tag: NODE[tag] for tag in ZONE[measurement]}, fields, fields)


FINE = {"headroom_w": 400.0, "budget_w": 1000.0, "heat_w": 500.0, "cooling_capacity_w": 1000.0}
FINE["cooling_load_percent"] = 50.0
HEALTHY = [
    *(point for name in ZONE for point in zone(name, **FINE, gpus_lost=0.0, nodes_stale=0.0)),
    *points("gpu", {**NODE, "gpu": "0"}, {"slow_thermal_s": 30.0}, {"slow_thermal_s": 30.0}),
    *points("event", {**NODE, "kind": "xid"}, {"code": 13.0, "severity": 1.0, "detail": "graphics exception"}),
    *points("node", NODE, {"leak_state": 0.0}, {"leak_state": 0.0}),
    *points("facility", {"site": "s", "device": "cdu-1", "point": "leak_state"}, {"value": 0.0}),
    *points("agent", NODE, {"spool_bytes": 5e6}, {"spool_bytes": 5.2e6}, every_s=300),
    *points("plan", {"site": "s"}, {"value": 5.0, "verified": 1.0}),
    *points("lease_round", {"site": "s"}, {"clock_ahead_s": -0.4, "unknown": 0.0, "silent": 0.0}),
    *points("capper", {"node": "n"}, {"up": 1.0, "leased": 0.0, "alarms": 0.0}),
    *points("gpu_slow", {**NODE, "gpu": "0"}, {"energy_closure": 0.01}),
]  # fmt: skip

TROUBLE = {
    **{f"powerhall-{name[:-4]}-near-budget": zone(name, headroom_w=40.0, budget_w=1000.0) for name in ZONE},
    **{f"powerhall-{name[:-4]}-over-budget": zone(name, headroom_w=-1.0, budget_w=1000.0) for name in ZONE},
    "powerhall-cooling-low": zone("hall_10s", heat_w=820.0, cooling_capacity_w=1000.0, cooling_load_percent=96.0),
    "powerhall-thermal-slowdown": points(
        "gpu", {**NODE, "gpu": "1"}, {"slow_thermal_s": 90.0}, {"slow_thermal_s": 90.5}
    ),
    "powerhall-fatal-xid": points("event", {**NODE, "gpu": "1", "kind": "xid"}, {"code": 79.0, "severity": 2.0}),
    "powerhall-leak": points("node", NODE, {"leak_state": 0.0}, {"leak_state": 2.0}),
    "powerhall-leak-unit": points(
        "facility", {"site": "s", "hall": "h", "device": "cdu-1", "point": "leak_state"}, {"value": 1.0}
    ),
    "powerhall-gpu-lost": zone("hall_10s", gpus_lost=1.0),
    "powerhall-stale-agent": zone("hall_10s", nodes_stale=2.0),
    "powerhall-spool-growing": points("agent", NODE, {"spool_bytes": 1e6}, {"spool_bytes": 9e6}, every_s=300),
    "powerhall-plan-unverified": points("plan", {"site": "s"}, {"value": 5.0, "verified": 0.0}),
    "powerhall-lease-clock": points("lease_round", {"site": "s"}, {"clock_ahead_s": 1200.0, "refused": 1.0}),
    "powerhall-lease-ledger": points("lease_round", {"site": "s"}, {"clock_ahead_s": 0.0, "unknown": 12.0}),
    "powerhall-leases-silent": points("lease_round", {"site": "s"}, {"clock_ahead_s": 0.0, "silent": 3.0}),
    "powerhall-capper-alarm": points("capper", {"node": "n"}, {"up": 1.0, "leased": 0.0, "alarms": 2.0}),
    "powerhall-telemetry-closure": points("gpu_slow", {**NODE, "gpu": "0"}, {"energy_closure": -0.08}),
}
ALSO = {f"powerhall-{name[:-4]}-over-budget": {f"powerhall-{name[:-4]}-near-budget"} for name in ZONE}


@pytest.fixture
def site(influx: object) -> Iterator[object]:
    store = open_store(influx.url(influx.database("alerts")))
    yield store
    store.close()


def states(store: object, now_s: float = NOW_S) -> dict[str, str]:
    return {uid: evaluate(rule, store, now_s)[0] for uid, rule in BY_UID.items()}


@pytest.mark.rig
def test_a_healthy_site_raises_nothing(site: object) -> None:
    site.write(b"".join(map(encode, HEALTHY)))
    assert set(states(site).values()) == {"Normal"} | {"OK"} & set(states(site).values())
    assert "Alerting" not in states(site).values()


@pytest.mark.rig
@pytest.mark.parametrize("uid", TROUBLE)
def test_each_rule_is_raised_by_its_condition_and_only_by_it(uid: str, site: object) -> None:
    site.write(b"".join(map(encode, HEALTHY)))
    site.write(b"".join(map(encode, TROUBLE[uid])))
    raised = {name for name, state in states(site).items() if state == "Alerting"}
    assert raised == {uid} | ALSO.get(uid, set())
    (labels,) = evaluate(BY_UID[uid], site, NOW_S)[1]
    assert labels
    unit = {"device": "cdu-1", "point": "leak_state"}
    assert labels.items() <= {**NODE, "gpu": "1", **unit}.items()


@pytest.mark.rig
def test_missing_data_raises_only_the_rule_about_old_plans(site: object) -> None:
    site.write(b"".join(map(encode, HEALTHY)))
    later = states(site, NOW_S + 1200)
    assert {name for name, state in later.items() if state == "Alerting"} == {"powerhall-plan-old"}


@pytest.mark.rig
@pytest.mark.parametrize(("age_s", "raised"), [(590, False), (910, True), (40_000, True)])
def test_an_old_plan_of_one_site_is_raised_beside_a_site_with_a_new_one(age_s: int, raised: bool, site: object) -> None:
    """Two sites in one store: the quiet one has no point in the last rounds, and must not hide behind the other."""
    plan = {"value": 5.0, "verified": 1.0}
    old = [Point("plan", {"site": "quiet"}, plan, (NOW_S - age_s - 300 * back) * 1000) for back in range(4)]
    new = [Point("plan", {"site": "s"}, plan, (NOW_S - 20 - 300 * back) * 1000) for back in range(4)]
    site.write(b"".join(map(encode, old + new)))
    state, series = evaluate(BY_UID["powerhall-plan-old"], site, NOW_S)
    assert (state, series) == (("Alerting", [{"site": "quiet"}]) if raised else ("Normal", []))


def test_every_rule_has_a_test_of_its_condition() -> None:
    assert set(TROUBLE) | {"powerhall-plan-old"} == set(BY_UID)


def test_rules_have_the_fields_that_grafanas_provisioning_requires() -> None:
    assert json.loads(provisioning_json())["apiVersion"] == 1
    assert set(GROUP) == {"orgId", "name", "folder", "interval", "rules"}
    boards = {board.uid for board in BOARDS}
    for rule in GROUP["rules"]:
        assert len(rule["uid"]) <= 40, "Grafana's limit"
        ids = [part["refId"] for part in rule["data"]]
        assert len(set(ids)) == len(ids)
        assert rule["condition"] == ids[-1]
        assert rule["annotations"]["__dashboardUid__"] in boards
        assert rule["annotations"]["__panelId__"].isdecimal()
        assert all(rule["annotations"][key].endswith(".") for key in ("summary", "description"))
        assert int(rule["for"].removesuffix("s")) % 30 == 0, "a multiple of the group's interval"
        for part in rule["data"]:
            assert {"refId", "relativeTimeRange", "datasourceUid", "model"} == set(part)
            assert part["model"]["refId"] == part["refId"]


def test_the_page_of_alerts_names_every_rule(root: Path) -> None:
    page = (root / "docs" / "reference" / "alerts.md").read_text()
    for rule in RULES:
        assert f"## {rule.title}\n" in page
        assert rule.do in " ".join(page.split())
