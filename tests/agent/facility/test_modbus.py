"""Modbus TCP against a real pymodbus server."""

import struct
import time

import pytest

from powerhall.runtime.errors import Retryable
from powerhall_agent.facility.points import DeviceMap
from powerhall_agent.facility.protocols.modbus import ModbusDevice, ModbusPoint, ModbusReader
from powerhall_agent.facility.registry import load_map

pytestmark = pytest.mark.rig


def reader(address, points, **values):
    return ModbusReader(
        ModbusDevice(name="m", address=address, map="x", timeout_s=0.4, **values), DeviceMap("modbus", "s", points)
    )


def own(name, address, type_="u16", **values):
    return ModbusPoint(name=name, address=address, type=type_, kind="holding", min=0, max=1e9, **values)


def test_a_meter_is_read_by_its_map_in_two_requests(modbus, tmp_path):
    for address, value in ((52, 12_345.5), (70, 50.25), (72, 100.25)):
        modbus.set(address, struct.pack(">f", value))
    meter = reader(modbus.address, load_map("eastron_sdm630", tmp_path).points)
    answer = meter.read()
    meter.close()
    assert answer.values == {"power_w": 12_345.5, "frequency_hz": 50.25, "energy_j": 100.25}
    assert modbus.requests == [(4, 52, 2), (4, 70, 4)]


def test_every_register_has_orders_of_its_own(modbus):
    modbus.set(0, struct.pack(">f", 1234.5))
    swapped = struct.pack(">f", 99.5)
    modbus.set(2, swapped[2:] + swapped[:2])
    modbus.set(4, bytes(reversed(struct.pack(">d", 7.25))))
    points = (
        own("a_w", 0, "f32"),
        own("b_w", 2, "f32", word_order="little"),
        own("c_w", 4, "f64", byte_order="little", word_order="little"),
    )
    meter = reader(modbus.address, points)
    assert meter.read().values == {"a_w": 1234.5, "b_w": 99.5, "c_w": 7.25}
    meter.close()


def test_a_missing_register_does_not_affect_the_others(modbus):
    modbus.set(198, (7).to_bytes(2, "big"))
    meter = reader(modbus.address, (own("a_w", 198), own("b_w", 203)))
    answer = meter.read()
    assert answer.values == {"a_w": 7.0}
    assert "illegal data address" in answer.problems["b_w"]
    modbus.requests.clear()
    assert meter.read().values == {"a_w": 7.0}
    assert [count for _, _, count in modbus.requests] == [1]
    meter.close()


def test_a_device_that_does_not_answer_in_time_is_retryable_and_comes_back(modbus):
    modbus.set(0, (42).to_bytes(2, "big"))
    meter = reader(modbus.address, (own("a_w", 0),))
    modbus.pause_s = 1.0
    begin_s = time.monotonic()
    with pytest.raises(Retryable, match="timeout"):
        meter.read()
    assert time.monotonic() - begin_s < 0.8
    modbus.pause_s = 0.0
    modbus.set(0, (43).to_bytes(2, "big"))
    assert meter.read().values == {"a_w": 43.0}, "a late answer was taken for the next one"
    meter.close()


def test_a_closed_port_is_retryable():
    with pytest.raises(Retryable, match="connect"):
        reader("127.0.0.1:21899", (own("a_w", 0),)).read()


def test_a_unit_that_is_not_there_gives_no_value(modbus):
    stranger = reader(modbus.address, (own("a_w", 0),), unit=9)
    answer = stranger.read()
    stranger.close()
    assert answer.values == {}
    assert "a_w" in answer.problems


def test_requests_to_one_device_are_at_least_the_pause_apart(modbus):
    meter = reader(modbus.address, (own("a_w", 0), own("b_w", 50), own("c_w", 100)), pause_s=0.15)
    begin_s = time.monotonic()
    meter.read()
    meter.close()
    assert time.monotonic() - begin_s >= 0.3


def test_a_weather_transmitter_with_the_low_word_first_is_read_by_its_map(modbus, tmp_path):
    for address, value in ((0, 41.5), (2, 33.25), (18, 22.75)):
        high, low = struct.pack(">f", value)[:2], struct.pack(">f", value)[2:]
        modbus.set(address, low + high)
    points = load_map("vaisala_hmt330", tmp_path)
    device = ModbusDevice(name="roof", address=modbus.address, map="vaisala_hmt330", weather=True)
    reader = ModbusReader(device, points)
    answer = reader.read()
    reader.close()
    assert answer.values == {"humidity_percent": 41.5, "dry_bulb_c": 33.25, "wet_bulb_c": 22.75}
    assert answer.problems == {}
