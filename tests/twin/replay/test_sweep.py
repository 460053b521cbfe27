"""A sweep gives the rows of single replays on any number of workers, also when one is killed; sweeps compare."""

import json
import os
import random
import signal
import threading
import time
from contextlib import suppress

import psutil
import pytest
from twin_jobs import START_S, job

from powerhall.jobs.job_files import write_jobs
from powerhall_twin.cli import main
from powerhall_twin.policies.policy import RoundTiming
from powerhall_twin.replay.calls import Here
from powerhall_twin.replay.kept_rows import KeptRows, inputs_hash
from powerhall_twin.replay.replay import ReplayCase
from powerhall_twin.replay.sweep import SweepRow, run_point, run_sweep, sweep_points

TIMING = RoundTiming()


@pytest.fixture
def case(scenario):
    return ReplayCase(scenario(*(job(f"b{i}", 32, 1.0, submit_s=START_S + 60 * i) for i in range(60)), hours=3))


def test_rows_are_those_of_single_runs_and_a_killed_worker_loses_none(case):
    points = sweep_points(["", "hall1.power=100 kW"], ["fcfs", "easy"], [0, 1, 2])
    expected = [run_point((case, TIMING), point) for point in points]
    killed = []

    def is_worker(child):
        with suppress(psutil.Error):  # a child of an earlier test may have ended, reaped or not
            return "spawn_main" in " ".join(child.cmdline())
        return False

    def kill_one():
        until = time.monotonic() + 60
        while not killed and time.monotonic() < until:
            for child in [child for child in psutil.Process().children() if is_worker(child)][:1]:
                os.kill(child.pid, signal.SIGKILL)
                killed.append(child.pid)
            time.sleep(0.05)

    thread = threading.Thread(target=kill_one)
    thread.start()
    rows = run_sweep(case, points, TIMING, Here(2))
    thread.join()
    assert killed
    assert rows == expected
    assert rows[0].figures != rows[6].figures, "a lower budget changes the outcome"


def test_a_sweep_that_was_killed_goes_on_with_what_is_not_done(case, tmp_path):
    points = sweep_points([""], ["fcfs", "easy"], [0, 1])
    inputs = inputs_hash(case.scenario, TIMING)
    path = tmp_path / "out.rows"
    kept = KeptRows(path, inputs, SweepRow)
    rows = [run_point((case, TIMING), point) for point in points]
    for row in rows[:3]:
        kept.keep(row)
    again = KeptRows(path, inputs, SweepRow)
    assert again.rows == rows[:3]
    assert run_sweep(case, points, TIMING, Here(1), kept=again) == rows
    assert len(again.rows) == 4
    whole = path.read_bytes()
    for number in range(60):  # any changed byte, and any cut, costs the rows it is in and brings no other one
        at = random.Random(number).randrange(len(whole))
        for damaged in (whole[:at] + bytes([whole[at] ^ 1 << number % 8]) + whole[at + 1 :], whole[:at]):
            path.write_bytes(damaged)
            found = KeptRows(path, inputs, SweepRow).rows
            hit = whole[:at].count(b"\n")
            lost = {hit, hit + 1} if whole[at : at + 1] == b"\n" else {hit}
            kept = rows[:hit] if len(damaged) < len(whole) else [row for n, row in enumerate(rows) if n not in lost]
            assert found in (kept, rows[: hit + 1])
    path.write_bytes(whole)
    assert KeptRows(path, inputs_hash(case.scenario, RoundTiming(60.0)), SweepRow).rows == []


def test_two_sweeps_compare_with_intervals_over_the_seeds(demo_folder, tmp_path, capsys):
    jobs = tmp_path / "jobs.csv"
    jobs.write_text(write_jobs([job(f"b{i}", 32, 1.0, submit_s=START_S + 60 * i) for i in range(60)]))
    args = ["sweep", "--site", str(demo_folder / "site.toml"), "--jobs", str(jobs), "--hours", "2", "--workers", "1"]
    args += ["--policies", "easy", "--seeds", "2"]
    site = tmp_path / "site.toml"
    site.write_text((demo_folder / "site.toml").read_text().replace("225 kW", "120 kW"))
    for name in ("weather.csv", "prices.csv", "grid.csv"):
        (tmp_path / name).write_bytes((demo_folder / name).read_bytes())
    assert main([*args, "--out", str(tmp_path / "a.json")]) == 0
    args[args.index("--site") + 1] = str(site)
    assert main([*args, "--out", str(tmp_path / "b.json")]) == 0
    capsys.readouterr()
    assert main(["compare", str(tmp_path / "a.json"), str(tmp_path / "b.json"), "--json"]) == 0
    found = {row["figure"]: row for row in json.loads(capsys.readouterr().out)}
    a, b = (json.loads((tmp_path / name).read_text()) for name in ("a.json", "b.json"))
    ratios = [
        two["figures"]["weighted_work"] / one["figures"]["weighted_work"] - 1 for one, two in zip(a, b, strict=True)
    ]
    assert found["weighted_work"]["mean"] == pytest.approx(sum(ratios) / 2)
    assert found["weighted_work"]["mean"] < 0
    assert found["weighted_work"]["low"] <= found["weighted_work"]["mean"] <= found["weighted_work"]["high"]
    page = (tmp_path / "b.html").read_text()
    assert "weighted work per MWh" in page
    assert not list(tmp_path.glob("*.rows"))
    (tmp_path / "c.json").write_text("[]")
    assert main(["compare", str(tmp_path / "a.json"), str(tmp_path / "c.json")]) == 1
    assert "shares no change" in capsys.readouterr().err
