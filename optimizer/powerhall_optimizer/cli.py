"""Command line of `powerhall-optimizer`: round, verify, explain, report and the judges' front door rcpsp."""

import argparse
import importlib
import importlib.util
import sys
import traceback
from collections.abc import Callable, Sequence

import powerhall
from powerhall.runtime.errors import PowerhallError
from powerhall.runtime.extras import EXIT_INTERNAL, EXIT_OK, EXIT_REFUSED

__all__ = ["main"]

_EXAMPLES = """\
examples:
  powerhall-optimizer round --site site.toml --jobs jobs.csv --out plan.json --report report.html
  powerhall-optimizer round --site site.toml --store sqlite:///powerhall.db --seconds 30
  powerhall-optimizer round --site site.toml --jobs jobs.csv --what-if "hall3.power=12MW,grid=-20%" --dry-run
  powerhall-optimizer verify plan.json
  powerhall-optimizer explain job42 --plan plan.json

exit codes: 0 done, 1 refused input or failed check, 2 usage, 3 internal error
"""
_COMMANDS = (
    "powerhall_optimizer.commands.round",
    "powerhall_optimizer.commands.verify",
    "powerhall_optimizer.commands.explain",
    "powerhall_optimizer.commands.report",
    "powerhall_optimizer.commands.rcpsp",
    "powerhall_optimizer.commands.rollup",
    "powerhall_optimizer.commands.lease",
    "powerhall_optimizer.commands.schedule",
    "powerhall_optimizer.commands.shed",
)
"""Modules with `add_parser(subparsers)`; the ones that a distribution leaves out are passed over."""
_LIGHT = {
    "lease": "powerhall_optimizer.commands.lease",
    "node-key": "powerhall_optimizer.commands.lease",
    "queue": "powerhall_optimizer.commands.schedule",
    "schedule": "powerhall_optimizer.commands.schedule",
    "shed": "powerhall_optimizer.commands.shed",
}
"""Commands that load no solver: these start without the second that the solvers' libraries take to import."""

Run = Callable[[argparse.Namespace], int]


def _present(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def parser(modules: Sequence[str] = _COMMANDS) -> argparse.ArgumentParser:
    """Return the parser with every sub-command of these modules that is there; each sets `run`."""
    top = argparse.ArgumentParser(
        prog="powerhall-optimizer",
        description="Plans which job runs where, when and at which power level, within every power and cooling budget.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"powerhall-optimizer {powerhall.__version__}")
    commands = top.add_subparsers(dest="command", metavar="COMMAND")
    for module in modules:
        if _present(module):
            importlib.import_module(module).add_parser(commands)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run one sub-command and return its exit code; what is refused is one line on stderr."""
    given = list(sys.argv[1:] if argv is None else argv)
    light = _LIGHT.get(given[0]) if given else None
    top = parser(_COMMANDS if light is None else (light,))
    args = top.parse_args(given)
    if args.command is None:
        top.print_help()
        return EXIT_OK
    run: Run = args.run
    try:
        return run(args)
    except PowerhallError as error:
        sys.stderr.write(f"powerhall-optimizer: {error}\n")
        return EXIT_REFUSED
    except BrokenPipeError:
        return EXIT_OK
    except Exception:  # noqa: BLE001 - the last line of defence; the trace goes to stderr and the exit code says so
        traceback.print_exc()
        return EXIT_INTERNAL
