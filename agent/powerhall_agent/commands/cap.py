"""`powerhall-agent cap`: the privileged capper, which holds this node's GPUs to its power-cap leases."""

import argparse
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import msgspec

from powerhall.runtime.command_line import Commands, add_command
from powerhall.runtime.decode.numbers_in import count_of
from powerhall.runtime.errors import ConfigError
from powerhall.runtime.extras import EXIT_INTERNAL, EXIT_OK, EXIT_REFUSED
from powerhall.runtime.log import Log
from powerhall.runtime.settings import read_toml
from powerhall.runtime.signals import StopFlag
from powerhall.units import parse_duration, parse_power
from powerhall_agent.base.systemd import Notifier
from powerhall_agent.capper.found_limits import FoundLimits, boot_id
from powerhall_agent.capper.instance_lock import GPU_LOCK, AnotherCapper, InstanceLocks, hold_lock, lock_files
from powerhall_agent.capper.safe_config import (
    DEFAULT_CONFIG,
    DEFAULT_MEMORY,
    DEFAULT_SOCKET,
    MOST_CONFIG_BYTES,
    SafeConfig,
    found_limits,
    read_safe_config,
)

if TYPE_CHECKING:
    from powerhall_agent.capper.capper import Capper
    from powerhall_agent.capper.limiter import NvmlLimiter

__all__ = ["CapperSettings", "add_parser", "whole_settings"]

T = TypeVar("T")
_LOCK_WAIT_S = 0.5
_LEAST_LEASE_S = 1.0
_MOST_SKEW_S = 60.0

_TEXT = """Hold this node's GPUs to its power-cap leases. Runs as root, has no network, listens on a Unix socket.

The first thing it does is to give every GPU that answers its safe power limit, each in a thread of its own: a GPU that
hangs costs itself alone. Memory and key are read after that; while one of them is damaged, leases are refused.

Without a lease, when the lease runs out, or when the agent is silent for 1.5 s, every GPU gets the safe power limit.
An orderly stop puts back the limits that were found at the start, unless capper.toml says otherwise. After any other
end, `powerhall-safecaps` (ExecStopPost= of the unit) sets the safe limits. A capper.toml that changed and is valid ends
the capper at a moment when no lease is in force, so that its unit starts it with the new settings.

examples:
  powerhall-agent cap --config /etc/powerhall/capper.toml
  powerhall-agent cap --check                               # does the safe limit fit these GPUs? sets nothing
  powerhall-agent cap --config capper.toml --simulate 8     # simulated GPUs, for a trial without privileges
  powerhall-agent cap --config capper.toml --state-file /dev/shm/gn01.gpus   # those of `run --simulate --state-file`

capper.toml:
  node = "gn01"                          # as the plan names it
  key_file = "/etc/powerhall/node.key"   # 64 hex digits, mode 0400: derived from the site key
  safe_gpu_power_limit = "350 W"
  agent_user = "powerhall-lease"         # the carrier
  restore_on_stop = true                 # false: an orderly stop leaves the safe caps in force
  max_lease = "1 h"                      # no lease holds longer, whatever it says
  clock_skew = "1 s"                     # a lease issued further in the future is refused: a clock is wrong (1 min
                                         # at most: a lease may outlive what the ledger counts by so much)
  socket_group = "powerhall-lease"       # group of the socket (default: that of agent_user), and its mode
  socket_mode = "0660"

exit codes: 0 stopped in order, 1 refused or changed settings, another capper runs or limits not restored,
            3 the driver is gone
"""


class CapperSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """capper.toml; `memory` keeps the caps found at the start and the newest lease number, over boots too."""

    node: str
    """Name of this node, as the plan names it."""
    key_file: str
    """File with the node key: 64 hex digits, mode 0400, derived from the site key."""
    safe_gpu_power_limit: str
    """Power limit of every GPU while no lease is in force, such as `350 W`."""
    agent_user: str = ""
    """User of the agent, who may connect to the socket besides root; empty admits root alone."""
    socket: str = DEFAULT_SOCKET
    """Unix socket on which leases arrive; not used where systemd hands a socket over."""
    socket_group: str = ""
    """Group of the socket file; empty gives it the first group of `agent_user`, or leaves it with the capper's own."""
    socket_mode: str = "0660"
    """Mode of the socket file, in octal."""
    memory: str = DEFAULT_MEMORY
    """File that keeps the newest lease's number and times, also over boots; limits found lie beside it."""
    restore_on_stop: bool = True
    """An orderly stop restores the limits found at the start; `false` leaves the safe limits in force."""
    max_lease: str = "1 h"
    """Longest time that a lease may hold from its receipt."""
    clock_skew: str = "1 s"
    """A lease issued later than this after the node's time is refused; at most 1 min (the ledger counts 1 s)."""


def add_parser(commands: Commands) -> None:
    """Add the sub-command."""
    parser = add_command(commands, "cap", _cap, help="hold the GPUs to power-cap leases", description=_TEXT)
    parser.add_argument("--config", type=Path, default=Path(DEFAULT_CONFIG), help="settings of the capper")
    parser.add_argument(
        "--check",
        action="store_true",
        help="check the settings, and the safe limit against the range of the GPUs; sets nothing",
    )
    parser.add_argument(
        "--simulate",
        type=count_of(0, 4096),
        metavar="GPUS",
        default=0,
        help="simulated GPUs in the place of the driver",
    )
    parser.add_argument(
        "--state-file",
        "--simulate-state",
        dest="state_file",
        type=Path,
        metavar="FILE",
        help="file of simulated GPUs, shared with the agent, which makes it",
    )


def _cap(args: argparse.Namespace) -> int:
    from powerhall_agent.capper.limiter import DriverGone, NvmlLimiter

    log = Log()
    gpu_lock = _install_simulation(args)
    if args.check:
        return _check(args.config)
    config = read_safe_config(args.config, args.state_file)
    found = found_limits(config, gpu_lock)
    with StopFlag() as stop:
        locks = _lock(config, gpu_lock, log)
        try:
            if not config.is_there and not found.any_of_this_boot():
                read_toml(args.config, CapperSettings)  # says what is wrong; no capper has touched these GPUs
            limiter = NvmlLimiter()
            _safe_first(limiter, config, found)
            settings = whole_settings(args.config, config)
            return _serve(args, settings, limiter, found, stop, locks, log)
        except DriverGone as error:
            log.warning("driver_gone", detail=error)
            return EXIT_INTERNAL
        finally:
            locks.release()


def _check(path: Path) -> int:
    """Check settings and safe limit, beside a running capper too; exit code 1 where leases would be refused."""
    from powerhall_agent.capper.limiter import DriverGone
    from powerhall_agent.capper.safe_check import check_safe_limit

    settings = _read(path)
    limit_w = _quantity(str(path), "safe_gpu_power_limit", settings.safe_gpu_power_limit, parse_power)
    try:
        lines, is_taken = check_safe_limit(limit_w)
    except DriverGone as error:
        sys.stderr.write(f"powerhall-agent: {error}\n")
        return EXIT_INTERNAL
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    return EXIT_OK if is_taken else EXIT_REFUSED


def _install_simulation(args: argparse.Namespace) -> Path | None:
    """Put simulated GPUs in the place of the driver where asked for; return the lock file of the GPUs."""
    if not args.simulate and not args.state_file:
        return GPU_LOCK
    from powerhall_agent.capper.safe_caps import simulated_lock
    from powerhall_agent.simulate.install import install
    from powerhall_agent.simulate.state import StateFile

    given = args.state_file
    install([StateFile.open(given) if given else StateFile.create(gpus=args.simulate)])
    return simulated_lock(given) if given else None


def _lock(config: SafeConfig, gpu_lock: Path | None, log: Log) -> InstanceLocks:
    """Take the locks; raises AnotherCapper where one is held. Without a lock file, the safe caps go first."""
    locks = []
    for path in lock_files(config.memory, config.socket, gpu_lock):
        try:
            locks.append(hold_lock(path, _LOCK_WAIT_S))
        except OSError as error:
            if config.is_there:  # without settings the refusal is the one line
                log.warning("lock", path=path, detail=f"cannot be locked: {error.strerror}")
    return InstanceLocks(locks, log)


def _safe_first(limiter: "NvmlLimiter", config: SafeConfig, found: FoundLimits) -> None:
    """Bring every GPU that answers to its safe cap, before anything else is read."""
    from powerhall_agent.capper.node_caps import NodeCaps

    NodeCaps(limiter, config.limit_w, found)


def whole_settings(path: Path, config: SafeConfig) -> CapperSettings:
    """Read the settings whole; refuses a file that names other files than a moment ago, under which limits are kept."""
    settings = _read(path)
    if (Path(settings.memory), Path(settings.socket)) != (config.memory, config.socket):
        raise ConfigError(f"{path}: changed while the capper started; safe limits are set, start it again")
    return settings


def _serve(  # noqa: PLR0917
    args: argparse.Namespace,
    settings: CapperSettings,
    limiter: "NvmlLimiter",
    found: FoundLimits,
    stop: StopFlag,
    locks: InstanceLocks,
    log: Log,
) -> int:
    """Read memory and key, then hold the GPUs to the caps of the leases until the stop."""
    from powerhall_agent.capper.capper import Capper
    from powerhall_agent.capper.lease_guard import LeaseGuard
    from powerhall_agent.capper.listener import Listener
    from powerhall_agent.capper.node_clock import boot_s
    from powerhall_agent.capper.node_key import NodeKeyFile
    from powerhall_agent.capper.server import CapperServer
    from powerhall_agent.capper.settings_watch import SettingsWatch
    from powerhall_agent.capper.socket_users import SocketUsers

    source = str(args.config)
    guard = None if args.simulate else LeaseGuard(args.config, args.state_file, log)
    capper = Capper(
        limiter,
        node=settings.node,
        key=None,
        safe_limit_w=_quantity(source, "safe_gpu_power_limit", settings.safe_gpu_power_limit, parse_power),
        memory=Path(settings.memory),
        max_lease_s=_quantity(source, "max_lease", settings.max_lease, parse_duration),
        clock_skew_s=_quantity(source, "clock_skew", settings.clock_skew, parse_duration),
        started_s=time.time(),
        boot=boot_id(),
        found=found,
        gpu_count=limiter.count,
        troubles=limiter.troubles,
        guard=(lambda _: None) if guard is None else guard.tell,
    )
    users = SocketUsers(settings.agent_user, settings.socket_group)
    mode = _quantity(source, "socket_mode", settings.socket_mode, _octal)
    listener = Listener(Path(settings.socket), mode=mode, group=users.group, environment=os.environ)
    key_file = NodeKeyFile(Path(settings.key_file))
    server = CapperServer(capper, listener, users.uids, log, key_file, users_problem=users.problem)
    notifier = Notifier()
    server.prepare()
    notifier.ready("holding the safe caps until a lease comes")

    watch = SettingsWatch(args.config, settings, _read)

    def turned() -> None:
        notifier.alive()
        locks.check(boot_s())
        watch.check(boot_s(), is_leased=capper.is_leased)
        if guard is not None:
            guard.look_after()

    try:
        server.run(stop, turned)
    except AnotherCapper as error:
        log.error("lock_lost", detail=f"{error}; this one leaves the safe caps, and restores nothing")
        capper.leave()
        raise
    finally:
        server.close()
    notifier.stopping()
    try:
        return _stop(capper, restore=settings.restore_on_stop, log=log)
    finally:
        if guard is not None:
            guard.close()


def _read(path: Path) -> CapperSettings:
    """Read the settings; refuses names that no file, user or node can have."""
    if path.is_file() and path.stat().st_size > MOST_CONFIG_BYTES:
        raise ConfigError(f"{path}: must be at most {MOST_CONFIG_BYTES} bytes")
    settings = read_toml(path, CapperSettings)
    for name in ("node", "key_file", "memory", "socket", "agent_user", "socket_group"):
        text = getattr(settings, name)
        if "\0" in text or not (text or name in {"agent_user", "socket_group"}):
            raise ConfigError(f"{path}: {name}: {text!r}: must be a name, without NUL")
    _check_times(str(path), settings)
    return settings


def _check_times(source: str, settings: CapperSettings) -> None:
    """Refuse times with which no lease would be taken, or one would outlive what the ledger counts by far."""
    if _quantity(source, "max_lease", settings.max_lease, parse_duration) < _LEAST_LEASE_S:
        raise ConfigError(f"{source}: max_lease: {settings.max_lease!r}: must be at least {_LEAST_LEASE_S:g} s")
    if _quantity(source, "clock_skew", settings.clock_skew, parse_duration) > _MOST_SKEW_S:
        allowed = f"must be at most {_MOST_SKEW_S:g} s: so much longer than the ledger counts may a lease hold"
        raise ConfigError(f"{source}: clock_skew: {settings.clock_skew!r}: {allowed}")


def _stop(capper: "Capper", *, restore: bool, log: Log) -> int:
    """End in order; a GPU that answers and is not as it should be means exit code 1, after which safe caps are set."""
    is_done = capper.restore() if restore else capper.leave()
    log.info("stopped", caps="found" if restore else "safe", detail=capper.status().error or "done")
    return EXIT_OK if is_done else EXIT_REFUSED


def _quantity(source: str, field: str, text: str, parse: Callable[[str], T]) -> T:
    try:
        return parse(text)
    except ValueError as error:
        raise ConfigError(f"{source}: {field}: {text!r}: {error}") from None


def _octal(text: str) -> int:
    if not 3 <= len(text) <= 4 or not all(digit in "01234567" for digit in text):
        raise ValueError("must be an octal mode such as '0660'")
    return int(text, 8)
