"""Redirects within a service and out of it, with and without a login; services that are busy, or forbid a resource."""

import http.server
import itertools
import json
import threading

import pytest

from powerhall.runtime.errors import Retryable
from powerhall_agent.redfish.client import RedfishClient, RedfishLogin


class Slashed(http.server.BaseHTTPRequestHandler):
    """A service that sends every path to the one with a trailing slash, as iLO 4, iLO 5 and older Supermicro do."""

    protocol_version = "HTTP/1.1"

    def answer(self, status, document=None, **headers):
        body = json.dumps(document).encode() if document is not None else b""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def handle_any(self, status, document, **headers):
        sent = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.seen.append((self.command, self.path, sent, self.headers.get("X-Auth-Token", "")))
        if not self.path.endswith("/"):
            place = self.server.place or (self.path + "/").removeprefix(self.server.strip)
            self.answer(self.server.status, Location=place.format(path=self.path, port=self.server.server_port))
        else:
            self.answer(status, document, **headers)

    def do_GET(self):
        self.handle_any(200, {"n": 1})

    def do_POST(self):
        self.handle_any(201, {}, X_Auth_Token="t0ken", Location=self.server.session)

    def do_DELETE(self):
        self.handle_any(204, None)

    def log_message(self, *_):
        pass


@pytest.fixture
def service():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Slashed)
    server.seen, server.status, server.place, server.strip = [], 308, "", ""
    server.session = "/redfish/v1/SessionService/Sessions/1"
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def client(service, **login):
    return RedfishClient(RedfishLogin(f"http://127.0.0.1:{service.server_port}", 2.0, **login))


PLACES = {"relative path": "", "absolute": "http://127.0.0.1:{port}{path}/", "relative name": "1/"}


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
def test_a_redirect_within_the_service_is_followed_once_and_remembered(service, status, place):
    service.status, service.place = status, place
    bmc = client(service)
    assert [bmc.get("/redfish/v1/Chassis/1").document for _ in range(3)] == [{"n": 1}] * 3
    bmc.close()
    assert len(service.seen) == 4
    assert service.seen[-1][1].endswith("/1/")


@pytest.mark.parametrize("host", ["", "http://127.0.0.1:1", "https://10.1.2.3", "https://bmc-17.example:443"])
def test_login_and_logout_are_followed_too(service, tmp_path, host):
    service.session = host + service.session  # a service may give the address that it has itself
    (tmp_path / "pw").write_text("hidden\n")
    bmc = client(service, user="op", password_file=str(tmp_path / "pw"), auth="session")
    assert bmc.get("/redfish/v1/Chassis").document == {"n": 1}
    bmc.close()
    asked = [(verb, path) for verb, path, _, _ in service.seen if path.endswith("/")]
    assert [verb for verb, _ in asked] == ["POST", "GET", "DELETE"]
    assert b"hidden" in next(sent for verb, path, sent, _ in service.seen if verb == "POST" and path.endswith("/"))
    assert {token for verb, path, _, token in service.seen if verb == "GET"} == {"t0ken"}


@pytest.mark.parametrize(
    ("place", "why"),
    [
        ("http://127.0.0.2:{port}{path}/", "redirects to http://127.0.0.2"),
        ("https://127.0.0.1:{port}{path}/", "redirects to https://127.0.0.1"),
        ("http://127.0.0.1:1{path}/", "redirects to http://127.0.0.1:1"),
        ("//evil.example/", "redirects to http://evil.example"),
        ("http://[bad/", "redirects to 'http://\\[bad/'"),
        ("http://127.0.0.1:99999999/", "redirects to"),
        ("{path}", "more than 3 redirects"),
    ],
)
def test_a_redirect_out_of_the_service_or_in_a_circle_is_refused(service, place, why):
    service.place = place
    bmc = client(service)
    with pytest.raises(Retryable, match=why):
        bmc.get("/redfish/v1")
    bmc.close()
    assert len(service.seen) <= 4


class Moody(http.server.BaseHTTPRequestHandler):
    """A service with sessions that answers GET as a test says."""

    protocol_version = "HTTP/1.1"

    def answer(self, status, **headers):
        self.send_response_only(status)
        for name, value in {**headers, "Content-Length": "2"}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(b"{}")

    def do_GET(self):
        self.server.seen.append(f"GET {self.headers.get('X-Auth-Token', '')}")
        status, headers = self.server.next_answer(self.path)
        self.answer(status, **headers)

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.server.seen.append("POST")
        number = self.server.seen.count("POST")
        self.answer(201, X_Auth_Token=f"t{number}", Location=f"/redfish/v1/SessionService/Sessions/{number}")

    def do_DELETE(self):
        self.server.seen.append(f"DELETE {self.path.rpartition('/')[2]}")
        self.answer(200)

    def log_message(self, *_):
        pass


@pytest.fixture
def moody(tmp_path):
    """A Moody service, a client of it, and the client's clock."""
    (tmp_path / "pw").write_text("hidden\n")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Moody)
    server.seen, server.daemon_threads = [], True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    now_s = [100.0]
    url = f"http://127.0.0.1:{server.server_port}"
    login = RedfishLogin(url, 2.0, "op", str(tmp_path / "pw"), "session")
    bmc = RedfishClient(login, clock=lambda: now_s[0])
    yield server, bmc, now_s
    bmc.close()
    server.shutdown()
    thread.join()
    server.server_close()


PAUSES = {
    "seconds": {"Retry_After": "30"},
    "a date by a clock that is years off": {
        "Retry_After": "Sat, 01 Jan 2000 00:00:40 GMT", "Date": "Sat, 01 Jan 2000 00:00:10 GMT"},
}  # fmt: skip


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("pause", PAUSES.values(), ids=PAUSES)
def test_a_busy_service_gets_the_pause_that_it_asks_for_and_keeps_its_session(moody, status, pause):
    server, bmc, now_s = moody
    answers = iter([(200, {}), (status, pause), (200, {})])
    server.next_answer = lambda _: next(answers)
    assert bmc.get("/redfish/v1/A").status == 200
    with pytest.raises(Retryable, match=f"HTTP {status}.*asks for a pause"):
        bmc.get("/redfish/v1/A")
    bmc.close()  # as a collector does after a failure
    for _ in range(3):
        now_s[0] += 9.0
        with pytest.raises(Retryable, match=r"asks for a pause; \d+ s of it are left"):
            bmc.get("/redfish/v1/A")
    assert server.seen == ["POST", "GET t1", "GET t1"]
    now_s[0] += 4.0
    assert bmc.get("/redfish/v1/A").status == 200
    assert server.seen[3:] == ["GET t1"], "no second session"


@pytest.mark.parametrize("written", ["", "soon", "-5", "0", "9" * 30])
def test_a_busy_service_that_does_not_say_for_how_long_is_asked_again(moody, written):
    server, bmc, _ = moody
    server.next_answer = lambda _: (503, {"Retry_After": written})
    assert [bmc.get("/redfish/v1/A").status for _ in range(2)] == [503, 503]


def test_a_resource_that_a_login_has_no_right_to_costs_no_sessions(moody):
    server, bmc, _ = moody
    server.next_answer = lambda path: (403 if path.endswith("Secret") else 200, {})
    for _, path in zip(range(20), itertools.cycle(("Secret", "A")), strict=False):
        assert bmc.get(f"/redfish/v1/{path}").status == (403 if path == "Secret" else 200)
    assert [verb for verb in server.seen if not verb.startswith("GET")] == ["POST", "DELETE 1", "POST"]
