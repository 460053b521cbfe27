"""The cron line, run by a real cron in a mount namespace of its own, reads the queue and publishes a verified plan."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

from powerhall.jobs import Job
from powerhall.store import open_store

pytestmark = [pytest.mark.rig, pytest.mark.slow]

SITE = """
[site]
name = "cron1"
power_limit = "200 kW"

[node_types.h100]
gpu = "H100"
gpus = 8
idle_power = "2 kW"
max_power = "10.2 kW"
modes = [{ name = "full", gpu_power = "1200 W", speed = 1.0 }]

[[halls]]
name = "h1"
rows = [{ name = "r1", racks = [{ node_type = "h100", count = 2, nodes = 4 }] }]
"""


@pytest.fixture
def folder(tmp_path):
    if shutil.which("cron") is None:
        pytest.skip("needs cron")
    if subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode:
        pytest.skip("needs the right to make a mount namespace")
    (tmp_path / "site.toml").write_text(SITE)
    rows = "".join(f"j{i},8,3600,{1.0 + i}\n" for i in range(4))
    (tmp_path / "jobs.csv").write_text(f"job_id,gpus,duration_s,weight\n{rows}")
    (tmp_path / "scheduler.toml").write_text(
        f'[file]\njobs = "{tmp_path}/jobs.csv"\norders = "{tmp_path}/orders.csv"\n'
    )
    (tmp_path / "optimizer.env").write_text(
        f"POWERHALL_STORE=sqlite:///{tmp_path}/power.db\nPOWERHALL_SCHEDULER=file\n"
    )
    return tmp_path


def adapted(root, folder):
    """The shipped line for this machine: our interpreter, our folders, root for the user, every minute."""
    text = (root / "deploy/systemd/powerhall.cron").read_text()
    return (
        text.replace("*/5 * * * * powerhall ", "* * * * * root ")
        .replace("/opt/powerhall/bin", str(Path(sys.executable).parent))
        .replace("/etc/powerhall", str(folder))
        .replace("/var/lib/powerhall-optimizer", str(folder))
        .replace("/var/log/powerhall", str(folder))
    )


def test_the_line_alone_plans_the_queue_of_the_store_and_says_when_there_is_none(root, folder):
    (folder / "optimizer.env").write_text(f"POWERHALL_STORE=sqlite:///{folder}/power.db\n")
    line = adapted(root, folder).splitlines()[-1].removeprefix("* * * * * root ")
    subprocess.run(["sh", "-c", line], check=False)
    assert "run `powerhall-optimizer queue --store`" in (folder / "optimizer.log").read_text()
    store = open_store(f"sqlite:///{folder}/power.db")
    store.put_document("queue", "cron1", int(time.time()), msgspec.json.encode([Job("j1", 8, 3600.0)]))
    store.close()
    subprocess.run(["sh", "-c", line], check=True)
    assert (folder / "plan.json").exists()


def test_cron_runs_a_round_from_the_shipped_line(root, folder):
    entries = folder / "cron.d"
    entries.mkdir()
    entry = entries / "powerhall"
    entry.write_text(adapted(root, folder))
    entry.chmod(0o644)
    hide = " && ".join(f"mount -t tmpfs none {place}" for place in ("/var/spool/cron", "/run"))
    script = f"mount --bind {entries} /etc/cron.d && {hide} && exec cron -f"
    cron = subprocess.Popen(["unshare", "-m", "sh", "-c", script], stderr=subprocess.PIPE)
    try:
        deadline = time.monotonic() + 120
        while not (folder / "plan.json").exists():
            log = folder / "optimizer.log"
            assert time.monotonic() < deadline, log.read_text() if log.exists() else "cron ran nothing in 120 s"
            assert cron.poll() is None, cron.stderr.read()
            time.sleep(0.5)
    finally:
        cron.terminate()
        cron.wait(10)
        cron.stderr.close()
    optimizer = Path(sys.executable).with_name("powerhall-optimizer")
    done = subprocess.run(
        [optimizer, "verify", folder / "plan.json"], env=os.environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    store = open_store(f"sqlite:///{folder}/power.db")
    assert store.latest_document("plan", "cron1") is not None
    store.close()
