"""Bills: cases worked out by hand, gaps, clock changes, meters at the grid."""

import json
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from powerhall.store.line_protocol import Point, encode
from powerhall_optimizer.billing.allocation import Amounts
from powerhall_optimizer.billing.bill import Bill
from powerhall_optimizer.billing.bill_output import bill_text
from powerhall_optimizer.cli import main
from rigs.billing import HOUR, KWH, NOON, BillRig, assert_adds_up, table


def line(bill: Bill, name: str, level: str = "job") -> Amounts:
    return bill.grouped(level)[name]  # type: ignore[arg-type]


def test_a_job_over_a_price_step(tmp_path: Path) -> None:
    """Eight GPUs at 700 W are 7.76 kW of IT, with 1.8 kW of an idle node: 9.56 kW; PUE 1.2; 50, then 100 USD/MWh."""
    rig = BillRig.made(
        tmp_path, prices="time,price\n2026-11-01T00:00Z,50\n2026-11-01T13:00Z,100\n2026-11-02T00:00Z,1\n"
    )
    rig.meter("a", NOON, NOON + 2 * HOUR, it_power_w=9560.0, facility_power_w=1.2 * 9560.0, water_l_per_h=9.56)
    rig.meter("b", NOON, NOON + 2 * HOUR, it_power_w=1800.0, facility_power_w=1800.0, water_l_per_h=0.0)
    for gpu in range(8):
        rig.interval("train", "n1", gpu, (NOON, NOON + 2 * HOUR), 700.0 * 2 * HOUR, user_hash="u1")
    bill = rig.bill(NOON, NOON + 2 * HOUR)
    job = line(bill, "train")
    assert job.gpu_s == pytest.approx(16 * HOUR)
    assert job.board_j == pytest.approx(11.2 * KWH)
    assert job.it_j == pytest.approx(15.52 * KWH)
    assert job.energy_j == pytest.approx(18.624 * KWH)
    assert job.cost_usd == pytest.approx(9.312 * 0.05 + 9.312 * 0.10)
    assert job.co2_g == pytest.approx(18.624 * 400)
    assert job.water_l == pytest.approx(7.76 * 2)
    assert bill.rest("idle").it_j == pytest.approx((1.8 + 1.8) * 2 * KWH)
    assert bill.rest("unallocated").it_j == pytest.approx(0.0, abs=1.0)
    assert_adds_up(bill)
    assert bill.gaps == ()


def test_two_jobs_share_one_gpu(tmp_path: Path) -> None:
    """The board draws 400 W for both, 601 W with its part of the node; 300 W of it are one job's, 100 W the other's."""
    rig = BillRig.made(tmp_path)
    rig.meter("a", NOON, NOON + HOUR, it_power_w=601.0 + 15 * 225.0, facility_power_w=601.0 + 15 * 225.0)
    rig.interval("big", "n1", 3, (NOON, NOON + HOUR), 300.0 * HOUR, energy_split="mig_activity")
    rig.interval("small", "n1", 3, (NOON, NOON + HOUR), 100.0 * HOUR, energy_split="mig_activity")
    bill = rig.bill(NOON, NOON + HOUR)
    assert line(bill, "big").it_j == pytest.approx(0.75 * 0.601 * KWH)
    assert line(bill, "small").it_j == pytest.approx(0.25 * 0.601 * KWH)
    assert line(bill, "big").gpu_s + line(bill, "small").gpu_s == pytest.approx(HOUR)
    assert bill.rest("idle").it_j == pytest.approx(15 * 0.225 * KWH)
    assert_adds_up(bill)


def test_a_preempted_job_pays_for_its_own_time_alone(tmp_path: Path) -> None:
    """It runs for ten minutes on n1, makes room for another for twenty, and goes on in the other hall."""
    rig = BillRig.made(tmp_path)
    rig.meter("a", NOON, NOON + HOUR, it_power_w=970.0 + 15 * 225.0, facility_power_w=1.5 * (970.0 + 15 * 225.0))
    rig.meter("b", NOON, NOON + HOUR, it_power_w=601.0 + 7 * 225.0, facility_power_w=1.1 * (601.0 + 7 * 225.0))
    rig.interval("low", "n1", 0, (NOON, NOON + 600), 700.0 * 600)
    rig.interval("urgent", "n1", 0, (NOON + 600, NOON + HOUR), 700.0 * 3000)
    rig.interval("low", "n3", 0, (NOON + 1800, NOON + HOUR), 400.0 * 1800)
    bill = rig.bill(NOON, NOON + HOUR)
    assert line(bill, "low").it_j == pytest.approx(970.0 * 600 + 601.0 * 1800)
    assert line(bill, "low").energy_j == pytest.approx(1.5 * 970.0 * 600 + 1.1 * 601.0 * 1800)
    assert line(bill, "urgent").energy_j == pytest.approx(1.5 * 970.0 * 3000)
    assert line(bill, "a", "hall").it_j == pytest.approx(970.0 * HOUR)
    assert line(bill, "b", "hall").it_j == pytest.approx(601.0 * 1800)
    assert_adds_up(bill)


def test_gaps_are_named_and_never_filled(tmp_path: Path) -> None:
    """An hour without a roll-up, half an hour without the plants' power: the job's energy there is told, not billed."""
    rig = BillRig.made(tmp_path)
    power = {"it_power_w": 5000.0, "facility_power_w": 6000.0}
    rig.meter("a", NOON, NOON + HOUR, **power)
    rig.meter("a", NOON + 2 * HOUR, NOON + 3 * HOUR, **power)
    rig.meter("a", NOON + 3 * HOUR, NOON + 3 * HOUR + 1800, it_power_w=5000.0)
    rig.meter("b", NOON, NOON + 3 * HOUR + 1800, it_power_w=1800.0, facility_power_w=1800.0)
    rig.interval("long", "n1", 0, (NOON, NOON + 3 * HOUR + 1800), 700.0 * 3.5 * HOUR)
    bill = rig.bill(NOON, NOON + 3 * HOUR + 1800)
    found = [(gap.hall, gap.start_s - NOON, gap.end_s - NOON, gap.missing) for gap in bill.gaps]
    assert found == [
        ("a", HOUR, 2 * HOUR, "roll-up"),
        ("a", 3 * HOUR, 3.5 * HOUR, "cooling and losses"),
    ]
    assert bill.rest("meter").energy_j == pytest.approx(2 * 6 * KWH + 3.5 * 1.8 * KWH)
    assert line(bill, "long").it_j == pytest.approx(2 * 0.97 * KWH)
    assert line(bill, "long").unmetered_j == pytest.approx(1.5 * 0.97 * KWH)
    assert_adds_up(bill)
    assert "1.50 hall hours without a meter" in bill_text(bill, "job", None)


def test_energy_that_no_job_used_is_unallocated_or_assumed(tmp_path: Path) -> None:
    """The meter shows 2 kW more than job and idle GPUs; of these 500 W are a silent node at its worst."""
    rig = BillRig.made(tmp_path)
    it_w = 970.0 + 15 * 225.0 + 2000.0
    rig.meter("a", NOON, NOON + HOUR, it_power_w=it_w, facility_power_w=it_w, it_assumed_w=500.0)
    rig.interval("job", "n1", 0, (NOON, NOON + HOUR), 700.0 * HOUR)
    bill = rig.bill(NOON, NOON + HOUR)
    assert bill.rest("unallocated").it_j == pytest.approx(1.5 * KWH)
    assert bill.rest("assumed").it_j == pytest.approx(0.5 * KWH)
    assert_adds_up(bill)


def test_jobs_never_pay_for_more_than_the_meter_shows(tmp_path: Path) -> None:
    """The hall's own meter shows 485 W where the job's GPU alone would be 970 W with its part of the node."""
    rig = BillRig.made(tmp_path)
    rig.meter("a", NOON, NOON + HOUR, it_power_w=4000.0, meter_power_w=485.0, facility_power_w=4800.0)
    rig.interval("job", "n1", 0, (NOON, NOON + HOUR), 700.0 * HOUR)
    bill = rig.bill(NOON, NOON + HOUR)
    assert line(bill, "job").it_j == pytest.approx(0.485 * KWH)
    assert line(bill, "job").energy_j == pytest.approx(1.2 * 0.485 * KWH)
    assert bill.rest("idle").it_j == pytest.approx(0.0, abs=1e-3)
    assert_adds_up(bill)
    assert any("where the meter shows less" in note for note in bill.notes)


@pytest.mark.parametrize("energy_j", [9e9, -5.0])
def test_energy_that_cannot_be_is_not_billed(tmp_path: Path, energy_j: float) -> None:
    rig = BillRig.made(tmp_path)
    rig.meter("a", NOON, NOON + HOUR, it_power_w=3600.0, facility_power_w=3600.0)
    rig.interval("odd", "n1", 0, (NOON, NOON + HOUR), energy_j)
    bill = rig.bill(NOON, NOON + HOUR)
    assert line(bill, "odd").it_j == pytest.approx(0.225 * KWH)
    assert any("cannot be" in note for note in bill.notes)
    assert_adds_up(bill)


def test_open_intervals_end_where_another_takes_the_gpu(tmp_path: Path) -> None:
    """An agent that was started anew writes its job again, and never the end of what it wrote before."""
    rig = BillRig.made(tmp_path)
    rig.meter("a", NOON, NOON + 2 * HOUR, it_power_w=4345.0, facility_power_w=4345.0)
    rig.interval("job", "n1", 0, (NOON, 0.0), 700.0 * HOUR)
    rig.interval("job", "n1", 0, (NOON + HOUR, 0.0), 700.0 * HOUR)
    bill = rig.bill(NOON, NOON + 2 * HOUR, now_s=NOON + 2 * HOUR)
    assert line(bill, "job").board_j == pytest.approx(1.4 * KWH)
    assert line(bill, "job").gpu_s == pytest.approx(2 * HOUR)


@pytest.mark.parametrize(("month", "hours"), [("2026-10", 745), ("2026-03", 743), ("2026-11", 720)])
def test_a_month_is_that_of_the_site(
    tmp_path: Path, month: str, hours: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """In Berlin October has an hour more and March one less; prices are in local time."""
    local = ZoneInfo("Europe/Berlin")
    year, number = map(int, month.split("-"))
    start_s = int(datetime(year, number, 1, tzinfo=local).timestamp())
    rows = [f"{start_s + hour * HOUR},{100 if hour % 2 else 20}" for hour in range(-1, hours + 1)]
    prices = "time,price\n" + "\n".join(rows) + "\n"
    rig = BillRig.made(tmp_path, prices=prices)
    for hall, it_w in (("a", 5400.0), ("b", 1800.0)):
        rig.meter(hall, start_s - HOUR, start_s + (hours + 1) * HOUR, it_power_w=it_w, facility_power_w=it_w)
    rig.store.close()
    options = ["bill", "--site", f"{tmp_path}/site.toml", "--store", f"sqlite:///{tmp_path}/power.db", "--json"]
    code = main([*options, "--month", month, "--csv", f"{tmp_path}/bill.csv"])
    told = json.loads(capsys.readouterr().out)
    assert code == 0
    future = any("ends in the future" in note for note in told["notes"])
    if not future:
        priced = sum(0.1 if hour % 2 else 0.02 for hour in range(hours)) * 7.2
        assert told["meter"]["energy_kwh"] == pytest.approx(7.2 * hours)
        assert told["meter"]["cost_usd"] == pytest.approx(priced)
        assert told["gaps"] == []
    assert [row["kind"] for row in table(tmp_path / "bill.csv")] == ["idle", "unallocated", "assumed", "meter"]


def test_prices_that_a_file_does_not_cover_are_not_guessed(tmp_path: Path) -> None:
    prices = "time,price\n2026-11-01T12:00Z,60\n2026-11-01T13:00Z,60\n2026-11-01T13:30Z,60\n"
    rig = BillRig.made(tmp_path, prices=prices)
    rig.meter("a", NOON, NOON + 4 * HOUR, it_power_w=3600.0, facility_power_w=3600.0)
    bill = rig.bill(NOON, NOON + 4 * HOUR)
    meter = bill.rest("meter")
    assert meter.cost_usd == pytest.approx((meter.energy_j - meter.unpriced_j) / 3.6e9 * 60)
    assert meter.unpriced_j > KWH
    assert any("does not cover" in note for note in bill.notes)


def test_negative_prices_are_paid_out(tmp_path: Path) -> None:
    rig = BillRig.made(tmp_path, prices="time,price\n2026-11-01T00:00Z,-20\n2026-11-03T00:00Z,-20\n")
    rig.meter("a", NOON, NOON + HOUR, it_power_w=3600.0, facility_power_w=4000.0)
    assert rig.bill(NOON, NOON + HOUR).rest("meter").cost_usd == pytest.approx(-0.08)


def test_the_meters_at_the_grid_rule_where_the_site_names_them(tmp_path: Path) -> None:
    """Roll-ups say 6 + 2 kW at the meter, the two devices at the grid 10 kW; one of them is silent in the last part."""
    rig = BillRig.made(tmp_path, more='[billing]\nmeters = ["g1", "g2"]\n')
    rig.meter("a", NOON, NOON + HOUR, it_power_w=5000.0, facility_power_w=6000.0)
    rig.meter("b", NOON, NOON + HOUR, it_power_w=1800.0, facility_power_w=2000.0)
    for device, until in (("g1", HOUR), ("g2", HOUR - 600)):
        tags = {"site": "lab", "hall": "", "device": device, "point": "power_w"}
        points = [
            Point("facility", tags, {"value": 5000.0, "quality": 1.0}, (NOON + s) * 1000) for s in range(0, until, 60)
        ]
        rig.store.write(b"".join(map(encode, points)))
    bill = rig.bill(NOON, NOON + HOUR)
    assert bill.rest("meter").energy_j == pytest.approx(10_000.0 * 3000)
    assert {(gap.missing, gap.end_s - gap.start_s) for gap in bill.gaps} == {("meter at the grid", 600.0)}
    assert_adds_up(bill)


# The judge: every ten seconds by itself, in plain Python.
