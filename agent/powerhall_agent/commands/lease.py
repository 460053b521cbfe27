"""`powerhall-agent lease`: carries leases from the store to the capper, and its confirmations back."""

import argparse
import threading
import time
from pathlib import Path

from powerhall.runtime.command_line import Commands, add_command
from powerhall.runtime.extras import EXIT_OK
from powerhall.runtime.log import Log
from powerhall.runtime.signals import ServiceSignals

__all__ = ["add_parser"]

_TEXT = """Carry this node's leases from the store to the capper, send it heartbeats of the agent, and carry its
confirmations back, so that the ledger frees the budget of a lowered cap at once.

examples:
  powerhall-agent lease --store 'influxdb://influx.site:8086/power?token_file=/etc/powerhall/token' --node gn01
  powerhall-agent lease --store URL-OF-PLANS --confirm-to URL-OF-TELEMETRY --node gn01      # may only read plans
"""


def add_parser(commands: Commands) -> None:
    """Add the sub-command."""
    parser = add_command(commands, "lease", _lease, help="carry leases to the capper", description=_TEXT)
    parser.add_argument("--store", required=True, metavar="URL", help="store that holds the leases")
    parser.add_argument("--node", required=True, help="name of this node, as the plan names it")
    parser.add_argument("--confirm-to", metavar="URL", help="store for confirmations (default: that of --store)")
    parser.add_argument(
        "--socket", type=Path, default=Path("/run/powerhall-capper/capper.sock"), help="Unix socket of the capper"
    )
    parser.add_argument("--poll-s", type=float, default=2.0, help="seconds between looks at the store (default 2)")


def _lease(args: argparse.Namespace) -> int:
    from powerhall.store import open_store
    from powerhall_agent.capper.carrier import Carrier
    from powerhall_agent.capper.client import CapperClient

    store, client = open_store(args.store), CapperClient(args.socket)
    confirmations = store if args.confirm_to is None else open_store(args.confirm_to)
    carrier = Carrier(store, confirmations, client, args.node, Log())
    with ServiceSignals() as signals:

        def exchange() -> None:
            next_s, is_well = time.monotonic(), True
            while not signals.stopped:
                if time.monotonic() >= next_s or (carrier.has_news and is_well):
                    is_well = carrier.exchange(time.time(), time.monotonic())
                    next_s = time.monotonic() + args.poll_s
                time.sleep(0.1)

        # A thread of its own: a store that hangs must not delay the heartbeats to the capper.
        thread = threading.Thread(target=exchange, name="exchange", daemon=True)
        thread.start()
        while not signals.stopped:
            carrier.turn()
            signals.wait(0.5)
        thread.join(2.0)
        client.close()
        for one in {id(store): store, id(confirmations): confirmations}.values():
            one.close()
    return EXIT_OK
