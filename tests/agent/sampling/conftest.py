"""Samplers that are stopped after the test."""

import pytest

from powerhall_agent.simulate import layout as at
from powerhall_agent.simulate.state import StateFile
from powerhall_agent.simulate.world import advance
from rigs.sampler_run import Run


@pytest.fixture
def start():
    runs = []

    def begin(gpus=8, **settings):
        state = StateFile.create(gpus=gpus, node="gn01")
        for gpu in range(gpus):
            state.set_load(gpu, 0.9)
        advance(state, 5.0)
        run = Run(state, **settings)
        runs.append(run)
        run.until(5, "gpu_state", gpu="0", up=1.0)
        return run

    yield begin
    for run in runs:
        run.state.ints[at.H_DRIVER_RETURN] = 0
        run.do("well")
        run.stop.set()
        run.thread.join(10)
        assert not run.thread.is_alive()
