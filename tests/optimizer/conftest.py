"""A small site with every kind of limit, and a verified plan for it."""

import random
from collections.abc import Callable

import msgspec
import pytest

from powerhall.jobs import Job
from powerhall.plan.plan import Plan, Snapshot, snapshot_hash
from powerhall.runtime.log import Log
from powerhall.site.site_file import read_site
from powerhall_optimizer.inputs.round_settings import RoundSettings
from powerhall_optimizer.planning.compiling import compile_all
from powerhall_optimizer.planning.planner import make_plan
from rigs.node_types import H100_NODE

START_S = 1_700_000_100
SITE = """
[site]
name = "phx"
power_limit = "330 kW"
"""
SITE += H100_NODE
SITE += """
[node_types.a100]
gpu = "A100"
gpus = 4
idle_power = "1 kW"
max_power = "3 kW"
modes = [{name = "full", gpu_power = "0.7 kW", speed = 1.0}, {name = "low", gpu_power = "0.5 kW", speed = 0.8}]

[[halls]]
name = "a"
power_limit = "170 kW"
losses = {fixed = "1 kW", linear = 0.02, quadratic_per_w = 2e-8}
cooling = [
  {kind = "fixed", capacity = "200 kW", serves = "liquid", cop = 30.0, fan_power = "3 kW"},
  {kind = "fixed", capacity = "60 kW", serves = "air", fan_power = "2 kW", pump_power = "1 kW"},
]
rows = [
  {name = "r1", power_limit = "100 kW", racks = [
    {node_type = "h100", count = 2, nodes = 4, power_limit = "41 kW"}, {node_type = "h100", name = "z", nodes = 4}]},
  {name = "r2", racks = [{node_type = "h100", count = 3, nodes = 4}]},
]

[[halls]]
name = "b"
rows = [{name = "r1", racks = [
  {node_type = "h100", count = 3, nodes = 4, power_limit = "38 kW"}, {node_type = "a100", name = "old", nodes = 4}]}]
cooling = [{kind = "fixed", capacity = "130 kW", cop = 5.0}]

[[feeds]]
name = "A"
power_limit = "300 kW"
members = ["a", "b"]

[[feeds]]
name = "A1"
power_limit = "95 kW"
members = ["a/r2"]
parent = "A"

[[events]]
zone = "phx"
start = 1700020000
end = 1700030000
reduce_percent = 25
"""


def some_jobs(count: int, seed: int) -> tuple[Job, ...]:
    """Waiting jobs of all sizes, some pinned, some submitted later."""
    draw = random.Random(seed)
    return tuple(
        Job(
            f"j{i}",
            draw.choice([1, 2, 4, 8, 12, 16, 32]),
            draw.randint(10, 600) * 60.0,
            START_S + draw.randint(-5000, 50_000),
            weight=draw.choice([1.0, 1.0, 2.0, 4.0]),
            halls=draw.choice([(), (), ("a",), ("b",)]),
            node_types=draw.choice([(), (), ("h100",)]),
        )
        for i in range(count)
    )


@pytest.fixture(scope="session")
def site_text() -> str:
    """The site file's text."""
    return SITE


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    """The site, read from its file."""
    path = tmp_path_factory.mktemp("site") / "site.toml"
    path.write_text(SITE)
    return read_site(path)[0]


@pytest.fixture(scope="session")
def snapshot(site) -> Snapshot:
    """The site with 80 waiting jobs over twelve hours."""
    return Snapshot(START_S, START_S, 300, 144, site, some_jobs(80, 3))


@pytest.fixture(scope="session")
def plan(snapshot) -> Plan:
    """A verified plan."""
    return make_plan(snapshot, RoundSettings(), 3.0, created_s=START_S, log=Log(quiet=True))


def changed(plan: Plan, **snapshot_fields: object) -> Plan:
    """The plan with a changed snapshot, its id made to fit."""
    snapshot = msgspec.structs.replace(plan.snapshot, **snapshot_fields)
    return msgspec.structs.replace(plan, snapshot=snapshot, plan_id=snapshot_hash(snapshot))


@pytest.fixture
def change() -> Callable[..., Plan]:
    """Change the snapshot of a plan by hand."""
    return changed


@pytest.fixture(scope="session", autouse=True)
def warm_solver() -> None:
    """Compile the solver before the first test: a round with a cold cache says so, and takes a minute more."""
    compile_all()
