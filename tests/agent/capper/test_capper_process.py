"""The capper as a process: the real command on simulated GPUs, with deadlines."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

from powerhall.lease import GpuCap, Lease, node_key, sign_lease
from powerhall.runtime.errors import Retryable
from powerhall_agent.capper.client import CapperClient
from powerhall_agent.simulate import layout
from powerhall_agent.simulate.state import StateFile

KEY = node_key(bytes(range(32)), "n1")


class Process:
    """The real command on simulated GPUs whose state file the test reads."""

    def __init__(self, folder):
        self.state = StateFile.create(folder / "gpus", gpus=2, node="n1")
        (folder / "key").write_text(KEY.hex())
        config = {"node": "n1", "key_file": folder / "key", "safe_gpu_power_limit": "300 W"}
        config |= {"socket": folder / "sock", "memory": folder / "found.json"}
        (folder / "capper.toml").write_text("".join(f'{k} = "{v}"\n' for k, v in config.items()))
        self.command = [
            Path(sys.executable).with_name("powerhall-agent"),
            "cap", "--config", folder / "capper.toml", "--simulate-state", folder / "gpus",
        ]  # fmt: skip
        self.folder = folder
        self.start()

    def start(self):
        self.process = subprocess.Popen(self.command, stderr=subprocess.PIPE)
        self.client = CapperClient(self.folder / "sock")
        self.until(lambda: self.limits()[0], 300.0, 10.0)

    def limits(self):
        try:
            return {cap.gpu: cap.power_limit_w for cap in self.client.alive().status.caps}
        except Retryable:
            return {0: None}

    def until(self, read, wanted, within_s):
        begin = time.monotonic()
        while read() != wanted:
            assert time.monotonic() - begin < within_s, f"still {read()} after {within_s} s"
            time.sleep(0.02)

    def limit_in_state_w(self):
        return self.state.doubles[self.state.base(0) + layout.C_LIMIT_W]

    def stop(self, number=signal.SIGTERM):
        self.process.send_signal(number)
        self.process.wait(10)
        self.process.stderr.close()
        self.client.close()


@pytest.fixture
def process(tmp_path):
    running = Process(tmp_path)
    yield running
    if running.process.poll() is None:
        running.stop(signal.SIGKILL)


def fresh(sequence, seconds):
    now_s = time.time()
    body = Lease("n1", "plan", sequence, now_s, now_s + seconds, 1000.0, (GpuCap(0, 500.0), GpuCap(1, 500.0)))
    return sign_lease(body, KEY)


def test_the_command_applies_a_lease_and_restores_on_stop(process):
    before_w = 700.0
    process.client.offer(fresh(1, 60))
    assert process.limit_in_state_w() == 500.0
    process.stop()
    assert process.process.returncode == 0
    assert process.limit_in_state_w() == before_w


def test_safe_caps_hold_two_seconds_after_the_agent_dies(process):
    process.client.offer(fresh(1, 60))
    process.client.close()
    process.until(process.limit_in_state_w, 300.0, 2.0)


def test_safe_caps_hold_two_seconds_after_the_lease_ends_while_the_agent_lives(process):
    process.client.offer(fresh(1, 1.0))
    begin = time.monotonic()
    while process.limits()[0] != 300.0:
        assert time.monotonic() - begin < 1.0 + 2.0
        time.sleep(0.1)


def test_a_killed_capper_starts_at_safe_caps_and_still_restores_the_found_limits(process):
    process.client.offer(fresh(1, 60))
    process.stop(signal.SIGKILL)
    assert process.limit_in_state_w() == 500.0
    process.start()
    assert process.limit_in_state_w() == 300.0
    process.stop()
    assert process.limit_in_state_w() == 700.0


def test_a_user_that_is_not_named_may_not_connect(process, tmp_path):
    if os.geteuid() != 0:
        pytest.skip("needs root to become another user")
    tmp_path.chmod(0o755)
    (tmp_path / "sock").chmod(0o666)
    for parent in tmp_path.parents[:3]:
        parent.chmod(parent.stat().st_mode | 0o055)
    script = "import os, socket, sys; os.setuid(65534); s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); "
    script += "s.sendall(b'{\"status\": true}\\n'); sys.exit(0 if s.recv(10) == b'' else 1)"
    done = subprocess.run([sys.executable, "-c", script, tmp_path / "sock"], check=False, capture_output=True)
    assert done.returncode == 0 or b"ConnectionResetError" in done.stderr or b"BrokenPipe" in done.stderr, done.stderr


def test_garbage_on_the_socket_is_refused_and_changes_nothing(process):
    connection = process.client._connect()
    connection.sendall(b"not json\n")
    answer = msgspec.json.decode(connection.recv(65536))
    assert "refused" in answer
    assert process.limits()[0] == 300.0


def test_the_check_on_gpus_sets_reads_back_and_restores():
    command = [sys.executable, "-m", "powerhall_agent.capper.check", "--simulate", "2"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "GPU 0: limit 700 W -> 630 W -> 700 W\nGPU 1: limit 700 W -> 630 W -> 700 W\n"
