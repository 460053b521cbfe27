"""The real capper as a process on simulated GPUs in a state file, which the test reads beside it."""

import socket
import subprocess
import sys
import time
from pathlib import Path

from powerhall.lease import GpuCap, Lease, node_key, sign_lease
from powerhall.runtime.errors import Retryable
from powerhall_agent.capper.client import CapperClient
from powerhall_agent.simulate import layout
from powerhall_agent.simulate.faults import apply, parse_script
from powerhall_agent.simulate.state import StateFile

HIDDEN = 'mount -t tmpfs none /run && mount -t tmpfs none /var/lib && exec "$@"'
ON_A_NEW_HOST = ["unshare", "--mount", "sh", "-c", HIDDEN, "--"]
"""Runs a command as on a host where no capper has run yet; needs root."""
KEY = node_key(bytes(range(32)), "n1")
SAFE_W, FOUND_W, MIN_W = 300.0, 700.0, 200.0


class CapperProcess:
    """A capper in a folder: its settings, key, memory and GPUs, and a client that speaks to it."""

    def __init__(self, folder, gpus=4, **settings):
        self.folder, self.gpus = folder, gpus
        self.state = StateFile.create(folder / "gpus", gpus=gpus, node="n1")
        self.key, self.memory, self.config = folder / "key", folder / "memory.json", folder / "capper.toml"
        self.key.write_text(KEY.hex())
        self.key.chmod(0o600)
        values = {"node": "n1", "key_file": self.key, "safe_gpu_power_limit": "300 W", "socket": folder / "sock"}
        self.settings = values | {"memory": self.memory} | settings
        self.write_config()
        self.process = None
        self.client = CapperClient(folder / "sock")

    def write_config(self, path=None, **changes):
        lines = [f'{name} = "{value}"\n' for name, value in (self.settings | changes).items()]
        (path or self.config).write_text("".join(lines))

    def command(self, config=None):
        tool = Path(sys.executable).with_name("powerhall-agent")
        return [tool, "cap", "--config", config or self.config, "--state-file", self.folder / "gpus"]

    def start(self, *, wait=True, before=()):
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen([*before, *self.command()], stdout=log, stderr=log)
        if wait:
            self.until(self.answers, True, 20.0)

    def answers(self):
        try:
            self.client.alive()
        except Retryable:
            assert self.process.poll() is None, self.log[-2000:]
            return False
        return True

    @property
    def log(self):
        return (self.folder / "log").read_text()

    def limits(self):
        """The limits that the GPUs hold, read from their state and not from the capper."""
        return [self.state.doubles[self.state.base(gpu) + layout.C_LIMIT_W] for gpu in range(self.gpus)]

    def fault(self, text):
        for step in parse_script(f"at 0 {text}"):
            apply(self.state, step)

    def until(self, read, wanted, within_s, *, beat=False):
        begin = time.monotonic()
        while read() != wanted:
            assert time.monotonic() - begin < within_s, f"{read()} after {within_s} s, not {wanted}\n{self.log[-2000:]}"
            if beat:
                self.answers()
            time.sleep(0.02)
        return time.monotonic() - begin

    def talk(self, data, *, wait_s=5.0):
        """Send bytes on a connection of its own; return what comes back until a line, the end or the time limit."""
        with socket.socket(socket.AF_UNIX) as peer:
            peer.settimeout(wait_s)
            peer.connect(str(self.folder / "sock"))
            try:
                peer.sendall(data)
                return peer.recv(65536)
            except (TimeoutError, ConnectionError):
                return b""

    def stop(self, number):
        """End the process with a signal and return its exit code."""
        self.client.close()
        self.process.send_signal(number)
        return self.process.wait(20)

    def close(self):
        self.client.close()
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait(10)


def lease(sequence, seconds=600.0, watts=500.0, *, gpus=4, issued_s=None, key=KEY, plan="plan", caps=None):
    """A signed lease of node n1; issued now, unless told otherwise."""
    issued_s = time.time() if issued_s is None else issued_s
    given = tuple(GpuCap(gpu, watts) for gpu in range(gpus)) if caps is None else caps
    return sign_lease(Lease("n1", plan, sequence, issued_s, issued_s + seconds, 8 * watts, given), key)
