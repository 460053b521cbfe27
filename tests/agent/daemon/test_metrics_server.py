"""/metrics under many clients: one thread, flat memory, and a scraper that gets through."""

import io
import os
import random
import resource
import shutil
import socket
import ssl
import subprocess
import threading
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest

from powerhall.runtime.log import Log
from powerhall_agent.daemon.prometheus import Exposition
from powerhall_agent.settings.agent_settings import PrometheusSettings


def exposition_of(series):
    found = Exposition()
    found.update(b"".join(b"gpu,node=n1,gpu=%d power_w=500.0,temp_c=60.0 1700000000000\n" % n for n in range(series)))
    return found


@contextmanager
def serving(series=8, **settings):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    exposition = exposition_of(series)
    exposition.serve(PrometheusSettings(listen=f"127.0.0.1:{port}", **settings), Log(io.StringIO()))
    try:
        yield port
    finally:
        exposition.close()


def scrape(port, timeout=5.0):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=timeout) as answer:
        return answer.read()


def rss_bytes():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


@contextmanager
def clients(port, count, first):
    opened = []
    try:
        for number in range(count):
            client = socket.create_connection(("127.0.0.1", port), timeout=10)
            opened.append(client)
            try:
                client.sendall(first(number))
            except OSError:
                continue  # closed already, for a later one
        yield opened
    finally:
        for client in opened:
            client.close()


BEGINNINGS = (b"", b"GET /met", b"GET /metrics HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 6000)


def test_many_slow_clients_cost_no_thread_and_keep_no_scraper_out():
    with serving() as port:
        threads = threading.active_count()
        with clients(port, 300, lambda number: BEGINNINGS[number % 3]):
            begin_s = time.monotonic()
            for _ in range(10):
                assert b"powerhall_gpu_power_watts" in scrape(port)
            assert time.monotonic() - begin_s < 3.0
            assert threading.active_count() == threads


def test_memory_stays_flat_under_clients_that_never_read_their_answer():
    with serving(series=4000) as port:
        size = len(scrape(port))
        assert size > 300_000
        before = rss_bytes()
        for _ in range(10):
            with clients(port, 60, lambda _: b"GET /metrics HTTP/1.0\r\n\r\n"):
                time.sleep(0.1)
        assert len(scrape(port)) == size
        assert rss_bytes() - before < 16 << 20


@pytest.mark.parametrize("beginning", [b"", b"GET /met"])
def test_a_dripping_client_is_cut_at_a_total_deadline(beginning):
    with serving() as port:
        client = socket.create_connection(("127.0.0.1", port), timeout=0.2)
        client.sendall(beginning)
        begin_s = time.monotonic()
        while time.monotonic() - begin_s < 12.0:
            try:
                client.sendall(b"x")
                if client.recv(100) == b"":
                    break
            except TimeoutError:
                continue
            except OSError:
                break
        client.close()
        assert 4.0 < time.monotonic() - begin_s < 8.0


def test_no_mutated_request_ends_the_endpoint():
    dice = random.Random(20261128)
    good = b"GET /metrics HTTP/1.1\r\nHost: a\r\nAuthorization: Basic eA==\r\n\r\n"
    with serving() as port:
        for _ in range(400):
            data = bytearray(good)
            for _ in range(dice.randint(1, 6)):
                at = dice.randrange(len(data) + 1)
                data[at : at + dice.randrange(3)] = dice.choice((b"", b"\xff", b"\x00", b"\r\n\r\n", b"9" * 9000, b" "))
            client = socket.create_connection(("127.0.0.1", port), timeout=10)
            try:
                client.sendall(data)
                client.shutdown(socket.SHUT_WR)
                while client.recv(65536):
                    pass
            except OSError:
                pass
            client.close()
        assert b"powerhall_gpu_power_watts" in scrape(port)


def test_other_paths_methods_and_passwords(tmp_path):
    (tmp_path / "password").write_text("secret")
    with serving(user="u", password_file=str(tmp_path / "password")) as port:
        for header in (None, "Basic eA==", "Basic \u00e4", "x"):
            request = urllib.request.Request(f"http://127.0.0.1:{port}/metrics")
            if header:
                request.add_unredirected_header("Authorization", header)
            with pytest.raises(urllib.error.HTTPError, match="401") as refused:
                urllib.request.urlopen(request, timeout=5)
            refused.value.close()
    with serving() as port:
        for path, method, status in (("/x", "GET", "404"), ("/metrics", "POST", "501"), ("/x", "HEAD", "404")):
            request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", method=method)
            with pytest.raises(urllib.error.HTTPError, match=status) as refused:
                urllib.request.urlopen(request, timeout=5)
            refused.value.close()


def test_head_answers_as_get_without_the_body():
    with serving() as port:
        got = scrape(port)
        with socket.create_connection(("127.0.0.1", port), 5) as client:
            client.sendall(b"HEAD /metrics HTTP/1.1\r\nHost: a\r\n\r\n")
            client.shutdown(socket.SHUT_WR)
            answer = b"".join(iter(lambda: client.recv(65536), b""))
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.0 200")
    assert body == b""
    assert f"Content-Length: {len(got)}".encode() in head


def test_over_tls_silent_handshakes_keep_no_scraper_out(tmp_path):
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed")
    command = [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", tmp_path / "key", "-out", tmp_path / "cert"]
    subprocess.run(command, check=True, capture_output=True)
    files = {"cert_file": str(tmp_path / "cert"), "key_file": str(tmp_path / "key")}
    context = ssl.create_default_context(cafile=tmp_path / "cert")
    with serving(series=4000, **files) as port, clients(port, 200, lambda number: BEGINNINGS[number % 3]):
        for _ in range(3):
            with urllib.request.urlopen(f"https://127.0.0.1:{port}/metrics", timeout=5, context=context) as answer:
                assert len(answer.read()) > 300_000


def test_close_ends_the_thread_and_frees_the_port():
    threads, files = threading.active_count(), len(os.listdir("/proc/self/fd"))
    with serving() as port, clients(port, 20, lambda _: b"GET"):
        pass
    assert threading.active_count() == threads
    assert len(os.listdir("/proc/self/fd")) <= files
    with socket.socket() as again:
        again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        again.bind(("127.0.0.1", port))
