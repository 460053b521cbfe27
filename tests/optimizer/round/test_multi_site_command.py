"""The commands on several sites: one plan file for all, one for each, and refusals."""

import importlib.util
import json

import msgspec
import pytest

from powerhall.jobs import Job, write_jobs
from powerhall.plan.multi_site import read_multi_site_plan
from powerhall.plan.plan import read_plan
from powerhall_optimizer.cli import main
from powerhall_optimizer.verify.multi_site import verify_multi_site
from rigs.multi_site import SECOND, START_S, queue, where


@pytest.fixture
def folder(tmp_path, site_text, monkeypatch):
    (tmp_path / "phx.toml").write_text(site_text)
    (tmp_path / "fra.toml").write_text(SECOND)
    (tmp_path / "jobs.csv").write_text(write_jobs(queue(30)))
    monkeypatch.chdir(tmp_path)
    return tmp_path


ROUND = ["round", "--quiet", "--site", "phx.toml", "--site", "fra.toml", "--jobs", "jobs.csv", "--start", str(START_S)]


ROUND += ["--horizon", "6h", "--seconds", "1"]


def test_the_command_plans_verifies_explains_and_reports_several_sites(folder, capsys):
    assert main([*ROUND, "--report", "report.html", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert set(told["sites"]) == {"phx", "fra"}
    assert told["jobs_started"] == sum(s["jobs_started"] for s in told["sites"].values())
    page = (folder / "report.html").read_text()
    assert "phx: Site power" in page
    assert "fra: Site power" in page
    assert read_plan(folder / "plan.phx.json").snapshot.site.name == "phx"
    assert main(["verify", "plan.json"]) == 0
    assert "at 2 sites" in capsys.readouterr().out
    assert main(["verify", "plan.fra.json"]) == 0
    capsys.readouterr()
    assert main(["explain", "j1", "--plan", "plan.json"]) == 0
    assert "site " in capsys.readouterr().out
    assert main(["report", "plan.json", "--out", "again.html"]) == 0
    before = (folder / "plan.json").read_bytes()
    assert main(ROUND) == 0
    assert (folder / "plan.json").read_bytes() == before, "the same inputs change nothing"
    capsys.readouterr()
    assert main([*ROUND, "--what-if", "fra:grid=-30%"]) == 0
    assert "at fra" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--site", "phx.toml"], "--site: 'phx': must be different sites"),
        (["--what-if", "grid=-20%"], "must name one of the sites phx, fra"),
        (["--down", "ghost"], "--down: 'ghost'"),
    ],
)
def test_invalid_input_for_several_sites_is_refused_in_one_line(folder, capsys, arguments, said):
    assert main([*ROUND, "--dry-run", *arguments]) == 1
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_queues_of_the_store_stay_at_their_site_unless_a_job_names_more(folder, capsys):
    from powerhall.store import open_store

    store = open_store(f"sqlite:///{folder}/store.db")
    store.put_document("queue", "phx", START_S, msgspec.json.encode([Job("p1", 8, 3600.0), Job("p2", 8, 600.0)]))
    store.put_document("queue", "fra", START_S, msgspec.json.encode([Job("q1", 8, 3600.0, sites=("phx", "fra"))]))
    store.close()
    arguments = [a for a in ROUND if a not in ("--jobs", "jobs.csv")]
    assert main([*arguments, "--store", f"sqlite:///{folder}/store.db", "--out", "plan.json"]) == 0
    plan = read_multi_site_plan(folder / "plan.json")
    assert {j.job_id: j.sites for j in plan.jobs} == {"p1": ("phx",), "p2": ("phx",), "q1": ("phx", "fra")}
    store = open_store(f"sqlite:///{folder}/store.db")
    assert msgspec.json.decode(store.latest_document("plan", "phx"))["plan_id"] == plan.plans[0].plan_id
    assert store.latest_document("fleet", "fra+phx") is not None
    store.close()


def test_the_example_of_two_sites_runs_as_its_readme_says(root, tmp_path, monkeypatch, capsys):
    spec = importlib.util.spec_from_file_location("two_sites", root / "examples" / "two-sites" / "make.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.make(tmp_path)
    monkeypatch.chdir(tmp_path)
    command = ["round", "--quiet", "--site", "phoenix.toml", "--site", "frankfurt.toml", "--jobs", "jobs.csv"]
    assert main([*command, "--start", "2026-07-15T06:00Z", "--horizon", "24h", "--seconds", "2"]) == 0
    plan = read_multi_site_plan(tmp_path / "plan.json")
    assert verify_multi_site(plan) == []
    assert "phoenix:" in capsys.readouterr().out
    at = where(plan)
    jobs = {job.job_id: job for job in plan.jobs}
    assert {at[j] for j in at if not jobs[j].sites} == {"phoenix", "frankfurt"}, "free jobs use both"
    assert all(at[j] in jobs[j].sites for j in at if jobs[j].sites)
