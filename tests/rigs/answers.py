"""A store whose answers a test scripts: status and body, raw bytes, a drip, or silence."""

import gzip
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class Request:
    """What the client sent."""

    path: str
    headers: dict[str, str]
    lines: bytes


@dataclass
class Scripted:
    """`answer` is asked for the raw bytes of each answer; b"" closes without one."""

    answer: Callable[[Request], bytes]
    port: int = 0
    drip_s: float = 0.0
    """Seconds between single bytes of an answer."""
    requests: list[Request] = field(default_factory=list)


def http(status: int, body: bytes = b"", headers: str = "") -> bytes:
    """Build an answer."""
    return f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\n{headers}\r\n".encode() + body


@contextmanager
def start(answer: Callable[[Request], bytes], drip_s: float = 0.0) -> Iterator[Scripted]:
    """Serve on a free port until the end of the block."""
    scripted = Scripted(answer, drip_s=drip_s)
    listener = socket.create_server(("127.0.0.1", 0))
    scripted.port = listener.getsockname()[1]
    done = threading.Event()

    def serve() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=talk, args=(client,), daemon=True).start()

    def talk(client: socket.socket) -> None:
        stream = client.makefile("rb")
        try:
            while True:
                first = stream.readline()
                if not first:
                    return
                headers = {}
                while (line := stream.readline().strip()) != b"":
                    key, _, value = line.decode("latin-1").partition(":")
                    headers[key.lower()] = value.strip()
                body = stream.read(int(headers.get("content-length", 0)))
                lines = gzip.decompress(body) if headers.get("content-encoding") == "gzip" else body
                request = Request(first.split()[1].decode(), headers, lines)
                scripted.requests.append(request)
                raw = scripted.answer(request)
                if not raw:
                    return
                if scripted.drip_s:
                    for byte in raw:
                        if done.wait(scripted.drip_s):
                            return
                        client.sendall(bytes([byte]))
                else:
                    client.sendall(raw)
                if not raw.startswith(b"HTTP/1.1 "):
                    return
        except OSError:
            return
        finally:
            stream.close()
            client.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield scripted
    finally:
        done.set()
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(2)
        time.sleep(0)
