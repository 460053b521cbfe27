"""The sampler in a process of its own, on the C library and on NVIDIA's genuine one."""

import itertools
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from powerhall.store.line_protocol import parse_lines
from powerhall_agent.simulate import layout as at
from powerhall_agent.simulate.faults import apply, parse_script
from powerhall_agent.simulate.state import StateFile
from powerhall_agent.simulate.world import run_world

pytestmark = pytest.mark.rig
PROGRAM = """
import sys, threading
from powerhall_agent.sampling.sampler import run_sampler
from powerhall_agent.settings.sampler_settings import SamplerSettings

class Out:
    def write(self, lines):
        sys.stdout.buffer.write(lines)
        sys.stdout.buffer.flush()

stop = threading.Event()
timer = threading.Timer(float(sys.argv[1]), stop.set)
timer.daemon = True
timer.start()
settings = SamplerSettings(node="gn01", rapl=False, attribution=False)
sys.exit(run_sampler(settings, Out(), stop).value)
"""


def sampler(environment, seconds):
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(seconds)], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


@pytest.fixture
def world(tmp_path):
    """A node of eight loaded GPUs whose physics this process moves."""
    state = StateFile.create(tmp_path / "node.gpus", gpus=8, node="gn01")
    for gpu in range(8):
        state.set_load(gpu, 0.9)
    stop = threading.Event()
    thread = threading.Thread(target=run_world, args=([state], stop))
    thread.start()
    yield state
    stop.set()
    thread.join()


def test_faults_through_the_c_library_show_as_the_right_states(world, c_environment):
    process = sampler(c_environment(world.path), 6)
    time.sleep(2)
    for step in parse_script("at 0 gpu 2 lost\nat 0 gpu 4 hung 3\nat 0 gpu 6 xid 79\nat 0 gpu 7 unsupported 82"):
        apply(world, step)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 0, err.decode()
    points = list(parse_lines(out))
    events = {(point.tags.get("gpu"), point.tags["kind"]) for point in points if point.measurement == "event"}
    assert {("2", "gpu_quarantined"), ("4", "gpu_quarantined"), ("4", "gpu_recovered"), ("6", "xid")} <= events
    reasons = {(point.tags["gpu"], point.fields["reason"]) for point in points if point.measurement == "gpu_state"}
    assert {("2", "lost"), ("4", "hung")} <= reasons
    healthy = [point for point in points if point.measurement == "gpu" and point.tags["gpu"] == "5"]
    assert len(healthy) >= 4
    steps = [after.time_ms - before.time_ms for before, after in itertools.pairwise(healthy)]
    assert max(steps) < 1400
    assert healthy[-1].fields["power_w"] == pytest.approx(650, rel=0.03)


@pytest.mark.parametrize(
    "place", [at.T_NAME, at.T_SERIAL, at.T_UUID, at.T_VBIOS], ids=["name", "serial", "uuid", "vbios"]
)
def test_a_text_that_is_not_utf_8_costs_nothing(world, c_environment, place):
    start = 8 * (world.base(1) + place[0])
    world._memory[start : start + 12] = b"\xf8\x91\x82\x8aNVIDIA\x00\x00"
    process = sampler(c_environment(world.path), 3)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 0, err.decode()
    points = list(parse_lines(out))
    assert {point.tags["gpu"] for point in points if point.measurement == "gpu"} == {str(gpu) for gpu in range(8)}
    (identity,) = [p.fields for p in points if p.measurement == "gpu_identity" and p.tags["gpu"] == "1"][:1]
    assert any(str(text).startswith("\\xf8\\x91\\x82\\x8aNVIDIA") for text in identity.values())


def test_unbind_through_the_c_library_ends_the_process_with_its_code(world, c_environment):
    process = sampler(c_environment(world.path), 20)
    time.sleep(2)
    apply(world, parse_script("at 0 unbind")[0])
    out, err = process.communicate(timeout=5)
    assert process.returncode == 10, err.decode()
    assert b"kind=driver_unbind" in out


def debian_mirror():
    """The mirror that this machine's own apt is set up with; the genuine library is in its non-free part."""
    listed = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI)"], capture_output=True, text=True, check=False
    )
    for uri in listed.stdout.split():
        if uri.rstrip("/").endswith("/debian"):
            return uri
    pytest.skip("apt is set up with no Debian mirror")


@pytest.fixture(scope="session")
def genuine_library(tmp_path_factory):
    """The folder of Debian's own libnvidia-ml.so.1 (non-free), named by POWERHALL_LIBNVIDIA_ML or fetched by apt."""
    given = os.environ.get("POWERHALL_LIBNVIDIA_ML")
    if given:
        return Path(given)
    keyring = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
    if shutil.which("apt-get") is None or shutil.which("dpkg") is None or not keyring.exists():
        pytest.skip("no Debian: the genuine libnvidia-ml cannot be fetched")
    folder = tmp_path_factory.mktemp("genuine")
    (folder / "lists" / "partial").mkdir(parents=True)
    (folder / "cache").mkdir()
    (folder / "sources.list").write_text(f"deb [signed-by={keyring}] {debian_mirror()} bookworm non-free\n")
    options = [
        f"-oDir::Etc::sourcelist={folder / 'sources.list'}", "-oDir::Etc::sourceparts=/dev/null",
        f"-oDir::State::lists={folder / 'lists'}", f"-oDir::Cache={folder / 'cache'}", "-oAcquire::Retries=0",
        "-oAcquire::http::Timeout=10",
    ]  # fmt: skip
    try:
        for command in (["update", "-q"], ["download", "-q", "libnvidia-ml1"]):
            subprocess.run(["apt-get", *options, *command], cwd=folder, check=True, capture_output=True, timeout=40)
        package = next(folder.glob("*.deb"))
        subprocess.run(["dpkg", "-x", str(package), str(folder / "root")], check=True, timeout=30)
        return next((folder / "root").rglob("libnvidia-ml.so.1")).parent
    except (subprocess.SubprocessError, StopIteration) as error:
        pytest.skip(f"Debian's non-free libnvidia-ml1 cannot be fetched here: {type(error).__name__}")


def test_genuine_library_without_a_driver_is_reported_and_tried_again(genuine_library):
    process = sampler({**os.environ, "LD_LIBRARY_PATH": str(genuine_library)}, 2.5)
    out, err = process.communicate(timeout=20)
    if Path("/proc/driver/nvidia/version").exists():
        pytest.skip("this machine has an NVIDIA driver")
    assert process.returncode == 0, err.decode()
    points = list(parse_lines(out))
    (event,) = [point for point in points if point.measurement == "event"]
    assert event.tags["kind"] == "driver_missing"
    assert event.fields["code"] == 9.0
    assert "Driver Not Loaded" in event.fields["detail"]
    assert {point.fields["gpus"] for point in points if point.measurement == "node"} == {0.0}


def kill_after(process, records):
    """Kill a sampler between two records, once it has written so many of GPU 0; return its whole lines."""
    lines = []
    while sum(line.startswith(b"gpu,") and b",gpu=0 " in line for line in lines) < records:
        lines.append(process.stdout.readline())
        assert lines[-1], "the sampler has ended"
    time.sleep(0.6)
    process.kill()
    with process:
        lines = b"".join(lines) + process.stdout.read()
    return lines[: lines.rindex(b"\n") + 1]


def test_energy_and_timestamps_rise_over_a_killed_sampler(world, c_environment, tmp_path):
    program = PROGRAM.replace("rapl=False", f"state_dir={str(tmp_path / 'state')!r}, rapl=False")
    records, times = [], []
    for _ in range(3):
        process = subprocess.Popen(
            [sys.executable, "-c", program, "60"], env=c_environment(world.path), stdout=subprocess.PIPE
        )
        points = list(parse_lines(kill_after(process, 2)))
        times += sorted({point.time_ms for point in points})
        records += [point for point in points if point.measurement == "gpu" and point.tags["gpu"] == "0"]
        time.sleep(0.5)
    assert times == sorted(times)
    for total in ("energy_j", "energy_integral_j"):
        energies = [point.fields[total] for point in records]
        assert energies == sorted(energies)
        watts = (energies[-1] - energies[0]) / ((records[-1].time_ms - records[0].time_ms) / 1000)
        assert watts == pytest.approx(650, rel=0.1), "what was used while no sampler ran is not lost"


def test_timestamps_follow_a_clock_that_is_set_back_and_forth_by_an_hour(world, c_environment, tmp_path):
    libraries = sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
    if not libraries:
        pytest.skip("faketime is not installed (apt-get install faketime)")
    offset = tmp_path / "offset"
    offset.write_text("+0\n", encoding="ascii")
    environment = {
        **c_environment(world.path), "LD_PRELOAD": str(libraries[0]), "FAKETIME_TIMESTAMP_FILE": str(offset),
        "FAKETIME_NO_CACHE": "1", "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }  # fmt: skip
    process = sampler(environment, 10)
    for step in ("-1h", "+1h"):
        time.sleep(4.0)
        offset.write_text(step + "\n", encoding="ascii")
    out, err = process.communicate(timeout=20)
    assert process.returncode == 0, err.decode()
    records = [point for point in parse_lines(out) if point.measurement == "gpu" and point.tags["gpu"] == "3"]
    times = [point.time_ms for point in records]
    assert len(times) >= 5
    steps = [after - before for before, after in itertools.pairwise(times)]
    assert sum(step < 0 for step in steps) == 1, "back once, at once"
    assert max(steps) > 7_000_000, "the step forward is followed"
    assert b"kind=clock_stepped" in out
    powers = {round(point.fields["power_w"]) for point in records[1:]}
    assert max(powers) < 700, "energy and power do not notice the steps"
    energies = [point.fields["energy_j"] for point in records]
    assert energies[-1] - energies[0] == pytest.approx(650 * (len(energies) - 1), rel=0.1)
