"""`powerhall-agent cap` (the privileged capper) and `powerhall-agent lease` (carries leases from the store to it)."""

import argparse
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from powerhall.runtime.errors import ConfigError, PowerhallError
from powerhall.runtime.extras import EXIT_INTERNAL, EXIT_OK, EXIT_REFUSED
from powerhall.runtime.log import Log
from powerhall.runtime.settings import Secret, read_toml
from powerhall.units import parse_power
from powerhall_agent.base.systemd import Notifier

__all__ = ["CapperSettings", "add_parsers"]

_CAP_TEXT = """Hold this node's GPUs to its power-cap leases. Runs as root, has no network, listens on a Unix socket.

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
_LEASE_TEXT = """Carry this node's leases from the store to the capper, tell the capper that the agent is alive, and
carry the capper's confirmations back, so that the ledger frees the budget of a lowered cap at once.

examples:
  powerhall-agent lease --store 'influxdb://influx.site:8086/power?token_file=/etc/powerhall/token' --node gn01
  powerhall-agent lease --store URL-OF-PLANS --confirm-to URL-OF-TELEMETRY --node gn01      # may only read plans
"""


class CapperSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """capper.toml; `memory` keeps the caps found at the start and the newest lease number, over boots too."""

    node: str
    key_file: str
    safe_gpu_power_limit: str
    agent_user: str = ""
    socket: str = "/run/powerhall-capper/capper.sock"
    memory: str = "/var/lib/powerhall-capper/memory.json"
    restore_on_stop: bool = True


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


def _stopper() -> list[int]:
    seen: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda caught, _frame: seen.append(caught))
    return seen


def _cap(args: argparse.Namespace) -> int:
    from powerhall_agent.capper.limiter import DriverGone, NvmlLimiter
    from powerhall_agent.capper.server import CapperServer, owner_uids
    from powerhall_agent.capper.state import Capper
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
    log, notifier, stopped = Log(), Notifier(), _stopper()
    limiter = NvmlLimiter(Driver())
    memory = Path(settings.memory)
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
    users = [settings.agent_user] if settings.agent_user else []
    server = CapperServer(capper, Path(settings.socket), owner_uids(*users), log)
    notifier.ready("holding the safe caps until a lease comes")
    try:
        server.run(lambda: bool(stopped), notifier.alive)
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


def _lease(args: argparse.Namespace) -> int:
    from powerhall.store import open_store
    from powerhall_agent.capper.carrier import Carrier
    from powerhall_agent.capper.client import CapperClient

    log, stopped = Log(), _stopper()
    store, client = open_store(args.store), CapperClient(args.socket)
    told = store if args.confirm_to is None else open_store(args.confirm_to)
    carrier = Carrier(store, told, client, args.node, log)

    def exchange() -> None:
        next_s, is_well = time.monotonic(), True
        while not stopped:
            if time.monotonic() >= next_s or (carrier.has_news and is_well):
                is_well = carrier.exchange(time.time(), time.monotonic())
                next_s = time.monotonic() + args.poll_s
            time.sleep(0.1)

    thread = threading.Thread(target=exchange, name="exchange", daemon=True)  # a store that hangs silences nobody
    thread.start()
    while not stopped:
        carrier.turn()
        time.sleep(0.5)
    thread.join(2.0)
    client.close()
    for one in {id(store): store, id(told): told}.values():
        one.close()
    return EXIT_OK


def _guarded(run: Callable[[argparse.Namespace], int]) -> Callable[[argparse.Namespace], int]:
    def call(args: argparse.Namespace) -> int:
        try:
            return run(args)
        except PowerhallError as error:
            sys.stderr.write(f"powerhall-agent: {error}\n")
            return EXIT_REFUSED

    return call


def add_parsers(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the sub-commands `cap` and `lease`."""
    form = argparse.RawDescriptionHelpFormatter
    cap = subparsers.add_parser(
        "cap", help="hold the GPUs to power-cap leases", description=_CAP_TEXT, formatter_class=form
    )
    cap.add_argument("--config", type=Path, default=Path("/etc/powerhall/capper.toml"))
    cap.add_argument(
        "--simulate", type=int, metavar="GPUS", default=0, help="simulated GPUs in the place of the driver"
    )
    cap.add_argument(
        "--simulate-state", type=Path, metavar="FILE", help="state file of simulated GPUs, shared with others"
    )
    cap.set_defaults(command=_guarded(_cap))
    lease = subparsers.add_parser(
        "lease", help="carry leases to the capper", description=_LEASE_TEXT, formatter_class=form
    )
    lease.add_argument("--store", required=True, metavar="URL")
    lease.add_argument("--node", required=True)
    lease.add_argument("--confirm-to", metavar="URL", help="store for confirmations (default: that of --store)")
    lease.add_argument("--socket", type=Path, default=Path("/run/powerhall-capper/capper.sock"))
    lease.add_argument("--poll-s", type=float, default=2.0, help="seconds between looks at the store (default 2)")
    lease.set_defaults(command=_guarded(_lease))
