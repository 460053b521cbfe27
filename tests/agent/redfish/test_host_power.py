"""Which chassis is the host, and where it shows its power: trees as makers' services give them."""

import json
import sys
import time
from pathlib import Path

import pytest

from powerhall.runtime.errors import Retryable
from powerhall_agent.redfish.client import RedfishReply
from powerhall_agent.redfish.host import HostReadings

ROOT = "/redfish/v1"


def link(path):
    return {"@odata.id": f"{ROOT}/{path}"}


def tree(chassis, systems=None, more=None):
    """A service of chassis {id: resource or {"Power": {...}}}: a nested resource is put where its link points."""
    found = {
        ROOT: {"Chassis": link("Chassis"), "Systems": link("Systems"), "TelemetryService": link("TelemetryService")}
    }
    found[f"{ROOT}/Chassis"] = {"Members": [link(f"Chassis/{name}") for name in chassis]}
    for name, body in chassis.items():
        shown = dict(body)
        for part in ("EnvironmentMetrics", "Power", "Thermal"):
            if isinstance(body.get(part), dict) and "@odata.id" not in body[part]:
                found[f"{ROOT}/Chassis/{name}/{part}"] = body[part]
                shown[part] = link(f"Chassis/{name}/{part}")
        found[f"{ROOT}/Chassis/{name}"] = shown
    if systems is not None:
        found[f"{ROOT}/Systems"] = {"Members": [link(f"Systems/{name}") for name in systems]}
        found |= {f"{ROOT}/Systems/{name}": body for name, body in systems.items()}
    return found | {f"{ROOT}/{path}": body for path, body in (more or {}).items()}


class Service:
    """Answers from a tree; counts the requests."""

    address = "http://bmc"

    def __init__(self, resources):
        self.resources, self.asked = resources, []

    def get(self, path):
        self.asked.append(path)
        found = self.resources.get(path)
        return found if isinstance(found, RedfishReply) else RedfishReply(404 if found is None else 200, found)


def read(resources, chassis="", clock=time.monotonic):
    return HostReadings(Service(resources), chassis, clock=clock).read()


def environment(power_w):
    return {"EnvironmentMetrics": {"PowerWatts": {"Reading": power_w}}}


def control(power_w):
    return {"Power": {"PowerControl": [{"PowerConsumedWatts": power_w}]}}


GPU = {"ChassisType": "Module", **environment(118.2)}
HOSTS = {
    "a GPU and its baseboard stand before the host": tree(
        {"HGX_GPU_SXM_1": GPU, "HGX_Chassis_0": environment(2420.5),
         "Self": {"ChassisType": "RackMount", **control(6120)}}
    ),
    "a baseboard says that it is a rack mount": tree(
        {"HGX_Chassis_0": {"ChassisType": "RackMount", **environment(2420.5)}, "1": control(6120)}
    ),
    "accelerators without telling names are modules": tree(
        {"Accel1": {"ChassisType": "Component", **environment(700)},
         "Tray": {"ChassisType": "Module", **environment(5600)},
         "1": control(6120)}
    ),
    "the system names its chassis among two servers": tree(
        {"Other": {"ChassisType": "RackMount", **control(9000)}, "Mine": {"ChassisType": "Sled", **control(6120)}},
        {"1": {"SystemType": "Physical", "Links": {"Chassis": [link("Chassis/Mine")]}}},
    ),
    "the chassis names its system": tree(
        {"A": {**control(9000)}, "B": {**control(6120), "Links": {"ComputerSystems": [link("Systems/1")]}}},
        {"1": {}},
    ),
    "the GPU baseboard is a system, too": tree(
        {"HGX_Chassis_0": environment(2420.5), "Chassis_0": environment(6120)},
        {"HGX_Baseboard_0": {"SystemType": "Physical", "Links": {"Chassis": [link("Chassis/HGX_Chassis_0")]}},
         "System_0": {"Links": {"Chassis": [link("Chassis/HGX_Chassis_0"), link("Chassis/Chassis_0")]}}},
    ),
    "an enclosure holds several hosts": tree(
        {"Encl": {"ChassisType": "Enclosure", **control(24000)},
         "Blade1": {"ChassisType": "Blade", **control(6120), "Links": {"ContainedBy": link("Chassis/Encl")}}},
        {"1": {"Links": {"Chassis": [link("Chassis/Blade1")]}}},
    ),
    "the system names its board, and the board stands in the server": tree(
        {"Board": {**control(5000), "Links": {"ContainedBy": link("Chassis/Server")}},
         "Server": {"ChassisType": "RackMount", **control(6120)}},
        {"1": {"Links": {"Chassis": [link("Chassis/Board")]}}},
    ),
    "a DPU is a system, too": tree(
        {"Bluefield": environment(60), "Card1": {"ChassisType": "Card", **environment(70)}, "1": control(6120)},
        {"DPU1": {"SystemType": "DPU"}, "1": {"Links": {"Chassis": [link("Chassis/1")]}}},
    ),
    "one part cannot be read": tree({"X": control(10), "Y": control(6120)}) | {f"{ROOT}/Chassis/X": RedfishReply(500)},
    "members without a path, of the wrong kind, twice": tree({"1": control(6120)})
    | {f"{ROOT}/Chassis": {"Members": [{"error": {}}, None, 5, {"@odata.id": None}, *[link("Chassis/1")] * 2]}},
    "the collection has two pages": tree({"1": control(6120)})
    | {f"{ROOT}/Chassis": {"Members": [], "Members@odata.nextLink": f"{ROOT}/Chassis?$skip=1"},
       f"{ROOT}/Chassis?$skip=1": {"Members": [link("Chassis/1")]}},
    "without a service root": {k: v for k, v in tree({"1": control(6120)}).items() if k != ROOT},
}  # fmt: skip


@pytest.mark.parametrize("resources", HOSTS.values(), ids=HOSTS)
def test_the_host_is_found_and_no_part_of_it(resources):
    assert read(resources)[0] == 6120


def power(**body):
    return tree({"1": {"Power": body}})


def linked(name, resources, **more):
    """A chassis with one link, and the resources under it."""
    found = {f"Chassis/1/{path}": body for path, body in resources.items()}
    return tree({"1": {name: link(f"Chassis/1/{name}"), **more}}, more=found)


REPORTS = {
    "TelemetryService": {"MetricReports": link("Reports")},
    "Reports": {"Members": [link("Reports/CPU"), link("Reports/PowerMetrics")]},
    "Reports/PowerMetrics": {"MetricValues": [{"MetricId": "SystemOutputPower", "MetricValue": "5800"},
                                              {"MetricId": "SystemInputPower", "MetricValue": "6120"}]},
}  # fmt: skip
SUPPLIES = {
    "PowerSubsystem": {"PowerSupplies": link("Chassis/1/PowerSubsystem/S")},
    "PowerSubsystem/S": {"Members": [link(f"Chassis/1/S{n}") for n in range(3)]},
    "S0": {"Metrics": link("Chassis/1/M0")},
    "S1": {"Metrics": link("Chassis/1/M1")},
    "S2": {"Status": {"State": "Absent"}},
    "M0": {"InputPowerWatts": {"Reading": 3000}},
    "M1": {"InputPowerWatts": {"Reading": 3120}},
}
PAGES = {
    "PowerSubsystem/S": {"Members": [link("Chassis/1/S0")], "Members@odata.nextLink": f"{ROOT}/Chassis/1/More"},
    "More": {"Members": [link("Chassis/1/S1"), link("Chassis/1/S2")]},
}
SOURCES = {
    "text": power(PowerControl=[{"PowerConsumedWatts": "6120 W"}]),
    "one control that is no list": power(PowerControl={"PowerConsumedWatts": 6120}),
    "AMI": power(PowerControl=[{"PowerConsumedWatts": None, "PowerMetrics": {"CurConsumedWatts": 6120}}]),
    "mean alone": power(PowerControl=[{"PowerMetrics": {"AverageConsumedWatts": 6120}}]),
    "iLO 4": power(PowerConsumedWatts=6120, PowerControl=[{"PowerConsumedWatts": None}]),
    "Lenovo: CPUs and memory have controls": power(PowerControl=[
        {"Name": "CPU Sub-system Power", "PowerConsumedWatts": 300}, {"Name": "Memory Power", "PowerConsumedWatts": 80},
        {"Name": "Server Power Control", "PowerConsumedWatts": 6120}]),
    "GPUs have controls by context": power(PowerControl=[
        {"PhysicalContext": "GPU", "PowerConsumedWatts": 700},
        {"PhysicalContext": "Chassis", "PowerConsumedWatts": 6120}]),
    "Inspur": power(PowerControl=[], Oem={"Public": {"TotalPower": 6120}}),
    "Fujitsu": power(Oem={"ts_fujitsu": {"ChassisPowerConsumption": {"CurrentPowerConsumptionW": 6120, "PeakPowerW": 9},
                                         "ChassisPowerSensors": [{"CurrentPowerConsumptionW": 80}]}}),
    "Oem with parts": power(Oem={"Maker": {"GPUs": {"TotalPowerWatts": 5000}, "Server": {"TotalPowerWatts": 6120}}}),
    "Oem of the chassis": tree({"1": {"Oem": {"Supermicro": {"PowerConsumedWatts": 6120}}}}),
    "environment without power": tree({"1": {"EnvironmentMetrics": {"Id": "EnvironmentMetrics"}, **control(6120)}}),
    "environment with null": tree({"1": {"EnvironmentMetrics": {"PowerWatts": None}, **control(6120)}}),
    "environment with null reading": tree({"1": {**environment(None), **control(6120)}}),
    "a sentinel of 16 bits": tree({"1": {**environment(65535), **control(6120)}}),
    "a sentinel of 32 bits": tree({"1": {**environment(4294967.295), **control(6120)}}),
    "negative": tree({"1": {**environment(-1), **control(6120)}}),
    "0 W of a host that runs": tree({"1": {**environment(0), **control(6120)}}),
    "no JSON": tree({"1": {"EnvironmentMetrics": {}, **control(6120)}})
    | {f"{ROOT}/Chassis/1/EnvironmentMetrics": RedfishReply(200, None, "no JSON document")},
    "supplies": linked("PowerSubsystem", SUPPLIES),
    "supplies on two pages": linked("PowerSubsystem", SUPPLIES | PAGES),
    "a disabled control keeps its last value": power(PowerControl=[
        {"Status": {"State": "Disabled"}, "PowerConsumedWatts": 900}, {"PowerConsumedWatts": 6120}]),
    "older supplies": power(PowerSupplies=[{"PowerInputWatts": 3000}, {"PowerInputWatts": 3120},
                                           {"Status": {"State": "Absent"}, "PowerInputWatts": None}]),
    "a sensor": linked("Sensors", {
        "Sensors": {"Members": [link(f"Chassis/1/Sensors/{name}") for name in (
            "TotalGPU_Power", "SystemBoardInletTemp", "PSU1_Input_Power", "SystemPowerCap",
            "SystemBoardPwrConsumption")]},
        "Sensors/TotalGPU_Power": {"Reading": 5000}, "Sensors/PSU1_Input_Power": {"Reading": 3000},
        "Sensors/SystemPowerCap": {"Reading": 7000},
        "Sensors/SystemBoardPwrConsumption": {"ReadingType": "Power", "ReadingUnits": "W", "Reading": 6120}}),
    "a sensor of percent is none": linked("Sensors", {
        "Sensors": {"Members": [link("Chassis/1/Sensors/System_Power"), link("Chassis/1/Sensors/Total_Power")]},
        "Sensors/System_Power": {"ReadingUnits": "%", "Reading": 61}, "Sensors/Total_Power": {"Reading": 6120}}),
    "a sensor that is off keeps its last value": linked("Sensors", {
        "Sensors": {"Members": [link("Chassis/1/Sensors/System_Power"), link("Chassis/1/Sensors/Total_Power")]},
        "Sensors/System_Power": {"Status": {"State": "UnavailableOffline"}, "Reading": 900},
        "Sensors/Total_Power": {"Reading": 6120}}),
    "a metric report": tree({"1": {}}, more=REPORTS),
}  # fmt: skip


@pytest.mark.parametrize("resources", SOURCES.values(), ids=SOURCES)
def test_the_power_is_found_wherever_its_maker_shows_it(resources):
    assert read(resources)[0] == 6120


NOTHING = {
    "pages in a circle": tree({"1": {}}) | {f"{ROOT}/Chassis": {"Members@odata.nextLink": f"{ROOT}/B"},
                                           f"{ROOT}/B": {"Members@odata.nextLink": f"{ROOT}/Chassis"}},
    "only a baseboard": tree({"HGX_Chassis_0": environment(2420.5)}),
    "only parts": tree({"HGX_GPU_SXM_1": GPU, "1": {}}),
    "Power is null": tree({"1": {"Power": None}}),
    "text that is no number": power(PowerControl=[{"PowerConsumedWatts": "N/A"}]),
    "a page of the supplies cannot be read": linked("PowerSubsystem", SUPPLIES | PAGES)
    | {f"{ROOT}/Chassis/1/More": RedfishReply(503)},
    "one of two supplies is silent": power(PowerSupplies=[{"PowerInputWatts": 3000}, {"PowerInputWatts": None}]),
    "a sentinel alone": tree({"1": environment(65535)}),
    "a stale report": tree({"1": {}}, more=REPORTS | {"Reports/PowerMetrics": {"MetricValues": [
        {"MetricId": "TotalPower", "MetricValue": "6120", "Oem": {"Nvidia": {"MetricValueStale": True}}}]}}),
    "several hosts": tree({"A": control(1), "B": control(2)}, {"1": {}, "2": {}}),
}  # fmt: skip


@pytest.mark.parametrize("resources", NOTHING.values(), ids=NOTHING)
def test_without_a_power_of_the_host_there_is_a_reason_and_no_reading(resources):
    with pytest.raises(Retryable, match=r"^http://bmc: (no power of the host|several hosts|no chassis)"):
        read(resources)


def test_the_operator_may_name_the_chassis():
    assert read(HOSTS["a GPU and its baseboard stand before the host"], "HGX_Chassis_0")[0] == 2420.5
    with pytest.raises(Retryable, match="no chassis 'Nope' among 1"):
        read(tree({"1": control(5)}), "Nope")


def test_the_intake_is_no_other_temperature():
    thermal = {"Temperatures": [{"ReadingCelsius": 61}, {"Name": "CPU1", "ReadingCelsius": 70}, None,
                                {"Name": "01-Inlet Ambient", "ReadingCelsius": None},
                                {"PhysicalContext": "Intake", "ReadingCelsius": "22"}]}  # fmt: skip
    assert read(tree({"1": {**control(5), "Thermal": thermal}})) == (5, 22)
    assert read(
        tree({"1": {**control(5), "Thermal": {"Temperatures": [{"Name": "Inlet", "ReadingCelsius": 255}]}}})
    ) == (5, None)


def test_found_once_read_by_one_request_each_and_looked_for_again_when_it_shows_nothing():
    resources = HOSTS["a GPU and its baseboard stand before the host"]
    service, now = Service(dict(resources)), [0.0]
    host = HostReadings(service, clock=lambda: now[0])
    host.read()
    service.asked.clear()
    assert host.read()[0] == 6120
    assert service.asked == [f"{ROOT}/Chassis/Self/Power"]
    service.resources[f"{ROOT}/Chassis/Self/Power"] = {"PowerControl": [{"PowerConsumedWatts": None}]}
    for _ in range(3):
        with pytest.raises(Retryable, match="Power shows no plausible power"):
            host.read()
    with pytest.raises(Retryable, match="no power of the host"):
        host.read()
    service.asked.clear()
    with pytest.raises(Retryable, match="no power of the host"):
        host.read()
    assert service.asked == []  # a slow service is not searched at every read
    service.resources[f"{ROOT}/Chassis/Self/Power"] = {"PowerControl": [{"PowerConsumedWatts": 50}]}
    now[0] += 61
    assert host.read()[0] == 50


@pytest.mark.rig
def test_a_real_redfish_server_gives_the_host(tmp_path, unused_port):
    """sushy-static serves the tree; it answers a path with and without its slash."""
    import subprocess

    from powerhall_agent.collectors.redfish import Redfish
    from powerhall_agent.settings.sampler_settings import RedfishSettings

    program = Path(sys.executable).with_name("sushy-static")
    if not program.exists():
        pytest.skip("sushy-static is not installed (pip install sushy-tools)")
    for path, body in HOSTS["the GPU baseboard is a system, too"].items():
        folder = tmp_path / path.removeprefix(ROOT).strip("/")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "index.json").write_text(json.dumps({"@odata.id": path, **body}))
    server = subprocess.Popen(
        [program, "-i", "127.0.0.1", "-p", str(unused_port), "-m", tmp_path], stderr=subprocess.DEVNULL
    )
    bmc = Redfish(RedfishSettings(url=f"http://127.0.0.1:{unused_port}"))
    try:
        end_s = time.monotonic() + 20
        while True:
            try:
                assert bmc.collect() == {"power_w": 6120.0}
                break
            except Retryable:
                assert time.monotonic() < end_s
                time.sleep(0.1)
        assert bmc.find().chassis == f"{ROOT}/Chassis/Chassis_0"
    finally:
        bmc.close()
        server.terminate()
        server.wait(10)
