"""Real Slurm clusters with 60 kW of power licences, each started once per run: one of twelve equal nodes, one mixed.

And a small fake API server of Kubernetes.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from powerhall_optimizer.schedulers.kubernetes.kubernetes_settings import KubernetesSettings
from rigs import kubernetes_api
from rigs import slurm as rig
from rigs.kubernetes_jobs import NODES
from rigs.slurm_mixed import GPU_W, PREPAID

LUA_CHANGES = {
    "h200 = 1275, default = 1275": "h200 = 1250, default = 1250",
    "local BUDGET = 0": "local BUDGET = 60",
}


@pytest.fixture(scope="session")
def cluster(root, tmp_path_factory) -> Iterator[rig.SlurmRig]:
    """The cluster, with the job_submit.lua that is shipped, set to 1250 W per GPU and 60 kW."""
    if reason := rig.missing():
        pytest.skip(reason)
    text = (root / "deploy/slurm/job_submit.lua").read_text()
    for old, new in LUA_CHANGES.items():
        assert old in text
        text = text.replace(old, new)
    lua = tmp_path_factory.mktemp("lua") / "job_submit.lua"
    lua.write_text(text)
    with rig.start(lua, nodes=12, licences="kw:60,cool_kw:200") as running:
        yield running


@pytest.fixture
def slurm(cluster, monkeypatch) -> Iterator[rig.SlurmRig]:
    """The cluster without jobs or reservations, and its commands on the PATH of this process."""
    monkeypatch.setenv("SLURM_CONF", cluster.env["SLURM_CONF"])
    monkeypatch.setenv("PATH", cluster.env["PATH"])
    cluster.clear()
    yield cluster
    cluster.clear()


@pytest.fixture(scope="session")
def mixed(root, tmp_path_factory):
    """A cluster of two kinds of nodes, with the job_submit.lua that is shipped, set to 1250 W per GPU."""
    if reason := rig.missing():
        pytest.skip(reason)
    text = (root / "deploy/slurm/job_submit.lua").read_text()
    lua = tmp_path_factory.mktemp("lua") / "job_submit.lua"
    (lua.parent / "scheduler.toml").write_text("[slurm]\nround_s = 2\n")
    optimizer = Path(sys.executable).with_name("powerhall-optimizer")
    withdraw = f"{optimizer} schedule --scheduler slurm --withdraw"
    old = 'local WITHDRAW = ""\nlocal WITHDRAW_S = 60'
    assert old in text
    flag = f"[ -e {lua.parent}/dead ] && {withdraw} --settings {lua.parent}/scheduler.toml"
    text = text.replace(old, f'local WITHDRAW = "{flag}"\nlocal WITHDRAW_S = 1')
    assert 'local PREPAID = ""' in text
    text = text.replace('local PREPAID = ""', f'local PREPAID = "{PREPAID}"')
    lua.write_text(text.replace("h200 = 1275, default = 1275", f"h200 = {GPU_W}, default = {GPU_W}"))
    with rig.start(lua, nodes=12, licences="kw:60", change=rig.mixed) as running:
        yield running, lua.parent / "dead"


@pytest.fixture
def mixed_slurm(mixed, monkeypatch) -> Iterator[rig.SlurmRig]:
    """The mixed cluster without jobs, and its commands on the PATH of this process."""
    cluster, dead = mixed
    monkeypatch.setenv("SLURM_CONF", cluster.env["SLURM_CONF"])
    monkeypatch.setenv("PATH", cluster.env["PATH"])
    cluster.clear()
    yield cluster
    dead.unlink(missing_ok=True)
    cluster.clear()


@pytest.fixture
def server():
    with kubernetes_api.start() as rig:
        for name in NODES:
            conditions = [{"type": "Ready", "status": "False" if name == "gn12" else "True"}]
            rig.put("nodes", {"metadata": {"name": name}, "status": {"conditions": conditions}})
        yield rig


@pytest.fixture
def settings(server):
    return KubernetesSettings(server=server.url, timeout_s=10.0)
