"""Days of bills in the store: they add up to the meter, over clock changes; a day that is billed anew is replaced."""

from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from powerhall.store import Query, Select
from powerhall_optimizer.billing.bill_days import days_of, write_day
from powerhall_optimizer.cli import main
from rigs.billing import HOUR, KWH, NOON, BillRig

BERLIN = ZoneInfo("Europe/Berlin")
OWNERS = "job,user_hash,project,tenant\nchat-*,,chat,acme\n"


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=BERLIN).timestamp()


def stored(rig: BillRig, measurement: str, field: str, *group: str, **where: str) -> dict[tuple[str, ...], float]:
    """Return the sums over all days by group, as the dashboard has them."""
    query = Query(measurement, (Select(field, "sum", "value"),), {"site": "lab", **where}, group)
    rows = rig.store.query(query, 0.0, 4e9)
    return {tuple(row.tags[tag] for tag in group): row.values["value"] for row in rows}  # type: ignore[misc]


def filled(tmp_path: Path) -> BillRig:
    """Two local days, Berlin's last with summer time and the day after: 49 h of 9.56 and 1.8 kW, 24 h of a job."""
    (tmp_path / "owners.csv").write_text(OWNERS)
    charges = 'demand_charges = [{ name = "grid", usd_per_kw = 10.0 }]'
    rig = BillRig.made(tmp_path, more=f'[billing]\nowners = "owners.csv"\n{charges}\n')
    start_s, end_s = int(at("2026-10-25")), int(at("2026-10-27"))
    assert end_s - start_s == 49 * HOUR
    rig.meter("a", start_s, end_s, it_power_w=9560.0, facility_power_w=1.2 * 9560.0, water_l_per_h=9.56)
    rig.meter("b", start_s, end_s, it_power_w=1800.0, facility_power_w=1800.0, water_l_per_h=0.0)
    for gpu in range(8):
        rig.interval("chat-1", "n1", gpu, (start_s + 13 * HOUR, start_s + 37 * HOUR), 700.0 * 24 * HOUR, user_hash="u1")
    return rig


def test_days_begin_at_the_sites_midnight() -> None:
    days = days_of((at("2026-10-24T12:00"), at("2026-10-27T06:00")), BERLIN, at("2026-10-26T09:00"))
    assert days == [(at("2026-10-25"), at("2026-10-26")), (at("2026-10-26"), at("2026-10-27"))]
    assert days[0][1] - days[0][0] == 25 * HOUR


def test_days_in_the_store_add_up_to_the_meter(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rig = filled(tmp_path)
    options = ["bill", "--site", f"{tmp_path}/site.toml", "--store", f"sqlite:///{tmp_path}/power.db"]
    assert main([*options, "--from", "2026-10-25", "--to", "2026-10-27", "--by", "tenant", "--write"]) == 0
    capsys.readouterr()
    meter_j = stored(rig, "bill_meter", "energy_j")[()]
    assert meter_j == pytest.approx(49 * (1.2 * 9.56 + 1.8) * KWH)
    parts = stored(rig, "bill_day", "energy_j", "name", level="part")
    assert sum(parts.values()) == pytest.approx(meter_j)
    assert parts["jobs",] == pytest.approx(24 * 1.2 * 7.76 * KWH)
    for level, name in (("tenant", "acme"), ("project", "chat"), ("hall", "a")):
        assert stored(rig, "bill_day", "energy_j", "name", level=level) == {(name,): pytest.approx(parts["jobs",])}
    assert stored(rig, "bill_day", "cost", "name", level="tenant")["acme",] == pytest.approx(24 * 1.2 * 7.76 * 0.05)
    assert stored(rig, "bill_top", "energy_j", "row", level="job") == {("000",): pytest.approx(parts["jobs",])}
    assert stored(rig, "bill_top", "gpu_h", "row", level="user") == {("000",): pytest.approx(8 * 24)}
    peaks = rig.store.query(Query("bill_peak", (Select("power_w"), Select("cost")), {"site": "lab"}), 0.0, 4e9)
    assert [row.values for row in peaks] == [{"power_w": pytest.approx(13_272), "cost": pytest.approx(132.72)}] * 2
    assert [row.time_s for row in peaks] == [at("2026-10-25"), at("2026-10-26")]


def test_a_day_that_is_billed_anew_replaces_what_was_written(tmp_path: Path) -> None:
    """The owners' file had a wrong tenant: nothing of it stays in the sums."""
    rig = filled(tmp_path)
    day = (at("2026-10-25"), at("2026-10-26"))
    write_day(rig.store, rig.bill(*day))
    before = stored(rig, "bill_day", "energy_j", "name", level="tenant")
    assert before["acme",] > 0
    (tmp_path / "owners.csv").write_text(OWNERS.replace("acme", "globex"))
    write_day(rig.store, rig.bill(*day))
    after = stored(rig, "bill_day", "energy_j", "name", level="tenant")
    assert after == {("acme",): 0.0, ("globex",): before["acme",]}


def test_energy_without_a_price_has_no_cost(tmp_path: Path) -> None:
    rig = BillRig.made(tmp_path, prices="time,price\n2020-01-01T00:00Z,60\n2020-01-02T00:00Z,60\n")
    rig.meter("a", NOON, NOON + HOUR, it_power_w=3600.0, facility_power_w=3600.0)
    write_day(rig.store, rig.bill(NOON, NOON + HOUR))
    assert stored(rig, "bill_meter", "cost") == {}
    assert stored(rig, "bill_meter", "unpriced_j")[()] == pytest.approx(3.6 * KWH)
    assert stored(rig, "bill_meter", "gap_h")[()] == pytest.approx(1.0), "hall b has no roll-up"


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--days", "0"], "--days: '0': must be from 1 to 400"),
        (["--days", "1.5"], "--days: '1.5': must be a whole number"),
        (["--days", "2", "--month", "2026-10"], "must stand without --month, --from and --to"),
    ],
)
def test_days_that_are_none_are_refused(
    tmp_path: Path, options: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    BillRig.made(tmp_path).store.close()
    site = ["--site", f"{tmp_path}/site.toml", "--store", f"sqlite:///{tmp_path}/power.db"]
    assert main(["bill", *site, *options]) == 1
    error = capsys.readouterr().err
    assert line in error
    assert error.count("\n") == 1
