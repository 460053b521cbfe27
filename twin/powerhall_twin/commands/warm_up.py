"""`powerhall-twin warm-up`: compile the engine once, at installation."""

import argparse
import json
import sys
import time

from powerhall.runtime.command_line import Commands, add_command
from powerhall.runtime.errors import PowerhallError
from powerhall.runtime.extras import EXIT_OK, EXIT_REFUSED

__all__ = ["add_parser"]

_TEXT = """\
Compiles the numerical loops of the engine into a cache on disk: about a minute, once per installation, version and CPU.
The first replay does the same, and says so. The cache lies in NUMBA_CACHE_DIR, or in the installation, or in the user's
cache folder. Rounds compile the solver too: `powerhall-optimizer warm-up`.
"""


def add_parser(commands: Commands) -> None:
    """Add the sub-command."""
    parser = add_command(commands, "warm-up", _run, help="compile the engine, once per installation", description=_TEXT)
    parser.add_argument("--check", action="store_true", help="compile nothing; exit code 1 where the cache is cold")
    parser.add_argument("--json", action="store_true", help="print the outcome as JSON")


def _run(args: argparse.Namespace) -> int:
    from powerhall_twin.replay.compiling import compile_kernels, kernel_cache

    state, began = kernel_cache(), time.monotonic()
    was_warm = state.warm
    if not was_warm and not args.check:
        compile_kernels()
        if not state.warm:
            raise PowerhallError(f"{state.folder}: cannot write the cache of compiled code")
    seconds, warm = round(time.monotonic() - began, 1), was_warm or not args.check
    if args.json:
        fields = {"warm": warm, "compiled": warm and not was_warm, "cache": str(state.folder), "seconds": seconds}
        sys.stdout.write(json.dumps(fields) + "\n")
    else:
        done = "warm" if was_warm else "cold" if args.check else f"compiled in {seconds:.0f} s"
        sys.stdout.write(f"{state.folder}: {done}\n")
    return EXIT_OK if warm else EXIT_REFUSED
