"""The container files, built by buildah on a base made from Debian's packages: small, non-root, the same every time.

No registry is asked: the base stands in for python:3.12-slim-bookworm, with Debian's own Python. Commands run in the
image's file system as its user (chroot isolation), not in a container engine.
"""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

BASE = "localhost/powerhall-test-base:bookworm"
CERTIFICATES = ("/etc/ssl/certs", "/etc/pip.conf")


@pytest.fixture(scope="module")
def buildah(tmp_path_factory):
    """The command with storage of its own, and a base image in it."""
    missing = [name for name in ("buildah", "debootstrap") if shutil.which(name, path="/usr/sbin:/usr/bin") is None]
    if missing or os.geteuid() != 0:
        pytest.skip(f"needs root and {', '.join(missing) or 'nothing more'} (apt install buildah debootstrap)")
    kept = os.environ.get("POWERHALL_IMAGES")  # a folder that keeps images between runs
    folder = Path(kept) if kept else tmp_path_factory.mktemp("images")
    command = ["buildah", "--root", str(folder / "store"), "--runroot", str(folder / "run")]
    os.environ |= {"BUILDAH_ISOLATION": "chroot", "STORAGE_DRIVER": "vfs"}
    if subprocess.run([*command, "images", "--quiet", BASE], capture_output=True, check=False).returncode:
        script = Path(__file__).parents[2] / "deploy/container/debian-base"
        env = os.environ | {"BUILDAH": " ".join(command)}
        subprocess.run([script, BASE], env=env, check=True, timeout=580)
    return command


@pytest.fixture(scope="module")
def context(root, tmp_path_factory):
    """The checkout as it is committed or staged."""
    folder = tmp_path_factory.mktemp("context")
    names = subprocess.run(["git", "ls-files", "-z"], cwd=root, capture_output=True, check=True).stdout
    subprocess.run(
        ["tar", "-c", "--null", "-T", "-", "-f", folder / "x.tar"], cwd=root, input=names, check=True
    )  # fmt: skip
    subprocess.run(["tar", "-x", "-f", folder / "x.tar", "-C", folder], check=True)
    (folder / "x.tar").unlink()
    return folder


def build(buildah, context, name, tag):
    mounts = [word for path in CERTIFICATES if Path(path).exists() for word in ("--volume", f"{path}:{path}:ro")]
    file = ["--file", context / f"deploy/container/{name}.Containerfile"]
    options = ["--pull-never", "--no-cache", "--timestamp", "0", "--build-arg", f"PYTHON_IMAGE={BASE}"]
    done = subprocess.run(
        [*buildah, "build", *options, *mounts, *file, "--tag", tag, context],
        capture_output=True, text=True, check=False, timeout=580,
    )  # fmt: skip
    if "No matching distribution" in done.stderr:
        pytest.skip("needs the package registry to build an image")
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.split()[-1]


def run(buildah, image, *words):
    container = subprocess.run(
        [*buildah, "from", "--pull-never", image], capture_output=True, text=True, check=True
    ).stdout.strip()
    try:
        return subprocess.run([*buildah, "run", container, "--", *words], capture_output=True, text=True, check=False)
    finally:
        subprocess.run([*buildah, "rm", container], capture_output=True, check=True)


@pytest.fixture(scope="module")
def agent(buildah, context):
    return build(buildah, context, "agent", "localhost/powerhall-agent:test")


@pytest.fixture(scope="module")
def optimizer(buildah, context):
    return build(buildah, context, "optimizer", "localhost/powerhall-optimizer:test")


def test_the_agent_runs_as_any_user_and_cannot_change_its_image(buildah, agent):
    script = "id -u; touch /opt/powerhall/x; touch /var/lib/powerhall-agent/x"
    done = run(buildah, agent, "sh", "-c", f"{script} && powerhall-agent once --simulate --format line")
    first, *lines = done.stdout.splitlines()
    assert first == "65532"
    assert "Permission denied" in done.stderr
    assert any(line.startswith("gpu,") for line in lines), done.stderr


def test_the_optimizer_plans_in_its_image_and_the_plan_verifies(buildah, optimizer):
    site = "/opt/powerhall/lib/python3*/site-packages/powerhall_twin/demo/demo_site/site.toml"
    jobs = r"job_id,gpus,duration_s\na,8,3600\nb,16,7200\n"
    script = f"id -u; cd /var/lib/powerhall-optimizer; printf '{jobs}' >jobs.csv; powerhall-optimizer round"
    script += f" --site {site} --jobs jobs.csv --out plan.json --seconds 2 && powerhall-optimizer verify plan.json"
    done = run(buildah, optimizer, "sh", "-c", script)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("65532\n")


def test_images_carry_no_installer_and_nothing_of_the_checkout(buildah, agent):
    done = run(buildah, agent, "sh", "-c", "ls /opt/powerhall/bin /src /build /wheel; du -sm /opt/powerhall")
    assert "pip" not in done.stdout.split()
    assert done.stderr.count("No such file") == 3
    assert int(done.stdout.split()[-2]) <= 60, "megabytes"


def test_the_same_checkout_gives_the_same_image(buildah, context, agent):
    assert build(buildah, context, "agent", "localhost/powerhall-agent:again") == agent
