"""SNMP v1, v2c and v3 against a real snmpd, and against an agent that refuses."""

import importlib
import socket
import threading
import time

import pytest

from powerhall.runtime.errors import Retryable
from powerhall_agent.facility.points import DeviceMap
from powerhall_agent.facility.protocols import snmp
from powerhall_agent.facility.protocols.snmp import SnmpDevice, SnmpPoint, SnmpReader
from powerhall_agent.facility.registry import load_map

pytestmark = pytest.mark.rig
PORT = 21850


def device(folder, **values):
    given = {"name": "pdu", "address": f"127.0.0.1:{PORT}", "map": "x", "timeout_s": 2.0, **values}
    files = {key: str(folder / value) for key, value in given.items() if key.endswith("_file")}
    return SnmpDevice(**{**given, **files})


V1 = {"version": "1", "community_file": "community"}
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
    ("wrapped", "shown"),
    [("9f780441bc0000", 23.5), ("9f7908c037800000000000", -23.5), ("9f780441bc", "cut off"),
     ("9f78047fc00000", "not a number"), ("02010500000000", "not a number"), ("", "not a number")],
)  # fmt: skip
def test_a_float_that_an_agent_wraps_is_a_number(wrapped, shown):
    value = importlib.import_module("pysnmp.proto.rfc1902").Opaque(bytes.fromhex(wrapped))
    found = snmp._number(value)
    assert found == shown if isinstance(shown, float) else shown in found


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


PRESENT, ABSENT, WORDS = "1.3.6.1.4.1.318.1.1.26.4.3.1.5.1", "1.3.6.1.4.1.99999.3.{}", "1.3.6.1.4.1.99999.2.0"


@pytest.mark.parametrize("login", [V1, V2C], ids=["v1", "v2c"])
@pytest.mark.parametrize("absent", [1, 3, 9])
def test_absent_objects_cost_only_their_own_points(pdu, login, absent):
    """In version 1 one absent object refuses the whole request."""
    oids = [PRESENT] * (10 - absent) + [ABSENT.format(n) for n in range(absent)]
    points = tuple(SnmpPoint(name=f"p{n}_w", oid=oid, min=0, max=1e6) for n, oid in enumerate(reversed(oids)))
    reader = SnmpReader(device(pdu, **login), DeviceMap("snmp", "s", points))
    for _ in range(2):
        answer = reader.read()
        assert list(answer.problems) == [f"p{n}_w" for n in range(absent)]
        assert set(answer.values.values()) == {1234.0}
    reader.close()


class Refusing:
    """An agent that answers in version 2c by a rule: a function of the OIDs asked for to (status, index)."""

    def __init__(self, rule, turn=list):
        self.rule, self.turn, self.asked = rule, turn, []
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self.socket.getsockname()[1]}"
        self.thread = threading.Thread(target=self.serve)
        self.thread.start()

    def serve(self):
        api = importlib.import_module("pysnmp.proto.api")
        decoder, encoder = (importlib.import_module(f"pyasn1.codec.ber.{name}") for name in ("decoder", "encoder"))
        version = api.PROTOCOL_MODULES[api.SNMP_VERSION_2C]
        while True:
            packet, peer = self.socket.recvfrom(65535)
            if packet == b"end":
                return
            request, _ = decoder.decode(packet, asn1Spec=version.Message())
            pdu = version.apiMessage.get_pdu(request)
            oids = [str(oid) for oid, _ in version.apiPDU.get_varbinds(pdu)]
            self.asked.append(oids)
            status, index = self.rule(oids)
            answer = version.apiMessage.get_response(request)
            reply = version.apiMessage.get_pdu(answer)
            found = [] if status else [(oid, version.Integer(int(oid.rpartition(".")[2]))) for oid in oids]
            version.apiPDU.set_varbinds(reply, self.turn(found))
            version.apiPDU.set_error_status(reply, status)
            if index:
                version.apiPDU.set_error_index(reply, index)
            self.socket.sendto(encoder.encode(answer), peer)

    def close(self):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            host, _, port = self.address.partition(":")
            sender.sendto(b"end", (host, int(port)))
        self.thread.join()
        self.socket.close()


def refused_at(oids, number, status):
    places = [place for place, oid in enumerate(oids, start=1) if oid.endswith(f".{number}")]
    return (status, places[0]) if places else (0, 0)


RULES = {
    "more than three are too big": (lambda oids: (1, 0) if len(oids) > 3 else (0, 0), []),
    "one alone is too big": (lambda oids: (1, 0) if any(oid.endswith(".7") for oid in oids) else (0, 0), [7]),
    "general error at one": (lambda oids: refused_at(oids, 7, 5), [7]),
    "no such name at one, in version 2c": (lambda oids: refused_at(oids, 12, 2), [12]),
    "a resource is not available, without an index": (
        lambda oids: (13, 0) if any(oid.endswith(".3") for oid in oids) else (0, 0), [3]),
    "an index past the end": (lambda oids: (5, 99) if any(oid.endswith(".3") for oid in oids) else (0, 0), [3]),
    "everything is refused": (lambda oids: (16, 0), list(range(1, 13))),
}  # fmt: skip


@pytest.mark.parametrize(("rule", "bad"), RULES.values(), ids=RULES)
def test_a_refused_request_is_split_until_only_bad_objects_are_lost(tmp_path, rule, bad):
    (tmp_path / "community").write_text("public\n")
    agent = Refusing(rule)
    points = tuple(SnmpPoint(name=f"p{n}_w", oid=f"1.3.6.1.4.1.9.{n}", min=0, max=99) for n in range(1, 13))
    reader = SnmpReader(device(tmp_path, **V2C, address=agent.address), DeviceMap("snmp", "s", points))
    try:
        for _ in range(2):
            agent.asked.clear()
            answer = reader.read()
            assert sorted(answer.problems) == sorted(f"p{n}_w" for n in bad)
            assert answer.values == {f"p{n}_w": float(n) for n in range(1, 13) if n not in bad}
        assert sum(map(len, agent.asked)) == 12, "what was refused together is asked for apart from then on"
    finally:
        reader.close()
        agent.close()


def test_points_of_one_object_have_its_value_each(tmp_path):
    (tmp_path / "community").write_text("public\n")
    agent = Refusing(lambda oids: refused_at(oids, 3, 5))
    objects = {"a": 2, "b": 3, "c": 2, "d": 3}
    points = tuple(SnmpPoint(name=f"{name}_w", oid=f"1.3.6.1.4.1.9.{n}", min=0, max=99) for name, n in objects.items())
    reader = SnmpReader(device(tmp_path, **V2C, address=agent.address), DeviceMap("snmp", "s", points))
    try:
        answer = reader.read()
        assert answer.values == {"a_w": 2.0, "c_w": 2.0}
        assert answer.problems["b_w"] == answer.problems["d_w"]
    finally:
        reader.close()
        agent.close()


@pytest.mark.parametrize(
    ("turn", "lost"),
    [(lambda found: found[::-1], []), (lambda found: found[1:], [1]), (lambda found: found[:2] + found[1:2], [3])],
    ids=["in another order", "one left out", "one twice in another's place"],
)
def test_a_value_belongs_to_the_object_that_it_came_with(tmp_path, turn, lost):
    (tmp_path / "community").write_text("public\n")
    agent = Refusing(lambda _: (0, 0), turn)
    points = tuple(SnmpPoint(name=f"p{n}_w", oid=f"1.3.6.1.4.1.9.{n}", min=0, max=99) for n in range(1, 4))
    reader = SnmpReader(device(tmp_path, **V2C, address=agent.address), DeviceMap("snmp", "s", points))
    try:
        answer = reader.read()
        assert answer.values == {f"p{n}_w": float(n) for n in range(1, 4) if n not in lost}
        assert sorted(answer.problems) == [f"p{n}_w" for n in lost]
    finally:
        reader.close()
        agent.close()
