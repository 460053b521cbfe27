"""Demand charges: peaks of months by hand and by a plain loop, windows of hours, and what a plan tells of them."""

import random
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import msgspec
import numpy as np
import pytest

from powerhall.plan.demand import DemandTerm
from powerhall.plan.plan import read_plan
from powerhall.runtime.errors import Rejected
from powerhall.site.billing import DemandChargeTable
from powerhall.site.site_file import read_site
from powerhall_optimizer.billing.bill_output import bill_data, bill_text
from powerhall_optimizer.billing.buckets import Buckets
from powerhall_optimizer.billing.demand import demand_notes, peaks_of, with_demand
from powerhall_optimizer.billing.metered import HallMeter
from powerhall_optimizer.cli import main
from powerhall_optimizer.inputs.horizon import Horizon
from powerhall_optimizer.inputs.round_settings import RoundSettings
from powerhall_optimizer.inputs.snapshot import site_snapshot
from rigs.billing import BillRig

replace = msgspec.structs.replace
BERLIN = ZoneInfo("Europe/Berlin")
NOON = 1_793_534_400  # 2026-11-01T13:00+01:00, a Sunday
HOUR = 3600
CHARGES = """
[billing]
demand_charges = [
  {name = "grid", usd_per_kw = 12.0},
  {name = "4CP", usd_per_kw = 50.0, months = [6, 7, 8, 9], from_hour = 15, to_hour = 18, weekdays_only = true},
]
"""


def test_the_peak_is_a_mean_over_quarter_hours_and_gaps_are_told(tmp_path: Path) -> None:
    """Five minutes of 30 kW are no peak: the quarter hour has 16 + 4; the silent one is told."""
    rig = BillRig.made(tmp_path, more=CHARGES)
    for hall, it_w in (("a", 8000.0), ("b", 4000.0)):
        rig.meter(hall, NOON, NOON + 2 * HOUR, it_power_w=it_w, facility_power_w=it_w)
    rig.meter("a", NOON + HOUR + 300, NOON + HOUR + 600, it_power_w=20_000.0, facility_power_w=26_000.0)
    rig.meter("a", NOON + 2 * HOUR + 900, NOON + 3 * HOUR, it_power_w=8000.0, facility_power_w=8000.0)
    rig.meter("b", NOON + 2 * HOUR, NOON + 3 * HOUR, it_power_w=4000.0, facility_power_w=4000.0)
    bill = rig.bill(NOON, NOON + 3 * HOUR)
    (peak,) = bill.peaks
    assert (peak.charge.name, peak.month, peak.at_s) == ("grid", "2026-11", NOON + HOUR)
    assert peak.power_w == pytest.approx((8000 + 26_000 + 8000) / 3 + 4000)
    assert peak.missing_h == pytest.approx(0.25)
    assert "demand charge grid, 2026-11: 18.0 kW at 2026-11-01T14:00+01:00, 216.00 USD; 0.2 h" in bill_text(
        bill, "job", BERLIN
    )
    assert bill_data(bill, "job", BERLIN)["demand_charges"][0]["peak_kw"] == 18.0  # type: ignore[index]


@pytest.mark.parametrize("seed", range(4))
def test_peaks_are_those_of_a_plain_loop(seed: int) -> None:
    draw = random.Random(seed)
    start_s = int(datetime(2026, draw.choice([3, 6, 10]), 28, 20, draw.choice([0, 5, 40]), tzinfo=BERLIN).timestamp())
    buckets = Buckets.of(start_s, start_s + draw.randint(3, 5) * 86_400)
    low = draw.randint(0, 20)
    window = draw.choice([5, 15, 30, 60]), draw.choice([(), (6, 7)]), low, draw.randint(low + 1, 24)
    charge = DemandChargeTable("c", 10.0, *window, draw.random() < 0.5)
    power_w = np.array([draw.uniform(1e3, 9e3) if draw.random() < 0.98 else np.nan for _ in range(buckets.count)])
    meter = HallMeter("h", power_w, power_w * 0, power_w, power_w * 0, ())
    expected: dict[str, tuple[float, float]] = {}
    step_s = charge.interval_min * 60
    for at_s in range(-(-start_s // step_s) * step_s, int(buckets.end_s) - step_s + 1, step_s):
        at = datetime.fromtimestamp(at_s, BERLIN)
        if (charge.months and at.month not in charge.months) or not charge.from_hour <= at.hour < charge.to_hour:
            continue
        if charge.weekdays_only and at.weekday() > 4:
            continue
        values = [power_w[(t - start_s // 300 * 300) // 300] for t in range(at_s, at_s + step_s, 300)]
        key = at.strftime("%Y-%m")
        best, lost = expected.get(key, (0.0, 0.0))
        mean_w = sum(values) / len(values)
        expected[key] = (best, lost + step_s / 3600) if np.isnan(mean_w) else (max(best, mean_w), lost)
    found = {peak.month: (peak.power_w, peak.missing_h) for peak in peaks_of([charge], [meter], buckets, BERLIN)}
    assert found.keys() == expected.keys()
    for month, (most_w, lost_h) in expected.items():
        assert found[month] == (pytest.approx(most_w), pytest.approx(lost_h))


def test_a_plan_tells_what_its_peak_would_cost(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rig = BillRig.made(tmp_path, more='[billing]\ndemand_charges = [{name = "grid", usd_per_kw = 12.0}]\n')
    rig.store.close()
    (tmp_path / "jobs.csv").write_text("job_id,gpus,duration_s,submit_s\na1,8,3600,0\n")
    options = ["round", "--site", f"{tmp_path}/site.toml", "--jobs", f"{tmp_path}/jobs.csv", "--horizon", "1h"]
    assert main([*options, "--seconds", "1", "--out", f"{tmp_path}/plan.json", "--quiet"]) == 0
    capsys.readouterr()
    plan = read_plan(tmp_path / "plan.json")
    (note,) = [note for note in plan.notes if note.startswith("demand charge")]
    assert note.startswith("demand charge grid: the plan's highest power is 11.36 kW at")
    assert note.endswith("; the month's peak so far is not known")
    told = {}
    for peak_w in (9e3, 13e3):
        snapshot = replace(plan.snapshot, demand=(DemandTerm("grid", 12.0, peak_w, tuple(range(12))),))
        told[peak_w] = demand_notes(replace(plan, snapshot=snapshot), rig.planning)[0].rpartition(", ")[2]
    assert told[13e3] == "within the 13 kW of the month so far"
    assert told[9e3] == "2.36 kW above the 9 kW so far: up to 28 USD more"


def test_the_peak_of_the_month_so_far_comes_from_the_store(tmp_path: Path) -> None:
    """The plan is of a Sunday in November: only the charge of all hours counts."""
    rig = BillRig.made(tmp_path, more=CHARGES)
    rig.meter("a", NOON - HOUR, NOON, it_power_w=8000.0, facility_power_w=9000.0)
    rig.meter("b", NOON - HOUR, NOON, it_power_w=4000.0, facility_power_w=4500.0)
    snapshot = site_snapshot(rig.site, rig.planning, (), Horizon(NOON, 300, HOUR), RoundSettings().objective)
    (term,) = with_demand(snapshot, rig.planning, rig.store, NOON).demand
    assert (term.name, term.usd_per_kw, term.peak_w) == ("grid", 12.0, pytest.approx(13_500.0))
    assert term.slots == tuple(range(12))
    assert with_demand(snapshot, rig.planning, None, NOON) is snapshot


def test_a_wrong_window_is_one_line(tmp_path: Path) -> None:
    BillRig.made(tmp_path)
    path = tmp_path / "site.toml"
    charge = '{name = "x", usd_per_kw = 1.0, from_hour = 18, to_hour = 15}'
    path.write_text(path.read_text() + f"[billing]\ndemand_charges = [{charge}]\n")
    with pytest.raises(Rejected) as refused:
        read_site(path)
    assert "billing.demand_charges[0].to_hour: 15: must be after from_hour (18)" in str(refused.value)
