"""Implausible readings are refused: range, NaN, byte order, stuck values, counters that wrap."""

import math
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from powerhall_agent.facility.protocols.modbus import ModbusPoint, decode, plan_blocks
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
    assert decode(point(type=type_, byte_order=byte_order, word_order=word_order), registers) == float(value)


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


def test_a_meter_that_was_reset_goes_on_from_its_sum():
    validator = PointValidator(point(name="energy_j", type="u16", wraps_at=65536, max=1e6))
    totals = [validator.take(raw, t).value for t, raw in enumerate((10_000.0, 10_100.0, 3.0, 7.0))]
    assert totals == [10_000, 10_100, 10_103, 10_107]


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
