"""The archive installs and runs in a network namespace that has no route anywhere."""

import json
import os
import shutil
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def archive(root, tmp_path_factory):
    out = tmp_path_factory.mktemp("airgap")
    env = os.environ | {"PARTS": "agent"}
    done = subprocess.run([root / "deploy/airgap/build", out], env=env, capture_output=True, text=True, check=False)
    if "No matching distribution" in done.stderr or "ConnectionError" in done.stderr:
        pytest.skip("needs the package registry to build the archive")
    assert done.returncode == 0, done.stderr
    return next(out.glob("*.tar.gz"))


@pytest.fixture
def unpacked(archive, tmp_path):
    subprocess.run(["tar", "-xzf", archive, "-C", tmp_path], check=True)
    return next(tmp_path.iterdir())


def without_network(command, **kwargs):
    probe = (
        subprocess.run(["unshare", "-n", "true"], capture_output=True, check=False) if shutil.which("unshare") else None
    )
    if probe is None or probe.returncode:
        pytest.skip("needs unshare and the right to make a network namespace")
    return subprocess.run(["unshare", "-n", *command], capture_output=True, text=True, check=False, **kwargs)


def test_it_installs_and_samples_without_a_network(unpacked, tmp_path):
    env = os.environ | {"PYTHON": sys.executable, "PIP_FIND_LINKS": ""}
    done = without_network([unpacked / "install", "agent", tmp_path / "opt"], env=env)
    assert done.returncode == 0, done.stderr
    done = without_network([tmp_path / "opt/bin/powerhall-agent", "once", "--simulate", "--format", "line"])
    assert done.returncode == 0, done.stderr
    assert any(line.startswith("gpu,") for line in done.stdout.splitlines())
    done = without_network([tmp_path / "opt/bin/powerhall-agent", "install", "--root", tmp_path / "host"])
    assert done.returncode == 0, done.stderr
    unit = (tmp_path / "host/etc/systemd/system/powerhall-agent.service").read_text()
    assert f"ExecStart={tmp_path}/opt/bin/powerhall-agent run" in unit


def test_the_archive_holds_every_part_for_an_operator(unpacked):
    for name in (
        "systemd/powerhall-agent.service",
        "sysusers.d/powerhall-agent.conf",
        "tmpfiles.d/powerhall-agent.conf",
        "config/agent.toml",
        "helm/powerhall/Chart.yaml",
        "kubernetes/powerhall.yaml",
        "README.md",
    ):
        assert (unpacked / name).is_file(), name
    assert list((unpacked / "dashboards").glob("*.json"))
    bill = json.loads((unpacked / "sbom.cdx.json").read_text())
    assert bill["bomFormat"] == "CycloneDX"
    assert {"msgspec", "nvidia-ml-py", "influxdb-client"} <= {part["name"] for part in bill["components"]}


def test_a_damaged_archive_installs_nothing(unpacked, tmp_path):
    with (unpacked / "locks" / "agent.lock").open("a") as file:
        file.write("# one bit\n")
    done = subprocess.run(
        [unpacked / "install", "agent", tmp_path / "opt"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "damaged" in done.stderr
    assert not (tmp_path / "opt").exists()
