"""One episode's machines: nodes with simulated GPUs, planner and store, every process as its own user.

Everything lies in one folder on a tmpfs of the episode's own name spaces; the disks that faults fill are small file
systems of their own. `enter` makes the name spaces and is the first thing that an episode does.
"""

import os
import random
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from chaos import books, plans
from chaos.clock import Clock, build
from chaos.mutants import PLANNER
from chaos.observer import Gpus
from chaos.supervisor import Service, Unit, shipped
from powerhall_agent.simulate.state import StateFile
from powerhall_agent.simulate.world import advance

BIN = Path(sys.executable).parent
MUTANTS = Path(__file__).with_name("mutants.py")
SITE_KEY = bytes(range(32))
STORE_URL = "influxdb://127.0.0.1:8086/chaos?version=1&timeout_s=3"
_FIRST_ID = 61_000
_INFLUX = """\
reporting-disabled = true
bind-address = "127.0.0.1:8088"
[meta]
  dir = "{folder}/meta"
[data]
  dir = "{folder}/data"
  wal-dir = "{folder}/wal"
  query-log-enabled = false
[monitor]
  store-enabled = false
[http]
  bind-address = "127.0.0.1:8086"
  log-enabled = false
[subscriber]
  enabled = false
[continuous_queries]
  enabled = false
"""


def mount(folder: Path, size: str, owner: int = 0, group: int = 0, mode: str = "755") -> None:
    """Make a small disk."""
    folder.mkdir(parents=True, exist_ok=True)
    options = f"size={size},mode={mode},uid={owner},gid={group}"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "chaos", folder], check=True)


def users(names: list[str], members: Mapping[str, tuple[str, ...]], folder: Path) -> dict[str, int]:
    """Add users and groups of these names to this name space alone; return their numbers.

    A folder takes the place of /etc, not a file that of /etc/passwd: the kernel takes a mount off a file that is
    replaced outside, as `useradd` on the host does, and the capper would refuse its carrier from then on.
    """
    ids = {"root": 0} | {name: _FIRST_ID + number for number, name in enumerate(dict.fromkeys(names)) if name != "root"}
    passwd, group = Path("/etc/passwd").read_text(), Path("/etc/group").read_text()
    own = {name: number for name, number in ids.items() if number}
    passwd = "\n".join(line for line in passwd.splitlines() if line.partition(":")[0] not in own)
    group = "\n".join(line for line in group.splitlines() if line.partition(":")[0] not in own)
    passwd += "".join(f"\n{name}:x:{number}:{number}::/nonexistent:/usr/sbin/nologin" for name, number in own.items())
    group += "".join(f"\n{name}:x:{number}:{','.join(members.get(name, ()))}" for name, number in own.items())
    etc, before = folder / "etc", folder / "etc-before"
    etc.mkdir()
    before.mkdir()
    subprocess.run(["mount", "--bind", "/etc", before], check=True)
    for path in before.iterdir():
        (etc / path.name).symlink_to(path)
    for name, text in (("passwd", passwd), ("group", group)):
        path = etc / name
        path.unlink(missing_ok=True)
        path.write_text(text + "\n")
        path.chmod(0o644)
    subprocess.run(["mount", "--bind", etc, "/etc"], check=True)
    return ids


def open_way(folder: Path) -> None:
    """Let every user run this interpreter, where it lies under a folder that only root may enter."""
    for place in {Path(sys.base_prefix), Path(sys.prefix), Path(__file__).parents[2]}:
        blocked = next((p for p in reversed(place.parents) if p.stat().st_mode & 0o005 != 0o005), None)
        if blocked is None:
            continue
        hold = folder / "hold"
        hold.mkdir(exist_ok=True)
        subprocess.run(["mount", "--bind", place, hold], check=True)
        mount(blocked, "1m")
        place.mkdir(parents=True, exist_ok=True)
        subprocess.run(["mount", "--move", hold, place], check=True)


@dataclass
class Node:
    """A machine with GPUs: its folder, clock and services, and the limits that it began with."""

    name: str
    folder: Path
    clock: Clock
    state: StateFile
    gpus: Gpus
    found_w: tuple[float, ...]
    capper: Service
    carrier: Service
    agent: Service

    @property
    def services(self) -> tuple[Service, ...]:
        return self.capper, self.carrier, self.agent

    @property
    def socket(self) -> Path:
        return self.folder / "run" / "capper.sock"


@dataclass
class World:
    """All machines of an episode."""

    folder: Path
    nodes: dict[str, Node]
    store: Service
    planner_clock: Clock
    planner: list[str]
    """Front of a command that becomes the planner's user."""
    ids: dict[str, int]
    zero_s: float
    """The true time of the epoch at 0 of the monotonic clock."""
    services: list[Service] = field(default_factory=list)
    shown: list[tuple[str, dict[str, object]]] = field(default_factory=list)
    """Leases and confirmations that the store has shown to readers and may have lost since."""
    planner_offset_s: float = 0.0
    """How wrong the planner's clock is from its next process on."""

    @property
    def has_users(self) -> bool:
        return bool(self.ids)

    @property
    def plan(self) -> Path:
        return self.folder / "planner" / "plan.json"

    @property
    def ledger(self) -> Path:
        return self.folder / "planner" / "ledger.json"

    @property
    def events(self) -> Path:
        return self.folder / "planner" / "events.json"

    @property
    def site_key(self) -> Path:
        return self.folder / "planner" / "site.key"

    def true_s(self) -> float:
        """Return the true time of the epoch, whatever clocks were set to."""
        return self.zero_s + time.monotonic()

    def give(self, path: Path, user: str, mode: int) -> None:
        """Hand a file to a user."""
        if self.ids:
            os.chown(path, self.ids[user], self.ids[user])
        path.chmod(mode)


_UNITS = ("powerhall-capper", "powerhall-lease", "powerhall-agent", "powerhall-grant")


def build_world(folder: Path, names: tuple[str, ...], dice: random.Random, *, mutant: str = "") -> World:
    """Make all machines of an episode; nothing runs yet."""
    units = {name: Unit.read(name) for name in _UNITS}
    is_root = os.environ.get("CHAOS_ONE_USER") != "1"
    mount(folder, "96m")
    for shared in ("/run", "/var/lib"):  # of the machine that tests run on, nothing is seen or changed
        mount(Path(shared), "1m")
    ids: dict[str, int] = {}
    if is_root:
        wanted = ["chaos-planner", "chaos-store", *(n for u in units.values() for n in (u.user, u.group, *u.groups))]
        open_way(folder)
        ids = users(wanted, {}, folder)
    library = build(folder)
    store = _store(folder, ids)
    planner = folder / "planner"
    mount(planner, "512k", ids.get("chaos-planner", 0), ids.get("chaos-planner", 0), "750")
    grant = Unit(
        "chaos-planner", units["powerhall-grant"].keys | {"User": ("chaos-planner",), "Group": ("chaos-planner",)}
    )
    world = World(
        folder,
        {},
        store,
        Clock(folder / "planner.clock", library),
        grant.prefix(ids),
        ids,
        time.time() - time.monotonic(),
    )
    world.site_key.write_text(SITE_KEY.hex() + "\n")
    world.give(world.site_key, "chaos-planner", 0o600)
    for name in names:
        world.nodes[name] = _node(world, name, units, library, dice, mutant)
    world.services = [store, *(service for node in world.nodes.values() for service in node.services)]
    return world


def _store(folder: Path, ids: dict[str, int]) -> Service:
    place, owner = folder / "store", ids.get("chaos-store", 0)
    mount(place, "32m", owner, owner)
    config = folder / "influxd.conf"
    config.write_text(_INFLUX.format(folder=place))
    config.chmod(0o644)
    unit = Unit(
        "store",
        {"User": ("chaos-store",), "RestartSec": ("0.5",), "MemoryMax": ("512M",), "CapabilityBoundingSet": ("",)},
    )
    return Service(unit, "store", ["influxd", "run", "-config", str(config)], folder, folder / "store.log", ids)


def _node(
    world: World, name: str, units: Mapping[str, Unit], library: Path | None, dice: random.Random, mutant: str
) -> Node:
    place, ids = world.folder / name, world.ids
    place.mkdir()
    place.chmod(0o755)
    capper, carrier, agent = (units[unit] for unit in ("powerhall-capper", "powerhall-lease", "powerhall-agent"))
    (place / "run").mkdir()
    (place / "run").chmod(int(capper.text("RuntimeDirectoryMode", "0755"), 8))
    if ids:
        os.chown(place / "run", ids[capper.user], ids[capper.group])
    mount(place / "state", "1m", ids.get(capper.user, 0), ids.get(capper.group, 0), "700")
    mount(place / "spool", "2m", ids.get(agent.user, 0), ids.get(agent.group, 0), "750")
    (place / "node.key").write_text(books.key_of(SITE_KEY, name).hex() + "\n")
    (place / "node.key").chmod(0o600)
    state = StateFile.create(place / "gpus", gpus=plans.GPUS, node=name, seed=dice.randrange(1 << 30))
    (place / "gpus").chmod(0o666)
    found_w = tuple(float(dice.randrange(520, 700)) for _ in range(plans.GPUS))
    for gpu, watts in enumerate(found_w):
        state.set_load(gpu, 0.9)
        state.set_limit(gpu, watts)
    advance(state, 0.05)  # so that the driver's answers show it
    write_configs(place, name, carrier.user if ids else "")
    clock = Clock(place / "clock", library)
    env = clock.env

    def moved(text: str) -> str:
        for old, new in (
            ("/opt/powerhall/bin/", f"{BIN}/"),
            ("/etc/powerhall/capper.toml", f"{place}/capper.toml"),
        ):
            text = text.replace(old, new)
        return text

    simulated = ["--simulate-state", str(place / "gpus")]
    enter = _machine(place)
    posts = [[*command, *simulated] for command in shipped(capper, "ExecStopPost", moved)]
    cap = [*shipped(capper, "ExecStart", moved)[0], *simulated]
    if mutant and mutant not in PLANNER:
        cap[:1] = [sys.executable, str(MUTANTS), mutant, "powerhall-agent"]
    lease = [str(BIN / "powerhall-agent"), "lease", "--store", STORE_URL, "--node", name]
    lease += ["--poll-s", "0.5"]
    run = [str(BIN / "powerhall-agent"), "run", "--config", str(place / "agent.toml")]
    return Node(
        name, place, clock, state, Gpus(place / "gpus"), found_w,
        Service(capper, f"{name}-capper", cap, place, place / "capper.log", ids, env, posts, enter=enter),
        Service(carrier, f"{name}-carrier", lease, place, place / "carrier.log", ids, env, enter=enter),
        Service(agent, f"{name}-agent", run, place, place / "agent.log", ids, env, enter=enter),
    )  # fmt: skip


def _machine(place: Path) -> list[str]:
    """Make a name space in which the folders of the capper are those of this machine; return how to enter it."""
    binds = " && ".join(
        f"mkdir -p {path} && mount --bind {place}/{name} {path}"
        for name, path in (("run", "/run/powerhall-capper"), ("state", "/var/lib/powerhall-capper"))
    )
    holder = subprocess.Popen(
        ["unshare", "--mount", "sh", "-c", f"{binds} && echo ready && exec sleep 1000000"], stdout=subprocess.PIPE
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"ready\n"
    return ["nsenter", f"--mount=/proc/{holder.pid}/ns/mnt", "--"]


def write_configs(place: Path, name: str, agent_user: str) -> None:
    """Write capper.toml and agent.toml of a node, as its owner would; faults damage them."""
    user = f'agent_user = "{agent_user}"\n' if agent_user else ""
    (place / "capper.toml").write_text(
        f'node = "{name}"\nkey_file = "{place}/node.key"\nsafe_gpu_power_limit = "{plans.SAFE_W:.0f} W"\n{user}'
    )
    (place / "agent.toml").write_text(
        f'[sampler]\nnode = "{name}"\nsite = "chaos"\nflight_recorder = false\nrapl = false\nattribution = false\n'
        f'interval_s = 1.0\n[sampler.simulate]\nstate_file = "{place}/gpus"\n'
        f'[spool]\npath = "{place}/spool/data"\nmax_bytes = 1000000\nsegment_bytes = 65536\n'
        f'[ship]\nbackoff_max_s = 2.0\n[[output]]\nurl = "{STORE_URL}"\n'
        f'[prometheus]\nlisten = "127.0.0.1:{9100 + int(name[1:])}"\n'
    )
    for file in ("capper.toml", "agent.toml"):
        (place / file).chmod(0o644)
