"""Real servers on loopback: pymodbus, sushy-static, snmpd."""

import asyncio
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest


def wait_for_port(port: int, within_s: float = 10.0) -> None:
    end_s = time.monotonic() + within_s
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=0.5).close()
        except OSError:
            assert time.monotonic() < end_s, f"nothing listens on port {port}"
            time.sleep(0.05)
        else:
            return


class ModbusRig:
    """A pymodbus server whose registers a test may change; `address` is where it listens."""

    def __init__(self, port: int) -> None:
        from pymodbus.server import ModbusTcpServer
        from pymodbus.simulator import DataType, SimData, SimDevice

        self.registers = [0] * 200
        self.pause_s = 0.0
        self.requests: list[tuple[int, int, int]] = []
        self.address = f"127.0.0.1:{port}"

        async def act(code, _start, address, count, current, _set):
            self.requests.append((code, address, count))
            if self.pause_s:
                await asyncio.sleep(self.pause_s)
            for offset in range(count):
                current[address - _start + offset] = self.registers[address + offset]
            return

        block = SimData(0, count=200, values=0, datatype=DataType.REGISTERS)
        device = SimDevice(1, simdata=[block], action=act)
        started = threading.Event()

        async def serve():
            self.loop = asyncio.get_running_loop()
            self.server = ModbusTcpServer(device, address=("127.0.0.1", port))
            started.set()
            await self.server.serve_forever()

        self.thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
        self.thread.start()
        started.wait(5)
        wait_for_port(port)

    def set(self, address: int, data: bytes) -> None:
        """Put big-endian bytes into registers."""
        for offset in range(0, len(data), 2):
            self.registers[address + offset // 2] = int.from_bytes(data[offset : offset + 2], "big")

    def close(self) -> None:
        if self.thread.is_alive():
            asyncio.run_coroutine_threadsafe(self.server.shutdown(), self.loop).result(5)
            self.thread.join(5)


@pytest.fixture
def modbus():
    rig = ModbusRig(21810)
    yield rig
    rig.close()


@pytest.fixture
def hung():
    """A server that accepts connections and never answers."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", 21812))
        listener.listen(16)
        yield "127.0.0.1:21812"


@pytest.fixture(scope="session")
def run_program(tmp_path_factory):
    """Start programs that end with the test run."""
    running: list[subprocess.Popen[bytes]] = []

    def start(*command: str, **kwargs):
        log = tmp_path_factory.mktemp("log") / "out.txt"
        with log.open("wb") as out:
            process = subprocess.Popen(command, stdout=out, stderr=out, **kwargs)
        running.append(process)
        return process, log

    yield start
    for process in running:
        process.terminate()
    for process in running:
        process.wait(10)


@pytest.fixture(scope="session")
def sushy():
    found = Path(sys.executable).with_name("sushy-static")
    if not found.exists():
        pytest.skip("sushy-static is not installed (pip install sushy-tools)")
    return str(found)


@pytest.fixture(scope="session")
def snmpd():
    found = shutil.which("snmpd", path="/usr/sbin:/usr/bin:/usr/local/sbin")
    if found is None:
        pytest.skip("snmpd is not installed (apt-get install snmpd)")
    return found


CDU = "ThermalEquipment/CDUs/1"
TREE = {
    f"{CDU}/EnvironmentMetrics": {"PowerWatts": {"Reading": 4200.0}},
    f"{CDU}/SecondaryCoolantConnectors/1": {
        "SupplyTemperatureCelsius": {"Reading": 31.5},
        "ReturnTemperatureCelsius": {"Reading": 41.25},
        "FlowLitersPerMinute": {"Reading": 1520.0},
        "HeatRemovedkW": {"Reading": 980.5},
        "SupplyPressurekPa": {"Reading": 210.0},
    },
    f"{CDU}/PrimaryCoolantConnectors/1": {
        "SupplyTemperatureCelsius": {"Reading": 22.0},
        "ReturnTemperatureCelsius": {"Reading": 33.5},
        "FlowLitersPerMinute": {"Reading": 1100.0},
    },
    CDU: {"LeakDetection": {"@odata.id": f"/redfish/v1/{CDU}/LeakDetection"}},
    f"{CDU}/LeakDetection": {
        "LeakDetectorGroups": [{"Detectors": [{"DetectorState": "OK"}, {"DetectorState": "Warning"}]}]
    },
    "PowerEquipment/PowerShelves/1/Metrics": {
        "PowerWatts": {"Reading": 61_000.0},
        "EnergykWh": {"Reading": 900.0},
        "PowerLoadPercent": {"Reading": 84.0},
        "TemperatureCelsius": {"Reading": 41.0},
    },
    "Chassis/1/EnvironmentMetrics": {"PowerWatts": {"Reading": 9800}, "EnergykWh": {"Reading": 12.5}},
    "Chassis/1/PowerSubsystem": {"Allocation": {"AllocatedWatts": 12000}},
    "Chassis/1/ThermalSubsystem/ThermalMetrics": {"TemperatureSummaryCelsius": {"Intake": {"Reading": 24.5}}},
}


@pytest.fixture(scope="session")
def redfish(sushy, run_program, tmp_path_factory):
    """The address of sushy-static with a CDU and a chassis, and the folder of its tree."""
    folder = tmp_path_factory.mktemp("redfish")
    for path, resource in {"": {"Id": "RootService"}, **TREE}.items():
        (folder / path).mkdir(parents=True, exist_ok=True)
        (folder / path / "index.json").write_text(json.dumps({"@odata.id": f"/redfish/v1/{path}", **resource}))
    run_program(sushy, "-i", "127.0.0.1", "-p", "21830", "-m", str(folder))
    wait_for_port(21830)
    return "http://127.0.0.1:21830", folder


@pytest.fixture(scope="session")
def pdu(snmpd, run_program, tmp_path_factory):
    folder = tmp_path_factory.mktemp("snmpd")
    (folder / "snmpd.conf").write_text("""agentaddress udp:127.0.0.1:21850
rocommunity reads-only 127.0.0.1
createUser meter SHA-256 "auth-secret-1" AES "privacy-secret-1"
rouser meter priv
override .1.3.6.1.4.1.318.1.1.26.4.3.1.5.1 integer 1234
override .1.3.6.1.4.1.318.1.1.26.4.3.1.9.1 integer 5678
override .1.3.6.1.4.1.99999.1.0 octet_str "23.5"
override .1.3.6.1.4.1.99999.2.0 octet_str "hot"
""")
    for name, text in (("community", "reads-only"), ("auth", "auth-secret-1"), ("privacy", "privacy-secret-1")):
        (folder / name).write_text(text + "\n")
    environment = {**os.environ, "MIBS": "", "SNMP_PERSISTENT_DIR": str(folder / "state")}
    command = (snmpd, "-f", "-Lo", "-C", "-c", str(folder / "snmpd.conf"), "-p", str(folder / "pid"), "-I", "-smux")
    process, log = run_program(*command, env=environment)
    end_s = time.monotonic() + 10
    while "NET-SNMP version" not in log.read_text():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < end_s, log.read_text()
        time.sleep(0.05)
    return folder
