"""Physics, state files, fault scripts and recordings of simulated GPUs."""

import os
import subprocess
import sys
import threading

import pynvml
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from powerhall.runtime.errors import Rejected
from powerhall_agent.nvml.driver import Driver
from powerhall_agent.simulate import layout as at
from powerhall_agent.simulate.faults import apply, parse_script, read_script
from powerhall_agent.simulate.install import install
from powerhall_agent.simulate.models import MODELS
from powerhall_agent.simulate.physics import clock_ratio, draw_w
from powerhall_agent.simulate.record import record
from powerhall_agent.simulate.recording import GpuHead, RecordingSample, play_recording, read_recording, write_recording
from powerhall_agent.simulate.state import StateFile
from powerhall_agent.simulate.world import advance, claim, release_orphan


def settled(util=0.95, model="H100", **limits):
    state = StateFile.create(gpus=1, model_name=model)
    claim(state)
    state.set_load(0, util)
    if "limit_w" in limits:
        state.set_limit(0, limits["limit_w"])
    for word, value in limits.get("words", {}).items():
        state.doubles[state.base(0) + word] = value
    advance(state, 100.0)
    return state


def read(state, word):
    return state.doubles[state.base(0) + word]


def do(state, text):
    for step in parse_script(text):
        apply(state, step)


@pytest.mark.parametrize("name", MODELS)
def test_idle_and_full_power_are_those_of_the_model(name):
    assert settled(0.0, name).power_w(0) == pytest.approx(MODELS[name].idle_w)
    assert settled(1.0, name).power_w(0) == pytest.approx(MODELS[name].limit_default_w, rel=0.001)


def test_power_follows_the_limit_and_the_clock_falls():
    state = settled(limit_w=400)
    assert state.power_w(0) == pytest.approx(400, abs=0.1)
    assert read(state, at.C_CLOCK_MHZ) < 1600
    assert read(state, at.C_SLOW_POWER_NS) == pytest.approx(100e9)
    assert settled(0.3, limit_w=400).power_w(0) < 300


def test_limit_of_the_bmc_holds_below_the_requested_one():
    state = settled(words={at.C_BMC_LIMIT_W: 350.0})
    assert state.power_w(0) == pytest.approx(350, abs=0.1)
    install([state])
    driver = Driver()
    assert pynvml.nvmlDeviceGetEnforcedPowerLimit(driver.gpus[0].handle) == 350_000
    assert pynvml.nvmlDeviceGetPowerManagementLimit(driver.gpus[0].handle) == 700_000


def test_locked_clock_lowers_power():
    assert settled(words={at.C_LOCK_MHZ: 1000.0}).power_w(0) < 350


def test_hot_inlet_throttles_and_holds_the_temperature():
    cool, hot = settled(), settled(words={at.C_INLET_C: 62.0})
    assert read(cool, at.C_SLOW_SW_THERMAL_NS) == 0
    assert read(hot, at.C_SLOW_SW_THERMAL_NS) > 10e9
    assert hot.power_w(0) < cool.power_w(0) - 50
    assert read(hot, at.C_TEMP_C) < 88


def test_temperature_has_inertia():
    state = settled(0.0)
    cold_c = read(state, at.C_TEMP_C)
    state.set_load(0, 1.0)
    advance(state, 1.0)
    after_c = read(state, at.C_TEMP_C)
    advance(state, 60.0)
    assert cold_c < after_c < cold_c + 4
    assert read(state, at.C_TEMP_C) > cold_c + 20


@settings(max_examples=100)
@given(st.lists(st.tuples(st.floats(0, 1), st.floats(200, 700), st.floats(0.001, 30)), min_size=1, max_size=20))
def test_energy_is_the_integral_of_power_and_power_stays_within_bounds(steps):
    state = StateFile.create(gpus=1)
    claim(state)
    total_s = 0.0
    for util, limit_w, dt_s in steps:
        state.set_load(0, util)
        state.set_limit(0, limit_w)
        before_j = state.energy_j(0)
        advance(state, dt_s)
        total_s += dt_s
        assert 69.0 * dt_s <= state.energy_j(0) - before_j <= 716.0 * dt_s
        assert 69.0 <= state.power_w(0) <= 716.0


@given(st.floats(0.05, 1), st.floats(200, 700))
def test_governor_picks_the_highest_clock_within_the_limit(util, limit_w):
    ratio = clock_ratio(util, limit_w, 70, 715, cap=1.0, floor=0.17)
    drawn_w = draw_w(util, ratio, 70, 715)
    assert drawn_w <= limit_w + 0.01
    assert ratio == 1.0 or drawn_w == pytest.approx(limit_w, abs=0.01)


def test_same_seed_gives_the_same_readings():
    def run(seed):
        state = StateFile.create(gpus=2, seed=seed)
        claim(state)
        advance(state, 1.0)
        return state.ints.tolist()[at.HEADER_WORDS :]

    assert run(3) == run(3)
    assert run(3) != run(4)


def test_two_processes_see_the_same_gpus(tmp_path):
    made = StateFile.create(tmp_path / "n.gpus", gpus=2)
    other = StateFile.open(tmp_path / "n.gpus")
    other.set_limit(1, 321.0)
    other.set_load(1, 1.0)
    advance(made, 5.0)
    assert other.power_w(1) == pytest.approx(321, abs=0.1)


def test_reader_advances_a_node_whose_world_process_died(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", CLAIM, str(tmp_path / "n.gpus")], check=True, capture_output=True, text=True
    )
    state = StateFile.open(tmp_path / "n.gpus")
    assert state.ints[at.H_WORLD_PID] == int(done.stdout)
    release_orphan(state)
    assert state.ints[at.H_WORLD_PID] == 0
    claim(state)
    release_orphan(state)
    assert state.ints[at.H_WORLD_PID] == os.getpid()


CLAIM = """
import os, sys
from pathlib import Path
from powerhall_agent.simulate.state import StateFile
from powerhall_agent.simulate.world import claim
claim(StateFile.create(Path(sys.argv[1]), gpus=1))
print(os.getpid())
"""


def test_many_nodes_in_one_process_are_numbered_one_after_the_other():
    states = [StateFile.create(gpus=2, node=f"n{k}") for k in range(3)]
    install(states)
    window = Driver(first=2, count=2)
    assert [gpu.index for gpu in window.gpus] == [0, 1]
    assert [gpu.uuid for gpu in window.gpus] == [states[1].text(gpu, at.T_UUID) for gpu in (0, 1)]
    assert len(Driver().gpus) == 6


@pytest.mark.parametrize("damage", [b"", b"x" * 10, b"x" * 5000])
def test_foreign_state_file_is_refused(tmp_path, damage):
    path = tmp_path / "n.gpus"
    path.write_bytes(damage)
    with pytest.raises(Rejected, match="must be a state file"):
        StateFile.open(path)


def test_unknown_model_and_gpu_are_refused():
    with pytest.raises(Rejected, match="model: 'H300': must be one of"):
        StateFile.create(model_name="H300")
    with pytest.raises(Rejected, match="gpu: 8: must be 0 to 7"):
        StateFile.create().set_load(8, 1.0)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("at x gpu 1 lost", "times and GPU numbers"),
        ("gpu 1 lost", "must be 'at SECONDS"),
        ("at 1 gpu 1 explode", "verb: 'explode': must be one of"),
        ("at 1 gpu 1 load much", "must be a number"),
        ("at 1 gpu 1 limit", "needs a number"),
        ("at 1 gpu 0 mig 3", "must be ID:SIZE"),
        ("at 1 gpu 0 unsupported WATTS", "must be a field number or one of"),
        ("at 1 gpu 0 unsupported 4000", "must be a field below"),
        ("at 1 gpu 9 lost", "must be 0 to"),
    ],
)
def test_bad_script_is_refused_by_line(text, says):
    with pytest.raises(Rejected) as caught:
        do(StateFile.create(gpus=2), f"# a comment\n{text}")
    assert says in str(caught.value)
    if "gpu 9" not in text:
        assert str(caught.value).startswith("script:2")


def test_script_is_read_from_a_file_in_order_of_time(tmp_path):
    path = tmp_path / "faults.txt"
    path.write_text("at 5 gpu 1 lost  # off the bus\n\nat 2.5 load 0.5 10GiB\n")
    assert [(step.time_s, step.verb, step.gpu) for step in read_script(path)] == [(2.5, "load", None), (5, "lost", 1)]
    with pytest.raises(Rejected, match="cannot read the fault script"):
        read_script(tmp_path / "none.txt")


def test_limit_outside_the_range_is_refused_by_the_driver():
    state = StateFile.create(gpus=1)
    install([state])
    handle = Driver().gpus[0].handle
    with pytest.raises(pynvml.NVMLError) as caught:
        pynvml.nvmlDeviceSetPowerManagementLimit(handle, 100_000)
    assert caught.value.value == 2
    state.ints[at.H_SET_RETURN] = 4
    with pytest.raises(pynvml.NVMLError) as caught:
        pynvml.nvmlDeviceSetPowerManagementLimit(handle, 500_000)
    assert caught.value.value == 4


HEAD = GpuHead(
    uuid="GPU-x", name="NVIDIA X", bus_id="00000000:01:00.0", fields={"186": 1, "185:2": 1, "191": 3},
    getters={"TEMPERATURE": 0},
)  # fmt: skip


@pytest.mark.parametrize("name", ["run.jsonl", "run.jsonl.gz"])
def test_recording_is_replayed_as_it_was_written(tmp_path, name):
    samples = [RecordingSample(t=0.0, gpu=0, f={"186": 1000, "191": 5}, g={"TEMPERATURE": [40, 0]}),
               RecordingSample(t=0.01, gpu=0, f={"186": 2000, "185:2": 77})]  # fmt: skip
    write_recording(tmp_path / name, "580.82.07", [HEAD], samples)
    recording = read_recording(tmp_path / name)
    assert recording.samples == samples
    state = StateFile.blank(None, 1, recording.driver)
    play_recording(state, recording, threading.Event())
    install([state])
    driver = Driver()
    values = pynvml.nvmlDeviceGetFieldValues(driver.gpus[0].handle, [186, (185, 2), 191, 190])
    assert [(v.nvmlReturn, v.value.ullVal) for v in values] == [(0, 2000), (0, 77), (0, 5), (3, 0)]
    assert pynvml.nvmlDeviceGetTemperatureV(driver.gpus[0].handle, 0) == 40
    assert driver.version == "580.82.07"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "must start with the recording's head"),
        ("{}", "missing required field"),
        ('{"powerhall_recording": 2, "driver": "1", "gpus": []}', "powerhall_recording: 2: must be 1"),
        ('{"powerhall_recording": 1, "driver": "1", "gpus": []}\n{"t": 0, "gpu": 0}', ":2: gpu: 0"),
        ('{"powerhall_recording": 1, "driver": "1", "gpus": [], "more": 1}', "unknown field"),
    ],
)
def test_bad_recording_is_refused(tmp_path, text, says):
    path = tmp_path / "r.jsonl"
    path.write_text(text)
    with pytest.raises(Rejected) as caught:
        read_recording(path)
    assert says in str(caught.value)
    assert str(path) in str(caught.value)


def test_live_gpus_are_recorded_and_replayed_alike(tmp_path):
    state = StateFile.create(gpus=2, driver="590.48.01")
    claim(state)
    state.set_load(1, 0.8, 1 << 30)
    advance(state, 20.0)
    install([state])
    assert record(tmp_path / "r.jsonl.gz", 0.25, 0.1) >= 4
    recording = read_recording(tmp_path / "r.jsonl.gz")
    assert recording.driver == "590.48.01"
    assert recording.gpus[1].uuid.endswith("000000000001"), "identifiers are masked"
    shown = StateFile.blank(None, 2, recording.driver)
    play_recording(shown, recording, threading.Event())
    for number in range(2):
        old, new = state.base(number), shown.base(number)
        for slot in range(1, at.FIELD_SLOTS):
            word = at.F_BASE + at.F_WORDS * slot
            assert list(state.ints[old + word : old + word + 2]) == list(shown.ints[new + word : new + word + 2]) or (
                state.ints[old + word] & 0xFFFFFFFF == shown.ints[new + word] & 0xFFFFFFFF == at.NOT_SUPPORTED
            )
        for name in ("POWER_USAGE", "TEMPERATURE", "UTILIZATION", "MEMORY", "LIMIT_RANGE"):
            word = at.getter_word(name)
            assert list(state.ints[old + word : old + word + 3]) == list(shown.ints[new + word : new + word + 3])
