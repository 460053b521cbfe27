"""The shed's door under slow clients: an authorised request gets through, connections and memory stay bounded."""

import json
import os
import socket
import ssl
import subprocess
import threading
import time
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from powerhall.runtime.errors import ConfigError
from powerhall.runtime.log import Log
from powerhall_optimizer.shed.http_endpoint import HttpEndpoint
from powerhall_optimizer.shed.signals import parse_signals
from rigs.shed_door import EVENT, SLOW_CLIENTS, TOKEN, call, running, slow_clients

BEGINNINGS = (
    b"",
    b"GET /v1/ev",
    b"POST /v1/events HTTP/1.1\r\nHost: a\r\nAuthor",
    b"POST /v1/events HTTP/1.1\r\nHost: a\r\nContent-Length: 60000\r\nX: " + b"y" * 4000,
)


def test_an_authorised_request_and_health_get_through_a_thousand_slow_clients_of_the_same_address(tmp_path):
    with (
        running(tmp_path) as endpoint,
        slow_clients(endpoint.port, SLOW_CLIENTS, lambda number: BEGINNINGS[number % len(BEGINNINGS)]),
    ):
        begin_s = time.monotonic()
        assert call(endpoint.port, token=None) == (200, {"status": "ok"})
        status, known = call(endpoint.port, "POST", "/v1/events", EVENT)
        assert (status, known["state"]) == (200, "active")
        assert time.monotonic() - begin_s < 3.0


@pytest.mark.parametrize(("path", "status"), [("/v1/health", 200), ("/v1/events", 200), ("/v1/none", 404)])
def test_head_is_answered_as_get_without_a_body(tmp_path, path, status):
    with running(tmp_path) as endpoint:
        assert call(endpoint.port, "HEAD", path) == (status, None)


def test_requests_get_through_slow_clients_that_come_again_as_soon_as_they_are_cut(tmp_path):
    """Their connections fill the queue of the listener all the time: whoever has just been let in must be served."""
    ended = threading.Event()

    def crowd(port):
        clients = []
        while not ended.is_set():
            try:
                clients.append(socket.create_connection(("127.0.0.1", port), timeout=5))
                clients[-1].sendall(b"GET /v1/ev")
            except OSError:
                pass
            if len(clients) > 400:
                clients.pop(0).close()
        for client in clients:
            client.close()

    with running(tmp_path) as endpoint:
        threads = [threading.Thread(target=crowd, args=(endpoint.port,)) for _ in range(3)]
        for thread in threads:
            thread.start()
        try:
            time.sleep(1.0)
            for number in range(15):
                event = EVENT | {"modification": number}
                assert call(endpoint.port, "POST", "/v1/events", event, timeout=20)[0] == 200
        finally:
            ended.set()
            for thread in threads:
                thread.join(10)


def test_health_has_a_listener_of_its_own_that_the_slow_clients_of_the_other_do_not_touch(tmp_path):
    with (
        running(tmp_path, health_address="127.0.0.1:0") as endpoint,
        slow_clients(endpoint.port, SLOW_CLIENTS, lambda _: b"GET /v1/ev"),
    ):
        begin_s = time.monotonic()
        for _ in range(20):
            assert call(endpoint.health_port, token=None) == (200, {"status": "ok"})
            assert call(endpoint.health_port, path="/v1/ready", token=None) == (200, {"status": "ready"})
        assert time.monotonic() - begin_s < 3.0
        assert call(endpoint.health_port, path="/v1/events")[0] == 404
        endpoint.health.note("plan", "there is no plan file")
        assert call(endpoint.health_port, path="/v1/ready") == (503, {"status": "not ready", "parts": ["plan"]})


def test_connections_threads_and_memory_are_bounded_under_slow_clients(tmp_path):
    from powerhall.serving.http_server import Limits

    with running(tmp_path, limits=Limits(connections=64, per_peer=32)) as endpoint:
        threads = threading.active_count()
        with slow_clients(endpoint.port, 300, lambda _: b"GET /v1/ev"):
            time.sleep(0.5)
            assert len(endpoint._servers[0].admission) <= 33
            assert threading.active_count() <= threads + 4
            assert call(endpoint.port)[0] == 200


@pytest.mark.parametrize(
    "beginning",
    [
        b"",
        b"GET /v1/ev",
        b"POST /v1/events HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer "
        + TOKEN.encode()
        + b"\r\nContent-Length: 500\r\n\r\n{",
    ],
)
def test_a_dripping_client_is_cut_at_the_total_deadline_of_the_step(tmp_path, beginning):
    from powerhall.serving.http_server import Limits

    with running(tmp_path, limits=Limits(header_s=1.0, body_s=1.0)) as endpoint:
        client = socket.create_connection(("127.0.0.1", endpoint.port), timeout=10)
        client.sendall(beginning)
        begin_s = time.monotonic()
        client.settimeout(0.2)
        answer = b""
        while time.monotonic() - begin_s < 8.0:
            try:
                client.sendall(b"x")
                piece = client.recv(4096)
            except TimeoutError:
                continue
            except OSError:
                break
            if not piece:
                break
            answer += piece
        client.close()
        assert time.monotonic() - begin_s < 4.0
        assert answer == b"" or answer.startswith(b"HTTP/1.1 408 ")


def test_a_client_that_never_reads_its_answer_is_cut(tmp_path):
    from powerhall.serving.http_server import Limits

    with running(tmp_path, limits=Limits(write_s=0.5)) as endpoint:
        endpoint.manager.receive(parse_signals(json.dumps(EVENT).encode(), "x", "phx", time.time())[0])
        many = endpoint.manager.events() * 20_000
        endpoint.manager.events = lambda: many
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", endpoint.port))
        client.sendall(f"GET /v1/events HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode())
        deadline_s = time.monotonic() + 10.0
        while len(endpoint._servers[0].admission) == 0:
            assert time.monotonic() < deadline_s
        while len(endpoint._servers[0].admission):
            assert time.monotonic() < deadline_s
            time.sleep(0.05)
        client.close()


@given(
    peers=st.lists(st.tuples(st.integers(0, 4), st.sampled_from(["enter", "keep", "exit"])), max_size=60),
    most=st.integers(1, 12),
    share=st.integers(1, 12),
)
def test_admission_never_exceeds_its_bounds_and_never_closes_what_is_kept(peers, most, share):
    from powerhall.runtime.admission import Admission, Visitor

    admission = Admission(most, share)
    inside, kept, closed = [], [], []
    for number, (peer, what) in enumerate(peers):
        if what == "enter":
            visitor = Visitor(f"10.0.0.{peer}", lambda: None)
            visitor.leave = lambda visitor=visitor: closed.append(visitor)
            full = len(kept) >= most and not any(v.peer == visitor.peer for v in inside)
            assert admission.enter(visitor) is not full
            if not full:
                inside.append(visitor)
            inside = [v for v in inside if v not in closed]
        elif inside and what == "keep":
            kept.append(inside.pop(number % len(inside)))
            admission.keep(kept[-1])
        elif inside:
            admission.exit(inside.pop(number % len(inside)))
        assert len(admission) == len(inside) + len(kept) <= most
        assert all(sum(v.peer == one.peer for v in inside) <= share for one in inside)
    assert not set(map(id, closed)) & set(map(id, kept))


@pytest.mark.parametrize(
    ("host", "peer"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
    ],
)
def test_one_peer_is_an_address_or_a_network_of_version_6(host, peer):
    from powerhall.runtime.admission import peer_of

    assert peer_of(host) == peer


def test_a_request_with_a_length_and_chunks_is_refused(tmp_path):
    """The length is bounded, and what came in chunks was read without a bound."""
    body = json.dumps(EVENT).encode()
    head = f"POST /v1/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: 9\r\n"
    head += f"Transfer-Encoding: chunked\r\n\r\n{len(body):x}\r\n"
    with running(tmp_path) as endpoint:
        with socket.create_connection(("127.0.0.1", endpoint.port), timeout=10) as client:
            client.sendall(head.encode() + body + b"\r\n0\r\n\r\n")
            assert client.makefile("rb").read().startswith(b"HTTP/1.1 400 ")
        assert call(endpoint.port, path="/v1/events")[1] == {"events": []}


@pytest.mark.parametrize("tokens", [("wrong", TOKEN), (TOKEN, "wrong"), (TOKEN, TOKEN)])
def test_a_second_authorization_header_is_refused(tmp_path, tokens):
    with running(tmp_path) as endpoint, socket.create_connection(("127.0.0.1", endpoint.port), timeout=5) as client:
        lines = "".join(f"Authorization: Bearer {token}\r\n" for token in tokens)
        client.sendall(f"GET /v1/events HTTP/1.1\r\nHost: a\r\n{lines}\r\n".encode())
        answer = client.makefile("rb").read()
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"Authorization: must be given once" in answer


def make_certificate(folder, name):
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={name}"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", folder / "key.new", "-out", folder / "cert.new"]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("openssl is not installed")
    (folder / "key.new").replace(folder / "key.pem")
    (folder / "cert.new").replace(folder / "cert.pem")


def test_a_pipe_in_the_place_of_the_certificate_keeps_the_former_pair(tmp_path):
    make_certificate(tmp_path, "first")
    with running(tmp_path, cert=tmp_path / "cert.pem", key=tmp_path / "key.pem") as endpoint:
        (tmp_path / "cert.pem").rename(tmp_path / "first.pem")
        os.mkfifo(tmp_path / "cert.pem")
        time.sleep(1.1)
        for _ in range(2):
            assert name_shown(endpoint.port, tmp_path / "first.pem")
    assert "must be a regular file" in (tmp_path / "log").read_text()


def test_clients_that_never_end_their_handshake_take_little_memory(tmp_path):
    make_certificate(tmp_path, "memory")
    with running(tmp_path, cert=tmp_path / "cert.pem", key=tmp_path / "key.pem") as endpoint:
        tracemalloc.start()
        try:
            with slow_clients(endpoint.port, 300, lambda _: b"\x16\x03\x01\x02\x00"):
                time.sleep(1.0)
                held_bytes = tracemalloc.get_traced_memory()[0]
        finally:
            tracemalloc.stop()
    assert held_bytes < 24 << 20, f"{held_bytes / 2**20:.0f} MiB of 256 connections"
    assert held_bytes > 256 * 8192, "they were there"


def name_shown(port, cert):
    context = ssl.create_default_context(cafile=str(cert))
    with (
        socket.create_connection(("127.0.0.1", port), timeout=5) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as secured,
    ):
        return dict(pair[0] for pair in secured.getpeercert()["subject"])["commonName"]


def test_a_renewed_certificate_is_shown_without_a_restart_and_a_broken_one_is_not_taken(tmp_path):
    make_certificate(tmp_path, "first")
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    with running(tmp_path, cert=cert, key=key) as endpoint:
        assert name_shown(endpoint.port, cert) == "first"
        make_certificate(tmp_path, "second")
        time.sleep(1.1)
        assert name_shown(endpoint.port, cert) == "second"
        kept = cert.read_bytes()
        cert.write_text("no certificate")
        time.sleep(1.1)
        (tmp_path / "kept.pem").write_bytes(kept)
        assert name_shown(endpoint.port, tmp_path / "kept.pem") == "second"
    assert "tls_not_reloaded" in (tmp_path / "log").read_text()


def test_plain_http_beyond_loopback_only_when_it_is_allowed(tmp_path):
    (tmp_path / "token").write_text(TOKEN)
    with pytest.raises(ConfigError, match="needs --tls-cert"):
        HttpEndpoint("0.0.0.0:0", tmp_path / "token", None, "phx", Log(quiet=True))
    HttpEndpoint("0.0.0.0:0", tmp_path / "token", None, "phx", Log(quiet=True), allow_http=True).close()
    with pytest.raises(ConfigError, match="must be on loopback"):
        HttpEndpoint("127.0.0.1:0", tmp_path / "token", None, "phx", Log(quiet=True), health_address="0.0.0.0:0")
