"""The Python API: every function, on one site and on several, beside the commands on the same files."""

import ast
import doctest
import inspect
import json
import subprocess
import sys
import typing
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from powerhall.jobs import Job, write_jobs
from powerhall.plan.multi_site import MultiSitePlan
from powerhall.plan.plan import Plan
from powerhall_optimizer import api
from powerhall_optimizer.cli import main
from rigs.multi_site import SECOND, START_S, queue

START = "2026-07-01T00:00Z"
FIRST_S = 1_782_864_000


@pytest.fixture(scope="module")
def first(root, tmp_path_factory):
    """The first example's folder, with the plan that the command makes."""
    folder = tmp_path_factory.mktemp("first")
    for name in ("site.toml", "jobs.csv"):
        (folder / name).write_bytes((root / "examples" / "first" / name).read_bytes())
    assert main(["round", *files(folder), "--start", START, "--horizon", "6h", "--seconds", "1"]) == 0
    return folder


@pytest.fixture(scope="module")
def two(site_text, tmp_path_factory):
    """Two sites and a queue, with the plan that the command makes."""
    folder = tmp_path_factory.mktemp("two")
    (folder / "phx.toml").write_text(site_text)
    (folder / "fra.toml").write_text(SECOND)
    (folder / "jobs.csv").write_text(write_jobs(queue(20)))
    command = ["round", "--site", str(folder / "phx.toml"), "--site", str(folder / "fra.toml"), "--quiet"]
    command += ["--jobs", str(folder / "jobs.csv"), "--out", str(folder / "plan.json"), "--start", str(START_S)]
    assert main([*command, "--horizon", "4h", "--seconds", "1"]) == 0
    return folder


def files(folder: Path) -> list[str]:
    site, jobs, out = (str(folder / name) for name in ("site.toml", "jobs.csv", "plan.json"))
    return ["--quiet", "--site", site, "--jobs", jobs, "--out", out]


def planned(folder: Path, **given: object) -> Plan:
    site, jobs = api.read_site(folder / "site.toml"), api.read_queue(folder / "jobs.csv")
    return api.plan(site, jobs, **({"start": START, "horizon": "6h", "seconds": 1} | given))


def sites(folder: Path) -> list[api.SiteInputs]:
    return [api.read_site(folder / f"{name}.toml") for name in ("phx", "fra")]


def test_all_is_sorted_and_complete():
    tree = ast.parse(Path(api.__file__).read_text())
    own = {node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.name[0] != "_"}
    functions = [name for name in api.__all__ if not inspect.isclass(getattr(api, name))]
    classes = [name for name in api.__all__ if inspect.isclass(getattr(api, name))]
    assert set(functions) == own
    assert api.__all__ == sorted(classes) + sorted(functions)


def test_the_page_names_every_function_and_argument(root):
    page = (root / "docs" / "reference" / "python-api.md").read_text()
    functions = [name for name in api.__all__ if not inspect.isclass(getattr(api, name))]
    assert [name for name in functions if f"| `{name}(" not in page] == []
    arguments = set(inspect.signature(api.plan).parameters) - {"site", "queue"}
    assert [name for name in arguments if f"`{name}`" not in page] == []


def types_in(hint: object) -> set[type]:
    return {hint} if isinstance(hint, type) else {found for part in typing.get_args(hint) for found in types_in(part)}


def test_every_type_of_a_signature_is_exported():
    functions = [getattr(api, name) for name in api.__all__ if not inspect.isclass(getattr(api, name))]
    hints = [hint for function in functions for hint in typing.get_type_hints(function).values()]
    own = {found for hint in hints for found in types_in(hint) if found.__module__.startswith("powerhall")}
    assert own
    assert {found.__name__ for found in own} <= set(api.__all__)


def test_the_examples_of_the_docstrings_run(first, tmp_path, monkeypatch):
    for path in first.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    monkeypatch.chdir(tmp_path)
    found = [test for test in doctest.DocTestFinder().find(api, "api") if test.examples]
    runner = doctest.DocTestRunner()
    for test in found:
        runner.run(test)
    assert runner.summarize(verbose=False).failed == 0
    own = {f"api.{name}" for name in api.__all__ if not inspect.isclass(getattr(api, name))}
    assert {test.name for test in found} >= {*own, "api"}, "every function has an example"


def test_importing_the_api_and_verifying_loads_no_solver(first):
    code = (
        "import sys; from powerhall_optimizer import api;"
        f"found = api.verify(api.read_plan({str(first / 'plan.json')!r}));"
        "print(found, [m for m in ('numba', 'ortools', 'scipy', 'plotly') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[] []"


def test_a_plan_is_that_of_the_command_for_the_same_inputs(first):
    by_command = api.read_plan(first / "plan.json")
    plan = planned(first)
    assert plan.plan_id == by_command.plan_id
    assert plan.snapshot == by_command.snapshot
    assert api.verify(plan) == []
    assert planned(first, previous=by_command) == by_command, "the same inputs again are not solved again"


def test_start_and_horizon_are_texts_or_numbers_of_seconds(first):
    by_text = api.read_plan(first / "plan.json").plan_id
    moment = datetime(2026, 7, 1, tzinfo=UTC)
    assert planned(first, start=moment).plan_id == by_text
    assert planned(first, start=None, start_s=FIRST_S, horizon=None, horizon_s=6 * 3600).plan_id == by_text
    assert planned(first, horizon=None).snapshot.slots == 288, "24 h"


def test_the_command_takes_up_a_plan_that_the_api_wrote(first, tmp_path, capsys):
    for name in ("site.toml", "jobs.csv"):
        (tmp_path / name).write_bytes((first / name).read_bytes())
    plan = planned(first)
    api.write_plan(plan, tmp_path / "plan.json")
    assert (tmp_path / "plan-ladder.json").exists()
    before = (tmp_path / "plan.json").read_bytes()
    assert main(["round", *files(tmp_path), "--start", START, "--horizon", "6h", "--seconds", "1"]) == 0
    assert (tmp_path / "plan.json").read_bytes() == before, "unchanged inputs, unchanged plan"
    capsys.readouterr()
    assert main(["explain", "sweep", "--plan", str(tmp_path / "plan.json")]) == 0
    assert capsys.readouterr().out.splitlines() == api.explain(plan, "sweep")


def test_settings_down_nodes_and_what_if_change_the_inputs(first):
    settings = api.RoundSettings(slot_s=600, seed=3, objective=api.Objective(usd_per_gpu_h=1.0))
    plan = planned(first, settings=settings, down_nodes=["gn04"], what_if="grid=-10%,train.weight=9")
    s = plan.snapshot
    assert (s.slot_s, s.objective.usd_per_gpu_h, s.down_nodes) == (600, 1.0, ("gn04",))
    assert s.site.power_limit_w == pytest.approx(24_300)
    assert next(job for job in s.jobs if job.job_id == "train").weight == 9.0
    assert api.verify(plan) == []
    assert "sweep" in {entry.job_id for entry in plan.waiting}, "32 GPUs do not fit on three nodes"


def test_a_changed_plan_is_not_written(first, tmp_path):
    plan = api.read_plan(first / "plan.json")
    wrong = msgspec.structs.replace(plan, value=plan.value + 1)
    assert [violation.kind for violation in api.verify(wrong)] == ["value"]
    with pytest.raises(api.PowerhallError, match="is not published"):
        api.write_plan(wrong, tmp_path / "plan.json")
    assert list(tmp_path.iterdir()) == []


def test_several_sites_are_planned_together(two, tmp_path, capsys):
    by_command = api.read_plan(two / "plan.json")
    plan = api.plan(sites(two), api.read_queue(two / "jobs.csv"), start_s=START_S, horizon="4h", seconds=1)
    assert isinstance(plan, MultiSitePlan)
    assert plan.plan_id == by_command.plan_id
    assert api.verify(plan) == []
    assert api.figures(plan).jobs_waiting == sum(api.figures(part).jobs_waiting for part in plan.plans)
    api.write_plan(plan, tmp_path / "plan.json")
    api.write_report(plan, tmp_path / "report.html")
    assert "fra: Site power" in (tmp_path / "report.html").read_text()
    assert {path.name for path in tmp_path.glob("plan*.json")} >= {"plan.json", "plan.phx.json", "plan.fra.json"}
    assert main(["verify", "--json", str(tmp_path / "plan.json")]) == 0
    assert json.loads(capsys.readouterr().out)["verified"] is True
    assert any("site fra" in line for line in api.explain(plan, "j1"))
    again = api.plan(sites(two), plan.jobs, start_s=START_S, horizon="4h", seconds=1, previous=plan)
    assert again == plan


def test_a_sequence_of_one_site_gives_a_plan_of_several(two):
    jobs = [Job("j1", 8, 3600.0, START_S)]
    plan = api.plan(sites(two)[:1], jobs, start_s=START_S, horizon="2h", seconds=0.5)
    assert [part.snapshot.site.name for part in plan.plans] == ["phx"]
    assert api.verify(plan) == []


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"start": "noon"}, "plan: start: 'noon': must be seconds since the epoch or an ISO 8601 time"),
        ({"start_s": 0.0}, "plan: start_s: 0.0: must not be given together with start"),
        ({"horizon": "6 kW"}, "plan: horizon: '6 kW'"),
        ({"horizon": None, "horizon_s": 1.0}, "plan: horizon: '1.0 s': must be from one slot to 14 d"),
        ({"seconds": 0}, "plan: seconds: 0: must be above 0 and at most 86400"),
        ({"down_nodes": ["ghost"]}, "plan: down: 'ghost': must be a node of the site"),
        ({"what_if": "hall9.power=1MW"}, "must be a zone"),
        ({"settings": api.RoundSettings(slot_s=1)}, "settings: slot_s: 1: must be from 10 to 3600"),
    ],
)
def test_a_wrong_argument_is_refused_in_one_line(first, given, said):
    refused(lambda: planned(first, **given), said)


@pytest.mark.parametrize(
    ("jobs", "said"),
    [
        ([Job("a", 0, 60.0)], "queue: job a: gpus: 0: must be at least 1"),
        ([Job("a", 8, 60.0), Job("a", 8, 60.0)], "queue: job_id: 'a': must be unique"),
        ([Job("a", 800, 60.0)], "queue: job a: gpus: 800: is larger than any hall"),
        ([Job("a", 8, 60.0, halls=("x",))], "queue: job a: halls: 'x': must be one of hall1"),
    ],
)
def test_a_wrong_queue_is_refused_in_one_line(first, jobs, said):
    refused(lambda: api.plan(api.read_site(first / "site.toml"), jobs, start=START, seconds=1), said)


def test_wrong_files_and_jobs_are_refused_in_one_line(first, tmp_path):
    plan = api.read_plan(first / "plan.json")
    refused(lambda: api.read_site(tmp_path / "none.toml"), "none.toml")
    refused(lambda: api.read_queue(first / "jobs.csv", "slurm"), "format: 'slurm': must be one of own")
    refused(lambda: api.read_plan(first / "jobs.csv"), "jobs.csv")
    refused(lambda: api.explain(plan, "ghost"), f"plan {plan.plan_id[:12]}: job: 'ghost': must be a job of the plan")
    for write in (api.write_plan, api.write_report):
        refused(lambda write=write: write(plan, tmp_path / "none" / "file"), "cannot write")
    refused(lambda: api.write_queue([Job("a", 0, 1.0)], tmp_path / "q.csv"), "queue: job a: gpus")


def test_sites_of_the_same_name_are_refused(two):
    site = sites(two)[0]
    refused(lambda: api.plan([site, site], [Job("a", 8, 60.0)], start_s=START_S), "plan: site: 'phx'")


def refused(call, said):
    with pytest.raises(api.PowerhallError) as error:
        call()
    assert said in str(error.value)
    assert "\n" not in str(error.value)
