"""The table of GPU readings is consistent: every row can be read, stored and shown."""

import pytest

from powerhall.store.gpu_fields import FAST_FIELDS, FULL_FIELDS, SLOW_FIELDS, FieldValue, Getter
from powerhall.store.schema import measurement

ROWS = (*FAST_FIELDS, *FULL_FIELDS, *SLOW_FIELDS)


def test_the_schema_holds_the_rows_in_their_order():
    assert [field.name for field in measurement("gpu").fields] == [row.name for row in FAST_FIELDS + FULL_FIELDS]
    assert [field.name for field in measurement("gpu_slow").fields] == [
        *(row.name for row in SLOW_FIELDS), "power_profile_ids"
    ]  # fmt: skip


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_a_counter_is_shown_by_its_rise_and_nothing_else_is(row):
    assert (row.kind == "counter") == (row.aggregate == "spread")


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_a_sum_has_a_name_for_each_part_and_any_other_field_a_source_of_its_own_name(row):
    values = [source for source in row.sources if isinstance(source, FieldValue)]
    if row.combine == "sum":
        assert all(value.part for value in values)
    elif row.combine == "first" and values:
        assert not values[0].part
    getters = [source for source in row.sources if isinstance(source, Getter)]
    assert not values or not getters, "a field has field values or getters, not both"


def test_ids_have_one_meaning_in_every_driver_version():
    for driver in [(535, 261), (575, 51), (580, 65), (580, 82), (595, 45)]:
        names = {}
        for row in ROWS:
            for source in row.sources:
                if isinstance(source, FieldValue) and source.is_in(driver):
                    assert names.setdefault((source.field_id, source.scope_id), source.constant) == source.constant
