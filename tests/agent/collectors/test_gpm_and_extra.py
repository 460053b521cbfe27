"""Activity from GPM, workload power profiles of all numbers, and fields that a site adds by a file."""

import pynvml
import pytest

from powerhall.runtime.errors import Rejected
from powerhall.store.line_protocol import parse_lines
from powerhall.store.schema import measurement
from powerhall_agent.collectors.gpu_extra import read_extra_fields
from powerhall_agent.collectors.gpu_gpm import GPM_METRICS, GpuGpm
from powerhall_agent.collectors.gpu_slow import GpuSlow
from powerhall_agent.nvml.driver import Driver
from powerhall_agent.sampling.sampler import Sampler
from powerhall_agent.settings.sampler_settings import SamplerSettings
from powerhall_agent.simulate import layout as at
from powerhall_agent.simulate.install import install
from powerhall_agent.simulate.state import StateFile
from powerhall_agent.simulate.world import advance, claim

SECOND = 1_000_000_000


def gpu(model="H100"):
    state = StateFile.create(gpus=1, model_name=model, node="gn01")
    claim(state)
    state.set_load(0, 0.9)
    advance(state, 5.0)
    install([state])
    driver = Driver()
    return state, driver, driver.gpus[0]


def test_gpm_gives_the_means_between_two_samples():
    state, driver, device = gpu()
    gpm = GpuGpm(driver, device)
    assert gpm.collect() == {}, "one sample is no interval"
    advance(state, 10.0)
    fields = gpm.collect()
    assert set(fields) == {name for name, _, _ in GPM_METRICS}
    assert fields["sm_active_percent"] == pytest.approx(90)
    assert fields["nvlink_tx_bytes_per_s"] == pytest.approx(0.2 * 0.9 * 450e9)
    assert all(measurement("gpu_activity").field(name) for name in fields)
    state.set_load(0, 0.1)
    advance(state, 10.0)
    assert gpm.collect()["sm_active_percent"] == pytest.approx(10)
    gpm.close()
    assert not driver.close()


def test_a_gpu_before_hopper_has_no_gpm_and_is_asked_once():
    state, driver, device = gpu("A100")
    gpm = GpuGpm(driver, device)
    for _ in range(3):
        assert gpm.collect() == {}
        advance(state, 1.0)
    assert not gpm._left
    driver.close()


def test_power_profiles_are_numbered_to_255(monkeypatch):
    _, driver, device = gpu("B200")
    slow = GpuSlow(driver, device)

    def current(_handle, reference):
        words = reference._obj.enforcedProfilesMask.mask
        words[0], words[1], words[7] = 1, 1 << 5, 1 << 31

    assert slow.collect()["power_profile_ids"] == "none"
    monkeypatch.setattr(pynvml, "nvmlDeviceWorkloadPowerProfileGetCurrentProfiles", current)
    assert slow.collect()["power_profile_ids"] == "0 37 255"
    driver.close()


def test_the_hottest_sensor_is_read_where_the_driver_tells_it(monkeypatch):
    _, driver, device = gpu()
    assert "temp_max_c" not in GpuSlow(driver, device).collect()
    genuine = pynvml.nvmlDeviceGetTemperatureV
    hottest = pynvml.NVML_TEMPERATURE_GPU_MAX
    monkeypatch.setattr(
        pynvml, "nvmlDeviceGetTemperatureV", lambda handle, kind: 91 if kind == hottest else genuine(handle, kind)
    )
    assert GpuSlow(driver, device).collect()["temp_max_c"] == 91
    driver.close()


FILE = """\
# one field a line
186, instant_power, W, 1000   # as nvml.h has it
82, memory_temperature, degC
9999, of_a_later_driver, V
"""


def sampled(tmp_path, file, each_tick=lambda _state, _tick: None):
    """The points of 25 s of a GPU at 650 W with the fields of this file."""
    path = tmp_path / "fields.csv"
    path.write_text(file, encoding="utf-8")
    state, driver, _ = gpu()
    driver.close()
    lines, now = [], [SECOND]

    class Sink:
        def write(self, block):
            lines.extend(parse_lines(block))

    class Clock:
        def monotonic_ns(self):
            return now[0]

        def time_ns(self):
            return 1_700_000_000 * SECOND + now[0]

    settings = SamplerSettings(node="gn01", rapl=False, attribution=False, extra_fields=str(path))
    sampler = Sampler(settings, Sink(), Clock())
    for tick in range(250):
        each_tick(state, tick)
        sampler.tick()
        advance(state, 0.1)
        now[0] += SECOND // 10
    sampler.close()
    return lines


def extras(lines):
    found = {}
    for point in lines:
        if point.measurement == "gpu_extra":
            found.setdefault(point.tags["field"], []).append(point.fields)
    return found


def test_a_site_adds_fields_by_a_line_each(tmp_path):
    lines = sampled(tmp_path, FILE)
    found = extras(lines)
    assert set(found) == {"instant_power", "memory_temperature"}
    assert found["instant_power"][-1]["unit"] == "W"
    assert found["instant_power"][-1]["value"] == pytest.approx(650, rel=0.05)
    assert len(found["instant_power"]) == 3
    activity = [point.fields for point in lines if point.measurement == "gpu_activity"]
    assert activity[-1]["sm_active_percent"] == pytest.approx(90)


def test_the_names_of_a_sites_fields_mean_nothing_to_the_checks_of_the_gpus_own(tmp_path):
    """The memory's temperature under the GPU's name, and the least power limit under that of the limit of now."""
    file = "82, temp_c, degC\n187, power_limit_max_w, W, 1000\n192, power_limit_w, mW\n189, util_percent, W, 1000\n"
    lines = sampled(tmp_path, file)
    assert {name: len(values) for name, values in extras(lines).items()} == {
        "temp_c": 3, "power_limit_max_w": 3, "power_limit_w": 3, "util_percent": 3
    }  # fmt: skip
    assert {point.fields["value"] for point in lines if point.tags.get("field") == "power_limit_w"} == {700_000.0}
    own = [point.fields for point in lines if point.measurement == "gpu"]
    assert len([fields for fields in own if fields["power_w"] > 600 and "temp_c" in fields]) == len(own)
    assert not [point for point in lines if point.measurement == "sensor"]


def test_what_a_driver_shows_in_place_of_a_value_is_no_value_of_a_sites_field(tmp_path):
    word = at.F_BASE + at.F_WORDS * at.field_slot(100)  # a field that nothing else reads

    def spoil(state, tick):
        state.ints[state.base(0) + word] = 1 << 32  # an unsigned number, and no error
        state.ints[state.base(0) + word + 1] = 0xFFFFFFFF if tick < 150 else 200_000

    lines = sampled(tmp_path, "100, of_the_site, W, 1000\n", spoil)
    assert [fields["value"] for fields in extras(lines)["of_the_site"]] == [200.0]
    (event,) = [point for point in lines if point.tags.get("kind") == "implausible_reading"]
    assert event.fields["detail"] == "gpu_extra of_the_site: 4294967295 is no reading; dropped"


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("186", "FIELD_ID"), ("x, a", "must be 1 to 9999"), ("0, a", "must be 1 to 9999"), ("186:x, a", "scope"),
        ("186, Bad Name", "lower-case"), ("186, a, W, 0", "above 0"), ("186, a, W, nan", "above 0"),
        ("186, a, W, 1, more", "FIELD_ID"), ("186, a\n187, a", "must be there once"),
    ],
)  # fmt: skip
def test_a_line_that_cannot_be_understood_is_named(tmp_path, line, says):
    path = tmp_path / "fields.csv"
    path.write_text(line + "\n", encoding="utf-8")
    with pytest.raises(Rejected, match=says):
        read_extra_fields(path)
