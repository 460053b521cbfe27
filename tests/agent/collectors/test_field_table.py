"""A reading needs one row of the field table: collector and simulator follow from it."""

import pynvml
import pytest

from powerhall.store.gpu_fields import FAST_FIELDS, FULL_FIELDS, SLOW_FIELDS, FieldValue, Getter, GpuField
from powerhall_agent.collectors.field_table import Combination, combinations, field_specs, getter_calls, select
from powerhall_agent.collectors.gpu import GpuFull
from powerhall_agent.collectors.gpu_fast import GpuFast
from powerhall_agent.collectors.gpu_slow import GpuSlow
from powerhall_agent.nvml.driver import Driver
from powerhall_agent.simulate import layout as at
from powerhall_agent.simulate.install import install
from powerhall_agent.simulate.state import StateFile
from powerhall_agent.simulate.world import advance, claim

ROWS = (*FAST_FIELDS, *FULL_FIELDS, *SLOW_FIELDS)
SAMPLER_ADDS = {"power_min_w", "power_max_w", "energy_integral_j", "energy_closure"}
NEVER_SIMULATED = {"temp_max_c", "module_power_w", "retired_pages"}


def values():
    return [source for row in ROWS for source in row.sources if isinstance(source, FieldValue)]


def test_field_ids_are_those_that_pynvml_names():
    named = {value.constant: value.field_id for value in values() if not value.before}
    assert named == {constant: getattr(pynvml, f"NVML_FI_{constant}") for constant in named}


def test_a_simulated_blackwell_node_answers_every_row():
    state = StateFile.create(gpus=1, model_name="B200")
    claim(state)
    state.set_load(0, 0.9, 1 << 30)
    advance(state, 1.0)
    install([state])
    driver = Driver()
    found = {name for collector in (GpuFast, GpuFull, GpuSlow) for name in collector(driver, driver.gpus[0]).collect()}
    assert {row.name for row in ROWS} - found == SAMPLER_ADDS | NEVER_SIMULATED
    assert found <= {row.name for row in ROWS} | {"power_profile_ids"}


def test_one_wanted_field_asks_for_nothing_else():
    rows = select(FULL_FIELDS, {"hbm_temp_c"})
    assert [spec.name for spec in field_specs(rows, (595, 45))] == ["hbm_temp_c"]
    assert getter_calls(rows) == []
    assert [row.name for row in select(FULL_FIELDS, {"temp_margin_c"})] == ["temp_c", "temp_margin_c"]


def test_readings_of_one_function_share_its_call():
    calls = [call for call, *_ in getter_calls(FULL_FIELDS) if len(call.reads) > 1]
    assert [[name for name, _ in call.reads] for call in calls] == [
        ["mem_used_bytes", "mem_total_bytes"],
        ["util_percent", "mem_util_percent"],
    ]


def test_parts_become_the_field():
    row = GpuField("x", "", "", sources=(FieldValue("A", 1), FieldValue("B", 2, part="other")))
    (first,) = combinations([row])
    for fields, expected in (({"x": 1.0, "other": 2.0}, {"x": 1.0}), ({"other": 2.0}, {"x": 2.0}), ({}, {})):
        first.apply(fields)
        assert fields == expected
    fields = {"a": 1.0, "b": 2.0, "c": 3.0}
    Combination("x", ("a", "b"), is_sum=True).apply(fields)
    assert fields == {"c": 3.0, "x": 3.0}


@pytest.mark.parametrize("name", at.GETTERS)
def test_getters_of_the_state_file_do_not_reach_into_the_field_values(name):
    assert at.getter_word(name) + at.G_WORDS <= at.F_BASE


def test_every_getter_without_structure_or_argument_is_answered_by_the_simulator():
    plain = {
        source.symbol
        for row in ROWS
        for source in row.sources
        if isinstance(source, Getter) and source.output in {"u32", "u64"} and not source.arguments
    }
    assert plain <= set(at.SCALAR_GETTERS)
