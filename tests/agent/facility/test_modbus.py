"""Modbus TCP against a real pymodbus server, and against meters that close their connections."""

import socket
import struct
import threading
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


class Closing:
    """A meter that closes a connection after some answers or when it was idle, or forgets it without a word."""

    def __init__(self, answers, idle_s, forgets, other_function=0):
        self.answers, self.idle_s, self.forgets, self.connections = answers, idle_s, forgets, 0
        self.other_function = other_function
        self.forgotten = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self.listener.getsockname()[1]}"
        self.thread = threading.Thread(target=self.serve)
        self.thread.start()

    def serve(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            self.connections += 1
            connection.settimeout(self.idle_s)
            self.talk(connection)
            if self.forgets:
                self.forgotten.append(connection)
            else:
                connection.close()

    def talk(self, connection):
        for _ in range(self.answers):
            try:
                request = connection.recv(12)
            except TimeoutError:
                return
            if len(request) < 12:
                return
            tid, _, _, unit, function, _, count = struct.unpack(">HHHBBHH", request)
            function += self.other_function
            connection.sendall(
                struct.pack(">HHHBBB", tid, 0, 3 + 2 * count, unit, function, 2 * count) + bytes(2 * count)
            )

    def close(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.thread.join()
        for connection in self.forgotten:
            connection.close()


@pytest.fixture
def closing():
    made = []

    def build(**values):
        made.append(Closing(**{"answers": 10**6, "idle_s": 5.0, "forgets": False, **values}))
        return made[-1]

    yield build
    for meter in made:
        meter.close()


@pytest.mark.parametrize("answers", [1, 2, 3])
def test_a_meter_that_closes_after_its_answers_is_asked_again_within_the_read(closing, answers):
    server = closing(answers=answers)
    meter = reader(server.address, (own("a_w", 0), own("b_w", 50)))
    for _ in range(4):
        assert meter.read().values == {"a_w": 0.0, "b_w": 0.0}
    meter.close()


@pytest.mark.parametrize("forgets", [False, True])
def test_a_meter_that_ends_idle_connections_is_read_each_time(closing, forgets):
    server = closing(idle_s=0.1, forgets=forgets)
    meter = reader(server.address, (own("a_w", 0),))
    for _ in range(4):
        begin_s = time.monotonic()
        assert meter.read().values == {"a_w": 0.0}
        took_s = time.monotonic() - begin_s
        time.sleep(0.25)
    assert took_s < 0.3, "after two lost connections none is kept, so that no read waits for one"
    meter.close()


def test_a_meter_that_closes_every_connection_at_once_is_retryable_and_not_asked_for_ever(closing):
    server = closing(answers=0)
    meter = reader(server.address, (own("a_w", 0),))
    with pytest.raises(Retryable):
        meter.read()
    meter.close()
    assert server.connections <= 2


def test_an_answer_by_another_function_is_no_reading(closing):
    server = closing(other_function=1)  # input registers in place of holding registers
    meter = reader(server.address, (own("a_w", 0),))
    with pytest.raises(Retryable, match="by function 4"):
        meter.read()
    meter.close()
