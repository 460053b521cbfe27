"""The shed service from a grid operator's side: real requests, files, command and leases."""

import http.client
import json
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from powerhall.hostlist import expand
from powerhall.plan.plan import read_plan, write_plan
from powerhall.runtime.errors import ConfigError
from powerhall.runtime.log import Log
from powerhall.store import Query, Select, open_store
from powerhall_optimizer.leases.caps import safe_caps_w
from powerhall_optimizer.shed.event_manager import EventManager
from powerhall_optimizer.shed.http_endpoint import HttpEndpoint, RateLimit
from powerhall_optimizer.shed.shedder import Outcome
from powerhall_optimizer.verify.plan import verify_plan
from rigs.confirmed import confirmed_ledger

PROGRAM = Path(sys.executable).with_name("powerhall-optimizer")
TOKEN = "a-token-of-more-than-32-characters"
EVENT = {"event_id": "dr-1", "duration": "1 h", "power_limit": "350 MW"}


def call(port, method="GET", path="/v1/events", body=None, token=TOKEN, context=None, headers=None):
    kind = http.client.HTTPConnection if context is None else http.client.HTTPSConnection
    more = {} if context is None else {"context": context}
    connection = kind("127.0.0.1", port, timeout=20, **more)
    sent = {} if token is None else {"Authorization": f"Bearer {token}"}
    text = body if isinstance(body, bytes | None) else json.dumps(body).encode()
    connection.request(method, path, text, sent | (headers or {}))
    reply = connection.getresponse()
    answer = reply.status, json.loads(reply.read() or b"null"), dict(reply.getheaders())
    connection.close()
    return answer


class Served:
    """An HTTP endpoint on an event manager that ticks in a thread."""

    def __init__(self, folder, **more):
        self.acted = []
        (folder / "token").write_text(TOKEN + "\n")
        self.manager = EventManager(folder / "state.json", folder / "events.json", self.act, Log(quiet=True))
        self.log = open(folder / "log", "w")  # noqa: SIM115 - closed in close
        self.endpoint = HttpEndpoint("127.0.0.1:0", folder / "token", self.manager, "phx", Log(self.log), **more)
        self.stopped = threading.Event()
        self.thread = threading.Thread(target=self.tick, daemon=True)
        self.thread.start()
        self.endpoint.start()
        self.port = self.endpoint.port

    def act(self, limit_w, reduction, end_s, within_s):
        self.acted.append(limit_w)
        time.sleep(0.3)
        return Outcome("p", 500e6, limit_w, limit_w, 3, 1, 1, 1, 1, 8, True, 0.1, False)

    def tick(self):
        while not self.stopped.wait(0.05):
            self.manager.tick()

    def close(self):
        self.endpoint.close()
        self.stopped.set()
        self.thread.join(5)
        self.log.close()


@pytest.fixture
def served(tmp_path):
    running = Served(tmp_path, right=RateLimit(1000.0, 1000.0), wrong=RateLimit(1000.0, 1000.0))
    yield running
    running.close()


def test_a_posted_event_is_answered_with_its_outcome_and_acts_once(served):
    answers = [call(served.port, "POST", body=EVENT) for _ in range(3)]
    assert [status for status, _, _ in answers] == [200, 200, 200]
    assert answers[0][1]["outcome"]["after_w"] == 350e6
    assert answers[0][1] == answers[2][1]
    assert served.acted == [350e6]
    assert call(served.port, path="/v1/events/dr-1")[1]["state"] == "active"
    assert [event["event_id"] for event in call(served.port)[1]["events"]] == ["dr-1"]


def test_the_same_event_from_many_at_once_acts_once(served):
    answers = []
    threads = [
        threading.Thread(target=lambda: answers.append(call(served.port, "POST", body=EVENT)[0])) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert answers == [200] * 8
    assert served.acted == [350e6]


def test_an_event_of_the_future_is_taken_and_not_done_yet(served):
    status, known, _ = call(served.port, "POST", body=EVENT | {"start": time.time() + 600})
    assert (status, known["state"]) == (202, "announced")


@pytest.mark.parametrize("token", [None, "", "wrong", TOKEN + "x", TOKEN[:-1], TOKEN.upper()])
def test_without_the_token_nothing_is_done_or_shown(served, token, tmp_path):
    assert call(served.port, "POST", body=EVENT, token=token)[0] == 401
    assert call(served.port, token=token)[0] == 401
    assert served.acted == []
    served.log.flush()
    assert TOKEN not in (tmp_path / "log").read_text()


def test_a_token_that_was_changed_counts_at_once(served, tmp_path):
    other = "another-token-of-more-than-32-characters"
    (tmp_path / "token").write_text(other)
    assert call(served.port)[0] == 401
    assert call(served.port, token=other)[0] == 200
    (tmp_path / "token").unlink()
    assert call(served.port, token=other)[0] == 503


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b'{"event_id": "x"}', 400),
        (json.dumps([EVENT, EVENT]).encode(), 400),
        (b"\xff\xfe", 400),
        (b" " * 70_000, 413),
    ],
)
def test_a_bad_body_is_refused_with_the_reason(served, body, status):
    found, answer, _ = call(served.port, "POST", body=body)
    assert found == status
    assert answer["error"]
    assert served.acted == []


def test_other_paths_and_methods(served):
    assert call(served.port, path="/v1/health", token=None)[:2] == (200, {"status": "ok"})
    assert call(served.port, path="/v1/events/none")[0] == 404
    assert call(served.port, "POST", path="/v1/other", body=EVENT)[0] == 404
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=5)
    connection.request("DELETE", "/v1/events")
    assert connection.getresponse().status == 501
    connection.close()


def test_requests_over_the_rate_are_refused_and_wrong_tokens_do_not_block_the_operator(tmp_path):
    running = Served(tmp_path, right=RateLimit(0.1, 3.0), wrong=RateLimit(0.1, 3.0))
    try:
        guesses = [call(running.port, token="guess")[0] for _ in range(5)]
        assert guesses == [401, 401, 401, 429, 429]
        answers = [call(running.port) for _ in range(4)]
        assert [status for status, _, _ in answers] == [200, 200, 200, 429]
        assert int(answers[-1][2]["Retry-After"]) >= 1
    finally:
        running.close()


def test_slow_and_silent_clients_do_not_block_others(served):
    idle = [socket.create_connection(("127.0.0.1", served.port)) for _ in range(12)]
    for connection in idle[:6]:
        connection.sendall(b"POST /v1/events HTTP/1.1\r\nAuthor")
    begin_s = time.monotonic()
    assert call(served.port, "POST", body=EVENT)[0] == 200
    assert time.monotonic() - begin_s < 3.0
    for connection in idle:
        connection.close()


def certificate(folder):
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed")
    command = [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", folder / "key.pem", "-out", folder / "cert.pem"]
    subprocess.run(command, check=True, capture_output=True)
    return folder / "cert.pem", folder / "key.pem"


def test_over_tls_the_certificate_is_shown_and_plain_requests_get_nothing(tmp_path):
    cert, key = certificate(tmp_path)
    running = Served(tmp_path, cert=cert, key=key)
    try:
        context = ssl.create_default_context(cafile=str(cert))
        assert call(running.port, "POST", body=EVENT, context=context)[0] == 200
        with pytest.raises(ssl.SSLError):
            call(running.port, context=ssl.create_default_context())
        with pytest.raises((http.client.HTTPException, OSError)):
            call(running.port)
    finally:
        running.close()


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("0.0.0.0:0", "needs --tls-cert"),
        ("[::]:0", "needs --tls-cert"),
        ("10.0.0.1:1", "needs --tls-cert"),
        ("nowhere", "IP:PORT"),
        ("host.example:80", "IP:PORT"),
    ],
)
def test_beyond_loopback_only_with_tls(tmp_path, address, says):
    (tmp_path / "token").write_text(TOKEN)
    with pytest.raises(ConfigError, match=says):
        HttpEndpoint(address, tmp_path / "token", None, "phx", Log(quiet=True))


def test_a_short_token_is_refused_without_being_shown(tmp_path):
    (tmp_path / "token").write_text("c0ffee")
    with pytest.raises(ConfigError, match="32 characters") as caught:
        HttpEndpoint("127.0.0.1:0", tmp_path / "token", None, "phx", Log(quiet=True))
    assert "c0ffee" not in str(caught.value)


@pytest.fixture
def service(plan, tmp_path):
    """The real command with a signal folder and the HTTP endpoint on a free port."""
    write_plan(plan, tmp_path / "plan.json")
    (tmp_path / "site.key").write_text(bytes(range(32)).hex())
    (tmp_path / "token").write_text(TOKEN)
    (tmp_path / "signals").mkdir(mode=0o750)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    keys = ["--store", "sqlite:///s.db", "--site-key", "site.key", "--ledger", "ledger.json"]
    confirmed_ledger(tmp_path / "ledger.json", safe_caps_w(plan.snapshot.site))
    subprocess.run([PROGRAM, "lease", *keys], cwd=tmp_path, check=True, capture_output=True)
    command = [PROGRAM, "shed", "--watch", "signals", "--serve", f"127.0.0.1:{port}", "--token-file", "token"]
    command += [*keys, "--events", "events.json", "--out", "shed-plan.json"]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=tmp_path, stderr=log)
    deadline_s = time.monotonic() + 30
    while "shed_ready" not in (tmp_path / "log").read_text():
        assert process.poll() is None, (tmp_path / "log").read_text()
        assert time.monotonic() < deadline_s
        time.sleep(0.05)
    yield port, process
    if process.poll() is None:
        process.kill()
        process.wait(10)


def leased(folder):
    store = open_store(f"sqlite:///{folder}/s.db")
    query = Query("lease", (Select("cap_w", "last"),), group_by=("node",))
    rows = store.query(query, time.time() - 600, time.time() + 60)
    store.close()
    return {row.tags["node"]: row.number("cap_w") for row in rows}


@pytest.mark.slow
def test_a_dropped_file_and_a_request_lower_the_leases_except_of_protected_jobs(service, plan, tmp_path):
    port, process = service
    before = leased(tmp_path)
    begin_s = time.monotonic()
    part = tmp_path / "signals" / "dr.json.part"
    part.write_text(json.dumps({"event_id": "file-1", "duration": "1 h", "reduce_percent": 10, "within": "1 s"}))
    part.rename(tmp_path / "signals" / "dr.json")
    while (first := leased(tmp_path)) == before:
        assert time.monotonic() - begin_s < 10.0
        time.sleep(0.1)
    assert all(first[node] <= cap_w for node, cap_w in before.items())
    protected = {job.job_id for job in plan.snapshot.jobs if not job.preemptible}
    spared = [p.nodes for a in plan.assignments if a.job_id in protected for p in a.placements]
    assert all(first.get(node) == before.get(node) for nodes in spared for node in expand(nodes))
    event = {"event_id": "web-1", "duration": "2 h", "power_limit": "190 kW", "within": "3 s"}
    status, known, _ = call(port, "POST", body=event)
    assert status == 200
    assert known["outcome"]["after_w"] <= 190e3
    assert known["outcome"]["confirmed"] == 0, "no node is there to confirm"
    assert any("have not confirmed" in text for text in known["outcome"]["problems"])
    assert verify_plan(read_plan(tmp_path / "shed-plan.json")) == []
    assert len(json.loads((tmp_path / "events.json").read_text())) == 2
    process.send_signal(signal.SIGTERM)
    assert process.wait(15) == 0
    assert TOKEN not in (tmp_path / "log").read_text()


@pytest.mark.slow
def test_an_event_acts_while_an_earlier_one_waits_an_hour_for_confirmations(service, tmp_path):
    """No node is there to confirm. It waited for that hour, and so did SIGTERM."""
    port, process = service
    part = tmp_path / "signals" / "slow.json.part"
    part.write_text(json.dumps({"event_id": "slow", "duration": "2 h", "reduce_percent": 10, "within": "1 h"}))
    before = leased(tmp_path)
    part.rename(part.with_suffix(""))
    deadline_s = time.monotonic() + 20.0
    while leased(tmp_path) == before:
        assert time.monotonic() < deadline_s
        time.sleep(0.1)
    urgent = {"event_id": "urgent", "duration": "2 h", "power_limit": "190 kW", "within": "1 s"}
    status, known, _ = call(port, "POST", body=urgent)
    assert (status, known["state"]) == (200, "active")
    assert known["outcome"]["after_w"] <= 190e3
    _, known, _ = call(port, path="/v1/events/slow")
    assert any("another event had to act first" in text for text in known["outcome"]["problems"])
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--serve", "127.0.0.1:0", "--out", "x"], "needs --token-file"),
        (["--serve", "127.0.0.1:0", "--token-file", "token", "--tls-cert", "c", "--out", "x"], "go together"),
        (["--watch", "signals", "--by", "30%"], "not with"),
        (["--watch", "absent", "--out", "x"], "No such file"),
        (["--watch", "signals"], "needs --store with keys, --scheduler or --out"),
        ([], "nothing to do"),
        (["--by", "10%", "--out", "x", "--ramp-down", "fast"], "ramp-down"),
        (["--by", "10%", "--out", "x", "--within", "soon"], "within"),
    ],
)
def test_half_a_command_line_is_refused(plan, tmp_path, options, says, capsys, monkeypatch):
    from powerhall_optimizer.cli import main

    write_plan(plan, tmp_path / "plan.json")
    (tmp_path / "signals").mkdir(mode=0o750)
    (tmp_path / "token").write_text(TOKEN)
    monkeypatch.chdir(tmp_path)
    assert main(["shed", *options]) == 1
    assert says in capsys.readouterr().err
