"""The compose project: pinned versions, secrets by file, and docker's own reading of it where its client can."""

import shutil
import subprocess

import pytest
import yaml


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


def test_docker_accepts_the_project(folder):
    if (
        shutil.which("docker") is None
        or subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode
    ):
        pytest.skip("needs docker's compose plugin")
    subprocess.run(["docker", "compose", "-f", folder / "compose.yaml", "config", "--quiet"], check=True)
