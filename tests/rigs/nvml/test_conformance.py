"""The C library and the pure-Python object answer alike through unmodified pynvml, as NVIDIA's header says."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from powerhall_agent.simulate import layout as at
from powerhall_agent.simulate.state import StateFile
from powerhall_agent.simulate.world import advance

HERE = Path(__file__).parent
pytestmark = pytest.mark.rig


@pytest.fixture
def state(tmp_path):
    made = StateFile.create(tmp_path / "node.gpus", gpus=8, node="gn01")
    made.ints[at.H_WORLD_PID] = os.getpid()
    for gpu in range(8):
        made.set_load(gpu, gpu / 7, mem_used_bytes=gpu << 30)
        made.set_processes(gpu, [(100 + gpu, 1 << 30)] * gpu)
    for _ in range(20):
        advance(made, 1.0)
    return made


def same(ask, state, tmp_path):
    """Ask both libraries, each of its own copy, since asking also sets limits."""
    copy = tmp_path / "copy.gpus"
    shutil.copyfile(state.path, copy)
    in_c, in_python = ask("c", state.path), ask("python", copy)
    assert in_c == in_python
    return in_c


def test_structures_and_numbers_are_those_of_nvidias_header(nvml_header, nvml_library, tmp_path):
    command = ["cc", "-c", "-Wall", "-Werror", f"-I{nvml_header.parent}", f"-I{nvml_library}", str(HERE / "abi.c")]
    subprocess.run([*command, "-o", str(tmp_path / "abi.o")], check=True)


def test_healthy_node_answers_equally(ask, state, tmp_path):
    answers = same(ask, state, tmp_path)
    assert answers["count"] == 8
    busy = answers["gpus"][7]
    assert busy["nvmlDeviceGetPowerUsage"] > 600_000
    assert busy["set_low"] == {"error": 2}
    assert busy["after"] == [450_000, 450_000]
    assert busy["by_bus"] == 7
    assert len(busy["processes"]) == 7
    assert answers["after_shutdown"] == {"error": 1}


@pytest.mark.parametrize("model", ["A100", "L40S", "H200", "B200"])
def test_every_model_answers_equally(ask, tmp_path, model):
    made = StateFile.create(tmp_path / "node.gpus", gpus=2, model_name=model, driver="580.65.06")
    made.ints[at.H_WORLD_PID] = os.getpid()
    advance(made, 3.0)
    assert same(ask, made, tmp_path)["gpus"][0]["nvmlDeviceGetPowerUsage"] > 20_000


def test_mig_instances_answer_equally(ask, state, tmp_path):
    state.set_mig(2, [(3, 10 << 30, 1 << 30, 0.5), (5, 20 << 30, 2 << 30, 0.25)])
    gpu = same(ask, state, tmp_path)["gpus"][2]
    assert gpu["nvmlDeviceGetMigMode"] == [1, 1]
    assert gpu["utilization"] == {"error": 3}
    assert [entry[0] for entry in gpu["instances"][:2]] == [3, 5]


@pytest.mark.parametrize("code", [15, 16, 999])
def test_failed_gpu_answers_equally_and_the_others_are_not_affected(ask, state, tmp_path, code):
    state.ints[state.base(3) + at.C_FORCE_RETURN] = code
    answers = same(ask, state, tmp_path)
    assert answers["gpus"][3] == {"error": code}
    assert "error" not in answers["gpus"][4]


def test_unsupported_fields_answer_equally(ask, state, tmp_path):
    word = state.base(1) + at.F_BASE + at.F_WORDS * 186
    state.ints[word] = at.NOT_SUPPORTED
    state.ints[state.base(1) + at.getter_word("MARGIN")] = at.NOT_SUPPORTED
    gpu = same(ask, state, tmp_path)["gpus"][1]
    assert gpu["nvmlDeviceGetMarginTemperature"] == {"error": 3}
    assert [186, 0, 3, 0, 0] in gpu["fields"]


@pytest.mark.parametrize("code", [9, 18])
def test_missing_driver_answers_equally(ask, state, tmp_path, code):
    state.ints[at.H_DRIVER_RETURN] = code
    assert same(ask, state, tmp_path) == {"init": code}


def test_no_state_file_means_no_driver(ask, tmp_path):
    assert ask("c", tmp_path / "absent.gpus") == {"init": 9}
