"""`warm-up` of a program: compile its numerical loops once, at installation."""

import argparse
import json
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Protocol

from powerhall.runtime.command_line import Commands, add_command
from powerhall.runtime.errors import PowerhallError
from powerhall.runtime.extras import EXIT_OK, EXIT_REFUSED

__all__ = ["CompiledCache", "Kernels", "add_warm_up_parser"]


class CompiledCache(Protocol):
    """The folder of compiled code, and whether all of it is there for this CPU and these versions."""

    @property
    def folder(self) -> Path: ...
    @property
    def warm(self) -> bool: ...


Kernels = Callable[[], tuple[CompiledCache, Callable[[], None]]]
"""Returns a program's cache and what compiles into it; imports what that needs."""


def add_warm_up_parser(commands: Commands, what: str, description: str, kernels: Kernels) -> None:
    """Add the sub-command that compiles `what`, such as "the solver"."""
    parser = add_command(
        commands,
        "warm-up",
        partial(_run, kernels),
        help=f"compile {what}, once per installation",
        description=description,
    )
    parser.add_argument("--check", action="store_true", help="compile nothing; exit code 1 where the cache is cold")
    parser.add_argument("--json", action="store_true", help="print the outcome as JSON")


def _run(kernels: Kernels, args: argparse.Namespace) -> int:
    (state, compile_all), began = kernels(), time.monotonic()
    was_warm = state.warm
    if not was_warm and not args.check:
        compile_all()
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
