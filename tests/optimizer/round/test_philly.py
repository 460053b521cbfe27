"""The busiest day of a real trace on a site short of power, with real weather and prices: one verified round."""

import importlib.util
import subprocess
import sys

import pytest

from powerhall.plan.plan import read_plan
from powerhall_optimizer.physics.plan_loads import budget_w, plan_loads
from powerhall_optimizer.verify.plan import verify_plan

START = "2017-10-25T19:00:00Z"


@pytest.fixture(scope="module")
def example(root, data_dir, tmp_path_factory):
    """The prepared example and the outcome of one round on it."""
    folder = tmp_path_factory.mktemp("philly")
    spec = importlib.util.spec_from_file_location("philly_prepare", root / "examples" / "philly" / "prepare.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.prepare(data_dir, folder) == 1_508_958_000.0
    command = [sys.executable, "-c", "from powerhall_optimizer.entry import main; raise SystemExit(main())", "round"]
    command += ["--site", "site.toml", "--jobs", "jobs.csv", "--start", START, "--horizon", "24h", "--seconds", "20"]
    command += ["--out", "plan.json", "--report", "report.html"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stderr
    return folder, done


def test_the_plan_of_the_busiest_day_is_verified_and_the_site_is_short_of_power(example):
    folder, _ = example
    plan = read_plan(folder / "plan.json")
    assert verify_plan(plan) == []
    s = plan.snapshot
    assert len(s.jobs) == 1761
    assert len(plan.assignments) > 1400
    assert plan.waiting, "a site short of power makes jobs wait"
    assert {a.mode for a in plan.assignments} >= {"p700", "p400"}, "short of power, modes differ"
    assert 0 <= plan.gap < 0.05, "placement on racks and nodes included"
    site_w, limit_w = plan_loads(plan).zone_w["philly"], budget_w(s, "philly")
    assert (site_w / limit_w).max() > 0.9
    assert limit_w.min() == 225e3
    assert site_w[limit_w == 225e3].mean() > 0.8 * 225e3


def test_weather_and_prices_are_those_of_the_files(example):
    s = read_plan(example[0] / "plan.json").snapshot
    assert len(s.dry_bulb_c) == len(s.price_per_mwh) == 288
    assert 10 < min(s.dry_bulb_c) < max(s.dry_bulb_c) < 45
    assert all(w <= d for d, w in zip(s.dry_bulb_c, s.wet_bulb_c, strict=True))
    assert len(set(s.price_per_mwh)) > 20


def test_the_report_is_one_file_that_names_every_hall_and_waiting_job(example):
    folder, _ = example
    page = (folder / "report.html").read_text()
    plan = read_plan(folder / "plan.json")
    assert "Plotly.newPlot" in page
    assert "<script src" not in page
    assert '<link rel="stylesheet"' not in page
    for text in ("hall1", "hall2", "hall3", "site budget", "cooling capacity", plan.waiting[0].job_id):
        assert text in page
