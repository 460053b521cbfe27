"""Command line of every program: sub-commands in modules of their own, help texts as written, one way to exit codes.

A module of a sub-command has `add_parser(commands)`, which calls `add_command`. Only the module of the sub-command
that was given is imported, so that a light command does not load the libraries of a heavy one.
"""

import argparse
import contextlib
import importlib
import os
import sys
import textwrap
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias, TypeVar

import powerhall
from powerhall.runtime.errors import PowerhallError, Rejected
from powerhall.runtime.extras import EXIT_INTERNAL, EXIT_OK, EXIT_REFUSED

__all__ = [
    "EXIT_INTERRUPTED",
    "Commands",
    "Program",
    "Run",
    "add_command",
    "option_value",
    "program_parser",
    "run_program",
]

EXIT_INTERRUPTED = 130
"""Ended by Ctrl-C, as a shell reports it: 128 + SIGINT."""

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"  # noqa: SLF001 - it has no public name
Run = Callable[[argparse.Namespace], int]
T = TypeVar("T")
_WIDTH: Final = 100


@dataclass(frozen=True, slots=True)
class Program:
    """A program of sub-commands; `commands` names for each the module that has its `add_parser`.

    Without a sub-command, a program that needs one is a usage error, and any other prints its help.
    """

    name: str
    description: str
    epilog: str
    commands: Mapping[str, str]
    needs_command: bool = False


def program_parser(program: Program, command: str | None = None) -> argparse.ArgumentParser:
    """Return the parser with all sub-commands, or with those of the module that has `command`."""
    parser = argparse.ArgumentParser(
        prog=program.name,
        description=program.description,
        epilog=program.epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"{program.name} {powerhall.__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=program.needs_command)
    only = program.commands.get(command or "")
    for module in dict.fromkeys(program.commands.values()) if only is None else (only,):
        importlib.import_module(module).add_parser(commands)
    return parser


def add_command(
    commands: Commands,
    name: str,
    run: Run,
    *,
    help: str,  # noqa: A002 - as argparse calls it
    description: str | None = None,
    epilog: str | None = None,
) -> argparse.ArgumentParser:
    """Add a sub-command whose `run` returns an exit code.

    Texts of more than one line stay as written; a `description` on one line is wrapped, and its default is `help`.
    """
    text = description or f"{help[0].upper()}{help[1:]}."
    parser = commands.add_parser(
        name,
        help=help,
        description=text if "\n" in text else textwrap.fill(text, _WIDTH),
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    return parser


def option_value(option: str, text: str, parse: Callable[[str], T]) -> T:
    """Return what `parse` makes of an option's text; a ValueError becomes Rejected, which names the option."""
    try:
        return parse(text)
    except ValueError as error:
        raise Rejected.field("command line", option, text, str(error)) from None


def run_program(program: Program, argv: Sequence[str] | None = None) -> int:
    """Parse the arguments, run one sub-command and return its exit code.

    A PowerhallError is one line on stderr; any other exception is a fault and its traceback goes to stderr.
    """
    given = list(sys.argv[1:] if argv is None else argv)
    parser = program_parser(program, given[0] if given else None)
    options = parser.parse_args(given)
    run: Run | None = getattr(options, "run", None)
    if run is None:
        parser.print_help()
        return EXIT_OK
    try:
        code = run(options)
        sys.stdout.flush()
    except PowerhallError as error:
        sys.stderr.write(f"{program.name}: {error}\n")
        return EXIT_REFUSED
    except KeyboardInterrupt:
        sys.stderr.write(f"{program.name}: interrupted\n")
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        _discard_stdout()
        return EXIT_OK
    except Exception:  # noqa: BLE001 - the last line of defence of every program
        traceback.print_exc()
        return EXIT_INTERNAL
    return code


def _discard_stdout() -> None:
    """Send what is left of stdout to nowhere: its reader (`| head`) has ended, and exiting would flush it again."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
