"""The shed service's HTTP door as its tests see it: an endpoint that ticks, an operator's call, slow clients."""

import http.client
import json
import resource
import socket
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

from powerhall.runtime.log import Log
from powerhall_optimizer.shed.event_manager import EventManager
from powerhall_optimizer.shed.http_endpoint import HttpEndpoint, RateLimit
from powerhall_optimizer.shed.shedder import Outcome

TOKEN = "a-token-of-more-than-32-characters"
EVENT = {"event_id": "dr-1", "duration": "1 h", "power_limit": "350 MW"}
SLOW_CLIENTS = 1000
PROGRAM = Path(sys.executable).with_name("powerhall-optimizer")


def act(limit_w, reduction, end_s, within_s):
    level_w = limit_w if limit_w is not None else 1e8
    return Outcome("p", 500e6, level_w, level_w, 3, 1, 1, 1, 1, 8, True, 0.1, False)


@contextmanager
def running(folder, **more):
    """An endpoint on an event manager that ticks in a thread."""
    (folder / "token").write_text(TOKEN)
    manager = EventManager(folder / "state.json", None, act, Log(quiet=True))
    with (folder / "log").open("w") as log:
        limits = {"right": RateLimit(1e4, 1e4), "wrong": RateLimit(1e4, 1e4)} | more
        endpoint = HttpEndpoint("127.0.0.1:0", folder / "token", manager, "phx", Log(log), **limits)
        stopped = threading.Event()

        def tick():
            while not stopped.wait(0.05):
                manager.tick()

        thread = threading.Thread(target=tick, daemon=True)
        thread.start()
        endpoint.start()
        try:
            yield endpoint
        finally:
            endpoint.close()
            stopped.set()
            thread.join(5)


def call(port, method="GET", path="/v1/health", body=None, token=TOKEN, context=None, timeout=10.0):
    if context is None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    else:
        connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=timeout, context=context)
    try:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        connection.request(method, path, None if body is None else json.dumps(body).encode(), headers)
        reply = connection.getresponse()
        return reply.status, json.loads(reply.read() or b"null")
    finally:
        connection.close()


@contextmanager
def slow_clients(port, count, first):
    """Connections from the address of everybody else that say `first(number)` and then nothing."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))
    clients = []
    try:
        for number in range(count):
            client = socket.create_connection(("127.0.0.1", port), timeout=10)
            clients.append(client)
            try:
                client.sendall(first(number))
            except OSError:
                continue  # closed already, for a later one
        yield clients
    finally:
        for client in clients:
            client.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def refused(folder):
    """Return the reasons in `refused` by the name that the file had (its beginning, for long ones)."""
    return {path.name[16:-4]: path.read_text() for path in (folder / "refused").iterdir() if path.suffix == ".why"}
