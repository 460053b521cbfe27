"""The gateway: a dead meter is stale, not zero; a hung device delays no other; all arrives in the store."""

import itertools
import json
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest

from powerhall.runtime.errors import Retryable
from powerhall.runtime.log import Log
from powerhall.store import Query, Select, open_store
from powerhall_agent.facility.gateway import Gateway
from powerhall_agent.facility.gateway_settings import load_facility
from powerhall_agent.facility.points import DeviceMap
from powerhall_agent.facility.protocols.modbus import ModbusDevice, ModbusPoint
from powerhall_agent.facility.reader import ReadResult
from powerhall_agent.facility.registry import open_reader
from powerhall_agent.facility.validation import CounterState

PROGRAM = Path(sys.executable).with_name("powerhall-agent")


class Lines:
    """A sink that keeps (device, point, fields, ms)."""

    def __init__(self):
        self.text = ""

    def write(self, lines):
        self.text += lines.decode()

    def of(self, device):
        return [line for line in self.text.splitlines() if f"device={device}," in line]


class Scripted:
    """A reader that returns what a test sets, or hangs."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.reads = 0

    def read(self):
        self.reads += 1
        answer = self.answers[min(self.reads, len(self.answers)) - 1]
        if isinstance(answer, float):
            time.sleep(answer)
            raise Retryable("late")
        if isinstance(answer, Exception):
            raise answer
        return answer

    def close(self):
        pass


POWER = ModbusPoint(name="power_w", kind="input", address=0, type="u16", min=0, max=1e5)
MAP = DeviceMap("modbus", "s", (POWER,))


def gateway(readers, sink, **values):
    given = {"interval_s": 0.2, "timeout_s": 0.1, **values}
    devices = [ModbusDevice(name=name, address="h", map="m", hall="h1", **given) for name in readers]
    maps = dict.fromkeys(readers, MAP)
    return Gateway("north", devices, maps, lambda device, _: readers[device.name], sink=sink, log=Log())


def run(made, seconds):
    made.start()
    end_s = time.monotonic() + seconds
    while time.monotonic() < end_s:
        time.sleep(0.02)
        made.watch()
    made.stop(0.2)


def good(value=5.0):
    return ReadResult({"power_w": value})


def test_a_dead_meter_is_stale_with_quality_0_and_never_zero():
    sink = Lines()
    made = gateway({"dead": Scripted(good(), Retryable("no answer"))}, sink)
    run(made, 1.5)
    lines = sink.of("dead")
    assert " value=5.0,quality=1.0 " in lines[0]
    assert len(lines) >= 5, "a dead meter is marked at its own pace although it is asked less often"
    assert all(" quality=0.0 " in line for line in lines[1:])
    assert "value=0" not in sink.text


def test_a_dead_meter_is_polled_with_growing_pauses_and_recovers():
    dead = Scripted(*[Retryable("no answer")] * 3, good())
    sink = Lines()
    run(gateway({"dead": dead}, sink), 4.0)
    assert 4 <= dead.reads < 15
    assert " value=5.0,quality=1.0 " in sink.of("dead")[-1]


def test_one_hung_device_delays_no_other_and_is_marked_stale():
    sink = Lines()
    readers = {"hung": Scripted(30.0), **{f"m{n}": Scripted(*[good(float(k)) for k in range(1, 99)]) for n in range(4)}}
    run(gateway(readers, sink), 2.0)
    for name in ("m0", "m1", "m2", "m3"):
        stamps = [int(line.rpartition(" ")[2]) for line in sink.of(name)]
        assert len(stamps) >= 7
        assert max(b - a for a, b in itertools.pairwise(stamps)) < 600
    assert len(sink.of("hung")) >= 5
    assert all(" quality=0.0 " in line for line in sink.of("hung"))
    assert readers["hung"].reads == 1


def test_an_internal_error_is_logged_and_loses_one_reading(capsys):
    sink = Lines()
    run(gateway({"odd": Scripted(ZeroDivisionError("boom"), good())}, sink), 1.2)
    assert "boom" in capsys.readouterr().err
    assert " value=5.0,quality=1.0 " in sink.of("odd")[-1]


def test_zeros_beside_a_counter_that_fell_to_zero_are_no_readings():
    energy = ModbusPoint(name="energy_j", kind="input", address=1, type="u32", min=0, max=1e12, max_per_s=1e5)
    reads = [(5.0, 1e9), (0.0, 0.0), (5.0, 1e9), (0.0, 1e9), (0.0, 0.0), (0.0, 0.0), (0.0, 10.0)]
    reader = Scripted(*(ReadResult({"power_w": watts, "energy_j": joules}) for watts, joules in reads))
    lines = Lines()
    device = ModbusDevice(name="m", address="h", map="m")
    made = Gateway(
        "n", [device], {"m": DeviceMap("modbus", "s", (POWER, energy))}, lambda *_: reader, sink=lines, log=Log()
    )
    for _ in reads:
        made.pollers[0].poll()
    powers = [line.partition("value=")[2].partition(",")[0] for line in lines.of("m") if "point=power_w" in line]
    assert powers == ["5.0", "", "5.0", "0.0", "", "", "0.0"]  # 0 W of a feed in standby is a reading


class MovedClock:
    def __init__(self, at_s, boot_s=1_790_000_000.0):
        self.at_s, self.boot_s = at_s, boot_s

    def monotonic_ns(self):
        return int(self.at_s * 1e9)

    def time_ns(self):
        return int((self.boot_s + self.at_s) * 1e9)


@pytest.mark.parametrize("reboot", [False, True])
def test_a_counter_rises_over_a_restart_by_no_more_than_the_time_allows(reboot):
    energy = ModbusPoint(name="energy_j", kind="input", address=1, type="u32", min=0, max=1e12, max_per_s=1e5)

    def read(clock, kept, *joules):
        lines, reader = Lines(), Scripted(*(ReadResult({"energy_j": value}) for value in joules))
        device, points = ModbusDevice(name="m", address="h", map="m"), DeviceMap("modbus", "s", (energy,))
        made = Gateway(
            "n", [device], {"m": points}, lambda *_: reader, sink=lines, log=Log(), counters=kept, clock=clock
        )
        for _ in joules:
            made.pollers[0].poll()
            clock.at_s += 5.0
        return made.counters(), [float(line.partition("value=")[2].partition(",")[0] or -1) for line in lines.of("m")]

    clock = MovedClock(1000.0)
    kept, _ = read(clock, None, 1e9)
    clock = MovedClock(100.0, 1_790_000_000.0 + 4500.0) if reboot else MovedClock(4600.0)  # an hour later
    kept, seen = read(clock, kept, 9e11, 1e9 + 3e8, 1e9 + 3.001e8)
    assert seen == [-1, 1e9 + 3e8, 1e9 + 3.001e8]
    assert read(clock, {"m": {"energy_j": CounterState(1e9, 1e9)}}, 9e11)[1] == [9e11], "kept by an older version"


def test_timestamps_of_a_device_rise():
    sink = Lines()
    run(gateway({"a": Scripted(*[good(float(k)) for k in range(99)])}, sink, interval_s=0.1), 0.8)
    stamps = [int(line.rpartition(" ")[2]) for line in sink.of("a")]
    assert stamps == sorted(set(stamps))


WEATHER = """protocol = "modbus"
source = "the test"
[[point]]
name = "dry_bulb_c"
kind = "input"
address = 100
type = "i16"
scale = 0.1
min = -60
max = 60
[[point]]
name = "wet_bulb_c"
kind = "input"
address = 101
type = "i16"
scale = 0.1
min = -60
max = 60
[[point]]
name = "energy_j"
kind = "input"
address = 102
type = "u16"
wraps_at = 65536
min = 0
max = 65535
"""


def rows(url, measurement, *fields):
    store = open_store(url)
    tag = "point" if measurement == "facility" else "site"
    by = ("device", "point") if measurement == "facility" else (tag,)
    query = Query(measurement, tuple(Select(name, "last") for name in fields), group_by=by)
    found = store.query(query, time.time() - 3600, time.time() + 60)
    store.close()
    return found


@pytest.mark.rig
def test_gateway_once_into_a_store(modbus, redfish, hung, tmp_path):
    modbus.set(52, struct.pack(">f", 12_345.5))
    modbus.set(70, struct.pack(">f", float("nan")))
    modbus.set(72, struct.pack("<f", 100.25))
    for address, raw in ((100, 235), (101, 188), (102, 65_500)):
        modbus.set(address, raw.to_bytes(2, "big"))
    (tmp_path / "station.toml").write_text(WEATHER)
    common = 'hall = "h1"\ninterval_s = 1\ntimeout_s = 0.5\n'
    (tmp_path / "facility.toml").write_text(
        'site = "north"\n'
        f'[[device]]\nname = "feed-a"\nprotocol = "modbus"\naddress = "{modbus.address}"\n'
        f'map = "eastron_sdm630"\n{common}'
        f'[[device]]\nname = "roof"\nprotocol = "modbus"\naddress = "{modbus.address}"\nmap = "station.toml"\n'
        f"weather = true\n{common}"
        f'[[device]]\nname = "cdu-1"\nprotocol = "redfish"\naddress = "{redfish[0]}"\nmap = "redfish_cdu"\n{common}'
        f'[[device]]\nname = "silent"\nprotocol = "modbus"\naddress = "{hung}"\nmap = "siemens_pac3200"\n{common}'
    )
    url = f"sqlite:///{tmp_path}/t.db"
    command = [
        PROGRAM,
        "gateway",
        "--config",
        tmp_path / "facility.toml",
        "--store",
        url,
        "--spool",
        tmp_path / "spool",
    ]
    done = subprocess.run([*command, "--once", "--json"], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1, done.stderr
    states = {state["name"]: state for state in json.loads(done.stdout)}
    assert "timeout" in states["silent"]["problem"]
    assert "not a number" in states["feed-a"]["points"]["frequency_hz"]
    assert "implausible" in states["feed-a"]["points"]["energy_j"]
    found = {(r.tags["device"], r.tags["point"]): r.values for r in rows(url, "facility", "value", "quality")}
    assert found["feed-a", "power_w"] == {"value": 12_345.5, "quality": 1.0}
    assert found["cdu-1", "heat_w"] == {"value": 980_500.0, "quality": 1.0}
    assert found["roof", "energy_j"] == {"value": 65_500.0, "quality": 1.0}
    for key in (("silent", "power_w"), ("feed-a", "frequency_hz"), ("feed-a", "energy_j")):
        assert found[key]["quality"] == 0.0
        assert found[key].get("value") is None
    (air,) = rows(url, "weather", "dry_bulb_c", "wet_bulb_c")
    assert air.values == {"dry_bulb_c": pytest.approx(23.5), "wet_bulb_c": pytest.approx(18.8)}
    modbus.set(102, (464).to_bytes(2, "big"))
    done = subprocess.run([*command, "--for", "6"], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "device_silent" in done.stderr
    found = {(r.tags["device"], r.tags["point"]): r.values for r in rows(url, "facility", "value")}
    assert found["roof", "energy_j"]["value"] == 66_000.0, "the sum goes on over a restart and a wrap"


@pytest.mark.rig
def test_a_store_that_refuses_leaves_the_points_in_the_spool(modbus, tmp_path):
    (tmp_path / "facility.toml").write_text(
        f'site = "n"\n[[device]]\nname = "a"\nprotocol = "modbus"\naddress = "{modbus.address}"\n'
        'map = "siemens_pac3200"\n'
    )
    settings, maps = load_facility(tmp_path / "facility.toml")
    open_reader(settings.device[0], maps["a"]).close()
    command = [PROGRAM, "gateway", "--config", tmp_path / "facility.toml", "--once", "--spool", tmp_path / "spool"]
    done = subprocess.run(
        [*command, "--store", "influxdb://127.0.0.1:21897/db"], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 1
    assert "wait in the spool" in done.stderr
    assert list((tmp_path / "spool" / "store").glob("*.seg"))


def test_without_a_store_once_prints_and_run_is_refused(tmp_path):
    (tmp_path / "facility.toml").write_text(
        'site = "n"\n[[device]]\nname = "a"\nprotocol = "modbus"\naddress = "127.0.0.1:21899"\n'
        'map = "siemens_pac3200"\ninterval_s = 0.5\ntimeout_s = 0.5\n'
    )
    command = [PROGRAM, "gateway", "--config", tmp_path / "facility.toml"]
    done = subprocess.run([*command, "--once"], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    assert "0 good, 3 not" in done.stdout
    assert "cannot connect" in done.stdout
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "no store" in done.stderr


@pytest.mark.rig
def test_once_says_that_points_have_no_value_and_ends_with_1(modbus, tmp_path):
    """A device that answers, but not with the points of its map; readings that a model may lack are no problem."""
    modbus.set(0, (5).to_bytes(2, "big"))
    point = '[[point]]\nname = "{}"\nkind = "holding"\naddress = {}\ntype = "u16"\nmin = 0\nmax = 9\n'
    (tmp_path / "facility.toml").write_text(
        f'site = "n"\n[[device]]\nname = "a"\nprotocol = "modbus"\naddress = "{modbus.address}"\nmap = "own.toml"\n'
    )
    command = [PROGRAM, "gateway", "--config", tmp_path / "facility.toml", "--once"]
    own = 'protocol = "modbus"\nsource = "x"\n'
    for points, outcome, code in (
        (point.format("a_w", 300), "0 good, 1 not; no value of the points below", 1),
        (point.format("a_w", 0) + point.format("b_w", 300), "1 good, 1 not; no value of the points below", 1),
        (point.format("a_w", 0) + point.format("b_w", 300) + "optional = true\n", "1 good, 0 not; ok", 0),
    ):
        (tmp_path / "own.toml").write_text(own + points)
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        assert (outcome in done.stdout, done.returncode) == (True, code), done.stdout
