"""Behaviour never depends on the wording of a message: with every text reworded, codes, retries and exits stay."""

import ast
import time
from collections.abc import Callable
from types import FunctionType, ModuleType

import pytest

from powerhall.jobs import Job
from powerhall.plan.plan import Plan, Snapshot, write_plan
from powerhall.runtime.errors import PowerhallError, Retryable
from powerhall.runtime.log import Log
from powerhall.site.site_file import read_site
from powerhall_optimizer.cli import main
from powerhall_optimizer.inputs.round_settings import RoundSettings
from powerhall_optimizer.leases import texts as lease_texts
from powerhall_optimizer.planning import texts as plan_texts
from powerhall_optimizer.planning.planner import make_plan
from powerhall_optimizer.schedulers import texts as scheduler_texts
from powerhall_optimizer.schedulers.base import WriteReport
from powerhall_optimizer.schedulers.kubernetes.api_client import NotFound
from powerhall_optimizer.schedulers.kubernetes.kubernetes_settings import KubernetesSettings
from powerhall_optimizer.schedulers.kubernetes.leader_lease import Lead
from powerhall_optimizer.schedulers.skip_reasons import DRAWS_NOTHING, Skip, SkipReason
from powerhall_optimizer.shed import texts as shed_texts
from powerhall_optimizer.shed.event_manager import EventManager
from powerhall_optimizer.shed.ladder import ActionKind, ladder
from powerhall_optimizer.shed.shedder import Shedder
from powerhall_optimizer.shed.signals import parse_signals
from powerhall_optimizer.verify.plan import verify_plan
from rigs.leased_plan import SITE
from rigs.plans import greedy_plan, small_site

AREAS = (lease_texts, plan_texts, scheduler_texts, shed_texts)
WORDS = "xyzzy"


def garbled(write: Callable[..., object]) -> Callable[..., object]:
    """Return a function whose texts are all the same word; where there was no text there is none."""

    def reworded(*args: object, **options: object) -> object:
        found = write(*args, **options)
        return tuple(WORDS for _ in found) if isinstance(found, tuple) else found and WORDS

    return reworded


def reword(area: ModuleType, monkeypatch: pytest.MonkeyPatch) -> int:
    """Garble every function and every constant text of a module; return how many there were."""
    count = 0
    for name, value in list(vars(area).items()):
        if isinstance(value, FunctionType) and value.__module__ == area.__name__ and not name.startswith("_"):
            monkeypatch.setattr(area, name, garbled(value))
        elif isinstance(value, str) and name.isupper():
            monkeypatch.setattr(area, name, WORDS)
        else:
            continue
        count += 1
    return count


@pytest.fixture(params=["as it is", "reworded"])
def wording(request, monkeypatch) -> str:
    if request.param == "reworded":
        assert all(reword(area, monkeypatch) for area in AREAS)
        monkeypatch.setattr(PowerhallError, "__str__", lambda _error: WORDS)
    return request.param


def planned(folder) -> Plan:
    """A plan by fixed work: the same whenever it is made."""
    (folder / "site.toml").write_text(SITE)
    sizes = (4, 8, 16, 32)
    jobs = [Job(f"j{i}", sizes[i % 4], 6 * 3600.0, weight=1.0 + i % 9, preemptible=i % 3 > 0) for i in range(30)]
    jobs += [Job("large", 4000, 3600.0), Job("nowhere", 8, 3600.0, node_types=("b200",))]
    jobs += [Job("elsewhere", 8, 60.0, sites=("f",)), Job("later", 8, 60.0, earliest_s=1_900_000_000.0)]
    site = read_site(folder / "site.toml")[0]
    snapshot = Snapshot(1_800_000_000, 1_800_000_000, 300, 24, site, tuple(jobs))
    settings = RoundSettings(workers=1, target_gap=1.0)
    return make_plan(snapshot, settings, 600.0, created_s=0, log=Log(quiet=True))


FACTS: dict[str, object] = {}


def test_a_plan_has_the_same_decisions_and_codes(wording, tmp_path):
    plan = planned(tmp_path)
    assert verify_plan(plan) == []
    facts = (
        plan.plan_id,
        plan.status,
        plan.value,
        [(w.job_id, w.code, w.binding, w.earliest_start_s, len(w.what_if)) for w in plan.waiting],
        [(a.job_id, a.hall, a.mode, a.start_s, bool(a.reason)) for a in plan.assignments],
        len(plan.notes),
    )
    assert {w.code for w in plan.waiting} >= {"too_large", "ineligible"}
    assert len({w.code for w in plan.waiting}) > 3
    if wording == "reworded":
        assert {w.reason for w in plan.waiting} == {WORDS}
    assert FACTS.setdefault("plan", facts) == facts


class Writer:
    """A scheduler that leaves every job alone for one reason."""

    def __init__(self, code: Skip) -> None:
        self.why = SkipReason(code, "name", "value", 1, 2)

    def apply(self, plan: Plan, *, dry_run: bool = False) -> WriteReport:
        report = WriteReport("slurm", plan.plan_id, dry_run)
        for entry in plan.waiting:
            report.skip_job(entry.job_id, self.why)
        return report


def running_plan() -> Plan:
    now_s = int(time.time()) // 60 * 60
    jobs = [
        Job(f"r{i}", 8, 6000.0, state="running", hall="hall1", node_type="hgx", mode="fast", nodes=f"gn0{i}",
            start_s=100.0, preemptible=True)
        for i in range(1, 5)
    ]  # fmt: skip
    site = small_site([f"gn0{i}" for i in range(1, 5)], idle_power_w=800.0)
    return greedy_plan(site, jobs, start_s=now_s, slot_s=60, budget_w=[60_000] * 20)


@pytest.mark.parametrize("code", Skip)
def test_a_shed_succeeds_or_fails_by_the_code_of_what_was_left_alone(wording, code):
    plan = running_plan()
    steps = ladder(plan, float(plan.snapshot.start_s))
    assert ActionKind.STOP in {action.kind for action in steps.actions}
    outcome = Shedder(None, None, None, Writer(code), None).act(plan, steps, 0.5 * steps.power_w)
    assert outcome.met == (code in DRAWS_NOTHING)
    assert bool(outcome.problems) != outcome.met
    assert wording == "as it is" or set(outcome.problems) <= {WORDS}


def test_every_code_has_a_text_and_no_two_share_one():
    found = [scheduler_texts.skip_text(SkipReason(code, "name", "value", 1, 2)) for code in Skip]
    assert len(set(found)) == len(Skip)


@pytest.mark.usefixtures("wording")
def test_an_event_that_failed_is_tried_again_and_one_that_was_done_is_not(tmp_path):
    now_s = [1_800_000_000.0]
    acts: list[float] = []

    def act(_limit_w, _reduction, _end_s, _within_s):
        acts.append(now_s[0])
        raise Retryable("the store is away")

    manager = EventManager(
        tmp_path / "state.json", None, act, Log(quiet=True), lambda: now_s[0], steady=lambda: now_s[0]
    )
    body = b'{"event_id": "e1", "duration": "1 h", "power_limit": "10 kW"}'
    manager.receive(parse_signals(body, "request", "phx", now_s[0])[0])
    for _ in range(100):
        manager.tick()
        now_s[0] += 10.0
    assert len(acts) == 6
    assert manager.event("e1").state == "announced"


class Cluster:
    """A cluster without a leader lease."""

    def __init__(self) -> None:
        self.made: list[bool] = []

    def lease(self, body: object = None, *, create: bool = False) -> dict[str, object]:
        if body is None:
            raise NotFound("kubernetes: lease: 404 Not Found")
        self.made.append(create)
        return {}


@pytest.mark.usefixtures("wording")
def test_a_lease_that_is_not_there_is_made():
    cluster = Cluster()
    Lead(cluster, KubernetesSettings(), "me", lambda: 1_800_000_000.0).take(running_plan())
    assert cluster.made == [True]


@pytest.mark.usefixtures("wording")
def test_exit_codes(tmp_path, capsys):
    plan = running_plan()
    write_plan(plan, tmp_path / "plan.json")
    (tmp_path / "site.toml").write_text(SITE)
    (tmp_path / "scheduler.toml").write_text(f"[file]\norders = '{tmp_path}/orders.csv'\n")
    file = ["--scheduler", "file", "--settings", str(tmp_path / "scheduler.toml")]
    where = ["--plan", str(tmp_path / "plan.json")]
    commands = {
        ("verify", str(tmp_path / "none.json")): 1,
        ("round", "--site", str(tmp_path / "site.toml"), "--jobs", str(tmp_path / "none.csv")): 1,
        ("schedule", *file, *where): 0,
        ("schedule", *file, "--release"): 1,
        ("shed", "--to", "1 parsec", *where): 1,
        ("shed", "--by", "20%", *where, *file): 0,
        ("shed", "--to", "1 W", *where, *file): 1,
        ("explain", "nobody", *where): 1,
    }
    for command, code in commands.items():
        assert main(command) == code, command
    assert "Traceback" not in capsys.readouterr().err


def is_prose(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value.strip()


def reads_prose(node: ast.AST) -> bool:
    """Whether an expression compares something with a constant of several words, or looks for one in a text."""
    if isinstance(node, ast.Compare):
        return any(is_prose(part) for part in (node.left, *node.comparators))
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        asks = (
            "startswith",
            "endswith",
            "removeprefix",
            "removesuffix",
            "partition",
            "index",
            "find",
            "search",
            "match",
        )
        return node.func.attr in asks and any(is_prose(argument) for argument in node.args)
    return False


def test_no_code_looks_for_words_in_a_text(root):
    """Formats of other programs and of our own files may be read; sentences may not."""
    formats = {"powerhall: ", " | ", "\"'", ' "=\n', " - at `"}
    formats |= {"deserialization of the task graph"}  # Dask's, which tells it by no type or code
    found = []
    for path in sorted((root / "optimizer").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            parts = [part for part in ast.walk(node) if is_prose(part)] if reads_prose(node) else []
            found += [f"{path.name}:{node.lineno}: {p.value!r}" for p in parts if p.value not in formats]
    assert found == []
