"""The schema obeys the rules that keep it portable and small."""

import pytest

from powerhall.store.schema import MEASUREMENTS, measurement


@pytest.mark.parametrize("entry", MEASUREMENTS.values(), ids=lambda m: m.name)
def test_no_tag_shares_a_name_with_a_field_and_none_names_a_job_or_user(entry):
    fields = [field.name for field in entry.fields]
    assert len(set(fields)) == len(fields)
    assert not set(fields) & set(entry.tags)
    assert not set(entry.tags) & {"job", "job_id", "user", "uuid"}


@pytest.mark.parametrize("entry", MEASUREMENTS.values(), ids=lambda m: m.name)
def test_units_stand_in_the_names(entry):
    endings = {"W": "_w", "J": "_j", "degC": "_c", "s": "_s", "MHz": "_mhz", "B": "_bytes", "%": "_percent"}
    for field in entry.fields:
        if field.unit in endings:
            assert field.name.endswith(endings[field.unit]), field.name


def test_an_unknown_measurement_or_field_is_an_error():
    with pytest.raises(KeyError):
        measurement("nope")
    with pytest.raises(KeyError):
        measurement("gpu").field("nope")
