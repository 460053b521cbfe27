"""Redfish against sushy-static with a CDU and a chassis of our own, and against a server that asks for a login."""

import http.server
import json
import shutil
import subprocess
import threading
import time

import pytest

from powerhall.runtime.errors import Retryable
from powerhall_agent.facility.points import DeviceMap
from powerhall_agent.facility.protocols.redfish import RedfishDevice, RedfishPoint, RedfishReader
from powerhall_agent.facility.registry import load_map
from powerhall_agent.redfish.values import pointed

pytestmark = pytest.mark.rig


def device(address, **values):
    return RedfishDevice(**{"name": "cdu", "address": address, "map": "x", "pause_s": 0.0, "timeout_s": 1.0, **values})


def test_a_cdu_is_read_by_its_map(redfish, tmp_path):
    reader = RedfishReader(device(redfish[0]), load_map("redfish_cdu", tmp_path))
    answer = reader.read()
    reader.close()
    assert answer.problems == {}
    assert answer.values == {
        "power_w": 4200.0,
        "supply_temp_c": 31.5,
        "return_temp_c": 41.25,
        "flow_l_per_min": 1520.0,
        "heat_w": 980.5,
        "supply_pressure_kpa": 210.0,
        "primary_supply_temp_c": 22.0,
        "primary_return_temp_c": 33.5,
        "primary_flow_l_per_min": 1100.0,
        "leak_state": 1.0,
    }


def test_a_power_shelf_is_read_by_its_map(redfish, tmp_path):
    reader = RedfishReader(device(redfish[0]), load_map("redfish_power_shelf", tmp_path))
    answer = reader.read()
    reader.close()
    assert answer.problems == {}
    assert answer.values == {"power_w": 61_000.0, "energy_j": 900.0, "load_percent": 84.0, "temp_c": 41.0}


def test_a_chassis_is_read_by_its_map(redfish, tmp_path):
    reader = RedfishReader(device(redfish[0]), load_map("redfish_chassis", tmp_path))
    answer = reader.read()
    reader.close()
    shown = {"power_w": 9800, "energy_j": 12.5, "allocated_power_w": 12000, "intake_temp_c": 24.5}
    assert answer.values == {**shown, "leak_state": 1.0}  # of the unit that has the chassis' id


def test_a_power_shelf_may_draw_more_than_a_host_and_a_refused_login_is_no_reading(redfish, locked, tmp_path):
    folder = redfish[1] / "Chassis" / "Shelf" / "EnvironmentMetrics"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "index.json").write_text('{"PowerWatts": {"Reading": 132000}}')
    reader = RedfishReader(device(redfish[0], member="Shelf"), load_map("redfish_chassis", tmp_path))
    assert reader.read().values["power_w"] == 132_000
    reader.close()
    points = tuple(point for point in load_map("redfish_chassis", tmp_path).points if point.find)
    (tmp_path / "wrong").write_text("letmein\n")
    login = {"user": "reader", "password_file": str(tmp_path / "wrong"), "auth": "basic", "member": "host"}
    reader = RedfishReader(device(locked, **login), DeviceMap("redfish", "s", points))
    with pytest.raises(Retryable, match="HTTP 401"):
        reader.read()
    reader.close()


def test_an_absent_resource_affects_its_own_points_only(redfish):
    def point(name, path, pointer="/PowerWatts/Reading"):
        return RedfishPoint(name=name, path=f"/redfish/v1/{path}", pointer=pointer, min=0, max=1e6)

    good = "Chassis/{member}/EnvironmentMetrics"
    points = (point("a_w", good), point("b_w", "Chassis/9/Power"), point("c_w", good, "/PowerWatts"))
    reader = RedfishReader(device(redfish[0]), DeviceMap("redfish", "s", points))
    answer = reader.read()
    reader.close()
    assert answer.values == {"a_w": 9800.0}
    assert "HTTP 404" in answer.problems["b_w"]
    assert "not a number" in answer.problems["c_w"]


def test_a_pointer_reads_lists_escapes_and_numbers_as_text_and_refuses_null():
    assert pointed({"a/b": [{"~": 7}]}, "/a~1b/0/~0") == 7.0
    assert [pointed({"x": text}, "/x") for text in ("345", " 12.5 W ", "-3e2")] == [345.0, 12.5, -300.0]
    for document in ({"x": None}, {"x": True}, {"x": "n/a"}, {"x": "nan"}, {"x": ""}, {"x": "1_0"}, {}, [1]):
        with pytest.raises(LookupError):
            pointed(document, "/x")


def test_a_closed_port_and_a_silent_server_are_retryable(hung, tmp_path):
    for address, why in (("http://127.0.0.1:21899", "cannot connect"), (f"http://{hung}", "timeout")):
        reader = RedfishReader(device(address, timeout_s=0.3), load_map("redfish_cdu", tmp_path))
        with pytest.raises(Retryable, match=why):
            reader.read()


class Locked(http.server.BaseHTTPRequestHandler):
    """A service with sessions and Basic logins, whose sessions can be ended by a test."""

    tokens: set[str]
    seen: list[tuple[str, str]]

    def do_GET(self):
        token = self.headers.get("X-Auth-Token", "")
        basic = self.headers.get("Authorization", "") == "Basic cmVhZGVyOmhpZGRlbg=="
        self.seen.append(("GET", self.path))
        self.answer(200 if token in self.tokens or basic else 401, {"PowerWatts": {"Reading": 5.0}})

    def do_POST(self):
        sent = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.seen.append(("POST", self.path))
        if sent != {"UserName": "reader", "Password": "hidden"}:
            self.answer(401, {})
            return
        token = f"token-{len(self.seen)}"
        self.tokens.add(token)
        self.answer(201, {}, {"X-Auth-Token": token, "Location": f"{self.path}/{token}"})

    def do_DELETE(self):
        self.seen.append(("DELETE", self.path))
        self.tokens.discard(self.path.rpartition("/")[2])
        self.answer(204, None)

    def answer(self, status, document, headers=None):
        body = b"" if document is None else json.dumps(document).encode()
        self.send_response(status)
        for key, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        return


@pytest.fixture
def locked():
    Locked.tokens, Locked.seen = set(), []
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 21832), Locked)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield "http://127.0.0.1:21832"
    server.shutdown()
    thread.join()
    server.server_close()


POINT = RedfishPoint(
    name="power_w", path="/redfish/v1/Chassis/1/EnvironmentMetrics", pointer="/PowerWatts/Reading", min=0, max=9
)


def login(address, tmp_path, **values):
    (tmp_path / "password").write_text(values.pop("password", "hidden") + "\n")
    given = device(address, user="reader", password_file=str(tmp_path / "password"), **values)
    return RedfishReader(given, DeviceMap("redfish", "s", (POINT,)))


def test_a_session_is_opened_once_renewed_when_it_ends_and_closed(locked, tmp_path):
    reader = login(locked, tmp_path)
    assert [reader.read().values["power_w"] for _ in range(2)] == [5.0, 5.0]
    assert [verb for verb, _ in Locked.seen] == ["POST", "GET", "GET"]
    Locked.tokens.clear()
    assert reader.read().values["power_w"] == 5.0
    reader.close()
    assert [verb for verb, _ in Locked.seen[3:]] == ["GET", "POST", "GET", "DELETE"]
    assert Locked.tokens == set()


def test_a_basic_login_and_a_wrong_password(locked, tmp_path):
    reader = login(locked, tmp_path, auth="basic")
    assert reader.read().values == {"power_w": 5.0}
    reader.close()
    for auth in ("session", "basic"):
        reader = login(locked, tmp_path, auth=auth, password="wr0ng")
        with pytest.raises(Retryable, match="HTTP 401") as caught:
            reader.read()
        assert "wr0ng" not in str(caught.value) + repr(reader)


@pytest.fixture(scope="module")
def encrypted(redfish, sushy, run_program, tmp_path_factory):
    """The same tree over TLS, and the file of its certificate."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    folder = tmp_path_factory.mktemp("tls")
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    subject = ("-subj", "/CN=cdu", "-addext", "subjectAltName=IP:127.0.0.1")
    made = ("-newkey", "rsa:2048", "-nodes", "-days", "2", "-keyout", key, "-out", certificate)
    subprocess.run(["openssl", "req", "-x509", *made, *subject], check=True, capture_output=True)
    run_program(sushy, "-i", "127.0.0.1", "-p", "21834", "-m", str(redfish[1]), "-c", str(certificate), "-k", str(key))
    time.sleep(1.0)
    return "https://127.0.0.1:21834", str(certificate)


def test_tls_is_verified_unless_it_is_turned_off(encrypted, tmp_path):
    address, certificate = encrypted
    points = load_map("redfish_cdu", tmp_path)
    with pytest.raises(Retryable, match="not trusted"):
        RedfishReader(device(address), points).read()
    reader = RedfishReader(device(address, ca_file=certificate), points)
    assert reader.read().values["power_w"] == 4200.0
    reader.close()
    reader = RedfishReader(device(address, verify_tls=False), points)
    assert reader.read().values["power_w"] == 4200.0
    reader.close()
