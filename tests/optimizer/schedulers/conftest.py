"""A real Slurm cluster of twelve nodes with 60 kW of power licences, started once per run."""

from collections.abc import Iterator

import pytest

from rigs import slurm as rig

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
