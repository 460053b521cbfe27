"""Files that do not cover a plan: noted, alarmed, taken at the worst, or refused, as the site file says."""

import pytest

from powerhall.plan.plan import read_plan, snapshot_hash
from powerhall.runtime.errors import Rejected
from powerhall.site.site_file import read_site
from powerhall.store import Query, Select, open_store
from powerhall.timeseries import parse_time
from powerhall_optimizer.cli import main
from powerhall_optimizer.inputs.forecast_files import forecast_inputs
from powerhall_optimizer.inputs.horizon import Horizon
from powerhall_optimizer.verify.plan import verify_plan

START = "2026-11-28T08:00Z"
SITE = """
[site]
name = "plant"
power_limit = "90 kW"
grid_budget = "grid.csv"
{site}
[node_types.hgx]
gpu = "H200"
gpus = 8
idle_power = "1.6 kW"
max_power = "10 kW"
safe_cap = "3 kW"
modes = [{{ name = "full", gpu_power = "1250 W", speed = 1.0, gpu_power_limit = "700 W" }}]
[[halls]]
name = "hall1"
rows = [{{ name = "a", racks = [{{ node_type = "hgx", name = "r1", nodes = "gn[01-08]" }}] }}]
cooling = [{{ name = "dry", kind = "dry_cooler", capacity = "90 kW", fan_power = "3 kW" }}]
[planning]
weather = "weather.csv"
prices = "prices.csv"
{planning}
"""


@pytest.fixture
def folder(tmp_path):
    """Write files that ended eight days before START, and a queue of one job."""

    def write(site="", planning="", fresh=False):
        day = "28" if fresh else "20"
        (tmp_path / "site.toml").write_text(SITE.format(site=site, planning=planning))
        (tmp_path / "grid.csv").write_text(f"time,power_kw\n2026-11-{day}T00:00Z,60\n2026-11-{day}T18:00Z,90\n")
        (tmp_path / "weather.csv").write_text(
            "time,dry_bulb_c,wet_bulb_c\n" + "".join(f"2026-11-{day}T{h:02d}:00Z,{h / 4},1\n" for h in range(24))
        )
        (tmp_path / "prices.csv").write_text(
            "time,price\n" + "".join(f"2026-11-{day}T{h:02d}:00Z,{h}\n" for h in range(24))
        )
        (tmp_path / "jobs.csv").write_text("job_id,gpus,duration_s\na,8,3600\n")
        return tmp_path

    return write


def inputs(path, hours=12):
    site, planning = read_site(path / "site.toml")
    return site, forecast_inputs(site, planning, Horizon(int(parse_time(START)), 900, hours * 3600))


def round_of(path, *more):
    return main(
        ["round", "--site", str(path / "site.toml"), "--jobs", str(path / "jobs.csv"), "--start", START, "--horizon",
         "6h", "--seconds", "1", "--out", str(path / "plan.json"), *more]
    )  # fmt: skip


def test_files_that_cover_the_plan_are_taken_without_a_word(folder):
    _, found = inputs(folder(fresh=True))
    assert found.stale == ()
    assert found.dry_bulb_c[:4] == (2.0,) * 4


def test_files_that_ended_are_noted_in_the_plan_and_alarmed(folder, capsys):
    path = folder()
    url = f"sqlite:///{path}/store.db"
    assert round_of(path, "--store", url) == 0
    captured = capsys.readouterr()
    plan = read_plan(path / "plan.json")
    assert verify_plan(plan) == []
    assert len(plan.snapshot.stale_forecasts) == 3
    assert all("days before the plan" in note for note in plan.notes[:3])
    assert captured.err.count("event=stale_forecast") == 3
    assert captured.out.count("note: ") >= 3
    assert min(plan.snapshot.dry_bulb_c) == 23 / 4 + 15, "the highest of its last day, and 15 K"
    zone = next(zone for zone in plan.zones if zone.zone == "plant")
    assert set(zone.budget_w) == {60_000}, "its lowest value"

    folder(fresh=True)
    assert round_of(path, "--store", url) == 0
    store = open_store(url)
    select = Select("active"), Select("detail"), Select("kind")
    rows = store.query(Query("alert", select[:2], {"site": "plant", "kind": "stale_forecast"}), 0.0, 4e9)
    assert rows[-1].values["active"] == 0.0
    store.close()


def test_refuse_refuses_the_plan_and_says_what_ended(folder, capsys):
    assert round_of(folder(planning='stale_forecast = "refuse"')) == 1
    error = capsys.readouterr().err
    assert "grid.csv ended at 2026-11-21T12:00Z, 7 days before the plan: must cover the plan" in error.splitlines()[-1]


def test_hold_last_holds_and_still_tells(folder):
    site, found = inputs(folder(planning='stale_forecast = "hold_last"'))
    assert set(found.dry_bulb_c) == {23 / 4}
    assert site.budgets["plant"].at(parse_time(START)) == 90_000
    assert len(found.stale) == 3


def test_a_file_that_ends_within_the_plan_is_noted_for_the_rest(folder):
    _, found = inputs(folder(fresh=True), hours=24)
    assert [note.split(":")[0] for note in found.stale] == ["weather", "price"]
    assert "ends at 2026-11-29T00:00Z, 8.0 h before the plan does" in found.stale[0]


def test_the_zone_of_the_site_moves_naive_times(folder):
    path = folder(site='timezone = "America/Denver"', fresh=True)
    for name in ("grid.csv", "weather.csv", "prices.csv"):
        file = path / name
        file.write_text(file.read_text().replace("Z,", ","))
    site, found = inputs(path, hours=12)
    assert site.budgets["plant"].at(parse_time("2026-11-29T00:59Z")) == 60_000
    assert site.budgets["plant"].at(parse_time("2026-11-29T01:00Z")) == 90_000
    assert found.price_per_mwh[-1] == 12.0, "19:45Z is 12:45 in Denver"
    path = folder(site='timezone = "Mars/Olympus"', fresh=True)
    with pytest.raises(Rejected, match=r"site\.timezone: 'Mars/Olympus': must be an IANA time zone"):
        read_site(path / "site.toml")


def test_a_stale_file_counts_in_the_plan_id_and_a_fresh_one_leaves_old_ids(folder):
    path = folder(fresh=True)
    assert round_of(path) == 0
    fresh = read_plan(path / "plan.json")
    assert snapshot_hash(fresh.snapshot) == fresh.plan_id
    assert b'"stale_forecasts":[]' in (path / "plan.json").read_bytes()
