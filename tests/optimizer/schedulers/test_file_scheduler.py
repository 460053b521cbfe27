"""Files as a workload manager, the settings of all of them, and the commands `schedule` and `queue`."""

import csv
import json
import re
import time

import msgspec
import pytest

from powerhall.jobs import Job, read_jobs, write_jobs
from powerhall.plan.plan import write_plan
from powerhall.runtime.errors import ConfigError, Rejected
from powerhall.store import open_store
from powerhall_optimizer.cli import main
from powerhall_optimizer.schedulers.base import Queue
from powerhall_optimizer.schedulers.file import FileReader, FileSettings, FileWriter, Order
from powerhall_optimizer.schedulers.registry import read_settings
from rigs.plans import greedy_plan, small_site

JOBS = (
    Job("run", 16, 600.0, state="running", hall="hall1", node_type="hgx", mode="eco", nodes="gn[01-02]", start_s=100.0),
    Job("drop", 8, 600.0, state="running", hall="hall1", node_type="hgx", mode="fast", nodes="gn03", start_s=100.0),
    Job("go", 24, 600.0),
    Job("late", 32, 600.0),
)


@pytest.fixture
def plan():
    site = small_site([f"gn{n:02d}" for n in range(1, 9)])
    return greedy_plan(
        site, JOBS, start_s=int(time.time()) // 60 * 60, slot_s=60, budget_w=[60_000] * 10, stopped=["drop"]
    )


@pytest.mark.parametrize("ending", ["csv", "json"])
def test_every_job_has_an_order_and_orders_are_written_once(plan, tmp_path, ending):
    path = tmp_path / f"orders.{ending}"
    writer = FileWriter(FileSettings(orders=str(path)))
    dry = writer.apply(plan, dry_run=True)
    assert len(dry.commands) == 1
    assert not path.exists()
    done = writer.apply(plan)
    assert [c.error for c in done.commands] == [""]
    if ending == "json":
        rows = msgspec.json.decode(path.read_bytes(), type=list[Order])
    else:
        cells = csv.DictReader(path.read_text().splitlines())
        rows = [msgspec.convert({k: v for k, v in row.items() if v}, Order, strict=False) for row in cells]
    orders = {row.job_id: row for row in rows}
    assert {job: order.order for job, order in orders.items()} == {
        "run": "run",
        "drop": "stop",
        "go": "start",
        "late": "wait",
    }
    assert (orders["go"].nodes, orders["go"].power_w, orders["go"].mode) == ("gn[03-05]", 30_000, "fast")
    assert (orders["run"].power_w, orders["run"].mode) == (16_000, "eco")
    assert orders["late"].reason == "waits for 40 kW in plant"
    before = path.stat().st_mtime_ns
    again = writer.apply(plan)
    assert (again.commands, again.unchanged) == ([], 4)
    assert path.stat().st_mtime_ns == before
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_a_folder_that_cannot_be_written_is_a_failed_write(plan, tmp_path):
    done = FileWriter(FileSettings(orders=str(tmp_path / "nowhere" / "orders.csv"))).apply(plan)
    assert done.failed[0].error == "cannot write: No such file or directory"
    with pytest.raises(ConfigError, match=r"file.orders: 'orders.txt': must end in .csv or .json"):
        FileWriter(FileSettings(orders="orders.txt"))


def test_a_plan_that_has_ended_is_refused(plan, tmp_path):
    writer = FileWriter(FileSettings(orders=str(tmp_path / "o.csv")), clock=lambda: time.time() + 86_400)
    with pytest.raises(Rejected, match=r"the plan [0-9a-f]{12} ended \d+ s ago"):
        writer.apply(plan)


def test_jobs_are_read_from_a_file(tmp_path):
    (tmp_path / "jobs.csv").write_text(write_jobs(JOBS))
    queue = FileReader(FileSettings(jobs=str(tmp_path / "jobs.csv"), down_nodes=("gn08",))).read()
    assert queue.jobs == JOBS
    assert queue.down_nodes == ("gn08",)


def settings_file(tmp_path, text):
    path = tmp_path / "scheduler.toml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[slurm]\nlease_s = 0\n", "slurm.lease_s: 0.0: must be above 0"),
        ("[slurm]\nhold = 'never'\n", "slurm.hold"),
        ("[slurm]\nlicense = 'kw'\n", "license"),
        ("[slurm]\ntop_priority = 5\n", "slurm.top_priority: 5: must be from"),
        ("[kubernetes]\nsettle_s = -1.0\n", "kubernetes.settle_s: -1.0: must not be negative"),
        ("[sge]\n", "sge"),
    ],
)
def test_wrong_settings_are_refused_by_name(tmp_path, text, told):
    with pytest.raises(Rejected) as refused:
        read_settings(settings_file(tmp_path, text))
    assert told in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("page", ["slurm", "kubernetes", "file-scheduler"])
def test_the_settings_in_the_documentation_are_valid_and_complete(root, tmp_path, page):
    text = (root / "docs" / "guide" / f"{page}.md").read_text()
    blocks = re.findall(r"```toml[^\n]*\n(.*?)```", text, re.DOTALL)
    assert blocks
    for block in blocks:
        read_settings(settings_file(tmp_path, block))
    table = {"file-scheduler": "file"}.get(page, page)
    for field in msgspec.structs.fields(type(read_settings(None)[table])):
        assert f"`{field.name}`" in text, field.name


def test_the_commands_from_end_to_end(plan, tmp_path, capsys):
    (tmp_path / "jobs.csv").write_text(write_jobs(JOBS))
    settings = settings_file(tmp_path, f"[file]\njobs = '{tmp_path}/jobs.csv'\norders = '{tmp_path}/orders.json'\n")
    common = ["--scheduler", "file", "--settings", str(settings)]
    store = f"sqlite:///{tmp_path}/store.db"
    assert main(["queue", *common, "--out", str(tmp_path / "queue.json"), "--store", store]) == 0
    assert "file: 2 jobs wait, 2 run, 0 left out, 0 nodes unusable" in capsys.readouterr().out
    assert read_jobs(tmp_path / "queue.json") == JOBS
    opened = open_store(store)
    body = opened.latest_document("queue", "file")
    opened.close()
    assert body is not None
    assert msgspec.json.decode(body, type=Queue).jobs == JOBS
    write_plan(plan, tmp_path / "plan.json")
    where = ["--plan", str(tmp_path / "plan.json")]
    assert main(["schedule", *common, *where, "--dry-run"]) == 0
    assert "1 commands would be issued" in capsys.readouterr().out
    assert main(["schedule", *common, *where, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (len(told["commands"]), told["failed"], told["dry_run"]) == (1, 0, False)
    assert main(["schedule", *common, *where]) == 0
    assert "0 commands issued, 0 failed, 0 left alone, 4 jobs as planned already" in capsys.readouterr().out
    assert main(["schedule", *common, "--release"]) == 1
    assert "--release: 'file': must be with --scheduler slurm" in capsys.readouterr().err
    assert main(["queue", "--scheduler", "slurm"]) == 1
    assert "--site" in capsys.readouterr().err


def test_missing_slurm_commands_are_reported_in_one_line(plan, tmp_path, capsys, monkeypatch):
    write_plan(plan, tmp_path / "plan.json")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["schedule", "--scheduler", "slurm", "--plan", str(tmp_path / "plan.json")]) == 1
    assert capsys.readouterr().err == (
        "powerhall-optimizer: squeue: not found on PATH: install Slurm's client commands\n"
    )


def test_a_running_job_of_a_file_that_cannot_be_planned_with_is_counted(tmp_path):
    (tmp_path / "jobs.csv").write_text(
        "job_id,gpus,duration_s,state,hall,mode,nodes,start_s\nbad,8,-1,running,hall1,fast,gn01,0\n"
    )
    queue = FileReader(FileSettings(jobs=str(tmp_path / "jobs.csv"))).read()
    assert [(job.job_id, job.gpus, job.state, job.hall, job.nodes) for job in queue.jobs] == [
        ("bad", 8, "running", None, "gn01")
    ]
    assert "duration_s" in queue.left_out["bad"]
