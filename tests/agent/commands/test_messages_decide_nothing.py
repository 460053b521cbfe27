"""Advice, retries and exit codes follow from types and codes: rewording every message changes none of them."""

import subprocess
import sys
import threading
from pathlib import Path

import pynvml
import pytest

from powerhall.lease import GpuCap
from powerhall.runtime.errors import ConfigError, PowerhallError, Rejected, Retryable
from powerhall.store.line_protocol import Point, encode
from powerhall_agent.capper import check
from powerhall_agent.capper.limiter import CapsNotHeld, NvmlLimiter
from powerhall_agent.commands import doctor
from powerhall_agent.commands.once import HANGS, sample, why_no_gpus
from powerhall_agent.delivery.errors import SetupError
from powerhall_agent.settings.agent_settings import OutputSettings, load_settings
from powerhall_agent.settings.sampler_settings import SamplerSettings
from powerhall_agent.simulate import layout as at
from powerhall_agent.simulate.faults import apply, parse_script
from powerhall_agent.simulate.install import install
from powerhall_agent.simulate.state import StateFile


def missing_driver(code):
    fields = {"code": float(code), "detail": "in other words", "severity": 2.0}
    return encode(Point("event", {"node": "n", "kind": "driver_missing"}, fields, 1))


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        (pynvml.NVML_ERROR_LIBRARY_NOT_FOUND, "install the NVIDIA driver"),
        (pynvml.NVML_ERROR_FUNCTION_NOT_FOUND, "install the NVIDIA driver"),
        (pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH, "reload the kernel module"),
        (pynvml.NVML_ERROR_NO_PERMISSION, "/dev/nvidia"),
        (pynvml.NVML_ERROR_DRIVER_NOT_LOADED, "modprobe nvidia"),
    ],
)
def test_doctor_advises_by_the_code_of_the_driver(code, advice):
    lines = missing_driver(code)
    assert why_no_gpus(lines).nvml_code == code
    finding = doctor._no_gpus(subprocess.CompletedProcess([], 0, lines, b""))
    assert (finding.level, finding.text) == ("bad", "in other words")
    assert advice in finding.todo


@pytest.fixture
def node(tmp_path):
    """Eight simulated GPUs in a state file that `doctor` and `once` open."""
    return StateFile.create(tmp_path / "gpus", gpus=8)


def command(name, node):
    tool = [Path(sys.executable).with_name("powerhall-agent"), name, "--simulate", "--state-file", node.path]
    return subprocess.run(tool, cwd=node.path.parent, capture_output=True, text=True, check=False, timeout=40)


def fault(node, text):
    for step in parse_script(f"at 0 {text}"):
        apply(node, step)


def test_doctor_and_once_name_a_hung_gpu_and_show_the_others(node):
    fault(node, "gpu 3 hung 120")
    fault(node, "gpu 5 lost")
    done = command("doctor", node)
    assert done.returncode == 1
    assert "6 of 8 simulated GPUs answer: NVIDIA H100" in done.stdout
    bad = [line.split("driver", 1)[1].strip() for line in done.stdout.splitlines() if line.startswith("bad")]
    assert bad == ["GPU 3 is quarantined: hung", "GPU 5 is quarantined: lost"]
    assert "modprobe" not in done.stdout
    rows = [line.split() for line in command("once", node).stdout.splitlines()[1:]]
    assert [row[0] for row in rows] == [str(gpu) for gpu in range(8)]
    assert [row[0] for row in rows if "NVIDIA" in row] == ["0", "1", "2", "4", "6", "7"]


def test_doctor_names_every_gpu_where_all_hang(node):
    fault(node, "hung 120")
    done = command("doctor", node)
    assert done.returncode == 1
    assert [f"GPU {gpu} is quarantined: hung" in done.stdout for gpu in range(8)] == [True] * 8
    assert "answer:" not in done.stdout
    assert "modprobe" not in done.stdout


def test_a_driver_whose_start_does_not_return_is_told_from_one_without_gpus(node, monkeypatch):
    install([node])
    never = threading.Event()
    monkeypatch.setattr(pynvml, "nvmlInit", never.wait)
    try:
        found = why_no_gpus(sample(SamplerSettings(node="n", rapl=False, attribution=False)))
    finally:
        never.set()
    assert (found.nvml_code, "does not return" in found.detail) == (HANGS, True)
    assert "dmesg" in doctor._DRIVER_TODOS[HANGS]


class Store:
    def __init__(self, error):
        self.error = error

    def send(self, _lines):
        if self.error is not None:
            raise self.error


@pytest.mark.parametrize(
    ("error", "level", "todo"),
    [
        (None, "ok", ""),
        (Rejected("in other words"), "ok", ""),
        (SetupError("in other words"), "bad", "token file"),
        (Retryable("in other words"), "bad", "firewall"),
    ],
)
def test_doctor_rates_a_store_by_the_type_of_its_error(monkeypatch, error, level, todo):
    monkeypatch.setattr(doctor, "open_output", lambda _url, _timeout_s: Store(error))
    (finding,) = doctor._store(load_settings(None), OutputSettings("influxdb://h:1/b"))
    assert finding.level == level
    assert todo in finding.todo


def test_doctor_advises_to_correct_a_url_that_is_refused(monkeypatch):
    def refuse(_url, _timeout_s):
        raise ConfigError("in other words")

    monkeypatch.setattr(doctor, "open_output", refuse)
    (finding,) = doctor._store(load_settings(None), OutputSettings("x"))
    assert (finding.level, finding.todo) == ("bad", "correct the store URL")


@pytest.fixture
def limiter():
    state = StateFile.create(gpus=1)
    install([state])
    made = NvmlLimiter()
    yield made, state
    made.close()


@pytest.mark.parametrize(("code", "not_allowed"), [(4, True), (3, False)])
def test_a_setter_without_permission_is_recognised_by_its_code(limiter, code, not_allowed):
    found, state = limiter
    state.ints[at.H_SET_RETURN] = code
    with pytest.raises(CapsNotHeld) as caught:
        found.apply((GpuCap(0, 400.0),))
    assert caught.value.not_allowed is not_allowed


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (CapsNotHeld("in other words", not_allowed=True), 0),
        (CapsNotHeld("no permission, by its words"), 1),
        (PowerhallError("no permission, by its words"), 1),
    ],
)
def test_the_check_of_the_capper_passes_where_limits_may_not_be_set(limiter, monkeypatch, error, code):
    def refuse(_limiter, _caps):
        raise error

    monkeypatch.setattr(NvmlLimiter, "apply", refuse)
    monkeypatch.setattr("sys.argv", ["check"])
    assert check.main() == code
