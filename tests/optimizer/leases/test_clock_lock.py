"""A lock of the clock from the plan to the GPU: the real planner, lease command, carrier and capper, simulated GPUs."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from powerhall.jobs import Job
from powerhall.plan.plan import Snapshot, write_plan
from powerhall.runtime.log import Log
from powerhall.site.site_file import read_site
from powerhall.store import open_store
from powerhall_agent.simulate import layout as at
from powerhall_agent.simulate.state import StateFile
from powerhall_optimizer.inputs.round_settings import RoundSettings
from powerhall_optimizer.leases.acks import read_acks
from powerhall_optimizer.leases.caps import safe_caps_w
from powerhall_optimizer.planning.planner import make_plan
from rigs.confirmed import confirmed_ledger

KEY = bytes(range(32))
BIN = Path(sys.executable).parent
SITE = """
[site]
name = "phx"
power_limit = "12.5 kW"

[node_types.h100]
gpu = "H100"
gpus = 8
idle_power = "2 kW"
max_power = "10.2 kW"
safe_cap = "3 kW"
modes = [
  {name = "full", gpu_power = "1.2 kW", speed = 1.0, gpu_power_limit = "700 W"},
  {name = "f1200", kind = "clock_lock", gpu_power = "0.6 kW", speed = 0.9, sm_clock_mhz = 1200},
]

[[halls]]
name = "a"
rows = [{name = "r1", racks = [{node_type = "h100", count = 1, nodes = 2}]}]
cooling = [{kind = "fixed", capacity = "60 kW"}]

[job_classes.decode]  # waits for memory: hardly slower at a lower clock
speed = {f1200 = 0.97}
"""


def wait(is_so, seconds):
    deadline_s = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline_s
        time.sleep(0.1)


@pytest.fixture
def plan(tmp_path):
    (tmp_path / "site.toml").write_text(SITE)
    now_s = int(time.time()) // 300 * 300
    jobs = tuple(Job(f"decode{i}", 8, 7200.0, job_class="decode") for i in range(2))
    snapshot = Snapshot(now_s, now_s, 300, 24, read_site(tmp_path / "site.toml")[0], jobs)
    return make_plan(snapshot, RoundSettings(), 3.0, created_s=now_s, log=Log(quiet=True))


@pytest.mark.slow
def test_a_planned_lock_reaches_the_gpus_is_confirmed_and_ends_with_the_agent(plan, tmp_path):
    assert {entry.mode for entry in plan.assignments} == {"f1200"}, "two at full power do not fit"
    node = next(iter(safe_caps_w(plan.snapshot.site)))
    write_plan(plan, tmp_path / "plan.json")
    (tmp_path / "site.key").write_text(KEY.hex())
    url = f"sqlite:///{tmp_path}/s.db"
    keys = ["--site-key", tmp_path / "site.key"]
    run = subprocess.run
    ledger = ["--ledger", confirmed_ledger(tmp_path / "ledger.json", safe_caps_w(plan.snapshot.site))]
    run([BIN / "powerhall-optimizer", "node-key", *keys, "--node", node, "--out", tmp_path / "node.key"], check=True)
    state = StateFile.create(tmp_path / "gpus", gpus=8, node=node)
    (tmp_path / "capper.toml").write_text(
        f'node = "{node}"\nkey_file = "{tmp_path}/node.key"\nsafe_gpu_power_limit = "200 W"\n'
        f'socket = "{tmp_path}/sock"\nmemory = "{tmp_path}/memory.json"\n'
    )
    cap = [BIN / "powerhall-agent", "cap", "--config", tmp_path / "capper.toml", "--simulate-state", tmp_path / "gpus"]
    carry = [BIN / "powerhall-agent", "lease", "--store", url, "--node", node, "--socket", tmp_path / "sock"]

    def gpus(word):
        return {state.doubles[state.base(gpu) + word] for gpu in range(8)}

    processes = []
    try:
        processes.append(subprocess.Popen(cap, stderr=subprocess.DEVNULL))
        wait(lambda: gpus(at.C_LIMIT_W) == {200.0}, 10)
        granted = ["lease", "--plan", tmp_path / "plan.json", "--store", url, *keys, *ledger]
        run([BIN / "powerhall-optimizer", *granted], check=True, capture_output=True)
        processes.append(subprocess.Popen([*carry, "--poll-s", "0.5"], stderr=subprocess.DEVNULL))
        wait(lambda: gpus(at.C_LOCK_MHZ) == {1200.0}, 10)
        assert gpus(at.C_LIMIT_W) == {700.0}, "beside a lock the GPU's own limit holds, not the safe one"
        store = open_store(url)
        wait(lambda: node in read_acks(store, KEY, {node}, time.time()).sequences, 10)
        store.close()
        processes[1].kill()
        wait(lambda: gpus(at.C_LOCK_MHZ) == {0.0} and gpus(at.C_LIMIT_W) == {200.0}, 2.0)
        processes[0].terminate()
        assert processes[0].wait(10) == 0
        assert gpus(at.C_LIMIT_W) == {700.0}
    finally:
        for process in processes:
            process.kill()
            process.wait(10)
