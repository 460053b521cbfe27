"""Clients of the load test and what they measure: slow ones, kept connections, times of requests, memory of servers."""

import asyncio
import contextlib
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Times:
    """Durations of requests, and how many failed."""

    seconds: list[float] = field(default_factory=list)
    failed: int = 0

    def figures(self, name: str) -> dict[str, float]:
        ordered = sorted(self.seconds) or [-1.0]  # no answer at all
        return {
            f"{name}_requests": len(self.seconds),
            f"{name}_failed": self.failed,
            f"{name}_p50_s": round(ordered[len(ordered) // 2], 3),
            f"{name}_p99_s": round(ordered[int(len(ordered) * 0.99)], 3),
            f"{name}_max_s": round(ordered[-1], 3),
        }


@dataclass
class Memory:
    """Resident memory and threads of a process over time."""

    pid: int
    mib: list[float] = field(default_factory=list)
    threads: int = 0

    async def watch(self, until_s: float) -> None:
        while time.monotonic() < until_s:
            text = Path(f"/proc/{self.pid}/status").read_text()
            words = dict(line.split(":", 1) for line in text.splitlines())
            self.mib.append(int(words["VmRSS"].split()[0]) / 1024)
            self.threads = max(self.threads, int(words["Threads"]))
            await asyncio.sleep(0.2)

    def figures(self, name: str) -> dict[str, float]:
        third = self.mib[len(self.mib) // 3] if self.mib else 0.0
        return {
            f"{name}_mib": round(max(self.mib, default=0.0), 1),
            f"{name}_growth_mib": round(max(self.mib[len(self.mib) // 3 :], default=0.0) - third, 1),
            f"{name}_threads": self.threads,
        }


async def http(
    port: int, method: str, path: str, body: bytes = b"", headers: str = "", within_s: float = 10.0
) -> tuple[int, bytes]:
    """Send one request on a connection of its own."""
    async with asyncio.timeout(within_s):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(
                f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}"
                f"Content-Length: {len(body)}\r\n\r\n".encode()
                + body
            )
            await writer.drain()
            answer = await reader.read()
        finally:
            writer.close()
    head, _, rest = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), rest


async def probe(times: Times, until_s: float, *request, every_s: float = 0.25, good: int = 200, **more) -> None:
    """Send the same healthy request again and again."""
    while time.monotonic() < until_s:
        begin_s = time.monotonic()
        try:
            status, _ = await http(*request, **more)
            times.failed += status != good
            times.seconds.append(time.monotonic() - begin_s)
        except (OSError, TimeoutError, ValueError, IndexError):
            times.failed += 1
        await asyncio.sleep(max(0.0, every_s - (time.monotonic() - begin_s)))


async def slow_client(port: int, until_s: float, dice: random.Random, tried: asyncio.Semaphore) -> None:
    """Send a request byte by byte, or nothing at all; come back when the server ends it."""
    is_first = True
    text = b"GET /v1/events HTTP/1.1\r\nHost: x\r\nX-Long: " + b"y" * 1000 if dice.random() < 0.7 else b""
    while time.monotonic() < until_s:
        with contextlib.suppress(OSError, TimeoutError):
            try:
                reader, writer = await asyncio.wait_for(asyncio.open_connection("127.0.0.1", port), 5)
            finally:
                if is_first:
                    tried.release()
                is_first = False
            ended = asyncio.ensure_future(reader.read())
            sent = 0
            while not ended.done() and time.monotonic() < until_s:
                writer.write(text[sent : sent + 1])
                sent += 1
                await asyncio.wait([ended], timeout=dice.uniform(0.3, 2.0))
            ended.cancel()
            with contextlib.suppress(asyncio.CancelledError, OSError):
                await ended
            writer.close()
        await asyncio.sleep(dice.uniform(1.0, 5.0))


async def run_slow_clients(port: int, count: int, seconds: float) -> None:
    until_s, tried = time.monotonic() + seconds, asyncio.Semaphore(0)
    work = [slow_client(port, until_s, random.Random(number), tried) for number in range(count)]
    tasks = [asyncio.ensure_future(one) for one in work]
    for _ in range(count):
        await tried.acquire()
    print("connected", flush=True)
    await asyncio.gather(*tasks)


@contextlib.contextmanager
def slow_clients(port: int, count: int) -> Iterator[None]:
    """Run slow clients in a process of its own, so that they do not slow the probes; all have connected, or tried."""
    command = [sys.executable, __file__, str(port), str(count), "1000"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"connected\n"
        yield
    finally:
        process.kill()
        process.communicate()


class Keep:
    """One kept connection of a cheap agent."""

    def __init__(self, port: int) -> None:
        self._port, self._streams = port, None

    def close(self) -> None:
        """Close the connection."""
        if self._streams is not None:
            self._streams[1].close()

    async def ask(self, head: str, body: bytes) -> int:
        """Send a request, and return the status of its answer."""
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._streams
        try:
            writer.write(f"{head}\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
            async with asyncio.timeout(10):
                answer = await reader.readuntil(b"\r\n\r\n")
                text = answer.lower()
                if b"transfer-encoding: chunked" in text:
                    while await reader.readuntil(b"\r\n") != b"0\r\n":
                        pass
                    await reader.readuntil(b"\r\n")
                elif b"content-length:" in text:
                    await reader.readexactly(int(text.partition(b"content-length:")[2].split()[0]))
            return int(answer.split()[1])
        except BaseException:
            writer.close()
            self._streams = None
            raise


if __name__ == "__main__":
    asyncio.run(run_slow_clients(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])))
