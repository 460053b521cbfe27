"""Replay and what-if from the command line: windows of traces, recorded plans, changed budgets, refused input."""

import json

import msgspec
import pytest
from twin_jobs import START_S, job

from powerhall.jobs.job_files import write_jobs
from powerhall.plan.plan import StoragePlan, read_plan, write_plan
from powerhall.runtime.errors import Rejected
from powerhall.runtime.log import Log
from powerhall_optimizer.inputs.round_settings import RoundSettings
from powerhall_optimizer.planning.planner import make_plan
from powerhall_twin.cli import main
from powerhall_twin.jobs.trace_window import busiest_start_s, window
from powerhall_twin.policies.planned_rounds import PlannedRounds
from powerhall_twin.policies.policy import RoundTiming


@pytest.fixture
def trace(tmp_path):
    """A job file: a quiet day, then a busy hour."""
    quiet = [job(f"q{i}", 1, 0.2, submit_s=START_S - 86400 + 3600 * i) for i in range(20)]
    busy = [job(f"b{i}", 32, 1.0, submit_s=START_S + 120 * i) for i in range(30)]
    path = tmp_path / "trace.csv"
    path.write_text(write_jobs([*quiet, *busy]), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def recorded(site, scenario_of, tmp_path_factory):
    """A plan with a running job, as a round leaves it."""
    jobs = (
        msgspec.structs.replace(
            job("r", 16, 1.0), state="running", hall="hall1", node_type="hgx-h100", mode="p550",
            nodes="hall1-a-k01-n[01-02]", start_s=START_S - 600,
        ),
        *(job(f"w{i}", 32, 0.5, submit_s=START_S - 60) for i in range(30)),
    )  # fmt: skip
    snapshot = PlannedRounds(scenario_of(jobs), RoundTiming(horizon_s=7200.0)).snapshot(site, jobs, START_S)
    plan = make_plan(snapshot, RoundSettings(), 1.0, created_s=int(START_S), log=Log(quiet=True))
    path = tmp_path_factory.mktemp("plan") / "plan.json"
    write_plan(plan, path)
    return path


def run(capsys, *args: str) -> tuple[int, str, str]:
    code = main(args)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_the_busiest_window_counts_what_fits_into_it():
    jobs = [job("weeks", 8, 500.0, submit_s=0.0), *(job(f"j{i}", 8, 1.0, submit_s=90_000.0 + i) for i in range(30))]
    assert busiest_start_s(jobs, 7200.0) <= 90_000.0 < busiest_start_s(jobs, 7200.0) + 7200.0


def test_a_window_is_moved_to_the_site_and_holds_only_its_jobs():
    jobs = [job(f"j{i}", 8, 1.0, submit_s=600.0 * i, deadline_s=600.0 * i + 9000) for i in range(10)]
    found = window(jobs, 1200.0, 1800.0, at_s=100_000.0, preemptible=True)
    assert [(j.job_id, j.submit_s, j.deadline_s) for j in found] == [
        ("j2", 100_000.0, 109_000.0),
        ("j3", 100_600.0, 109_600.0),
        ("j4", 101_200.0, 110_200.0),
    ]
    assert all(j.preemptible and j.checkpoint_cost_s >= 60 for j in found)
    with pytest.raises(Rejected, match="no job was submitted"):
        window(jobs, 90_000.0, 10.0, at_s=0.0, preemptible=False)


def test_replay_compares_policies_on_the_busiest_hours(capsys, demo_folder, trace):
    args = ("replay", "--site", str(demo_folder / "site.toml"), "--jobs", str(trace), "--hours", "3", "--json")
    code, out, _ = run(capsys, *args, "--policies", "powerhall,fcfs,uniform", "--seconds", "0.5")
    rows = {row["name"]: row for row in json.loads(out)}
    assert code == 0
    assert list(rows) == ["powerhall", "fcfs", "uniform"]
    assert all(row["jobs"] >= 30 and row["over_budget_s"] == 0 for row in rows.values())
    assert rows["powerhall"]["jobs_done"] > 0


def test_the_same_replay_gives_the_same_figures(capsys, demo_folder, trace):
    args = ("replay", "--site", str(demo_folder / "site.toml"), "--jobs", str(trace), "--hours", "3", "--json")
    assert run(capsys, *args, "--policies", "easy")[1] == run(capsys, *args, "--policies", "easy")[1]


def test_a_recorded_plan_is_replayed_from_its_running_jobs_on(capsys, recorded):
    code, out, _ = run(capsys, "replay", "--plan", str(recorded), "--policies", "powerhall,fcfs", "--json")
    rows = {row["name"]: row for row in json.loads(out)}
    assert code == 0
    assert set(rows) == {"recorded plan", "fcfs"}
    assert rows["recorded plan"]["jobs_done"] >= 20
    running = [entry for entry in read_plan(recorded).assignments if entry.running]
    assert [entry.job_id for entry in running] == ["r"]


def test_jobs_on_parts_of_gpus_are_one_job_in_a_plan_and_left_out_of_a_trace(
    capsys, site, scenario_of, demo_folder, tmp_path
):
    kinds = {name: msgspec.structs.replace(kind, gpu_parts=4, gpu_fill=True) for name, kind in site.node_types.items()}
    cut = msgspec.structs.replace(site, node_types=kinds)
    runs = {"state": "running", "hall": "hall1", "node_type": "hgx-h100", "mode": "p550", "gpu_number": 2}
    jobs = tuple(
        msgspec.structs.replace(
            job(f"p{i}", int(i != 1), 1.0 - i / 40, submit_s=START_S - 60), gpu_share="1/4",
            **(runs | {"nodes": "hall1-a-k01-n01", "start_s": START_S - 600} if i < 2 else {}),
        )
        for i in range(12)
    )  # fmt: skip
    jobs += (job("w", 8, 1.0, submit_s=START_S - 60),)
    snapshot = PlannedRounds(scenario_of(jobs), RoundTiming(horizon_s=7200.0)).snapshot(cut, jobs, START_S)
    plan = make_plan(snapshot, RoundSettings(), 1.0, created_s=int(START_S), log=Log(quiet=True))
    assert {entry.job_id for entry in plan.assignments} == {one.job_id for one in jobs}
    write_plan(plan, tmp_path / "plan.json")
    code, out, err = run(capsys, "replay", "--plan", str(tmp_path / "plan.json"), "--policies", "powerhall,fcfs")
    gpus = sum(entry.gpus for entry in plan.assignments if entry.job_id != "w")
    assert (code, gpus) == (0, 3)
    assert f"left out: {12 - gpus} jobs that take parts of GPUs" in err
    (tmp_path / "jobs.csv").write_text(write_jobs([*jobs[2:]]), encoding="utf-8")
    named = ("--site", str(demo_folder / "site.toml"), "--jobs", str(tmp_path / "jobs.csv"))
    code, out, err = run(capsys, "replay", *named, "--policies", "fcfs", "--json")
    assert (code, json.loads(out)[0]["jobs"]) == (0, 1)
    assert "left out: 10 jobs" in err


def test_what_if_shows_less_work_under_a_lower_budget(capsys, recorded):
    changes = ("--change", "grid=-45%", "--change", "hall1.power=80 kW,hall2.power=80 kW")
    code, out, _ = run(capsys, "whatif", "--plan", str(recorded), *changes, "--policy", "easy", "--json")
    asis, cut, halls = json.loads(out)
    assert code == 0
    assert asis["name"] == "as it is"
    assert cut["peak_power_w"] <= 0.55 * 700e3 < asis["peak_power_w"]
    assert cut["work_gpu_s"] < asis["work_gpu_s"]
    assert halls["peak_power_w"] < asis["peak_power_w"]


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("replay",), "needs --site and --jobs"),
        (("replay", "--plan", "p.json", "--site", "s.toml"), "carries its own site"),
        (("replay", "--plan", "absent.json"), "absent.json"),
        (("replay", "--site", "SITE", "--jobs", "TRACE", "--length", "0 h"), "--length"),
        (("replay", "--site", "SITE", "--jobs", "TRACE", "--round", "5 parsecs"), "--round"),
        (("replay", "--site", "SITE", "--jobs", "TRACE", "--policies", "fifo"), "must be one of powerhall, fcfs"),
        (("replay", "--site", "SITE", "--jobs", "TRACE", "--start", "yesterday"), "--start"),
        (("replay", "--site", "SITE", "--jobs", "TRACE", "--start", "2001-01-01"), "no job was submitted"),
        (("whatif", "--site", "SITE", "--jobs", "TRACE", "--change", "hall9.power=1 MW"), "hall9"),
        (("whatif", "--site", "SITE", "--jobs", "TRACE", "--change", "grid=lots"), "grid=lots"),
        (("demo", "--minutes", "-5"), "--minutes"),
        (("demo", "--speedup", "0"), "--speedup"),
    ],
)
def test_invalid_arguments_are_refused_in_one_line(capsys, demo_folder, trace, args, words):
    places = {"SITE": str(demo_folder / "site.toml"), "TRACE": str(trace)}
    code, _, err = run(capsys, *(places.get(a, a) for a in args))
    lines = [line for line in err.splitlines() if not line.endswith(" ...")]
    assert code == 1
    assert len(lines) == 1
    assert words in lines[0]


def test_a_full_battery_changes_nothing_where_nothing_needs_it(capsys, demo_folder, recorded, trace, tmp_path):
    site = tmp_path / "site.toml"
    battery = '[[batteries]]\nname = "bess"\nenergy = "1 MWh"\nstart_share = 1.0\n'
    battery += 'charge_power = "1 MW"\ndischarge_power = "1 MW"\n'
    outside = (demo_folder / "site.toml").read_text(encoding="utf-8")
    site.write_text(f"{outside}\n{battery}", encoding="utf-8")
    for name in ("weather.csv", "prices.csv", "grid.csv"):
        (tmp_path / name).write_bytes((demo_folder / name).read_bytes())
    args = ("--jobs", str(trace), "--hours", "1", "--policies", "fcfs", "--json")
    plain = run(capsys, "replay", "--site", str(demo_folder / "site.toml"), *args)
    assert plain[0] == 0
    rows = [json.loads(one[1]) for one in (plain, run(capsys, "replay", "--site", str(site), *args))]
    assert rows[1][0].pop("stored_mwh") == {"bess": 0.0}
    rows[0][0].pop("stored_mwh")
    assert rows[0] == rows[1]
    plan = read_plan(recorded)
    counted = StoragePlan("bess", (0,) * plan.snapshot.slots, (0,) * (plan.snapshot.slots + 1))
    write_plan(msgspec.structs.replace(plan, storages=(counted,)), tmp_path / "plan.json")
    code, out, _ = run(capsys, "replay", "--plan", str(tmp_path / "plan.json"), "--policies", "powerhall", "--json")
    assert code == 0
    assert json.loads(out)[0]["jobs_done"] > 0


def test_a_job_larger_than_every_hall_is_refused(capsys, demo_folder, tmp_path):
    path = tmp_path / "jobs.csv"
    path.write_text(write_jobs([job("huge", 1000, 1.0)]), encoding="utf-8")
    code, _, err = run(capsys, "replay", "--site", str(demo_folder / "site.toml"), "--jobs", str(path))
    assert code == 1
    assert "huge" in err
    assert "256 GPUs" in err


def test_philly_jobs_replay(capsys, demo_folder, data_dir):
    jobs = data_dir / "jobs" / "philly_jobs.csv.gz"
    args = ("--jobs", str(jobs), "--hours", "4", "--at", "2026-07-15T06:00Z", "--policies", "easy,uniform", "--json")
    code, out, _ = run(capsys, "replay", "--site", str(demo_folder / "site.toml"), *args)
    assert code == 0
    assert all(row["jobs"] > 300 and row["jobs_done"] > 100 for row in json.loads(out))
