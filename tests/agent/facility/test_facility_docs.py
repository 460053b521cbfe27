"""docs/guide/facility.md: every config is valid, the protocols' read real servers, every key and map is named."""

import itertools
import re
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from powerhall_agent.facility.gateway_settings import FacilitySettings, load_facility
from powerhall_agent.facility.registry import PROTOCOLS, load_map, map_names

PROGRAM = Path(sys.executable).with_name("powerhall-agent")


@pytest.fixture(scope="module")
def page(root):
    return (root / "docs" / "guide" / "facility.md").read_text()


def config(page, section):
    found = re.search(rf"^## {section}\n.*?```toml[^\n]*\n(.*?)```", page, re.DOTALL | re.MULTILINE)
    assert found is not None, section
    return found[1]


def once(folder, text):
    (folder / "facility.toml").write_text(text)
    command = [PROGRAM, "gateway", "--config", folder / "facility.toml", "--once"]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_the_first_config_and_the_map_are_valid(page, tmp_path):
    (tmp_path / "facility.toml").write_text(config(page, "facility.toml"))
    settings, _ = load_facility(tmp_path / "facility.toml")
    assert settings.spool == FacilitySettings(site="x", device=settings.device).spool
    (tmp_path / "own.toml").write_text(config(page, "A map of your own"))
    assert [point.name for point in load_map("own.toml", tmp_path).points] == ["supply_temp_c", "energy_j"]


def test_every_key_and_map_is_named(page):
    for field in itertools.chain(*(msgspec.structs.fields(protocol.device) for protocol in PROTOCOLS.values())):
        assert re.search(rf"[`(]?{field.name}[`)]?( =|`)", page), field.name
    for name in map_names():
        assert f"`{name}`" in page


@pytest.mark.parametrize("section", ["BACnet/IP", "OPC UA", "MQTT"])
def test_the_map_of_a_building_bus_is_valid(page, section, tmp_path):
    (tmp_path / "own.toml").write_text(config(page, section))
    assert len(load_map("own.toml", tmp_path).points) == 1


@pytest.mark.rig
def test_the_modbus_config_reads_a_server(page, modbus, tmp_path):
    for address, value in ((52, 12_345.5), (70, 50.25), (72, 100.25)):
        modbus.set(address, struct.pack(">f", value))
    done = once(tmp_path, config(page, "Modbus TCP"))
    assert (done.returncode, done.stdout.split()[:3]) == (0, ["feed-a", "3", "good,"]), done.stdout + done.stderr


@pytest.mark.rig
@pytest.mark.usefixtures("redfish")
def test_the_redfish_config_reads_a_server(page, tmp_path):
    done = once(tmp_path, config(page, "Redfish"))
    assert (done.returncode, done.stdout.split()[:3]) == (0, ["cdu-1", "10", "good,"]), done.stdout + done.stderr


@pytest.mark.rig
def test_the_snmp_config_reads_a_server(page, pdu, tmp_path):
    pytest.importorskip("cryptography", reason="SNMPv3 privacy needs cryptography")
    for name in ("auth", "privacy"):
        shutil.copy(pdu / name, tmp_path / name)
    done = once(tmp_path, config(page, "SNMP"))
    assert (done.returncode, done.stdout.split()[:3]) == (0, ["pdu-1", "2", "good,"]), done.stdout + done.stderr
