"""Implausible readings are refused: range, NaN, byte order, stuck values, counters that wrap."""

import itertools
import math
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from powerhall_agent.facility.points import bounded
from powerhall_agent.facility.protocols.modbus import ModbusPoint, decode, plan_blocks
from powerhall_agent.facility.registry import load_map, map_names
from powerhall_agent.facility.validation import PointValidator

TYPES = {"u16": "H", "i16": "h", "u32": "I", "i32": "i", "u64": "Q", "i64": "q", "f32": "f", "f64": "d"}


def point(**values) -> ModbusPoint:
    return ModbusPoint(
        **{"name": "power_w", "min": 0, "max": 200e3, "kind": "input", "address": 0, "type": "f32", **values}
    )


def words(data: bytes) -> list[int]:
    return [int.from_bytes(data[i : i + 2], "big") for i in range(0, len(data), 2)]


@pytest.mark.parametrize(
    ("byte_order", "word_order", "data"),
    [
        ("big", "big", "449a5000"),
        ("big", "little", "5000449a"),
        ("little", "big", "9a440050"),
        ("little", "little", "00509a44"),
    ],
)
def test_all_four_orders_of_a_float_decode(byte_order, word_order, data):
    assert decode(point(byte_order=byte_order, word_order=word_order), words(bytes.fromhex(data))) == 1234.5


@given(
    st.sampled_from(sorted(TYPES)), st.sampled_from(["big", "little"]), st.sampled_from(["big", "little"]), st.data()
)
def test_every_type_and_order_reads_back_the_written_value(type_, byte_order, word_order, data):
    bits = int(type_[1:])
    low, high = (0, 2**bits - 1) if type_[0] == "u" else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    numbers = st.floats(width=bits, allow_nan=False) if type_[0] == "f" else st.integers(low, high)
    value = data.draw(numbers)
    registers = words(struct.pack(f">{TYPES[type_]}", value))
    registers = registers if word_order == "big" else registers[::-1]
    if byte_order == "little":
        registers = [int.from_bytes(r.to_bytes(2, "little"), "big") for r in registers]
    found = decode(point(type=type_, byte_order=byte_order, word_order=word_order), registers)
    none = type_[0] != "f" and value == (high if type_[0] == "u" else low)
    assert math.isnan(found) if none else found == float(value)


WRONG = [("big", "little"), ("little", "big"), ("little", "little")]


@pytest.mark.parametrize(("byte_order", "word_order"), WRONG)
def test_a_wrong_order_is_flagged_as_implausible(byte_order, word_order):
    """A power in the wrong byte order may look plausible by chance; a frequency, with its narrow range, hardly ever."""
    wrong = point(byte_order=byte_order, word_order=word_order)
    hertz = point(name="frequency_hz", min=45, max=65, byte_order=byte_order, word_order=word_order)
    watts_flagged = hertz_flagged = 0
    for step in range(1000):
        watts = struct.pack(">f", 100.0 * 1000.0 ** (step / 1000))
        watts_flagged += not PointValidator(wrong).take(decode(wrong, words(watts)), 0.0).good
        hertz_flagged += (
            not PointValidator(hertz).take(decode(hertz, words(struct.pack(">f", 49.5 + step / 1000))), 0.0).good
        )
    assert watts_flagged > 850
    assert hertz_flagged > 990


def test_fully_reversed_bytes_are_flagged_although_they_read_near_zero():
    denormal = decode(point(byte_order="little", word_order="little"), words(struct.pack(">f", 1234.5)))
    assert 0 < denormal < 1e-30
    assert "byte or word order" in PointValidator(point()).take(denormal, 0.0).why


@pytest.mark.parametrize("raw", [math.nan, math.inf, -math.inf, -0.1, 200_000.1, 1e30])
def test_nan_infinity_and_values_out_of_range_are_refused(raw):
    found = PointValidator(point()).take(raw, 0.0)
    assert (found.value, found.good) == (None, False)
    assert found.why.startswith("implausible")


def test_a_zero_that_the_meter_really_shows_is_a_value():
    assert PointValidator(point()).take(0.0, 0.0).value == 0.0


def test_scale_and_offset_are_applied_before_the_range():
    validator = PointValidator(point(name="supply_temp_c", scale=0.1, offset=-40, min=-20, max=60))
    assert validator.take(650.0, 0.0).value == pytest.approx(25.0)
    assert validator.take(1650.0, 1.0).value is None


def test_a_value_that_does_not_move_is_stuck_after_its_time_and_good_again_when_it_moves():
    validator = PointValidator(point(stuck_after_s=60))
    assert [validator.take(500.0, t).good for t in (0.0, 30.0, 59.0, 60.0, 90.0)] == [True, True, True, False, False]
    assert validator.take(501.0, 95.0).good


@given(st.sampled_from([65536, 2**32, 10_000]), st.lists(st.integers(0, 4000), min_size=1, max_size=60))
def test_a_wrapping_counter_is_unrolled_to_its_true_sum(wraps_at, steps):
    validator = PointValidator(point(name="energy_j", type="u16", wraps_at=wraps_at, max=1e15, scale=3600.0, min=0))
    true = wraps_at - 5
    assert validator.take(float(true % wraps_at), 0.0).value == pytest.approx(true * 3600.0)
    for index, step in enumerate(steps):
        true += step
        found = validator.take(float(true % wraps_at), 1.0 + index)
        assert found.value == pytest.approx(true * 3600.0)


def counter(**values):
    return PointValidator(
        point(**{"name": "energy_j", "type": "u32", "wraps_at": 2**32, "max": 1e13, "min": 0, **values})
    )


def test_a_meter_that_was_reset_goes_on_from_its_sum_once_a_second_reading_confirms_it():
    readings = (10_000.0, 10_100.0, 3.0, 7.0, 9.0)
    validator = counter(wraps_at=65536)
    totals = [validator.take(raw, t).value for t, raw in enumerate(readings)]
    assert totals == [10_000, 10_100, None, 10_104, 10_106]
    validator = counter(wraps_at=65536, max_per_s=100)
    assert [validator.take(raw, t).value for t, raw in enumerate(readings)] == [10_000, 10_100, None, 10_107, 10_109]


@pytest.mark.parametrize("odd", [0.0, 2.0**32 - 1, 5.0, 1_234_000.0])
@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize("wraps_at", [2**32, 0])
def test_a_meter_that_shows_something_else_for_a_while_adds_nothing(odd, count, wraps_at):
    """Zero and sentinels while a meter starts, and a counter that steps back a little."""
    validator = counter(scale=3600.0, max_per_s=200e3, max=1e17, wraps_at=wraps_at)
    readings = [1_234_567.0, 1_234_568.0, *[odd] * count, 1_234_570.0, 1_234_571.0, 1_234_572.0]
    found = [validator.take(raw, 10.0 * t).value for t, raw in enumerate(readings)]
    assert found[-1] / 3600 == pytest.approx(1_234_572, abs=5)
    if wraps_at:
        assert all(before <= after for before, after in itertools.pairwise(v for v in found if v is not None))


@given(
    st.lists(
        st.tuples(st.integers(0, 50), st.sampled_from(["", "", "", "", "zero", "ones", "back"])),
        min_size=5,
        max_size=80,
    )
)
def test_the_sum_of_a_counter_with_odd_readings_follows_the_truth(steps):
    validator = counter(max_per_s=10.0)
    true = shown = last = 4_294_960_000
    validator.take(float(true), -10.0)
    for index, (step, odd) in enumerate(steps):
        true += step
        raw = {"zero": 0, "ones": 2**32 - 1, "back": true % 2**32 - 40_000}.get(odd, true % 2**32)
        value = validator.take(float(raw) if raw >= 0 else 0.0, 10.0 * index).value
        shown = shown if value is None else value
        assert last <= shown <= true + 1, "never more than the truth, and never back"
        last = shown


def test_energy_is_bounded_by_the_most_power_of_its_device():
    points = bounded((point(name="input_power_w", max=200e3), point(name="energy_j"), point(name="b_j", max_per_s=5)))
    assert [entry.max_per_s for entry in points] == [0.0, 200e3, 5]


def test_the_energy_in_a_storage_may_fall():
    power, stored = bounded((point(max=200e3), point(name="stored_energy_j", max=1e12)))
    assert (stored.max_per_s, power.counts, stored.counts) == (0.0, False, False)
    validator = PointValidator(stored)
    assert [validator.take(raw, 5.0 * t).value for t, raw in enumerate((9e9, 8.9e9, 4e9, 9e9))] == [
        9e9,
        8.9e9,
        4e9,
        9e9,
    ]


def test_only_a_value_that_must_move_is_called_stuck_in_our_maps(tmp_path):
    """A standby feed shows 0 W and a controlled pump one flow for weeks; outdoor air never stands still."""
    stuck = {
        (name, entry.name) for name in map_names() for entry in load_map(name, tmp_path).points if entry.stuck_after_s
    }
    assert stuck == {("vaisala_hmt330", "dry_bulb_c")}


NO_READING = {"u16": "ffff", "u32": "ffffffff", "u64": "ff" * 8, "i16": "8000", "i32": "80000000", "f32": "7fc00000"}


@pytest.mark.parametrize(("kind", "data"), NO_READING.items())
def test_the_number_that_stands_for_no_reading_is_none(kind, data):
    entry = point(type=kind, min=-1e30, max=1e30)
    assert not PointValidator(entry).take(decode(entry, words(bytes.fromhex(data))), 0.0).good


def test_minus_one_is_a_reading_of_a_signed_register():
    assert decode(point(type="i16"), words(b"\xff\xff")) == -1.0


def test_a_jump_faster_than_the_meter_can_count_is_refused_and_not_added():
    validator = PointValidator(point(name="energy_j", type="u32", wraps_at=2**32, max=1e12, max_per_s=1000))
    values = [validator.take(raw, 10.0 * t).value for t, raw in enumerate((0.0, 5000.0, 2e6, 2.005e6), start=1)]
    assert values == [0, 5000, None, 10_000]


def test_an_unrolled_sum_goes_on_after_a_restart():
    before = PointValidator(point(name="energy_j", type="u16", wraps_at=65536, max=1e6))
    before.take(65_000.0, 0.0)
    after = PointValidator(before.point, before.counter)
    assert after.take(464.0, 0.0).value == 66_000


def test_registers_that_lie_close_are_read_together_within_the_limit():
    points = [point(name=f"p{n}_w", address=n) for n in (0, 2, 6, 40, 42, 300)] + [point(kind="holding", address=2)]
    blocks = plan_blocks(points, max_registers=10)
    assert [(b.kind, b.address, b.count) for b in blocks] == [
        ("holding", 2, 2),
        ("input", 0, 8),
        ("input", 40, 4),
        ("input", 300, 2),
    ]
    assert sum(len(b.points) for b in blocks) == len(points)
