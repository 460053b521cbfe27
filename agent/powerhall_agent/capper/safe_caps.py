"""`powerhall-safecaps`: brings every GPU that answers to its safe cap, and nothing else.

The last line behind the capper, for `ExecStopPost=` of its unit and for a hand: it reads no key and no memory, works on
a broken capper.toml, and gives every GPU a thread and a time limit. It needs the standard library and pynvml only.

It does nothing where a capper runs on these GPUs, or after a stop in order: systemd says so in SERVICE_RESULT,
EXIT_CODE and EXIT_STATUS, and the capper has then put back what it found, or left the safe caps, as its settings say.
"""

import argparse
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final

import pynvml

from powerhall_agent.capper.found_limits import FoundLimits
from powerhall_agent.capper.gpu_calls import TOLERANCE_W, is_plausible, look, open_gpu, safe_limit_w, set_caps
from powerhall_agent.capper.instance_lock import GPU_LOCK, AnotherCapper, hold_lock
from powerhall_agent.capper.safe_config import DEFAULT_CONFIG, SafeConfig, found_limits, read_safe_config

__all__ = ["main", "set_safe_caps", "simulated_lock", "stopped_in_order"]

_OK, _FAILED = 0, 1
_EPILOG: Final = """examples:
  powerhall-safecaps --config /etc/powerhall/capper.toml
  ExecStopPost=/opt/powerhall/bin/powerhall-safecaps --config /etc/powerhall/capper.toml

A capper.toml that cannot be read gives each GPU the lowest limit that it accepts. Without the file nothing is done,
unless a capper has run since the boot.

exit codes: 0 every GPU is at its safe cap or nothing was to do, 1 some are not: one line for each, 2 usage
"""


def simulated_lock(state: Path) -> Path:
    """Return the lock file of the GPUs in a simulated state file."""
    return state.with_name(f".{state.name}.capper.lock")


def stopped_in_order(environment: Mapping[str, str]) -> bool:
    """Return whether systemd reports that the capper ended by itself with code 0: an orderly stop, all done."""
    result = tuple(environment.get(name) for name in ("SERVICE_RESULT", "EXIT_CODE", "EXIT_STATUS"))
    return result == ("success", "exited", "0")


def set_safe_caps(limit_w: float, found: FoundLimits, within_s: float) -> dict[int, str]:
    """Set the safe cap of each GPU, in W, within this many seconds; return why some do not hold it, by number.

    The number -1 stands for the driver itself. What is found on a GPU is noted first, unless it was noted before.
    """
    until_s = time.monotonic() + within_s
    counts: list[int] = []
    troubles = {-1: "driver: does not answer in time"}
    _bounded([partial(_count, counts, troubles)], until_s)
    if not counts:
        return troubles
    troubles = dict.fromkeys(range(counts[0]), "does not answer in time")
    _bounded([partial(_set_one, gpu, limit_w, found, troubles) for gpu in range(counts[0])], until_s)
    return dict(troubles)


def _count(counts: list[int], troubles: dict[int, str]) -> None:
    try:
        pynvml.nvmlInit()
        counts.append(int(pynvml.nvmlDeviceGetCount()))
    except Exception as error:  # noqa: BLE001 - whatever it is, it is reported
        troubles[-1] = f"driver: {error}"


def _set_one(gpu: int, limit_w: float, found: FoundLimits, troubles: dict[int, str]) -> None:
    try:
        handle = open_gpu(gpu)
        answer = look(handle)
        if is_plausible(answer.limit_w, answer.span):
            found.note(answer.span.uuid or f"index-{gpu}", answer.limit_w)
        is_believed = limit_w <= answer.span.max_w + TOLERANCE_W  # above it: a mistake, or another GPU's
        set_caps(handle, safe_limit_w(limit_w if is_believed else 0.0, answer.span), None)
    except Exception as error:  # noqa: BLE001 - one GPU costs itself alone
        troubles[gpu] = str(error) or repr(error)
        return
    troubles.pop(gpu)


def _bounded(tasks: Sequence[Callable[[], None]], until_s: float) -> None:
    threads = [threading.Thread(target=task, daemon=True) for task in tasks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, until_s - time.monotonic()))


def _must_act(config: SafeConfig, found: FoundLimits, lock: Path | None) -> str:
    """Return why nothing is to be done, or ""."""
    if stopped_in_order(os.environ):
        return "the capper was stopped in order"
    if not config.is_there and not found.any_of_this_boot():
        return f"{config.problem}; no capper has run since the boot"
    if lock is None:
        return ""
    try:
        hold_lock(lock, wait_s=0.2).release()
    except AnotherCapper as error:
        return str(error)
    except OSError:
        return ""  # where there can be no lock the safe caps come first
    return ""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program and return its exit code."""
    parser = argparse.ArgumentParser(
        prog="powerhall-safecaps", description=__doc__, epilog=_EPILOG, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--config", type=Path, default=Path(DEFAULT_CONFIG), help="settings of the capper")
    parser.add_argument("--within-s", type=float, default=3.0, help="longest time in all (default 3)")
    parser.add_argument(
        "--state-file",
        "--simulate-state",
        dest="state_file",
        type=Path,
        metavar="FILE",
        help="file of simulated GPUs, shared with the agent, which makes it",
    )
    args = parser.parse_args(argv)
    lock = GPU_LOCK
    if args.state_file:
        from powerhall.runtime.errors import PowerhallError
        from powerhall_agent.simulate.install import install
        from powerhall_agent.simulate.state import StateFile

        try:
            install([StateFile.open(args.state_file)])
        except PowerhallError as error:
            sys.stderr.write(f"powerhall-safecaps: {error}\n")
            return _FAILED
        lock = simulated_lock(args.state_file)
    config = read_safe_config(args.config, args.state_file)
    found = found_limits(config, lock)
    if why := _must_act(config, found, lock):
        sys.stderr.write(f"powerhall-safecaps: nothing done: {why}\n")
        return _OK
    if config.problem:
        sys.stderr.write(f"powerhall-safecaps: {config.problem}\n")
    troubles = set_safe_caps(config.limit_w, found, args.within_s)
    for gpu, text in sorted(troubles.items()):
        sys.stderr.write(f"powerhall-safecaps: {'' if gpu < 0 else f'GPU {gpu}: '}{text}\n")
    return _FAILED if troubles else _OK


def run() -> None:
    """Run as a program; threads that hang in the driver are not waited for."""
    code = main()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    run()
