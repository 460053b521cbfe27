"""One job that cannot be planned, or a limit that forces running jobs slower, does not cost the rest its plan."""

import json

import pytest

from powerhall_optimizer import api

DEADLINE_SITE = """
[site]
name = "s1"
[node_types.h]
gpu = "H100"
gpus = 8
idle_power = "1.8 kW"
max_power = "10.2 kW"
modes = [{name = "p700", gpu_power = "970 W", speed = 1.0}]
[[halls]]
name = "hall1"
rows = [{name = "a", racks = [{node_type = "h", name = "r", nodes = "gn[01-08]"}]}]
"""
ROW_SITE = """
[site]
name = "s1"
[node_types.t0]
gpu = "X"
gpus = 2
idle_power = "0 W"
max_power = "1200 W"
modes = [
  {name = "m0", gpu_power = "600 W", speed = 1.0},
  {name = "m2", gpu_power = "360 W", speed = 0.775},
  {name = "m4", gpu_power = "120 W", speed = 0.447},
]
[[halls]]
name = "h"
rows = [{name = "q", power_limit = "840 W", racks = [{node_type = "t0", name = "r", nodes = "n[1-4]"}]}]
"""
ROW_JOBS = [
    {"job_id": "a", "gpus": 1, "duration_s": 1e9, "mode": "m4", "nodes": "n1"},
    {"job_id": "b", "gpus": 4, "duration_s": 300, "mode": "m0", "nodes": "n[2-3]"},
    {"job_id": "c", "gpus": 1, "duration_s": 400, "weight": 0.001, "mode": "m4", "nodes": "n1"},
]


def planned(tmp_path, site: str, jobs: str, name: str):
    (tmp_path / "site.toml").write_text(site)
    (tmp_path / name).write_text(jobs)
    queue = api.read_queue(tmp_path / name)
    settings = api.RoundSettings(workers=1)
    inputs = api.read_site(tmp_path / "site.toml")
    return api.plan(inputs, queue, start="2026-12-01T00:00Z", horizon="24h", seconds=0.5, settings=settings)


@pytest.mark.parametrize("weight", [1, 5])
@pytest.mark.parametrize("duration_s", [200, 300, 900, 2100, 4500])
def test_a_job_with_a_deadline_that_has_passed_costs_the_others_nothing(tmp_path, duration_s, weight):
    rows = f"good,8,7200,,1\ntight,8,{duration_s},2026-11-30T00:00Z,{weight}\n"
    plan = planned(tmp_path, DEADLINE_SITE, "job_id,gpus,duration_s,deadline_s,weight\n" + rows, "jobs.csv")
    assert plan.status in ("optimal", "feasible")
    assert [entry.job_id for entry in plan.assignments] == ["good"]
    assert [(entry.job_id, entry.code) for entry in plan.waiting] == [("tight", "deadline")]
    assert api.verify(plan) == []


def test_a_row_that_forces_running_jobs_slower_leaves_the_plan_of_the_solver(tmp_path):
    runs = {"state": "running", "hall": "h", "node_type": "t0", "start_s": 1}
    plan = planned(tmp_path, ROW_SITE, json.dumps([job | runs for job in ROW_JOBS]), "jobs.json")
    assert plan.status in ("optimal", "feasible")
    assert api.verify(plan) == []
    modes = {entry.job_id: entry.mode for entry in plan.assignments}
    assert set(modes) == {"a", "b", "c"}
    assert modes["b"] == "m4", "four GPUs at 120 W beside two at 120 W"
