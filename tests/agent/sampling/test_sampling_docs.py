"""docs/guide/sampling.md names every setting, measurement, event and fault, and its example runs."""

import re
from pathlib import Path

import pytest

from powerhall_agent.collectors import GPU_COLLECTORS
from powerhall_agent.nvml.codes import _ACTIONS
from powerhall_agent.sampling import driver_events as events
from powerhall_agent.sampling import gpu_reader
from powerhall_agent.settings.sampler_settings import RedfishSettings, SamplerSettings, SimulateSettings
from powerhall_agent.simulate import faults
from powerhall_agent.simulate.models import MODELS

PAGE = (Path(__file__).parents[3] / "docs" / "guide" / "sampling.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("kind", [SamplerSettings, RedfishSettings, SimulateSettings])
def test_every_setting_is_documented(kind):
    nested = {"redfish", "simulate"}
    missing = [name for name in kind.__struct_fields__ if f"`{name}`" not in PAGE and name not in nested]
    assert missing == []


def test_every_measurement_model_and_return_code_is_documented():
    assert [entry.measurement for entry in GPU_COLLECTORS if f"`{entry.measurement}`" not in PAGE] == []
    assert [name for name in MODELS if name not in PAGE] == []
    table = PAGE[PAGE.index("## Return codes") : PAGE.index("## A GPU that is sick")]
    assert [code for code in _ACTIONS if not re.search(rf"\b{code}\b", table)] == []


def test_every_fault_verb_is_documented():
    section = PAGE[PAGE.index("### Fault scripts") : PAGE.index("### Recordings")]
    assert [verb for verb in faults._VERBS if not re.search(rf"\b{verb}\b", section)] == []


def test_every_event_kind_is_documented():
    kinds = [kind for kind, *_ in [*events._KINDS.values(), *events._SYSTEM.values()]]
    source = Path(gpu_reader.__file__).read_text(encoding="utf-8")
    kinds += re.findall(r'self\.(?:event|trigger)\("(\w+)"', source)
    assert [kind for kind in kinds if f"`{kind}`" not in PAGE] == []


def test_example_of_driving_simulated_gpus_runs(tmp_path):
    code = re.search(r"```python\n(.*?)```", PAGE[PAGE.index("## Simulated GPUs") :], re.DOTALL)[1]
    scope = {}
    exec(code.replace("/dev/shm", str(tmp_path)), scope)
    assert scope["node"].power_w(0) == pytest.approx(400, abs=0.1)
    assert scope["node"].power_w(1) == pytest.approx(69.6)
