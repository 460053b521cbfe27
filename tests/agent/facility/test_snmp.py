"""SNMP v2c and v3 against a real snmpd."""

import time

import pytest

from powerhall.runtime.errors import Retryable
from powerhall_agent.facility.points import DeviceMap
from powerhall_agent.facility.protocols.snmp import SnmpDevice, SnmpPoint, SnmpReader
from powerhall_agent.facility.registry import load_map

pytestmark = pytest.mark.rig
PORT = 21850


def device(folder, **values):
    given = {"name": "pdu", "address": f"127.0.0.1:{PORT}", "map": "x", "timeout_s": 2.0, **values}
    files = {key: str(folder / value) for key, value in given.items() if key.endswith("_file")}
    return SnmpDevice(**{**given, **files})


V2C = {"version": "2c", "community_file": "community"}
V3 = {"user": "meter", "auth_file": "auth", "privacy_file": "privacy"}


def v3_needs_cryptography(login):
    if "privacy_file" in login:
        pytest.importorskip("cryptography", reason="SNMPv3 privacy needs cryptography")


@pytest.mark.parametrize("login", [V2C, V3], ids=["v2c", "v3-sha256-aes"])
def test_a_pdu_is_read_by_its_map(pdu, login, tmp_path):
    v3_needs_cryptography(login)
    reader = SnmpReader(device(pdu, **login), load_map("apc_rpdu2", tmp_path))
    for _ in range(2):
        assert reader.read().values == {"power_w": 1234.0, "energy_j": 5678.0}
    reader.close()
    assert reader.read().values["power_w"] == 1234.0
    reader.close()


def test_numeric_texts_are_values_and_other_points_have_a_reason(pdu):
    points = tuple(
        SnmpPoint(name=name, oid=f"1.3.6.1.4.1.99999.{oid}", min=0, max=90)
        for name, oid in (("a_c", "1.0"), ("b_c", "2.0"), ("c_c", "3.0"))
    )
    reader = SnmpReader(device(pdu, **V2C), DeviceMap("snmp", "s", points))
    answer = reader.read()
    reader.close()
    assert answer.values == {"a_c": 23.5}
    assert "not a number" in answer.problems["b_c"]
    assert "no such object" in answer.problems["c_c"]


@pytest.mark.parametrize(
    "login",
    [{**V2C, "community_file": "auth"}, {**V3, "auth_file": "privacy"}, {**V3, "privacy_file": "auth"}],
    ids=["community", "auth", "privacy"],
)
def test_a_wrong_secret_is_retryable_and_never_shown(pdu, login, tmp_path):
    v3_needs_cryptography(login)
    reader = SnmpReader(device(pdu, **{**login, "timeout_s": 0.5}), load_map("apc_rpdu2", tmp_path))
    with pytest.raises(Retryable) as caught:
        reader.read()
    reader.close()
    assert "secret" not in str(caught.value)


def test_an_absent_agent_is_retryable_after_its_timeout(pdu, tmp_path):
    reader = SnmpReader(
        device(pdu, **{**V2C, "address": "127.0.0.1:21898", "timeout_s": 0.4}), load_map("apc_rpdu2", tmp_path)
    )
    begin_s = time.monotonic()
    with pytest.raises(Retryable, match="timeout"):
        reader.read()
    assert time.monotonic() - begin_s < 1.5
    reader.close()
