"""Load: 1,000 agents and carriers on one store, and the doors of shed service and agent under 1,000 slow clients.

    load.py                1,000 of each, 60 s each
    load.py --short        the form of the tests: 250 agents, 1,000 slow clients, seconds

Prints one JSON object; exit code 1 when memory grows, a healthy request fails or takes too long, or points are lost.
Agents here are cheap: the lines and the batches of a node of eight GPUs from one process, over one kept connection
each. The carriers' question to the store, the lease command, the store (InfluxDB 1.x) and both servers are real.
"""

import argparse
import asyncio
import contextlib
import gzip
import json
import os
import random
import resource
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from powerhall.jobs.model import Job
from powerhall.plan.plan import PLAN_VERSION, Assignment, Placement, Plan, Snapshot, snapshot_hash, write_plan
from powerhall.store.influxdb.influxql import render_influxql
from powerhall.store.query import Query, Select
from rigs import influxdb
from rigs.claims import with_claims
from rigs.load_clients import Keep, Memory, Times, http, probe, slow_clients
from rigs.plans import small_site

BIN = Path(sys.executable).parent
TOKEN = "a-token-for-the-load-test-0123456789"
HEALTH_WITHIN_S = 1.0
"""The longest that a healthy request may take at the 99th percentile, on a machine that does nothing else."""
GROWTH_MIB = 16.0
"""How much a server's memory may grow from the first third of the time to its end."""
THREADS = 64
"""The most threads of a server: TasksMax= of the agent's unit."""
_POLL_S = 2.0


def _lines(node: str, now_ms: int, dice: random.Random) -> bytes:
    return "".join(
        f"gpu,node={node},gpu={gpu} power_w={dice.uniform(80, 700):.1f},energy_j={now_ms / 3 + gpu:.1f},"
        f"temp_c={dice.randrange(30, 85)},sm_clock_mhz={dice.randrange(300, 1980)} {now_ms}\n"
        for gpu in range(8)
    ).encode()


async def _agent(port: int, number: int, until_s: float, times: Times, sent: list[int]) -> None:
    dice, keep, node = random.Random(number), Keep(port), f"gn{number:04d}"
    await asyncio.sleep(dice.random())
    while time.monotonic() < until_s:
        begin_s = time.monotonic()
        body = gzip.compress(_lines(node, int(time.time() * 1000), dice), 1)
        try:
            status = await keep.ask("POST /write?db=load&precision=ms HTTP/1.1\r\nContent-Encoding: gzip", body)
            times.failed += status != 204
            sent[0] += 8 * (status == 204)
            times.seconds.append(time.monotonic() - begin_s)
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            times.failed += 1
        await asyncio.sleep(max(0.0, 1.0 - (time.monotonic() - begin_s)))
    keep.close()


async def _carrier(port: int, number: int, until_s: float, times: Times) -> None:
    """Ask for the newest lease of a node, as carriers do."""
    dice, keep, node = random.Random(-number), Keep(port), f"gn{number:04d}"
    await asyncio.sleep(dice.uniform(0, _POLL_S))
    while time.monotonic() < until_s:
        begin_s, now_ms = time.monotonic(), int(time.time() * 1000)
        query = Query("lease", (Select("signed", "last"),), where={"node": node})
        text = render_influxql(query, now_ms - 3_600_000, now_ms + 60_000)
        words = urllib.parse.urlencode({"db": "load", "epoch": "ms", "q": text})
        try:
            status = await keep.ask(f"GET /query?{words} HTTP/1.1", b"")
            times.failed += status != 200
            times.seconds.append(time.monotonic() - begin_s)
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            times.failed += 1
        await asyncio.sleep(max(0.0, _POLL_S - (time.monotonic() - begin_s)))
    keep.close()


def _big_plan(path: Path, nodes: list[str]) -> None:
    """Write a plan that runs one job on every second node; all fit."""
    now_s = int(time.time())
    site = small_site(nodes, power_limit_w=len(nodes) * 10_200.0)
    jobs, placed = [], []
    for position, node in enumerate(nodes[::2]):
        rack = f"hall1/r1/k{position * 2 // 4 + 1}"
        jobs.append(Job(f"j{position}", 8, 7200.0, float(now_s)))
        places = (Placement(rack, node, 8),)
        placed.append(Assignment(f"j{position}", "hall1", "hgx", "fast", 8, 1250.0, now_s, now_s + 7200, places))
    snapshot = Snapshot(now_s, now_s, 300, 24, site, tuple(jobs))
    plan = Plan(
        version=PLAN_VERSION, plan_id=snapshot_hash(snapshot), created_s=now_s, status="feasible", value=0, bound=0,
        gap=0.0, assignments=tuple(placed), waiting=(), zones=(), snapshot=snapshot,
    )  # fmt: skip
    write_plan(with_claims(plan), path)


async def _lease_command(folder: Path, port: int) -> dict[str, object]:
    command = [BIN / "powerhall-optimizer", "lease", "--plan", folder / "plan.json", "--site-key", folder / "site.key"]
    command += ["--store", f"influxdb://127.0.0.1:{port}/load?version=1", "--ledger", folder / "ledger.json"]
    begin_s = time.monotonic()
    process = await asyncio.create_subprocess_exec(*command, stdout=-1, stderr=-1)
    out, error = await process.communicate()
    if process.returncode:
        return {"lease_error": error.decode()[-300:]}
    return {"lease_leases": json.loads(out)["leases"], "lease_command_s": round(time.monotonic() - begin_s, 2)}


async def agents(count: int, seconds: float, folder: Path) -> dict[str, object]:
    """Run agents and carriers on one store, with one lease command in the middle."""
    nodes = [f"gn{number:04d}" for number in range(count)]
    _big_plan(folder / "plan.json", nodes)
    (folder / "site.key").write_text(bytes(range(32)).hex())
    (folder / "site.key").chmod(0o600)
    with influxdb.start() as rig:
        rig.database("load")
        until_s = time.monotonic() + seconds
        writes, asks, sent, store = Times(), Times(), [0], Memory(rig.pid)
        work = [_agent(rig.port, number, until_s, writes, sent) for number in range(count)]
        work += [_carrier(rig.port, number, until_s, asks) for number in range(count)]
        tasks = [asyncio.ensure_future(one) for one in (*work, store.watch(until_s))]
        await asyncio.sleep(seconds / 2)
        granted = await _lease_command(folder, rig.port)
        await asyncio.gather(*tasks)
        query = urllib.parse.urlencode({"db": "load", "q": "SELECT count(power_w) FROM gpu"})
        _, answer = await http(rig.port, "GET", f"/query?{query}", within_s=60.0)
        text = answer[answer.index(b"{") : answer.rindex(b"}") + 1]
        stored = json.loads(text)["results"][0]["series"][0]["values"][0][1]
    lost = sent[0] - stored
    return {
        "agents": count, "points_per_s": round(sent[0] / seconds), "points_lost": lost, **granted,
        **writes.figures("write"), **asks.figures("lease_poll"), **store.figures("store"),
    }  # fmt: skip


# The doors


@contextlib.contextmanager
def _process(command: list[object], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as out:
        process = subprocess.Popen([str(word) for word in command], stdout=out, stderr=out, cwd=log.parent)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(20)


def _free_port() -> int:
    with socket.socket() as probe_:
        probe_.bind(("127.0.0.1", 0))
        return int(probe_.getsockname()[1])


async def _answers(port: int, path: str) -> None:
    for _ in range(200):
        with contextlib.suppress(OSError, TimeoutError, ValueError, IndexError):
            if (await http(port, "GET", path))[0] == 200:
                return
        await asyncio.sleep(0.1)
    raise RuntimeError(f"nothing answers on port {port}")


async def hook(clients: int, seconds: float, folder: Path) -> dict[str, object]:
    """Hold slow connections to the shed service; ask for its health, and post an event that is repeated."""
    folder.mkdir(exist_ok=True)
    _big_plan(folder / "plan.json", [f"gn{number:04d}" for number in range(8)])
    for name, text in (("site.key", bytes(range(32)).hex()), ("token", TOKEN)):
        (folder / name).write_text(text)
        (folder / name).chmod(0o600)
    port = _free_port()
    command = [BIN / "powerhall-optimizer", "shed", "--serve", f"127.0.0.1:{port}", "--token-file", folder / "token"]
    command += ["--plan", folder / "plan.json", "--store", f"sqlite:///{folder}/store.db"]
    command += ["--site-key", folder / "site.key", "--ledger", folder / "ledger.json"]
    command += ["--events", folder / "events.json", "--out", folder / "shed-plan.json"]
    event = json.dumps({"event_id": "load-1", "duration": "1 h", "reduce_percent": 10.0, "within": "20 s"}).encode()
    with _process(command, folder / "shed.log") as process:
        await _answers(port, "/v1/health")
        health, posts, memory = Times(), Times(), Memory(process.pid)
        token = f"Authorization: Bearer {TOKEN}\r\nContent-Type: application/json\r\n"
        with slow_clients(port, clients):
            until_s = time.monotonic() + seconds
            work = [probe(health, until_s, port, "GET", "/v1/health"), memory.watch(until_s)]
            work += [probe(posts, until_s, port, "POST", "/v1/events", event, token, 30.0, every_s=4.0)]
            await asyncio.gather(*work)
        is_alive = process.poll() is None
    return {
        "hook_clients": clients, "hook_alive": is_alive, **health.figures("health"), **posts.figures("event"),
        **memory.figures("hook"),
    }  # fmt: skip


async def metrics(clients: int, seconds: float, folder: Path) -> dict[str, object]:
    """Hold slow connections to an agent's /metrics, and scrape it."""
    folder.mkdir(exist_ok=True)
    port = _free_port()
    command = [BIN / "powerhall-agent", "run", "--simulate", "--gpus", "8", "--node", "gn0001", "--metrics"]
    command += [f"127.0.0.1:{port}", "--store", f"sqlite:///{folder}/points.db", "--spool", folder / "spool"]
    with _process(command, folder / "agent.log") as process:
        await _answers(port, "/metrics")
        scrapes, memory = Times(), Memory(process.pid)
        with slow_clients(port, clients):
            until_s = time.monotonic() + seconds
            work = [probe(scrapes, until_s, port, "GET", "/metrics", every_s=1.0), memory.watch(until_s)]
            await asyncio.gather(*work)
        is_alive = process.poll() is None
    return {
        "metrics_clients": clients, "metrics_alive": is_alive, **scrapes.figures("scrape"), **memory.figures("agent"),
    }  # fmt: skip


def broken(found: dict[str, object], within_s: float = HEALTH_WITHIN_S) -> list[str]:
    """Return which promises the figures break."""
    wrong = [f"{key}: {found[key]}" for key in found if key.endswith(("_failed", "_lost")) and found[key]]
    wrong += [f"{key}: not alive" for key in found if key.endswith("_alive") and not found[key]]
    wrong += [f"{key}: {found[key]} s" for key in ("health_p99_s", "scrape_p99_s") if found.get(key, 0.0) > within_s]
    wrong += [
        f"{key}: {found[key]} MiB"
        for key in ("hook_growth_mib", "agent_growth_mib")
        if found.get(key, 0.0) > GROWTH_MIB
    ]
    wrong += [f"{key}: {found[key]}" for key in ("hook_threads", "agent_threads") if found.get(key, 0) > THREADS]
    return wrong + [f"{key}: {found[key]}" for key in found if key == "lease_error"]


def raise_files() -> int:
    """Let this process hold as many connections as it may; return how many."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return most


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="250 agents and 1,000 slow clients, seconds")
    parser.add_argument("--only", choices=("agents", "hook", "metrics"), help="one part")
    arguments = parser.parse_args()
    raise_files()
    if reason := influxdb.missing():
        print(f"load: {reason}", file=sys.stderr)
        return 2
    count, clients, seconds = (250, 1000, 12.0) if arguments.short else (1000, 1000, 60.0)
    found: dict[str, object] = {"load_average": round(os.getloadavg()[0], 1)}
    with tempfile.TemporaryDirectory(prefix="powerhall-load-") as name:
        folder = Path(name)
        for part, work in (
            ("agents", agents(count, seconds, folder)),
            ("hook", hook(clients, seconds, folder / "hook")),
            ("metrics", metrics(clients, seconds, folder / "metrics")),
        ):
            if arguments.only in {None, part}:
                print(f"load: {part}, {seconds:.0f} s", file=sys.stderr)
                found |= asyncio.run(work)
            else:
                work.close()
    wrong = broken(found)
    print(json.dumps(found | {"broken": wrong}, indent=1))
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
