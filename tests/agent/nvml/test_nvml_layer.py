"""Return codes, field batches and fallbacks over unmodified pynvml."""

import pynvml
import pytest

from powerhall.store.gpu_fields import FULL_FIELDS
from powerhall_agent.collectors.field_table import field_specs
from powerhall_agent.collectors.gpu import GpuFull
from powerhall_agent.collectors.gpu_fast import GpuFast
from powerhall_agent.collectors.gpu_slow import GpuSlow
from powerhall_agent.nvml.codes import Action, action
from powerhall_agent.nvml.driver import Driver
from powerhall_agent.nvml.fields import FieldSpec
from powerhall_agent.nvml.probe import Probe
from powerhall_agent.simulate import layout as at
from powerhall_agent.simulate.install import install
from powerhall_agent.simulate.state import StateFile
from powerhall_agent.simulate.world import advance, claim


@pytest.fixture
def node():
    state = StateFile.create(gpus=2, node="gn01")
    claim(state)
    state.set_load(0, 0.9, 1 << 30)
    for _ in range(10):
        advance(state, 1.0)
    return state


def unsupported(state, gpu, *names):
    for name in names:
        word = at.getter_word(name) if isinstance(name, str) else at.F_BASE + at.F_WORDS * at.field_slot(*name)
        state.ints[state.base(gpu) + word] = at.NOT_SUPPORTED


def missing(state, *symbols):
    state.ints[at.H_MISSING_SYMBOLS] = sum(1 << at.OPTIONAL_SYMBOLS.index(symbol) for symbol in symbols)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (3, Action.UNSUPPORTED), (13, Action.UNSUPPORTED), (25, Action.UNSUPPORTED), (26, Action.UNSUPPORTED),
        (4, Action.NO_PERMISSION), (6, Action.NO_SAMPLE), (10, Action.NO_SAMPLE), (21, Action.NO_SAMPLE),
        (27, Action.NO_SAMPLE), (15, Action.QUARANTINE), (16, Action.QUARANTINE), (11, Action.QUARANTINE),
        (28, Action.QUARANTINE), (1, Action.REINIT), (9, Action.REINIT), (18, Action.RESPAWN), (999, Action.STRIKE),
        (17, Action.STRIKE),
    ],
)  # fmt: skip
def test_every_return_code_has_its_action(code, expected):
    assert action(code) is expected


def test_batch_reads_values_of_every_scope_with_their_unit(node):
    install([node])
    driver = Driver()
    batch = driver.batch(driver.gpus[0], [FieldSpec("w", 186, 0, 1e3), FieldSpec("hbm", 185, 2, 1e3)])
    values = batch.read()
    assert values["w"] == pytest.approx(node.power_w(0), rel=0.011)
    assert values["hbm"] == pytest.approx(0.14 * node.power_w(0), rel=0.01)
    assert batch.times_s() == pytest.approx(dict.fromkeys(batch.times_s(), 1e-06))
    assert len(batch.times_s()) == 2


def test_batch_reads_negative_values(node):
    install([node])
    driver = Driver()
    batch = driver.batch(driver.gpus[0], [FieldSpec("shutdown", 193), FieldSpec("slowdown", 194)])
    assert batch.read() == {"shutdown": -8, "slowdown": -2}


def test_batch_drops_a_field_that_was_never_supported(node):
    unsupported(node, 0, (82,))
    install([node])
    driver = Driver()
    batch = driver.batch(driver.gpus[0], [FieldSpec("hbm", 82), FieldSpec("w", 186)])
    assert list(batch.read()) == ["w"]
    assert [spec.name for spec in batch.specs] == ["w"]


def test_batch_keeps_a_field_that_has_once_worked(node):
    install([node])
    driver = Driver()
    batch = driver.batch(driver.gpus[0], [FieldSpec("hbm", 82), FieldSpec("w", 186)])
    assert "hbm" in batch.read()
    unsupported(node, 0, (82,))
    assert "hbm" not in batch.read()
    node.ints[node.base(0) + at.F_BASE + at.F_WORDS * 82] = at.VALUE_UINT << 32
    assert "hbm" in batch.read()


def test_batch_raises_where_one_value_reports_a_lost_gpu(node):
    install([node])
    driver = Driver()
    batch = driver.batch(driver.gpus[0], [FieldSpec("w", 186), FieldSpec("hbm", 82)])
    node.ints[node.base(0) + at.F_BASE + at.F_WORDS * 82] = 15
    with pytest.raises(pynvml.NVMLError) as caught:
        batch.read()
    assert caught.value.value == 15


def test_probe_falls_back_once_and_stays():
    calls = []

    def first():
        calls.append("first")
        raise pynvml.NVMLError(13)

    probe = Probe(first, lambda: 7)
    assert [probe.read(), probe.read()] == [7, 7]
    assert calls == ["first"]


def test_probe_that_has_worked_survives_one_not_supported():
    answers = iter([5, pynvml.NVMLError(3), 6])

    def way():
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    probe = Probe(way, lambda: 99)
    assert [probe.read(), probe.read(), probe.read()] == [5, None, 6]


def test_old_driver_without_new_symbols_gives_the_same_readings(node):
    install([node])
    driver = Driver()
    new = GpuFull(driver, driver.gpus[0]).collect()
    missing(
        node, "nvmlDeviceGetTemperatureV", "nvmlDeviceGetMarginTemperature", "nvmlDeviceGetCurrentClocksEventReasons",
        "nvmlDeviceGetMemoryInfo_v2",
    )  # fmt: skip
    install([node])
    driver = Driver()
    old = GpuFull(driver, driver.gpus[0]).collect()
    assert old["temp_c"] == new["temp_c"]
    assert old["clocks_event_reasons"] == new["clocks_event_reasons"]
    assert old["mem_total_bytes"] == new["mem_total_bytes"]
    assert old["temp_margin_c"] == new["temp_margin_c"] + 2


def test_driver_without_field_values_uses_the_getters(node):
    missing(node, "nvmlDeviceGetFieldValues")
    install([node])
    driver = Driver()
    fast = GpuFast(driver, driver.gpus[0]).collect()
    assert fast["power_w"] == pytest.approx(node.power_w(0), rel=0.01)
    assert fast["energy_j"] == pytest.approx(node.energy_j(0), abs=0.01)
    full = GpuFull(driver, driver.gpus[0]).collect()
    assert full["power_limit_w"] == 700
    assert full["power_limit_requested_w"] == 700
    slow = GpuSlow(driver, driver.gpus[0]).collect()
    assert (slow["power_limit_min_w"], slow["power_limit_max_w"], slow["power_limit_default_w"]) == (200, 700, 700)


def test_power_falls_back_to_the_average_and_then_to_the_getter(node):
    unsupported(node, 0, (186,))
    unsupported(node, 1, (186,), (185,), (191,), (83,), "TOTAL_ENERGY")
    install([node])
    driver = Driver()
    assert GpuFast(driver, driver.gpus[0]).collect()["power_w"] == pytest.approx(node.power_w(0), rel=0.01)
    bare = GpuFast(driver, driver.gpus[1]).collect()
    assert bare["power_w"] == pytest.approx(node.power_w(1), rel=0.01)
    assert "energy_j" not in bare


def test_zero_power_is_no_reading(node):
    install([node])
    driver = Driver()
    collector = GpuFast(driver, driver.gpus[0])
    assert collector.collect()["power_w"] > 100
    for field in (186, 185):
        node.ints[node.base(0) + at.F_BASE + at.F_WORDS * field + 1] = 0
    node.ints[node.base(0) + at.getter_word("POWER_USAGE") + 1] = 0
    assert "power_w" not in collector.collect()


def test_mig_disables_utilization_and_nothing_else(node):
    install([node])
    driver = Driver()
    before = set(GpuFull(driver, driver.gpus[0]).collect())
    node.set_mig(0, [(1, 1 << 30, 0, 0.5)])
    after = set(GpuFull(driver, driver.gpus[0]).collect())
    assert before - after == {"util_percent", "mem_util_percent"}


@pytest.mark.parametrize(
    ("driver", "ids"),
    [("535.261.03", []), ("575.51", [251, 252, 253]), ("580.65.06", [251, 252, 253]),
     ("580.82.07", [269, 270, 271]), ("595.45", [269, 270, 271])],
)  # fmt: skip
def test_slowdown_times_follow_the_ids_of_the_driver(driver, ids):
    number = tuple(int(part) for part in driver.split(".")[:2])
    rows = [row for row in FULL_FIELDS if row.name in {"slow_thermal_s", "slow_hw_power_brake_s"}]
    assert [spec.field_id for spec in field_specs(rows, number)] == ids


@pytest.mark.parametrize("driver", ["580.65.06", "590.48.01"])
def test_power_brake_time_is_read_in_either_numbering(driver):
    state = StateFile.create(gpus=1, driver=driver)
    claim(state)
    state.set_load(0, 1.0)
    state.doubles[state.base(0) + at.C_BRAKE] = 1.0
    advance(state, 2.0)
    install([state])
    opened = Driver()
    assert GpuFull(opened, opened.gpus[0]).collect()["slow_hw_power_brake_s"] == pytest.approx(2.0)


def test_power_smoothing_and_profiles_are_read_on_blackwell_with_a_new_driver_only():
    state = StateFile.create(gpus=1, model_name="B200")
    claim(state)
    base = state.base(0)
    state.ints[base + at.F_BASE + at.F_WORDS * 251 + 1] = 1
    state.ints[base + at.F_BASE + at.F_WORDS * 264 + 1] = 3
    state.ints[base + at.getter_word("POWER_PROFILES") + 1] = 0b101
    install([state])
    driver = Driver()
    slow = GpuSlow(driver, driver.gpus[0]).collect()
    assert (slow["power_smoothing"], slow["power_smoothing_profile"], slow["power_profiles"]) == (1, 3, 0b101)
    state.set_driver_version("580.65.06")
    install([state])
    driver = Driver()
    assert "power_smoothing" not in GpuSlow(driver, driver.gpus[0]).collect()


def test_hopper_has_no_power_smoothing(node):
    install([node])
    driver = Driver()
    assert not [name for name in GpuSlow(driver, driver.gpus[0]).collect() if name.startswith("power_smoothing")]


def test_gpu_lost_at_the_start_is_listed_and_the_others_open(node):
    node.ints[node.base(0) + at.C_FORCE_RETURN] = 15
    install([node])
    driver = Driver()
    assert [gpu.index for gpu in driver.gpus] == [1]
    assert driver.unopened == {0: 15}


def test_missing_driver_raises_its_code():
    state = StateFile.create(gpus=1)
    state.ints[at.H_DRIVER_RETURN] = 9
    install([state])
    with pytest.raises(pynvml.NVMLError) as caught:
        Driver()
    assert caught.value.value == 9
