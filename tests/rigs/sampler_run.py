"""A sampler in a thread on simulated GPUs that can be made to fail."""

import threading
import time

import pytest

from powerhall.store.line_protocol import parse_lines
from powerhall_agent.sampling.sampler import run_sampler
from powerhall_agent.settings.sampler_settings import SamplerSettings
from powerhall_agent.simulate.faults import apply, parse_script
from powerhall_agent.simulate.install import install


class Run:
    """A sampler in a thread, and the points that it has written with the wall time of their arrival."""

    def __init__(self, state, **settings):
        self.state = state
        self.arrived = []
        self.done_s = time.monotonic()
        self.outcome = None
        self.stop = threading.Event()
        self.settings = SamplerSettings(node="gn01", site="s", rapl=False, attribution=False, **settings)
        install([state])
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self):
        self.outcome = run_sampler(self.settings, self, self.stop)

    def write(self, lines):
        assert lines.endswith(b"\n")
        self.arrived.append((time.monotonic(), lines))

    @property
    def points(self):
        return [point for _, lines in list(self.arrived) for point in parse_lines(lines)]

    def find(self, measurement, **wanted):
        return [
            point
            for point in self.points
            if point.measurement == measurement
            and all(point.tags.get(key, point.fields.get(key)) == value for key, value in wanted.items())
        ]

    def until(self, seconds, measurement, **wanted):
        """Wait for a point that came in after the last `do`; returns how long after it."""
        end_s = time.monotonic() + seconds
        while time.monotonic() < end_s:
            for at_s, lines in list(self.arrived):
                if at_s >= self.done_s and any(
                    point.measurement == measurement
                    and all(point.tags.get(k, point.fields.get(k)) == v for k, v in wanted.items())
                    for point in parse_lines(lines)
                ):
                    return at_s - self.done_s
            time.sleep(0.02)
        pytest.fail(f"no {measurement} with {wanted} within {seconds} s")

    def do(self, script):
        self.done_s = time.monotonic()
        for step in parse_script("\n".join(f"at 0 {line}" for line in script.splitlines() if line.strip())):
            apply(self.state, step)
