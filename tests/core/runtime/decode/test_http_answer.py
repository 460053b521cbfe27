"""An HTTP server that never ends its answer, or sends it drop by drop, costs a client its timeout and a few MiB."""

import gzip
import socket
import threading
import time
from contextlib import contextmanager, suppress

import pytest
import urllib3

from powerhall.runtime.decode.http_answer import limit_manager, limit_pool, read_answer
from powerhall.runtime.errors import Retryable

HEAD = b"HTTP/1.1 200 OK\r\n"
MOST = 100_000


@contextmanager
def server(start, piece=b"", pause_s=0.0):
    """Answer every connection by `start`, then by `piece` again and again; yields the URL and counts what was sent."""
    sent = [0]
    ends = threading.Event()

    def serve(peer):
        with suppress(OSError), peer:
            peer.recv(65536)
            peer.sendall(start)
            while piece and not ends.is_set():
                peer.sendall(piece)
                sent[0] += len(piece)
                time.sleep(pause_s)

    def accept():
        with suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept, daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", sent
        ends.set()
        listener.shutdown(socket.SHUT_RDWR)


def get(url, timeout_s=0.5, most_bytes=MOST):
    manager = urllib3.PoolManager()
    limit_manager(manager, most_bytes)
    try:
        answer = manager.request("GET", url, timeout=timeout_s, retries=False, preload_content=False)
        return read_answer(answer, "bmc", MOST)
    finally:
        manager.clear()


@pytest.mark.parametrize(
    ("start", "piece"),
    [
        (HEAD + b"\r\n", b"x" * 65536),
        (HEAD + b"Content-Length: 1000000000000\r\n\r\n", b"x" * 65536),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"10000\r\n" + b"x" * 65536 + b"\r\n"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n1;", b"x" * 65536),
        (HEAD, b"A: b\r\n" * 1000),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 1000),
        (HEAD + b"A: ", b"x" * 65536),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", b"A: b\r\n" * 1000),
    ],
)
def test_an_endless_answer_is_left_after_its_limit(start, piece):
    with server(start, piece) as (url, sent), pytest.raises((Retryable, urllib3.exceptions.HTTPError)):
        get(url)
    assert sent[0] < 12 << 20  # the limits, and what the kernel keeps for a socket


@pytest.mark.parametrize("start", [b"", HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\n"])
def test_headers_and_trailers_do_not_have_the_limit_of_a_large_body(start):
    """At 6 bytes a line, 512 MiB of them take minutes."""
    piece = (b"A: b\r\n" if start else b"HTTP/1.1 100 Continue\r\n\r\n") * 1000
    with server(start, piece) as (url, sent), pytest.raises((Retryable, urllib3.exceptions.HTTPError)):
        get(url, 10.0, 512 << 20)
    assert sent[0] < 12 << 20


@pytest.mark.parametrize(
    ("start", "piece"),
    [
        (HEAD + b"\r\n", b"x"),
        (HEAD + b"Content-Length: 90000\r\n\r\n", b"x"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
        (HEAD + b"A: ", b"x"),
        (b"H", b""),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    ],
)
def test_an_answer_drop_by_drop_is_left_after_the_timeout(start, piece):
    began_s = time.monotonic()
    with server(start, piece, 0.05) as (url, _), pytest.raises((Retryable, urllib3.exceptions.HTTPError)):
        get(url)
    assert time.monotonic() - began_s < 3.0


@pytest.mark.parametrize("size", [b"-5", b"-1", b"f" * 16, b"7fffffffffffffff", b"1_0", b"f" * 300, b"", b"+3", b"zz"])
@pytest.mark.parametrize("kept", [True, False])
def test_a_chunk_or_body_of_an_impossible_length_is_an_error_of_the_connection(size, kept):
    """With `preload_content` urllib3 reads the chunks itself, without it http.client does."""
    with server(HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + size + b"\r\nhello\r\n0\r\n\r\n") as (url, _):
        pool = urllib3.connection_from_url(url)
        limit_pool(pool, MOST)
        with suppress(Retryable, urllib3.exceptions.HTTPError):
            answer = pool.request("GET", "/", timeout=2.0, retries=False, preload_content=kept)
            read_answer(answer, "x", MOST)


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        (b"Content-Encoding: gzip\r\n", gzip.compress(bytes(50 << 20))),
        (b"Content-Encoding: br\r\n", b"x"),
        (b"Content-Encoding: gzip\r\n", b"not gzip"),
    ],
)
def test_a_compressed_answer_is_expanded_up_to_the_limit_or_refused(headers, body):
    head = HEAD + headers + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(body)
    with server(head + body) as (url, _), pytest.raises(Retryable, match="bmc: "):
        get(url)


def test_a_good_answer_arrives_plain_and_compressed_and_the_connection_is_kept():
    for headers, body in ((b"", b"y" * 90_000), (b"Content-Encoding: gzip\r\n", gzip.compress(b"y" * 90_000))):
        with server(HEAD + headers + b"Content-Length: %d\r\n\r\n" % len(body) + body) as (url, _):
            pool = urllib3.connection_from_url(url)
            limit_pool(pool, MOST)
            answer = pool.request("GET", "/", timeout=2.0, retries=False, preload_content=False)
            assert read_answer(answer, "x", MOST) == b"y" * 90_000
            assert pool.pool.qsize() == 1 if pool.pool else False
            pool.close()
