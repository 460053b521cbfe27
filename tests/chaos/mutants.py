"""Broken variants of the product, which the harness must catch. Usage: mutants.py NAME PROGRAM ARGUMENT..."""

import sys
from collections.abc import Callable

import msgspec
import pynvml


def late() -> None:
    """The capper holds every lease a minute longer than it lasts."""
    import powerhall.lease as module

    open_lease = module.open_lease

    def longer(*args, **kwargs):
        lease = open_lease(*args, **kwargs)
        return msgspec.structs.replace(lease, expires_s=lease.expires_s + 60.0)

    module.open_lease = longer


def liar() -> None:
    """The driver accepts every limit below the highest, says that it holds it, and does not set it."""
    import ctypes

    said = {}
    set_limit, get_limit = pynvml.nvmlDeviceSetPowerManagementLimit, pynvml.nvmlDeviceGetPowerManagementLimit

    def set_(handle, limit_mw):
        said[ctypes.cast(handle, ctypes.c_void_p).value] = limit_mw
        if limit_mw > 260_000:
            set_limit(handle, limit_mw)

    pynvml.nvmlDeviceSetPowerManagementLimit = set_
    pynvml.nvmlDeviceGetPowerManagementLimit = lambda handle: said.get(
        ctypes.cast(handle, ctypes.c_void_p).value, get_limit(handle)
    )


def forgetful() -> None:
    """The ledger forgets which leases are out."""
    from powerhall_optimizer.leases.allocation import Exposure

    Exposure.known_w = Exposure.worst_w = lambda self, node, time_s: self.safe_w[node]


def generous() -> None:
    """The planner takes every budget for larger than it is."""
    from powerhall_optimizer.leases.budget import Budget

    Budget.at_w = lambda self, time_s: 1e9


def mortal() -> None:
    """The process ends by itself after four seconds."""
    import os
    import threading

    timer = threading.Timer(4.0, os._exit, [3])
    timer.daemon = True
    timer.start()


PLANNER = {"forgetful", "generous"}
MUTANTS: dict[str, Callable[[], None]] = {f.__name__: f for f in (late, liar, forgetful, generous, mortal)}


def main() -> int:
    name, program, *arguments = sys.argv[1:]
    MUTANTS[name]()
    sys.argv = [program, *arguments]
    if program == "powerhall-agent":
        from powerhall_agent.entry import main as run
    else:
        from powerhall_optimizer.entry import main as run
    return run()


if __name__ == "__main__":
    raise SystemExit(main())
