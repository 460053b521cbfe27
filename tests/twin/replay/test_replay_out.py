"""A replay's folder: results and report, and a replay that was killed goes on with what is not done."""

import json
import random
import signal
import subprocess
import sys
import time

import pytest
from twin_jobs import START_S, job

from powerhall.jobs.job_files import write_jobs
from powerhall_twin.cli import main

POLICIES = "fcfs,easy,density,uniform,lowcap,tdp"


@pytest.fixture
def args(demo_folder, tmp_path):
    jobs = [job(f"b{i}", 32, 1.0, submit_s=START_S + 120 * i, deadline_s=START_S + 9000) for i in range(30)]
    path = tmp_path / "jobs.csv"
    path.write_text(write_jobs(jobs), encoding="utf-8")
    out = tmp_path / "out"
    return ["replay", "--site", str(demo_folder / "site.toml"), "--jobs", str(path), "--hours", "3", "--out", str(out)]


def test_results_and_report_show_every_policy(args, tmp_path, capsys):
    assert main([*args, "--policies", POLICIES, "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert {row["name"]: row for row in results["policies"]} == rows
    assert set(rows) == set(POLICIES.split(","))
    assert rows["tdp"]["weighted_work"] <= rows["easy"]["weighted_work"]
    assert all(row["over_budget_s"] == 0 and row["deadlines"] == 30 for row in rows.values())
    page = (tmp_path / "out" / "report.html").read_text()
    assert "planning at nameplate power" in page
    assert "src=" not in page.split("<script>")[0]
    for title in ("Work and waits", "Energy, emissions and water", "Limits, curtailments", "Queue", "When jobs ran"):
        assert f"<h2>{title}" in page
    samples = results["samples"]["easy"]
    assert len(samples["times_s"]) == len(samples["waiting"]) == 36, "every five minutes"
    heat_wh = sum(samples["heat_w"]["hall1"]) / 12
    assert 0 < heat_wh < rows["easy"]["energy_j"] / 3600
    assert rows["easy"]["water_l"] > 0
    assert rows["easy"]["wue_l_per_kwh"] == pytest.approx(
        rows["easy"]["water_l"] / (rows["easy"]["it_energy_j"] / 3.6e6)
    )


def test_two_replays_compare_without_intervals(args, tmp_path, capsys):
    assert main([*args, "--policies", "fcfs,easy"]) == 0
    results = tmp_path / "out" / "results.json"
    told = json.loads(results.read_text())
    told["policies"][0]["cost"] = -50.0
    (tmp_path / "paid.json").write_text(json.dumps(told))
    told["policies"][0]["cost"] = -40.0
    (tmp_path / "other.json").write_text(json.dumps(told))
    capsys.readouterr()
    assert main(["compare", str(tmp_path / "paid.json"), str(tmp_path / "other.json"), "--json"]) == 0
    found = {(row["policy"], row["figure"]): row for row in json.loads(capsys.readouterr().out)}
    assert found["easy", "weighted_work"] | {"mean": 0.0, "low": None, "high": None} == found["easy", "weighted_work"]
    assert found["fcfs", "cost"]["mean"] == pytest.approx(0.2), "less is earned: the cost is higher"


def test_parquet_files_hold_every_job_and_figure(args, tmp_path, capsys):
    parquet = pytest.importorskip("pyarrow.parquet")
    assert main([*args, "--policies", "fcfs,easy", "--parquet", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    figures = parquet.read_table(tmp_path / "out" / "policies.parquet").to_pylist()
    assert [one["weighted_work"] for one in figures] == [row["weighted_work"] for row in rows]
    jobs = parquet.read_table(tmp_path / "out" / "jobs.parquet").to_pylist()
    assert len(jobs) == sum(row["jobs"] for row in rows)
    assert sum(one["end_s"] is not None for one in jobs) == sum(row["jobs_done"] for row in rows)
    power = parquet.read_table(tmp_path / "out" / "power.parquet").to_pylist()
    assert max(one["facility_w"] for one in power) == max(row["peak_power_w"] for row in rows)
    assert main([*args[:-2], "--policies", "fcfs", "--parquet"]) == 1
    assert "--parquet: needs --out" in capsys.readouterr().err


def test_failures_of_a_file_are_in_the_figures(args, tmp_path, capsys):
    path = tmp_path / "failures.toml"
    start = '2026-07-15T10:30Z"\nrepair = "1h"'
    nodes = "\n".join(
        f'[[failures]]\nkind = "node"\nname = "hall1-a-k01-n{n:02d}"\nstart = "{start}' for n in range(1, 9)
    )
    path.write_text(f"{nodes}\n[rates]\ngpu = {{ mtbf = '2000h', repair = '30min' }}\n", encoding="utf-8")
    found = []
    for seed in ("1", "1", "2"):
        assert main([*args[:-2], "--policies", "easy", "--failures", str(path), "--failure-seed", seed, "--json"]) == 0
        found.append(json.loads(capsys.readouterr().out)[0])
    assert found[0] == found[1] != found[2]
    assert found[0]["failures"] >= 8
    assert found[0]["lost_gpu_s"] > 0
    assert found[0]["trips"] == 0


def test_what_is_done_is_not_run_again_and_other_inputs_are(args, tmp_path, capsys):
    assert main([*args, "--policies", "fcfs"]) == 0
    kept = tmp_path / "out" / "runs" / "fcfs.json"
    changed = json.loads(kept.read_text())
    changed["outcome"]["stops"] = 77
    kept.write_text(json.dumps(changed))
    assert main([*args, "--policies", "fcfs,easy", "--json"]) == 0
    assert [row["stops"] for row in json.loads(capsys.readouterr().out.split("report.html\n")[-1])] == [77, 0]
    assert main([*args[:-4], "--hours", "2", "--out", args[-1], "--policies", "fcfs", "--json"]) == 0
    assert [row["stops"] for row in json.loads(capsys.readouterr().out)] == [0]
    kept.write_text("{ half")
    assert main([*args, "--policies", "fcfs", "--json"]) == 0
    assert [row["stops"] for row in json.loads(capsys.readouterr().out)] == [0]


def test_a_killed_replay_goes_on_and_gives_the_same(args, tmp_path, capsys):
    start = "import sys; from powerhall_twin.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", start, *args, "--policies", POLICIES]
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until = time.monotonic() + 120
    while not list((tmp_path / "out" / "runs").glob("*.json")) and child.poll() is None and time.monotonic() < until:
        time.sleep(0.02)
    time.sleep(random.random() * 2)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert list((tmp_path / "out" / "runs").glob("*.json"))
    assert main([*args, "--policies", POLICIES, "--json"]) == 0
    resumed = capsys.readouterr().out
    fresh = [*args[:-1], str(tmp_path / "fresh"), "--policies", POLICIES, "--json"]
    assert main(fresh) == 0
    assert capsys.readouterr().out == resumed
