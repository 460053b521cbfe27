"""The compose project: pinned versions, secrets by file, and docker's own reading of it where its client can."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from powerhall.jobs.readers.formats import read_job_file
from powerhall.site.site_file import read_site
from powerhall_agent.cli import parser as agent_parser
from powerhall_agent.commands.options import agent_settings


@pytest.fixture
def folder(root):
    return root / "deploy" / "compose"


def test_images_are_pinned_and_secrets_are_files(folder):
    project = yaml.safe_load((folder / "compose.yaml").read_text())
    for name, service in project["services"].items():
        tag = service["image"].rpartition(":")[2]
        assert any(c.isdigit() for c in tag), f"{name}: {service['image']}"
    for secret in project["secrets"].values():
        assert set(secret) == {"file"}


def test_secrets_are_made_once_and_kept(folder, tmp_path):
    shutil.copy(folder / "init-secrets", tmp_path)
    for _ in range(2):
        subprocess.run([tmp_path / "init-secrets"], check=True)
        first = {p.name: p.read_text() for p in (tmp_path / "secrets").iterdir()}
    assert set(first) == {"influxdb-user", "influxdb-password", "store-token", "grafana-password"}
    assert len(first["store-token"]) == 64
    subprocess.run([tmp_path / "init-secrets"], check=True)
    assert first == {p.name: p.read_text() for p in (tmp_path / "secrets").iterdir()}
    assert (tmp_path / "secrets").stat().st_mode & 0o077 == 0


@pytest.fixture(scope="module")
def compose():
    """Docker's own compose: its plugin where docker has one, or the plugin alone, as Debian packages it."""
    for command in (["docker", "compose"], ["/usr/libexec/docker/cli-plugins/docker-compose"]):
        if shutil.which(command[0]):
            done = subprocess.run([*command, "version"], capture_output=True, check=False)
            if done.returncode == 0:
                return command
    pytest.skip("needs docker's compose plugin (.ci/docker-compose)")


def test_docker_accepts_the_project(compose, folder):
    command = [*compose, "-f", folder / "compose.yaml", "config", "--format", "json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    services = json.loads(done.stdout)["services"]
    assert set(services) == {"influxdb", "grafana", "agent", "optimizer", "rollup"}
    for name, service in services.items():
        for entry in service.get("volumes", []):
            if entry["type"] == "bind":
                assert Path(entry["source"]).exists(), f"{name}: {entry['source']}"
    assert "$" not in services["rollup"]["command"][-1]


def test_docker_refuses_a_misspelt_project(compose, folder, tmp_path):
    text = (folder / "compose.yaml").read_text().replace("depends_on:", "depends_upon:", 1)
    (tmp_path / "compose.yaml").write_text(text)
    command = [*compose, "-f", tmp_path / "compose.yaml", "config", "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "depends_upon" in done.stderr


def test_the_simulated_agent_is_a_node_of_the_shipped_site(folder):
    """Its points carry the names by which the roll-up finds them; without a site no dashboard shows it."""
    command = yaml.safe_load((folder / "compose.yaml").read_text())["services"]["agent"]["command"]
    options = agent_parser().parse_args(command)
    tags = agent_settings(options).sampler
    site, _ = read_site(folder / "site" / "site.toml")
    (rack,) = site.racks()
    assert (tags.site, tags.hall, tags.rack, tags.node) == (site.name, site.halls[0].zone, rack.zone, rack.nodes[0])
    assert [job.job_id for job in read_job_file(folder / "site" / "jobs.csv")] == ["train-a", "tune-1", "tune-2"]
