"""A proxy in front of a store that injects faults of networks and servers, by a seed."""

import http.client
import random
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Flaky:
    """Faults of the proxy: shares of refused (503), swallowed answers (written, not told) and garbage answers."""

    target_port: int
    refuse: float = 0.15
    swallow: float = 0.10
    garbage: float = 0.05
    seed: int = 1
    port: int = 0
    seen: Counter[str] = field(default_factory=Counter)


@contextmanager
def start(flaky: Flaky) -> Iterator[Flaky]:
    """Serve on a free port until the end of the block."""
    dice = random.Random(flaky.seed)
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            with lock:
                roll = dice.random()
            if roll < flaky.refuse:
                flaky.seen["503"] += 1
                self._answer(503, b'{"code":"unavailable","message":"not now"}')
                return
            with closing(http.client.HTTPConnection("127.0.0.1", flaky.target_port, timeout=30)) as upstream:
                upstream.request("POST", self.path, body, dict(self.headers))
                answer = upstream.getresponse()
                text = answer.read()
            if roll < flaky.refuse + flaky.swallow:
                flaky.seen["swallowed"] += 1
                self.close_connection = True
                return
            if roll < flaky.refuse + flaky.swallow + flaky.garbage:
                flaky.seen["garbage"] += 1
                self.wfile.write(b"\x00\xffHTTP/9 twohundred maybe\r\n\r\n")
                self.close_connection = True
                return
            flaky.seen[str(answer.status)] += 1
            self._answer(answer.status, text)

        def _answer(self, status, text):
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_):
            pass

        def handle_one_request(self):
            try:
                super().handle_one_request()
            except (ConnectionError, BrokenPipeError):
                self.close_connection = True

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    flaky.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield flaky
    finally:
        server.shutdown()
        server.server_close()
