"""Moves the physics of simulated nodes: by a given time step, or by the wall clock in a process of its own.

A twin drives many nodes from one process: it opens one `StateFile` per node, sets `set_load` and `set_limit` per GPU,
and calls `advance(state, dt_s)` with its own (fast) time. A file that no process has claimed is advanced by its reader.
"""

import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from powerhall_agent.simulate import layout as at
from powerhall_agent.simulate.physics import advance_gpu
from powerhall_agent.simulate.publish import publish
from powerhall_agent.simulate.state import StateFile

__all__ = ["advance", "advance_by_clock", "claim", "release_orphan", "run_world"]


def claim(state: StateFile) -> None:
    """Mark this process as the one that advances the physics of the node, so that readers do not."""
    state.ints[at.H_WORLD_PID] = os.getpid()


def release_orphan(state: StateFile) -> None:
    """Let readers advance the physics again when the process that claimed the node is gone."""
    owner = state.ints[at.H_WORLD_PID]
    if owner and not Path(f"/proc/{owner}").exists():
        state.ints[at.H_WORLD_PID] = state.ints[at.H_STEPPED_NS] = 0


def advance(state: StateFile, dt_s: float) -> None:
    """Move all GPUs of a node on by `dt_s` seconds and publish NVML's answers."""
    if dt_s <= 0:
        return
    ints, doubles = state.ints, state.doubles
    for gpu in range(state.gpus):
        base = at.HEADER_WORDS + at.GPU_WORDS * gpu
        if doubles[base + at.C_STATIC] == 0:
            publish(ints, doubles, base, advance_gpu(doubles, base, dt_s))
        for row in range(ints[base + at.M_COUNT]):
            word = base + at.M_BASE + at.M_WORDS * row
            doubles[word + 4] += doubles[word + 3] * dt_s * 1e9
    ints[at.H_SIM_TIME_NS] += int(dt_s * 1e9)
    ints[at.H_STEPS] += 1


def advance_by_clock(state: StateFile, now_ns: int) -> None:
    """Move the node on to `now_ns` of the monotonic clock; the first call only notes the time."""
    last_ns = state.ints[at.H_STEPPED_NS]
    state.ints[at.H_STEPPED_NS] = now_ns
    if last_ns:
        advance(state, min(3600.0, (now_ns - last_ns) / 1e9))


def run_world(states: Sequence[StateFile], stop: threading.Event, step_s: float = 0.05, speed: float = 1.0) -> None:
    """Move the nodes by the wall clock, `speed` times as fast, until `stop` is set."""
    for state in states:
        claim(state)
    last_ns = time.monotonic_ns()
    while not stop.wait(step_s):
        now_ns = time.monotonic_ns()
        for state in states:
            advance(state, (now_ns - last_ns) / 1e9 * speed)
        last_ns = now_ns
