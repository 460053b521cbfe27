"""A ledger of a site on which every capper has confirmed a lease before, none of which is in force any more."""

import time
from collections.abc import Iterable
from pathlib import Path

from powerhall_optimizer.leases.ledger_file import LedgerFile, State

KEY = bytes(range(32))


def confirmed_ledger(path: Path, nodes: Iterable[str], key: bytes = KEY) -> Path:
    """Write it, as of now and sealed with the site key; return its path."""
    LedgerFile(path, key).write(State(time_s=time.time(), confirmed=set(nodes)))
    return path
