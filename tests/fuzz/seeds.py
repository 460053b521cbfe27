"""A small site with a plan of it, valid by construction, that several entry points start from."""

import contextlib
import io
import tempfile
from pathlib import Path

import msgspec
from registry import ROOT

from powerhall.jobs import Job
from powerhall.jobs.job_files import write_jobs
from powerhall.plan.multi_site import MultiSitePlan, multi_site_hash
from powerhall.plan.plan import Plan, snapshot_hash

__all__ = ["FLEET", "JOBS", "PLAN", "SITE", "START_S", "sealed"]

START_S = 1_700_000_100
SITE = (ROOT / "tests" / "docs" / "site.toml").read_bytes()
JOBS = (
    Job("a", 8, 3600.0, 0.0),
    Job("b", 16, 7200.0, 0.0, weight=2.0, deadline_s=START_S + 20_000.0),
    Job("c", 4, 1800.0, 100.0, preemptible=True),
)


def _plan() -> bytes:
    """Let the planner make a plan, in a folder of its own."""
    from powerhall_optimizer.cli import main

    with tempfile.TemporaryDirectory() as name, contextlib.redirect_stdout(io.StringIO()):
        folder = Path(name)
        (folder / "site.toml").write_bytes((ROOT / "examples/first/site.toml").read_bytes())
        (folder / "jobs.csv").write_text(write_jobs(JOBS))
        options = ["--start", str(START_S), "--horizon", "2h", "--seconds", "10", "--quiet"]
        files = ["--site", f"{folder}/site.toml", "--jobs", f"{folder}/jobs.csv", "--out", f"{folder}/plan.json"]
        assert main(["round", *files, *options]) == 0
        return (folder / "plan.json").read_bytes()


def sealed(body: bytes) -> bytes:
    """Give a changed plan the id of its changed snapshot, so that the checks behind the id see it."""
    try:
        plan = msgspec.json.decode(body, type=Plan)
        return msgspec.json.encode(msgspec.structs.replace(plan, plan_id=snapshot_hash(plan.snapshot)))
    except (ValueError, RecursionError):
        return body


def _fleet() -> bytes:
    plan = msgspec.json.decode(PLAN, type=Plan)
    jobs = plan.snapshot.jobs
    made = MultiSitePlan(plan.version, "", START_S, "feasible", 1, 1, 0.0, jobs, (plan,), plan.certificate)
    return msgspec.json.encode(msgspec.structs.replace(made, plan_id=multi_site_hash((plan.snapshot,), jobs)))


PLAN = _plan()
FLEET = _fleet()
