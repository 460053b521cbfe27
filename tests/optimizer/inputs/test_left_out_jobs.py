"""One bad job never stops a round: it is left out with its reason, and what runs of it stays in the power."""

import json

import msgspec
import pytest

from powerhall.jobs import Job
from powerhall.jobs.job_files import read_job_list
from powerhall.jobs.left_out import LeftOut
from powerhall.plan.plan import Snapshot, read_plan
from powerhall.site.site_file import read_site
from powerhall.store import Query, Select, open_store
from powerhall.store.line_protocol import Point, encode
from powerhall_optimizer.cli import main
from powerhall_optimizer.inputs.observed_nodes import observed_nodes
from powerhall_optimizer.schedulers.base import Queue
from powerhall_optimizer.verify.plan import verify_plan

START_S = 1_700_000_100
SITE = """
[site]
name = "s1"
power_limit = "60 kW"
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
BAD_ROWS = [
    "neg,-1,3600,,,,,,,",
    "nan,8,nan,,,,,,,",
    "inf,8,1e999,,,,,,,",
    "short,8",
    "big,800,3600,,,,,,,",
    "nohall,8,3600,,hallX,,,,,",
    "good,8,3600,,,,,,,",
    "text,eight,3600,,,,,,,",
    "weight,8,3600,-3,,,,,,",
    ",8,3600,,,,,,,",
    "half,8,3600,,,running,,,,",
]
HEADER = "job_id,gpus,duration_s,weight,halls,state,hall,mode,nodes,start_s"
UNKNOWN_MODE = "runs,16,3600,,,running,hall1,nomode,gn[01-02],0"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "site.toml").write_text(SITE)
    return tmp_path


def queue(folder, rows):
    (folder / "jobs.csv").write_text("\n".join([HEADER, "good,8,3600,,,,,,,", *rows]) + "\n")
    return "--jobs", str(folder / "jobs.csv")


def round_of(folder, *more, start=START_S):
    return main(
        ["round", "--site", str(folder / "site.toml"), "--start", str(start), "--horizon", "4h", "--seconds", "1",
         "--out", str(folder / "plan.json"), "--quiet", *more]
    )  # fmt: skip


def verified(folder):
    plan = read_plan(folder / "plan.json")
    assert verify_plan(plan) == []
    return plan


@pytest.mark.parametrize("row", BAD_ROWS)
def test_a_bad_row_is_left_out_and_the_others_are_planned(folder, row, capsys):
    assert round_of(folder, *queue(folder, [row]), "--json") == 0
    outcome = json.loads(capsys.readouterr().out)
    assert (outcome["jobs_started"], outcome["jobs_left_out"]) == (1, 1)
    plan = verified(folder)
    (entry,) = plan.snapshot.left_out
    assert entry.reason
    assert "1 job is left out" in plan.notes[0]
    assert main(["explain", entry.job_id, "--plan", str(folder / "plan.json")]) == 0
    assert "left out of the plan" in capsys.readouterr().out


@pytest.mark.parametrize("row", BAD_ROWS)
def test_strict_refuses_the_round_as_before(folder, row, capsys):
    assert round_of(folder, *queue(folder, [row]), "--strict") == 1
    assert capsys.readouterr().err.count("\n") == 1
    assert not (folder / "plan.json").exists()


def test_every_bad_row_at_once_and_the_report_and_the_store_show_them(folder):
    url = f"sqlite:///{folder}/store.db"
    report = folder / "report.html"
    assert round_of(folder, *queue(folder, [*BAD_ROWS, UNKNOWN_MODE]), "--store", url, "--report", str(report)) == 0
    plan = verified(folder)
    assert len(plan.snapshot.left_out) == len(BAD_ROWS) + 1
    assert "jobs are left out" in report.read_text()
    store = open_store(url)
    rows = store.query(Query("plan_job", (Select("job"), Select("reason")), {"site": "s1"}), 0.0, 4e9)
    store.close()
    assert {"neg", "nohall", "runs"} <= {row.values["job"] for row in rows}


def test_a_running_job_that_cannot_be_planned_with_stays_in_the_power(folder):
    assert round_of(folder, *queue(folder, [UNKNOWN_MODE, *(f"w{i},8,7200,,,,,,," for i in range(8))])) == 0
    plan = verified(folder)
    assert set(plan.snapshot.stale_nodes) == {"gn01", "gn02"}
    used = {node for a in plan.assignments for p in a.placements for node in [p.nodes]}
    assert not used & {"gn01", "gn02"}
    site_w = next(zone.planned_w for zone in plan.zones if zone.zone == "s1")
    busy = sum(a.start_s == START_S for a in plan.assignments)
    assert site_w[0] >= 2 * 10_200 + 6 * 1_800 + busy * 8 * (970 - 225) - 1


def test_without_its_nodes_as_many_free_ones_stand_for_it(folder):
    site, _ = read_site(folder / "site.toml")
    gone = (LeftOut("x", "place", "?", running=True, gpus=20, hall="hall9", nodes="zz1"),)
    jobs = (Job("a", 8, 60.0, state="running", hall="hall1", mode="p700", nodes="gn01", start_s=0.0),)
    stale = observed_nodes(Snapshot(0, 0, 300, 1, site, jobs, left_out=gone), (), ()).stale_nodes
    assert len(stale) == 3
    assert "gn01" not in stale


def test_the_checker_finds_a_running_job_that_is_left_out_of_the_power(folder):
    assert round_of(folder, *queue(folder, [UNKNOWN_MODE])) == 0
    plan = verified(folder)
    free = msgspec.structs.replace(plan, snapshot=msgspec.structs.replace(plan.snapshot, stale_nodes=(), held=()))
    assert "held" in {violation.kind for violation in verify_plan(free)}


@pytest.mark.parametrize(
    ("name", "text"), [("jobs.csv", "job_id,gpus,duration_s\n"), ("jobs.json", "[]")], ids=["csv", "json"]
)
def test_an_empty_queue_gives_an_idle_plan(folder, name, text):
    (folder / name).write_text(text)
    assert round_of(folder, "--jobs", str(folder / name)) == 0
    plan = verified(folder)
    assert not plan.assignments
    assert not plan.waiting


def test_an_empty_queue_of_a_file_replaces_the_old_one_in_the_store(folder):
    url = f"sqlite:///{folder}/store.db"
    (folder / "settings.toml").write_text(f'[file]\njobs = "{folder}/jobs.csv"\norders = "{folder}/o.csv"\n')
    arguments = ["queue", "--scheduler", "file", "--settings", str(folder / "settings.toml"), "--site",
                 str(folder / "site.toml"), "--store", url]  # fmt: skip
    queue(folder, [])
    assert main(arguments) == 0
    (folder / "jobs.csv").write_text("job_id,gpus,duration_s\n")
    assert main(arguments) == 0
    store = open_store(url)
    assert json.loads(store.latest_document("queue", "s1"))["jobs"] == []
    store.close()


def test_a_json_queue_leaves_out_what_does_not_fit(folder):
    path = folder / "jobs.json"
    path.write_text('[{"job_id":"a","gpus":8,"duration_s":60},{"job_id":"b","gpus":"8"},7,{"job_id":"c","x":1},null]')
    found = read_job_list(path)
    assert [job.job_id for job in found.jobs] == ["a"]
    assert [entry.job_id for entry in found.left_out] == ["b", "job 3", "c", "job 5"]


def test_an_old_queue_of_the_store_starts_nothing_and_raises_the_alarm(folder):
    url = f"sqlite:///{folder}/store.db"
    store = open_store(url)
    runs = Job("r", 8, 36_000.0, state="running", hall="hall1", mode="p700", nodes="gn01", start_s=START_S - 60.0)
    body = msgspec.json.encode(Queue(START_S, (runs, Job("w", 8, 3600.0))))
    store.put_document("queue", "s1", START_S, body)
    assert round_of(folder, "--store", url) == 0
    assert len(verified(folder).assignments) == 2
    assert round_of(folder, "--store", url, start=START_S + 3000) == 0
    plan = verified(folder)
    assert [a.job_id for a in plan.assignments] == ["r"]
    assert [(w.job_id, w.code) for w in plan.waiting] == [("w", "held")]
    assert "the queue was read 50 min ago" in plan.waiting[0].reason
    rows = store.query(Query("alert", (Select("active"),), {"kind": "stale_queue"}), 0.0, 4e9)
    assert rows[-1].values["active"] == 1.0
    late = msgspec.structs.replace(plan, snapshot=msgspec.structs.replace(plan.snapshot, starts_held=""))
    assert verify_plan(late), "the reason is part of the plan's id"
    store.close()


def test_telemetry_that_ended_days_ago_is_stale_and_not_unknown(folder):
    url = f"sqlite:///{folder}/store.db"
    store = open_store(url)
    for node in range(1, 9):
        point = Point("node", {"site": "s1", "node": f"gn0{node}"}, {"power_w": 2000.0}, (START_S - 3 * 86_400) * 1000)
        store.write(encode(point))
    assert round_of(folder, *queue(folder, []), "--store", url) == 0
    plan = verified(folder)
    assert len(plan.snapshot.stale_nodes) == 8
    assert not plan.assignments
    store.close()
