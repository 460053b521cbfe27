"""`powerhall-agent cap`: the privileged capper, which holds this node's GPUs to its power-cap leases."""

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from powerhall.runtime.command_line import Commands, add_command
from powerhall.runtime.errors import ConfigError
from powerhall.runtime.extras import EXIT_INTERNAL, EXIT_OK
from powerhall.runtime.log import Log
from powerhall.runtime.settings import Secret, read_toml
from powerhall.runtime.signals import StopFlag
from powerhall.units import parse_power
from powerhall_agent.base.systemd import Notifier

if TYPE_CHECKING:
    from powerhall_agent.capper.capper import Capper

__all__ = ["CapperSettings", "add_parser"]

_TEXT = """Hold this node's GPUs to its power-cap leases. Runs as root, has no network, listens on a Unix socket.

Without a lease, when the lease runs out, or when the agent is silent for 1.5 s, every GPU gets the safe power limit.
An orderly stop puts back the limits that were found at the start, unless capper.toml says otherwise.

examples:
  powerhall-agent cap --config /etc/powerhall/capper.toml
  powerhall-agent cap --config capper.toml --simulate 8     # simulated GPUs, for a trial without privileges

capper.toml:
  node = "gn01"                          # as the plan names it
  key_file = "/etc/powerhall/node.key"   # 64 hex digits, mode 0600: derived from the site key
  safe_gpu_power_limit = "350 W"
  agent_user = "powerhall"
  restore_on_stop = true                 # false: an orderly stop leaves the safe caps in force
"""


class CapperSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """capper.toml; `memory` keeps the caps found at the start and the newest lease number, over boots too."""

    node: str
    """Name of this node, as the plan names it."""
    key_file: str
    """File with the node key: 64 hex digits, mode 0600, derived from the site key."""
    safe_gpu_power_limit: str
    """Power limit of every GPU while no lease is in force, such as `350 W`."""
    agent_user: str = ""
    """User of the agent, who may connect to the socket besides root; empty admits root alone."""
    socket: str = "/run/powerhall-capper/capper.sock"
    """Unix socket on which leases arrive."""
    memory: str = "/var/lib/powerhall-capper/memory.json"
    """File that keeps the limits found at the start and the newest lease number, also over boots."""
    restore_on_stop: bool = True
    """An orderly stop restores the limits found at the start; `false` leaves the safe limits in force."""


def add_parser(commands: Commands) -> None:
    """Add the sub-command."""
    parser = add_command(commands, "cap", _cap, help="hold the GPUs to power-cap leases", description=_TEXT)
    parser.add_argument(
        "--config", type=Path, default=Path("/etc/powerhall/capper.toml"), help="settings of the capper"
    )
    parser.add_argument(
        "--simulate", type=int, metavar="GPUS", default=0, help="simulated GPUs in the place of the driver"
    )
    parser.add_argument(
        "--simulate-state", type=Path, metavar="FILE", help="state file of simulated GPUs, shared with others"
    )


def read_key(path: str) -> bytes:
    """Read a node key: 64 hex digits; anything else raises ConfigError without showing it."""
    text = Secret(path).read()
    try:
        key = bytes.fromhex(text)
    except ValueError:
        key = b""
    if len(key) != 32:
        raise ConfigError(f"{path}: key: must be 64 hex digits")
    return key


def _cap(args: argparse.Namespace) -> int:
    from powerhall_agent.capper.capper import Capper
    from powerhall_agent.capper.limiter import NvmlLimiter
    from powerhall_agent.nvml.driver import Driver

    settings = read_toml(args.config, CapperSettings)
    try:
        safe_w = parse_power(settings.safe_gpu_power_limit)
    except ValueError as error:
        raise ConfigError(f"{args.config}: safe_gpu_power_limit: {settings.safe_gpu_power_limit!r}: {error}") from None
    key = read_key(settings.key_file)
    if args.simulate or args.simulate_state:
        from powerhall_agent.simulate.install import install
        from powerhall_agent.simulate.state import StateFile

        given = args.simulate_state
        install([StateFile.open(given) if given else StateFile.create(gpus=args.simulate, node=settings.node)])
    memory = Path(settings.memory)
    with StopFlag() as stop:
        limiter = NvmlLimiter(Driver())
        if not memory.parent.is_dir():
            raise ConfigError.field(str(args.config), "memory", settings.memory, "must be in a folder that exists")
        capper = Capper(
            limiter,
            node=settings.node,
            key=key,
            safe_limit_w=safe_w,
            memory=memory,
            started_s=time.time(),
            boot=_boot_id(),
        )
        return _hold(capper, settings, stop)


def _hold(capper: "Capper", settings: CapperSettings, stop: StopFlag) -> int:
    """Hold the GPUs to the caps of the leases until the stop."""
    from powerhall_agent.capper.limiter import DriverGone
    from powerhall_agent.capper.server import CapperServer, owner_uids

    log, notifier = Log(), Notifier()
    users = [settings.agent_user] if settings.agent_user else []
    server = CapperServer(capper, Path(settings.socket), owner_uids(*users), log)
    notifier.ready("holding the safe caps until a lease comes")
    try:
        server.run(stop, notifier.alive)
    except DriverGone as error:
        log.warning("driver_gone", detail=error)
        return EXIT_INTERNAL
    finally:
        server.close()
    notifier.stopping()
    if settings.restore_on_stop:
        capper.restore()
    else:
        capper.leave()
    log.info("stopped", caps="found" if settings.restore_on_stop else "safe", detail=capper.status().error or "done")
    return EXIT_OK


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""
