"""The command: what a history lost, checked against hand figures; meters; what is refused and told."""

import json
import shutil

import numpy as np
import pytest

from powerhall.plan.plan import read_plan
from powerhall.runtime.errors import Rejected
from powerhall_optimizer.inputs.horizon import Horizon
from powerhall_optimizer.verify.plan import verify_plan
from powerhall_twin.cli import main
from powerhall_twin.hindsight.meter import Meter, calibrate, read_meter
from powerhall_twin.hindsight.window import choose_horizon, window_of
from rigs.sacct_history import START_S, sacct, stamp

LATE = [(0, 6000 * i, 6000, 8) for i in range(4)]
"""Four jobs that could all have begun at once, in pairs, and ran one after the other."""


def at_meter_w(it_w):
    """Power at the meter with chillers of 60 kW and COP 5 at part load."""
    load = it_w / 60_000
    return it_w + 60_000 / 5 * (load + load**2) / 2


def site_w(gpus, factor=1.0):
    return at_meter_w(4 * 1800.0 + factor * gpus * (970.0 - 225.0))


def run(site, tmp_path, text, *options):
    history = tmp_path / "sacct.txt"
    history.write_text(text)
    settings = tmp_path / "round.toml"
    settings.write_text("work_rate = 0.005\nworkers = 1\n")  # counted work, that no busy machine cuts short
    common = ["hindsight", "--site", str(site), "--sacct", str(history), "--settings", str(settings)]
    return main([*common, "--seconds", "30", *options])


def meter_file(tmp_path, watts, step_s=300, name="meter.csv"):
    path = tmp_path / name
    rows = "".join(f"{stamp(START_S + i * step_s)}Z,{w}\n" for i, w in enumerate(watts))
    path.write_text("time,power_w\n" + rows)
    return path


def done_w(jobs, slots, factor=1.0):
    runs = [(start, start + length, gpus) for _, start, length, gpus in jobs]
    return [site_w(sum(g for a, b, g in runs if a <= 300 * i < b), factor) for i in range(slots)]


def test_a_history_is_compared_with_a_verified_plan_and_the_bound(site, tmp_path, capsys):
    meter = meter_file(tmp_path, done_w(LATE, 80, 0.9))
    prices = tmp_path / "prices.csv"
    prices.write_text("time,usd_per_mwh\n" + "".join(f"{stamp(START_S + 3600 * i)}Z,{50 + i}\n" for i in range(8)))
    carbon = tmp_path / "carbon.csv"
    carbon.write_text("time,g_per_kwh\n" + "".join(f"{stamp(START_S + 3600 * i)}Z,400\n" for i in range(8)))
    out = tmp_path / "out"
    files = ("--meter", str(meter), "--prices", str(prices), "--carbon", str(carbon), "--out", str(out))
    assert run(site, tmp_path, sacct(LATE), *files, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    done, possible = found["done"], found["possible"]
    assert found["done_usd"] <= found["possible_usd"] <= found["bound_usd"]
    assert 0 < found["lost_least"] <= found["lost_most"] < 0.2
    assert done["work_gpu_h"] == pytest.approx(8 * 24_000 / 3600)
    assert done["mean_wait_s"] == pytest.approx(9000)
    assert found["calibration"]["factor"] == pytest.approx(0.9, abs=1e-3)
    assert found["calibration"]["applied"]
    assert done["energy_j"] == pytest.approx(found["metered_j"], rel=1e-6)
    assert done["co2_kg"] == pytest.approx(0.4 * done["energy_j"] / 3.6e6, rel=1e-6)
    assert possible["mean_wait_s"] < done["mean_wait_s"]
    assert verify_plan(read_plan(out / "plan.json")) == []
    page = (out / "report.html").read_text()
    assert "Your scheduler lost at most" in page
    assert "0.90 times the jobs" in page
    if shutil.which("chromium") or shutil.which("google-chrome"):
        pdf = (out / "report.pdf").read_bytes()
        assert pdf.startswith(b"%PDF")
        assert b"/Count 1" in pdf, "one side"


def test_a_scheduler_that_did_all_that_was_possible_lost_nothing(site, tmp_path, capsys):
    assert run(site, tmp_path, sacct([(0, 0, 6000, 8), (6000, 6000, 6000, 8)]), "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["lost_least"] == 0
    assert found["lost_most"] < 0.01


def test_a_window_inside_a_job_counts_its_rest_and_what_waited(site, tmp_path, capsys):
    window = ("--start", f"{stamp(START_S + 3000)}Z", "--length", "6000 s", "--json")
    assert run(site, tmp_path, sacct([*LATE, (4000, 40_000, 500, 8)]), *window) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["start_s"], found["end_s"]) == (START_S + 3000, START_S + 9000)
    assert found["done"]["work_gpu_h"] == pytest.approx(8 * 6000 / 3600)
    assert found["done"]["jobs_begun"] == 2
    assert found["jobs"] == 5
    assert any("ran already" in note for note in found["notes"])


@pytest.mark.parametrize(
    ("text", "options", "told"),
    [
        ("", (), "must have the column"),
        ("JobIDRaw|Submit|Elapsed|AllocTRES\n1|x|x|x\n", (), "must have the column Start or End"),
        ("JobIDRaw|Submit|Start|Elapsed|AllocTRES\n", (), "no run with a GPU"),
        (sacct([(0, 0, 600, 4000)]), (), "fits the site: left out: 1 jobs"),
        (sacct(LATE), ("--start", "2020-01-01T00:00Z", "--length", "1h"), "no job of the window"),
        (sacct([(0, 0, 600, 4), (1e7, 1e7, 600, 4)]), (), "at most 92 days"),
        (sacct(LATE), ("--slot", "7h"), "--slot"),
    ],
)
def test_what_cannot_be_compared_is_refused_in_one_line(site, tmp_path, capsys, text, options, told):
    assert run(site, tmp_path, text, *options) == 1
    error = capsys.readouterr().err
    assert told in error
    assert len(error.splitlines()) == 1


def test_a_meter_in_the_wrong_unit_is_not_believed(site, tmp_path, capsys):
    meter = meter_file(tmp_path, [w * 1000 for w in done_w(LATE, 80)])
    assert run(site, tmp_path, sacct(LATE), "--meter", str(meter), "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert not found["calibration"]["applied"]
    assert any("not believed" in note for note in found["notes"])
    assert max(found["done_w"]) == pytest.approx(site_w(8))


def test_gaps_negative_and_missing_readings_of_a_meter_count_as_none(tmp_path):
    horizon = Horizon(START_S, 300, 3000)
    path = meter_file(tmp_path, [100, 100, -5, "", 100, 100, 100, 100, 100, 100])
    meter = read_meter(path, None, horizon)
    assert np.isnan(meter.values).tolist() == [False] * 2 + [True] * 2 + [False] * 6
    assert meter.covered == pytest.approx(0.8)
    assert any("negative" in note for note in meter.notes)
    sparse = meter_file(tmp_path, [100, 100, 100], name="short.csv")
    assert read_meter(sparse, None, horizon).covered == pytest.approx(0.5)  # the last holds three steps at most
    with pytest.raises(Rejected, match="no reading in the window"):
        read_meter(path, None, Horizon(START_S + 90_000, 300, 3000))


def test_a_meter_of_idle_hours_calibrates_nothing():
    meter = Meter((100.0,) * 4, 1.0)
    assert calibrate(meter, lambda factor: np.full(4, 100.0 + 0 * factor), 300) is None


def test_times_of_a_zone_without_offset_are_its_own(site, tmp_path, capsys):
    assert run(site, tmp_path, sacct(LATE), "--timezone", "America/New_York", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["start_s"] == START_S + 4 * 3600


def test_slots_grow_with_the_window(site):
    from powerhall.jobs.readers.sacct_runs import Run
    from powerhall.site.site_file import read_site

    runs = [Run("1", "train", 8, 0.0, 10.0, 20 * 86_400.0, "gn[01-02]"), Run("2", "train", 8, 0.0, 5.0, 50.0, "gone7")]
    horizon = choose_horizon(runs)
    assert (horizon.slot_s, horizon.slots) == (900, 1920)
    found = window_of(read_site(site)[0], runs, horizon)
    assert [done.halls for done in found.jobs] == [{"hall1": 1.0}, {}]
    assert any("without known nodes" in note for note in found.notes)
