"""A site with two kinds of cooling and losses, and a verified plan that covers the present."""

import random
import time

import pytest

from powerhall.jobs import Job
from powerhall.plan.plan import Snapshot
from powerhall.runtime.log import Log
from powerhall.site.site_file import read_site
from powerhall_optimizer.inputs.round_settings import RoundSettings
from powerhall_optimizer.planning.planner import make_plan

SITE = """
[site]
name = "phx"
power_limit = "300 kW"

[node_types.h100]
gpu = "H100"
gpus = 8
idle_power = "2 kW"
max_power = "10.2 kW"
safe_cap = "3 kW"
liquid_fraction = 0.7
modes = [
  {name = "full", gpu_power = "1.2 kW", speed = 1.0, gpu_power_limit = "700 W"},
  {name = "eco", gpu_power = "0.9 kW", speed = 0.9, gpu_power_limit = "500 W"},
  {name = "low", gpu_power = "0.7 kW", speed = 0.75, gpu_power_limit = "350 W"},
]

[[halls]]
name = "a"
power_limit = "160 kW"
losses = {fixed = "1 kW", linear = 0.02, quadratic_per_w = 2e-8}
cooling = [
  {kind = "fixed", capacity = "200 kW", serves = "liquid", cop = 30.0, fan_power = "3 kW"},
  {kind = "fixed", capacity = "60 kW", serves = "air", fan_power = "2 kW", pump_power = "1 kW"},
]
rows = [
  {name = "r1", power_limit = "90 kW", racks = [{node_type = "h100", count = 3, nodes = 4, power_limit = "41 kW"}]},
  {name = "r2", racks = [{node_type = "h100", count = 2, nodes = 4}]},
]

[[halls]]
name = "b"
rows = [{name = "r1", racks = [{node_type = "h100", count = 3, nodes = 4}]}]
cooling = [{kind = "fixed", capacity = "110 kW", cop = 5.0}]
losses = {linear = 0.03}
"""


@pytest.fixture(scope="session")
def plan(tmp_path_factory):
    path = tmp_path_factory.mktemp("site") / "site.toml"
    path.write_text(SITE)
    now_s = int(time.time()) // 300 * 300
    rng = random.Random(3)
    jobs = tuple(
        Job(
            f"j{i}",
            rng.choice((4, 8, 16, 32)),
            6 * 3600.0,
            weight=rng.uniform(1.0, 9.0),
            preemptible=i % 3 > 0,
            checkpoint_cost_s=60.0 * (i % 2),
        )
        for i in range(24)
    )
    snapshot = Snapshot(now_s, now_s, 300, 24, read_site(path)[0], jobs)
    return make_plan(snapshot, RoundSettings(), 3.0, created_s=now_s, log=Log(quiet=True))
