"""Figures of a year: worked out by hand, with hours that are missing told and never filled in."""

import json
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from powerhall.runtime.errors import Rejected
from powerhall.site.reported_months import ReportedMonths, read_reported
from powerhall.store.line_protocol import Point, encode
from powerhall_optimizer.billing.yearly import make_year
from powerhall_optimizer.cli import main
from rigs.billing import BillRig

HOUR = 3600
HEADER = "month,water_m3,reused_heat_kwh,waste_heat_c,renewable_goo_kwh,renewable_ppa_kwh,renewable_onsite_kwh\n"


def local(month: int, day: int) -> int:
    return int(datetime(2026, month, day, tzinfo=ZoneInfo("Europe/Berlin")).timestamp())


def two_months(folder: Path, more: str = "") -> BillRig:
    """Ten days of March (one has 23 hours) and five of July: 5 + 1 kW of IT, PUE 1.2 and 1.5, 10 l/h in July."""
    rig = BillRig.made(folder, more=more)
    for hall, it_w in (("a", 5000.0), ("b", 1000.0)):
        rig.meter(hall, local(3, 22), local(4, 1), it_power_w=it_w, facility_power_w=1.2 * it_w, water_l_per_h=0.0)
        rig.meter(hall, local(7, 1), local(7, 6), it_power_w=it_w, facility_power_w=1.5 * it_w, water_l_per_h=5.0)
    return rig


def test_sums_ratios_and_missing_hours(tmp_path: Path) -> None:
    rig = two_months(tmp_path)
    year = make_year(rig.store, rig.site, rig.planning, 2026, ReportedMonths())
    march_h, july_h = 239, 120
    assert year.inputs["E_IT"].value == pytest.approx(6 * (march_h + july_h))
    assert year.inputs["E_DC"].value == pytest.approx(6 * (1.2 * march_h + 1.5 * july_h))
    assert year.inputs["E_DC"].missing_h == pytest.approx(8760 - march_h - july_h)
    assert year.inputs["P_IT"].value == pytest.approx(3 * 10.2)
    pue = (1.2 * march_h + 1.5 * july_h) / (march_h + july_h)
    assert year.indicators["PUE"].value == pytest.approx(pue)
    assert year.indicators["PUE"].missing_h == pytest.approx(8760 - march_h - july_h)
    assert year.inputs["W_IN"].value == pytest.approx(10 * july_h / 1000)
    assert year.indicators["WUE"].value == pytest.approx(10 * july_h / (6 * (march_h + july_h)))
    for name in ("ERF", "REF"):
        assert year.indicators[name].value is None
        assert year.indicators[name].missing_h == 8760
    march = next(month for month in year.months if month.name == "2026-03")
    assert march.hours == 743
    assert {gap.missing for gap in year.gaps} == {"roll-up"}


def test_what_the_site_reports_counts_for_its_months_alone(tmp_path: Path) -> None:
    """Reused heat of July alone: the ratio is that of July, and the other months are missing from it."""
    (tmp_path / "reported.csv").write_text(HEADER + "2026-03,7,,,100,200,\n2026-07,,270,45,0,,90\n")
    rig = two_months(tmp_path, more='[billing]\nreported = "reported.csv"\n')
    year = make_year(rig.store, rig.site, rig.planning, 2026, read_reported(rig.planning.billing.reported))
    july_kwh, march_kwh = 6 * 1.5 * 120, 6 * 1.2 * 239
    assert year.indicators["ERF"].value == pytest.approx(270 / july_kwh)
    assert year.indicators["ERF"].missing_h == pytest.approx(8760 - 120)
    assert year.indicators["REF"].value == pytest.approx((300 + 90) / (july_kwh + march_kwh))
    assert year.inputs["E_RES-GOO"].value == pytest.approx(100)
    assert year.inputs["T_WH"].value == pytest.approx(45)
    assert year.inputs["W_IN"].value == pytest.approx(7 + 1.2)
    assert year.inputs["W_IN"].missing_h == pytest.approx(8760 - 743 - 120)


def test_one_silent_hall_makes_the_site_unknown(tmp_path: Path) -> None:
    rig = BillRig.made(tmp_path)
    rig.meter("a", local(5, 1), local(5, 3), it_power_w=5000.0, facility_power_w=6000.0)
    rig.meter("b", local(5, 1), local(5, 2), it_power_w=1000.0, facility_power_w=1000.0, it_assumed_w=400.0)
    year = make_year(rig.store, rig.site, rig.planning, 2026, ReportedMonths())
    assert year.inputs["E_DC"].value == pytest.approx(7 * 24)
    assert year.inputs["E_IT_assumed"].value == pytest.approx(0.4 * 24)
    assert year.inputs["E_DC"].missing_h == pytest.approx(8760 - 24)
    assert year.indicators["WUE"].value is None


def test_an_empty_store_knows_nothing(tmp_path: Path) -> None:
    rig = BillRig.made(tmp_path)
    year = make_year(rig.store, rig.site, rig.planning, 2026, ReportedMonths())
    assert {name for name, figure in year.inputs.items() if figure.value is not None} == {"P_IT"}
    assert all(figure.value is None for figure in year.indicators.values())


def test_cooling_degree_days_by_the_days_of_the_site(tmp_path: Path) -> None:
    """Days of 26, 23.9 and 24 degC, and one of ten hours only: 5 + 0 + 3 K d."""
    rig = BillRig.made(tmp_path)
    points = []
    for day, (dry_c, hours) in enumerate([(26.0, 24), (23.9, 24), (24.0, 24), (30.0, 10)], 1):
        points += [
            Point("weather", {"site": "lab"}, {"dry_bulb_c": dry_c}, (local(8, day) + hour * HOUR) * 1000)
            for hour in range(hours)
        ]
    rig.store.write(b"".join(map(encode, points)))
    year = make_year(rig.store, rig.site, rig.planning, 2026, ReportedMonths())
    assert year.inputs["CDD"].value == pytest.approx(8.0)
    assert year.inputs["CDD"].missing_h == pytest.approx(8760 - 72)


def test_the_command_in_both_forms(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    two_months(tmp_path).store.close()
    options = ["yearly", "--site", f"{tmp_path}/site.toml", "--store", f"sqlite:///{tmp_path}/power.db"]
    assert main([*options, "--year", "2026"]) == 0
    text = capsys.readouterr().out
    assert text.splitlines()[1].split()[:2] == ["PUE", "1.300"]
    assert "hall hours without a meter, in no figure" in text
    assert main([*options, "--year", "2026", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["indicators"]["PUE"]["value"] == pytest.approx((1.2 * 239 + 1.5 * 120) / 359, abs=1e-6)
    assert sum(month["hours"] for month in told["months"]) == 8760
    assert main([*options, "--year", "26"]) == 1
    assert "--year: '26': must be a year, such as '2026'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("month,gas\n2026-01,3\n", "header: 'month,gas': must have the column month, and some of water_m3"),
        ("month,water_m3\n2026-13,3\n", "line 2: month: '2026-13': must be a month such as 2026-11, each once"),
        ("month,water_m3\n2026-01,3\n2026-01,4\n", "line 3: month: '2026-01': must be a month"),
        ("month,water_m3\n2026-01,-3\n", "water_m3: '-3': must not be negative"),
        ("month,water_m3\n2026-01,much\n", "water_m3: 'much': must be"),
    ],
)
def test_a_wrong_file_is_one_line(tmp_path: Path, text: str, line: str) -> None:
    (tmp_path / "r.csv").write_text(text)
    with pytest.raises(Rejected) as refused:
        read_reported(tmp_path / "r.csv")
    assert line in str(refused.value)
