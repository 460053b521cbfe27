"""The encoder, unwrapped counters, and a state folder that cannot be written."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from powerhall.store.line_protocol import parse_lines
from powerhall_agent.base.counters import CounterUnwrapper
from powerhall_agent.base.encoder import Series
from powerhall_agent.sampling.sampler import Sampler
from powerhall_agent.settings.sampler_settings import SamplerSettings


def test_encoded_points_are_read_back():
    series = Series("gpu", {"site": "s 1", "hall": "", "node": "a,b", "gpu": "0"})
    line = series.encode({"power_w": 1.5, "temp_c": 40, "energy_j": float("nan")}, 1700000000123)
    (point,) = parse_lines(line)
    assert point.tags == {"site": "s 1", "node": "a,b", "gpu": "0"}
    assert point.fields == {"power_w": 1.5, "temp_c": 40.0}
    assert point.time_ms == 1700000000123


def test_encoder_keeps_percent_signs_and_quotes():
    series = Series("event", {"node": "50%s", "kind": "x"})
    (point,) = parse_lines(series.encode({"detail": 'a "b" 5%', "code": 1.0}, 5))
    assert point.tags["node"] == "50%s"
    assert point.fields["detail"] == 'a "b" 5%'


def test_encoder_refuses_fields_that_the_schema_does_not_have():
    with pytest.raises(ValueError, match=r"gpu.*no field 'job'"):
        Series("gpu", {"node": "n"}).encode({"job": 1.0}, 1)
    with pytest.raises(ValueError, match="must be a number"):
        Series("gpu", {"node": "n"}).encode({"power_w": "high"}, 1)


@settings(max_examples=300)
@given(
    st.dictionaries(
        st.sampled_from(["power_w", "temp_c", "energy_j", "mem_used_bytes", "util_percent"]),
        st.one_of(st.floats(), st.integers(-(2**53), 2**53)),
    ),
    st.integers(0, 2**53),
)
def test_every_finite_number_survives_encoding_exactly(fields, time_ms):
    line = Series("gpu", {"node": "n,1", "gpu": "0"}).encode(fields, time_ms)
    finite = {key: float(value) for key, value in fields.items() if math.isfinite(value)}
    if not finite:
        assert line == b""
    else:
        (point,) = parse_lines(line)
        assert point.fields == finite
        assert point.time_ms == time_ms
        assert point.tags["node"] == "n,1"


def test_point_without_values_encodes_to_nothing():
    assert Series("gpu", {"node": "n"}).encode({"power_w": float("inf")}, 1) == b""


@given(st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=50))
def test_wrapping_counter_is_unwrapped_exactly(steps):
    unwrap, truth = CounterUnwrapper(32), 7
    assert unwrap.total(7) == 7
    for step in steps:
        truth += step
        assert unwrap.total(truth % 2**32) == truth


def test_counter_beyond_32_bits_is_taken_as_one_of_64():
    unwrap = CounterUnwrapper(32)
    assert [unwrap.total(raw) for raw in (10, 2**33, 2**33 + 5)] == [10, 2**33, 2**33 + 5]
    assert unwrap.total(7) == 2**33 + 12, "a restart, not a wrap"


def test_state_folder_that_cannot_be_written_does_not_stop_the_sampler(tmp_path, capsys):
    blocked = tmp_path / "file"
    blocked.write_text("")
    settings = SamplerSettings(node="n", state_dir=str(blocked / "state"))
    assert Sampler(settings, sink=None).stamper.last_ms == 0
    assert "state_not_kept" in capsys.readouterr().err


def test_restarted_counter_adds_only_new_counts():
    unwrap = CounterUnwrapper(32)
    unwrap.total(3_000_000_000)
    assert unwrap.total(100) == 3_000_000_000 + (100 + 2**32 - 3_000_000_000)
    fresh = CounterUnwrapper(32)
    fresh.total(1000)
    assert fresh.total(10) == 1010
