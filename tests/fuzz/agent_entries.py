"""Entry points of the agent, the capper and the gateway."""

import base64
import json
from contextlib import suppress
from pathlib import Path

import msgspec
from registry import DATA, ROOT, Entry, file_entry

from powerhall.lease import GpuCap, Lease, sign_lease
from powerhall.runtime.decode.json_data import decode_plain_json
from powerhall.runtime.errors import Rejected, Retryable
from powerhall.runtime.log import Log
from powerhall.runtime.settings import read_toml
from powerhall.store.query import Row
from powerhall_agent.attribution.pod_resources import parse_pods
from powerhall_agent.capper.carrier import newest_lease
from powerhall_agent.capper.lease_memory import LeaseMemory
from powerhall_agent.capper.safe_config import read_safe_config
from powerhall_agent.capper.server import Message
from powerhall_agent.collectors.redfish import Redfish
from powerhall_agent.commands.cap import CapperSettings
from powerhall_agent.delivery.segment import pack, scan, unpack
from powerhall_agent.facility.counter_state import CounterStateFile
from powerhall_agent.facility.gateway_settings import load_facility
from powerhall_agent.facility.registry import load_map
from powerhall_agent.redfish.client import RedfishReply
from powerhall_agent.redfish.leaks import node_leaks
from powerhall_agent.redfish.values import pointed
from powerhall_agent.settings.agent_settings import load_settings
from powerhall_agent.settings.sampler_settings import RedfishSettings
from powerhall_agent.simulate.captures import read_text, read_xml
from powerhall_agent.simulate.faults import read_script
from powerhall_agent.simulate.recording import read_recording

KEY = bytes(32)
RECORDING = (
    b'{"powerhall_recording": 1, "driver": "590.48.01", "gpus": [{"uuid": "GPU-1", "name": "H100", "bus_id": "1",'
    b' "fields": {"186": 1}, "getters": {"TEMPERATURE": 0}}]}\n'
    b'{"t": 0.1, "gpu": 0, "f": {"186": 69620}, "g": {"TEMPERATURE": [41, 0]}}\n'
)
CAPTURE = b"""==============NVSMI LOG==============

Driver Version                            : 590.48.01
GPU 00000000:01:00.0
    Product Name                          : NVIDIA H100
    Temperature
        GPU Current Temp                  : 41 C
    GPU Power Readings
        Average Power Draw                : 71.20 W
"""
XML = b"""<?xml version="1.0" ?>
<!DOCTYPE nvidia_smi_log SYSTEM "nvsmi_device_v12.dtd">
<nvidia_smi_log><driver_version>590.48.01</driver_version><gpu id="00000000:01:00.0">
<product_name>NVIDIA H100</product_name>
<temperature><gpu_temp>41 C</gpu_temp></temperature><processes><process_info><pid>12</pid>
<used_memory>100 MiB</used_memory></process_info></processes></gpu></nvidia_smi_log>
"""
BMC = {
    "/redfish/v1/Chassis": {"Members": [{"@odata.id": "/redfish/v1/Chassis/1"}]},
    "/redfish/v1/Chassis/1": {
        "Power": {"@odata.id": "/redfish/v1/Chassis/1/Power"},
        "Thermal": {"@odata.id": "/redfish/v1/Chassis/1/Thermal"},
        "Sensors": {"@odata.id": "/redfish/v1/Chassis/1/Sensors"},
        "Links": {"ComputerSystems": [{"@odata.id": "/redfish/v1/Systems/1"}]},
    },
    "/redfish/v1/Chassis/1/Power": {"PowerControl": [{"PowerConsumedWatts": 5000.5}]},
    "/redfish/v1/Chassis/1/Thermal": {"Temperatures": [{"PhysicalContext": "Intake", "ReadingCelsius": 25}]},
}
PODS = (
    bytes.fromhex("0a380a0474726e31120461 6d6c31".replace(" ", ""))
    + b"\x1a\x20\x0a\x06worker\x12\x16\x0a\x0envidia.com/gpu\x12\x04GPU1"
)


class Answers:
    """A BMC whose resources are those of one document."""

    address = "http://bmc"

    def __init__(self, body: bytes) -> None:
        try:
            self.resources = decode_plain_json(body, "bmc")
        except Rejected as error:
            raise Retryable(str(error)) from None

    def get(self, path: str) -> RedfishReply:
        found = self.resources.get(path) if isinstance(self.resources, dict) else self.resources
        return RedfishReply(404) if found is None else RedfishReply(200, found)

    def close(self) -> None:
        pass


def redfish(tmp: Path, body: bytes) -> None:
    """Read a node's BMC, and a meter's numbers."""
    client = Answers(body)
    with suppress(LookupError):
        pointed(client.resources, "/~1redfish~1v1~1Chassis~11~1Power/PowerControl/0/PowerConsumedWatts")
    collector = Redfish(RedfishSettings(url="http://127.0.0.1"))
    collector._host.client = client
    collector._leaks = node_leaks(client, "/redfish/v1")
    collector.collect()


def pods(tmp: Path, body: bytes) -> None:
    """Read the kubelet's answer; what is no message is a ValueError, which the caller turns into Retryable."""
    with suppress(ValueError):
        parse_pods(body)


def memory(tmp: Path, body: bytes) -> None:
    """Start on a memory; whatever it holds, the capper starts."""
    (tmp / "memory.json").write_bytes(body)
    LeaseMemory(tmp / "memory.json", started_s=1e9, boot="b", skew_s=1.0).save()
    for aside in tmp.glob("memory.json.*"):
        aside.unlink()


def message(tmp: Path, body: bytes) -> None:
    """Decode a message as the capper's server does."""
    with suppress(msgspec.DecodeError, UnicodeError, RecursionError):
        msgspec.json.decode(body, type=Message)


class OneLease:
    """A store whose newest point of leases is the bytes."""

    def __init__(self, body: bytes) -> None:
        self.text = body.decode("utf-8", "replace")

    def query(self, query: object, start_s: float, end_s: float) -> list[Row]:
        return [Row(1.0, {"node": "gn01"}, {"signed": self.text})]


def segment(tmp: Path, body: bytes) -> None:
    """Read a segment of the spool."""
    found = scan(body)
    unpack(body, tuple(found.records))


def counters(tmp: Path, body: bytes) -> None:
    (tmp / "counters.json").write_bytes(body)
    CounterStateFile(tmp / "counters.json", Log(open("/dev/null", "w"))).load()  # noqa: SIM115


def a_map(tmp: Path, body: bytes) -> None:
    (tmp / "x.toml").write_bytes(body)
    load_map("x.toml", tmp)


def entries() -> list[Entry]:
    """Return the entry points of the agent."""
    maps = tuple(path.read_bytes() for path in sorted((ROOT / "agent/powerhall_agent/facility/maps").glob("*.toml")))
    settings = {name: (ROOT / f"deploy/config/{name}.toml").read_bytes() for name in ("agent", "capper", "facility")}
    signed = msgspec.json.encode(sign_lease(Lease("gn01", "p", 4, 1e9, 2e9, 9000.0, (GpuCap(0, 500.0),)), KEY))
    texts = (
        tuple(path.read_bytes() for path in sorted(DATA.glob("nvidia_smi/exporter/linux*.txt")))
        if DATA.is_dir()
        else ()
    )
    xmls = (
        tuple(path.read_bytes() for path in sorted(DATA.glob("nvidia_smi/telegraf_xml/*.xml"))) if DATA.is_dir() else ()
    )
    kept = b'{"sequence":4,"boot":"b","since_s":1e9,"seen":4,"issued_s":1e9,"heard_s":5.0,"until_s":900.0,"gpus":8}'
    utf8 = lambda body: body.decode("utf-8", "replace")  # noqa: E731
    return [
        file_entry("agent.toml", (settings["agent"],), "agent.toml", load_settings),
        file_entry("capper.toml", (settings["capper"],), "capper.toml", lambda path: read_toml(path, CapperSettings)),
        file_entry("capper.toml, for the safe caps", (settings["capper"],), "capper.toml", read_safe_config),
        file_entry("facility.toml", (settings["facility"],), "facility.toml", load_facility),
        Entry("map of a device", maps, a_map),
        Entry("memory of the capper", (kept,), memory),
        Entry("message to the capper", (b'{"alive": true}', b'{"lease": ' + signed + b"}"), message),
        Entry(
            "lease in the store", (base64.b64encode(signed),), lambda _, body: newest_lease(OneLease(body), "gn01", 1.0)
        ),  # type: ignore[arg-type]
        Entry("counters of the gateway", (b'{"m":{"energy_j":{"raw":5.0,"total":7.0}}}',), counters),
        Entry("answer of a BMC", (json.dumps(BMC).encode(),), redfish),
        Entry("pod resources of the kubelet", (PODS,), pods),
        Entry("segment of the spool", (pack(b"node,node=a power_w=1 5\n" * 20, 20) * 3,), segment),
        file_entry("recording", (RECORDING,), "r.jsonl", read_recording),
        file_entry(
            "fault script", (b"at 5 gpu 1 lost  # off the bus\n\nat 2.5 load 0.5 10GiB\n",), "f.txt", read_script
        ),
        Entry("nvidia-smi -q", (CAPTURE, *texts), lambda _, body: read_text(utf8(body), "x")),
        Entry("nvidia-smi -q -x", (XML, *xmls), lambda _, body: read_xml(utf8(body), "x")),
    ]
