"""The faults of an episode. Each takes the world and a die, does its harm, and returns what ends it and when.

A fault that damages what an owner keeps (keys, settings, plans) is repaired by the owner; what the product itself
keeps (the capper's memory, the ledger, the spool) is left for the product to mend.
"""

import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from chaos import books, plans
from chaos.supervisor import Service
from chaos.world import Node, World, write_configs
from powerhall_agent.simulate.faults import apply, parse_script


@dataclass
class Notes:
    """What the judge must know of the faults."""

    frozen: dict[str, list[list[float]]] = field(default_factory=dict)
    touched: list[tuple[str, int, float]] = field(default_factory=list)
    """Limits of GPUs that another program changed: node, GPU, time."""
    memory_lost: set[str] = field(default_factory=set)
    """Nodes whose found limits may be unknown."""
    driver_gone: set[str] = field(default_factory=set)
    second: dict[str, list[list[float]]] = field(default_factory=dict)
    """Times within which a node's own capper may find another one at its place, and then ends."""
    lines: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Ending:
    """What ends a fault, and after how many seconds."""

    after_s: float
    heal: Callable[[], None]


Fault = Callable[[World, random.Random, Notes], Ending]


def _node(world: World, dice: random.Random) -> Node:
    return world.nodes[dice.choice(sorted(world.nodes))]


def _nothing() -> None:
    return


def script(node: Node, text: str) -> None:
    """Do one line of a fault script now."""
    for step in parse_script(f"at 0 {text}"):
        apply(node.state, step)


def kill(world: World, dice: random.Random, notes: Notes) -> Ending:
    service = dice.choice(world.services)
    notes.lines.append(f"kill -9 {service.name}")
    service.signal(signal.SIGKILL)
    return Ending(0.0, _nothing)


def kill_capper(world: World, dice: random.Random, notes: Notes) -> Ending:
    service = _node(world, dice).capper
    notes.lines.append(f"kill -9 {service.name}")
    service.signal(signal.SIGKILL)
    return Ending(0.0, _nothing)


def freeze(world: World, dice: random.Random, notes: Notes) -> Ending:
    service, span_s = dice.choice(world.services), dice.uniform(0.5, 4.0)
    return _freeze(service, span_s, notes)


def freeze_capper(world: World, dice: random.Random, notes: Notes) -> Ending:
    span_s = 60.0 if dice.random() < 0.15 else dice.uniform(0.5, 4.0)  # sometimes until the watchdog ends it
    return _freeze(_node(world, dice).capper, span_s, notes)


def _freeze(service: Service, span_s: float, notes: Notes) -> Ending:
    notes.lines.append(f"SIGSTOP {service.name} for {span_s:.1f} s")
    process = service.process
    service.signal(signal.SIGSTOP)
    began_s = time.monotonic()
    longest_s = service.unit.seconds("WatchdogSec", 90.0) + 0.5
    span = [began_s, began_s + min(span_s, longest_s)]
    notes.frozen.setdefault(service.name, []).append(span)

    def heal() -> None:
        if process is not None and process.poll() is None:
            process.send_signal(signal.SIGCONT)
            span[1] = min(span[1], time.monotonic())

    return Ending(span_s, heal)


def gpu(world: World, dice: random.Random, notes: Notes) -> Ending:
    node, number = _node(world, dice), dice.randrange(plans.GPUS)
    verb = dice.choice(["lost", "hung 60", "slow 0.1", "slow 0.3", "unknown", "reset_required"])
    span_s = dice.uniform(0.5, 5.0)
    notes.lines.append(f"{node.name} GPU {number} {verb} for {span_s:.1f} s")
    script(node, f"gpu {number} {verb}")
    return Ending(span_s, lambda: script(node, f"gpu {number} well"))


def gpu_at_start(world: World, dice: random.Random, notes: Notes) -> Ending:
    ending = gpu(world, dice, notes)
    node = world.nodes[notes.lines[-1].split()[0]]
    notes.lines.append(f"kill -9 {node.capper.name}")
    node.capper.signal(signal.SIGKILL)
    return ending


def driver(world: World, dice: random.Random, notes: Notes) -> Ending:
    node, span_s = _node(world, dice), dice.uniform(0.5, 3.0)
    notes.lines.append(f"{node.name} driver unloaded for {span_s:.1f} s")
    notes.driver_gone.add(node.name)
    script(node, "unload")
    return Ending(span_s, lambda: script(node, "reload 595.10"))


def foreign_limit(world: World, dice: random.Random, notes: Notes) -> Ending:
    node, number = _node(world, dice), dice.randrange(plans.GPUS)
    notes.lines.append(f"{node.name} GPU {number}: another program sets 700 W")
    notes.touched.append((node.name, number, time.monotonic()))
    node.state.set_limit(number, 700.0)
    return Ending(0.0, _nothing)


def second_capper(world: World, dice: random.Random, notes: Notes) -> Ending:
    node = _node(world, dice)
    notes.lines.append(f"{node.name}: a second capper for 3 s")
    with (node.folder / "capper2.log").open("ab") as log:
        command = [*node.capper.enter, *node.capper.unit.prefix(world.ids), *node.capper.command]
        other = subprocess.Popen(command, stdout=log, stderr=log, env={"PATH": os.environ["PATH"], **node.clock.env})

    span = [time.monotonic(), float("inf")]
    notes.second.setdefault(node.name, []).append(span)

    def heal() -> None:
        other.kill()
        other.wait()
        span[1] = time.monotonic() + 1.0  # for the harness to see the end of one that met it before

    return Ending(3.0, heal)


def _disk(world: World, dice: random.Random) -> tuple[Path, str]:
    node = _node(world, dice)
    places = [(node.folder / "state", node.name), (node.folder / "spool", ""), (world.folder / "planner", "")]
    return dice.choice(places)


def full_disk(world: World, dice: random.Random, notes: Notes) -> Ending:
    place, _ = dice.choice([_disk(world, dice), (world.folder / "store", "")])
    span_s = dice.uniform(1.0, 5.0)
    notes.lines.append(f"full disk {place.relative_to(world.folder)} for {span_s:.1f} s")
    filler = place / ".filler"
    with filler.open("wb", buffering=0) as file:
        block = bytes(65536)
        while block:
            try:
                file.write(block)
            except OSError:
                block = block[: len(block) // 4]
    return Ending(span_s, lambda: _make_room(world, filler))


def _make_room(world: World, filler: Path) -> None:
    """Remove what fills a disk, as its owner does.

    The owner of a store starts it again: InfluxDB 1.x keeps the first error of its write-ahead log and refuses every
    write from then on, whatever room there is. What it refused it showed to readers all the same, and loses now: the
    judge must know those leases.
    """
    _remove(filler)
    if filler.parent.name == "store":
        with contextlib.suppress(OSError, ValueError, KeyError):
            world.shown += books.shown()
        world.store.signal(signal.SIGKILL)


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):  # read-only by another fault; `repair_disks` comes last
        path.unlink(missing_ok=True)


def repair_disks(world: World) -> None:
    """Make every disk writable, with room."""
    folders = [node.folder / name for node in world.nodes.values() for name in ("state", "spool")]
    for place in (*folders, world.folder / "planner", world.folder / "store"):
        subprocess.run(["mount", "-o", "remount,rw", place], check=True)
        (place / ".filler").unlink(missing_ok=True)


def read_only_disk(world: World, dice: random.Random, notes: Notes) -> Ending:
    place, _ = _disk(world, dice)
    span_s = dice.uniform(1.0, 5.0)
    done = subprocess.run(["mount", "-o", "remount,ro", place], check=False, capture_output=True)
    if done.returncode:  # a file is open for writing
        return full_disk(world, dice, notes)
    notes.lines.append(f"read-only disk {place.relative_to(world.folder)} for {span_s:.1f} s")
    return Ending(span_s, lambda: subprocess.run(["mount", "-o", "remount,rw", place], check=True) and None)


def damaged(data: bytes, dice: random.Random) -> bytes:
    """Return a file's content as a bad disk, a crash or a slip leaves it."""
    kind = dice.randrange(7)
    if kind == 0 or not data:
        return b""
    if kind == 1:
        return data[: dice.randrange(len(data))]
    if kind == 2:
        return bytes(len(data))
    if kind == 3:
        return b"\xff" + data
    if kind == 4:
        return dice.randbytes(len(data))
    if kind == 5:
        at = dice.randrange(len(data))
        return data[:at] + bytes([data[at] ^ (1 << dice.randrange(8))]) + data[at + 1 :]
    return b"[" * 200_000 if len(data) < 100_000 else data[::-1]


def _harm(path: Path, dice: random.Random, notes: Notes, world: World) -> bool:
    """Damage a file in place, or remove it; False where it is absent or its disk is full or read-only."""
    try:
        if dice.random() < 0.2:
            path.unlink()
        else:
            data = damaged(path.read_bytes(), dice)
            with path.open("r+b") as file:
                file.truncate(0)
                file.write(data)
    except OSError:
        return False
    notes.lines.append(f"damaged {path.relative_to(world.folder)}")
    return True


def damage_memory(world: World, dice: random.Random, notes: Notes) -> Ending:
    node = _node(world, dice)
    notes.memory_lost.add(node.name)
    for path in sorted((node.folder / "state").iterdir()):
        _harm(path, dice, notes, world)
    if dice.random() < 0.8:
        notes.lines.append(f"kill -9 {node.capper.name}")
        node.capper.signal(signal.SIGKILL)
    return Ending(0.0, _nothing)


def damage_owned(world: World, dice: random.Random, notes: Notes) -> Ending:
    """Damage a key or settings; the owner repairs them. The process that reads them is ended, so that it reads them."""
    node = _node(world, dice)
    name, service = dice.choice(
        [("node.key", node.capper), ("capper.toml", node.capper), ("agent.toml", node.agent), ("node.key", node.capper)]
    )
    _harm(node.folder / name, dice, notes, world)
    notes.lines.append(f"kill -9 {service.name}")
    service.signal(signal.SIGKILL)

    def heal() -> None:
        path = node.folder / "node.key"
        path.write_text(books.key_of(bytes(range(32)), node.name).hex() + "\n")
        path.chmod(0o600)
        write_configs(node.folder, node.name, node.carrier.unit.user if world.has_users else "")

    return Ending(dice.uniform(1.0, 4.0), heal)


def damage_ledger(world: World, dice: random.Random, notes: Notes) -> Ending:
    _harm(world.ledger, dice, notes, world)
    return Ending(0.0, _nothing)


def damage_spool(world: World, dice: random.Random, notes: Notes) -> Ending:
    node = _node(world, dice)
    files = [path for path in sorted((node.folder / "spool").rglob("*")) if path.is_file() and path.stat().st_size]
    for path in dice.sample(files, min(2, len(files))):
        _harm(path, dice, notes, world)
    if dice.random() < 0.7:
        notes.lines.append(f"kill -9 {node.agent.name}")
        node.agent.signal(signal.SIGKILL)
    return Ending(0.0, _nothing)


def clock(world: World, dice: random.Random, notes: Notes) -> Ending:
    who = dice.choice([*sorted(world.nodes), "planner"])
    step_s, span_s = dice.choice([3600.0, -3600.0, 3600.0, -3600.0, 300.0, -300.0, 30.0, -30.0]), dice.uniform(1.0, 5.0)
    notes.lines.append(f"clock of {who} set by {step_s:+.0f} s for {span_s:.1f} s")
    if who == "planner":  # takes effect with its next process
        world.planner_offset_s = step_s
        return Ending(span_s, lambda: setattr(world, "planner_offset_s", 0.0))
    world.nodes[who].clock.set(step_s)
    return Ending(span_s, lambda: world.nodes[who].clock.set(0.0))


_GARBAGE = (
    b"\xff\n", b"\x00" * 500 + b"\n", b"not json\n", b"{}\n" * 2000, b"[" * 100_000 + b"\n", b'{"alive": 1e999}\n',
    b'{"lease": {"body": "\xff", "signature": ""}}\n', b'{"lease": {"body": "", "signature": "0"}}\n',
    b'{"lease": {"body": "e30=", "signature": "\xc3\xa9"}}\n', b"x" * 1_000_000, b'{"status": true', b"\n" * 5000,
    b'{"alive": true, "status": true, "lease": null}\n', b'{"alive": "' + b"y" * 300_000 + b'"}\n', b"\xf0\x9f\n",
)  # fmt: skip


def _send(path: str | tuple[str, int], data: bytes, hold_s: float = 0.0) -> None:
    family = socket.AF_UNIX if isinstance(path, str) else socket.AF_INET
    with socket.socket(family) as connection:
        connection.settimeout(1.0)
        try:
            connection.connect(path)
            connection.sendall(data)
            time.sleep(hold_s)
            connection.recv(65536)
        except OSError:
            return


def garbage(world: World, dice: random.Random, notes: Notes) -> Ending:
    """Send what no client sends, from connections as the one user that may connect beside the carrier."""
    node = _node(world, dice)
    target: str | tuple[str, int] = str(node.socket)
    if dice.random() < 0.25:
        target = ("127.0.0.1", 9100 + int(node.name[1:]))
    pieces = dice.choices([*_GARBAGE, dice.randbytes(3000)], k=dice.randrange(1, 12))
    holds = [dice.choice([0.0, 0.0, 0.5, 2.0]) for _ in pieces]
    notes.lines.append(f"{len(pieces)} pieces of garbage at {target}")
    for piece, hold_s in zip(pieces, holds, strict=True):
        threading.Thread(target=_send, args=(target, piece, hold_s), daemon=True).start()
    return Ending(0.0, _nothing)


def _leases(world: World, dice: random.Random) -> list[str]:
    try:
        return [text for node in world.nodes for text in books.signed_leases(node)]
    except (OSError, ValueError, KeyError):
        return []


def _changed(text: str, dice: random.Random) -> str:
    """Return a signed lease with a bit of its text changed, or as it is."""
    if dice.random() < 0.6 or not text:
        return text
    at = dice.randrange(len(text))
    return text[:at] + dice.choice("ABCDabcd0123/+=") + text[at + 1 :]


def replay(world: World, dice: random.Random, notes: Notes) -> Ending:
    """Offer old, late, foreign and changed leases on the capper's socket."""
    node, known = _node(world, dice), _leases(world, dice)
    picked = [_changed(text, dice) for text in dice.choices(known, k=4)] if known else []
    notes.lines.append(f"{len(picked)} leases replayed at {node.name}")
    for text in picked:
        try:
            signed = json.loads(books.base64.b64decode(text))
        except ValueError:
            continue
        line = json.dumps({"lease": signed}).encode() + b"\n"
        threading.Thread(target=_send, args=(str(node.socket), line), daemon=True).start()
    return Ending(0.0, _nothing)


def store_garbage(world: World, dice: random.Random, notes: Notes) -> Ending:
    """Write bad lease points: in the future, badly signed, of another node, old ones as if new, no text at all."""
    known, lines = _leases(world, dice), []
    for _ in range(dice.randrange(1, 5)):
        node = dice.choice(sorted(world.nodes))
        ahead_s = dice.choice([0.0, 0.0, 20.0, 50.0, 3000.0, -100.0])
        text = dice.choice(
            ["", "!!!", "bm9uc2Vuc2U=", "\udcff\udcfe", "A" * 60_000, *(_changed(k, dice) for k in known)]
        )
        tags = f"site=chaos,hall=h{node},node={node}"
        stamp_ms = int((world.true_s() + ahead_s) * 1000) + dice.randrange(1000)
        name = dice.choice(["lease", "lease", "lease", "lease_confirmation"])
        tags = tags if name == "lease" else f"node={node}"
        lines.append(f'{name},{tags} signed="{text}" {stamp_ms}')
    notes.lines.append(f"{len(lines)} bad points in the store")
    threading.Thread(target=books.write, args=("\n".join(lines) + "\n",), daemon=True).start()
    return Ending(0.0, _nothing)


FAULTS: dict[Fault, int] = {
    kill: 4, kill_capper: 4, freeze: 3, freeze_capper: 2, gpu: 6, gpu_at_start: 3, driver: 1, foreign_limit: 1,
    second_capper: 1, full_disk: 3, read_only_disk: 3, damage_memory: 3, damage_owned: 3, damage_ledger: 2,
    damage_spool: 2, clock: 5, garbage: 5, replay: 4, store_garbage: 4,
}  # fmt: skip
"""How often each fault is drawn. Faults of plans, budgets and the planner's processes are in `planner.py`."""
