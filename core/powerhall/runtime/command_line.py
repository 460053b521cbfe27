"""Command line of every program: sub-commands in modules of their own, help texts as written, one way to exit codes.

A module of a sub-command has `add_parser(commands)`, which calls `add_command`. Only the module of the sub-command
that was given is imported, so that a light command does not load the libraries of a heavy one.
"""

import argparse
import contextlib
import importlib
import os
import re
import signal
import sys
import textwrap
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Final, TypeAlias, TypeVar

import powerhall
from powerhall.runtime import shell_completion
from powerhall.runtime.errors import PowerhallError, Rejected
from powerhall.runtime.extras import EXIT_INTERNAL, EXIT_OK, EXIT_REFUSED

__all__ = [
    "EXIT_INTERRUPTED",
    "EXIT_TERMINATED",
    "Commands",
    "Program",
    "Run",
    "add_command",
    "add_file",
    "option_value",
    "program_parser",
    "run_program",
]

EXIT_INTERRUPTED = 130
"""Ended by Ctrl-C, as a shell reports it: 128 + SIGINT."""
EXIT_TERMINATED = 143
"""Ended by SIGTERM, as a shell reports it: 128 + SIGTERM."""

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"  # noqa: SLF001 - it has no public name
Run = Callable[[argparse.Namespace], int]
T = TypeVar("T")
_WIDTH: Final = 100
_COMPLETION: Final = """\
Prints what a shell needs to complete this program's commands, options and files on Tab.

examples:
  {program} completion bash > ~/.local/share/bash-completion/completions/{program}
  {program} completion fish > ~/.config/fish/completions/{program}.fish
  {program} completion zsh > ~/.zfunc/_{program}      # a folder of $fpath
"""


class _Parser(argparse.ArgumentParser):
    """Takes `-3s` after an option for its value, whose refusal then names it, and not for another option."""

    def __init__(self, *args: Any, **values: Any) -> None:  # noqa: ANN401 - those of argparse
        super().__init__(*args, **values)
        self._negative_number_matcher = re.compile(r"-\.?\d")

    def _get_value(self, action: argparse.Action, arg_string: str) -> Any:  # noqa: ANN401 - as argparse has it
        """Refuse a value as files' values are refused, not as wrong usage: one line that says what is allowed."""
        if arg_string is argparse.SUPPRESS:  # the default of a positional that an option may give instead
            return arg_string
        parse = self._registry_get("type", action.type, action.type)
        try:
            return parse(arg_string)
        except argparse.ArgumentTypeError as error:
            allowed = str(error)
        except (TypeError, ValueError) as error:
            allowed = {int: "must be a whole number", float: "must be a number"}.get(parse, str(error))
        raise Rejected.field("command line", _option_name(action), arg_string, allowed)

    def _check_value(self, action: argparse.Action, value: object) -> None:
        if action.choices is None or value in action.choices or isinstance(action, _SUB_COMMANDS):
            super()._check_value(action, value)
            return
        allowed = f"must be one of {', '.join(map(str, action.choices))}"
        raise Rejected.field("command line", _option_name(action), value, allowed)


_SUB_COMMANDS: Final = argparse._SubParsersAction  # noqa: SLF001 - it has no public name


def _option_name(action: argparse.Action) -> str:
    return action.option_strings[-1] if action.option_strings else str(action.metavar or action.dest)


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
    older: frozenset[str] = frozenset()
    """Names of `commands` that are still taken, and no longer shown."""


def program_parser(program: Program, command: str | None = None) -> argparse.ArgumentParser:
    """Return the parser with all sub-commands, or with those of the module that has `command`."""
    parser: argparse.ArgumentParser = _Parser(
        prog=program.name,
        description=program.description,
        epilog=program.epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"{program.name} {powerhall.__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=program.needs_command)
    only = program.commands.get(command or "")
    if only is None:
        _add_completion(commands, program.name)
    for module in dict.fromkeys(program.commands.values()) if only is None else (only,):
        importlib.import_module(module).add_parser(commands)
    return parser


def _completed_parser(program: Program, command: str) -> argparse.ArgumentParser:
    """Return a parser for a shell that asks: of one sub-command, or of the names of all without their options."""
    if command in program.commands:
        return program_parser(program, command)
    parser: argparse.ArgumentParser = _Parser(prog=program.name)
    commands = parser.add_subparsers()
    for name in program.commands:
        if name not in program.older:
            commands.add_parser(name)
    _add_completion(commands, program.name)
    return parser


def _add_completion(commands: Commands, program: str) -> None:
    """Add `completion`, which every program has."""
    parser = add_command(
        commands,
        "completion",
        lambda options: _print(shell_completion.shell_code(program, options.shell)),
        help="print what a shell needs to complete commands, options and files on Tab",
        description=_COMPLETION.format(program=program),
    )
    parser.add_argument("shell", choices=shell_completion.SHELLS, help=", ".join(shell_completion.SHELLS))


def _print(text: str) -> int:
    sys.stdout.write(text)
    return EXIT_OK


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


def add_file(parser: argparse.ArgumentParser, name: str, default: str) -> None:
    """Take a file by its place or by `--name`, as other commands have it; both give the same value."""
    parser.add_argument(name, type=Path, nargs="?", default=argparse.SUPPRESS, help=f"default: {default}")
    parser.add_argument(f"--{name}", type=Path, default=Path(default), help=argparse.SUPPRESS)


def option_value(option: str, text: str, parse: Callable[[str], T]) -> T:
    """Return what `parse` makes of an option's text; a ValueError becomes Rejected, which names the option."""
    try:
        return parse(text)
    except ValueError as error:
        raise Rejected.field("command line", option, text, str(error)) from None


def run_program(program: Program, argv: Sequence[str] | None = None) -> int:
    """Parse the arguments, run one sub-command and return its exit code.

    A PowerhallError is one line on stderr, and so is what the system refuses (a full disk, a folder that has gone); any
    other exception is a fault and its traceback goes to stderr. SIGTERM ends the command as Ctrl-C does, with all that
    its `with` blocks end, unless the command handles the signal itself.
    """
    if shell_completion.is_asked():
        shell_completion.offer(lambda command: _completed_parser(program, command))
    given = list(sys.argv[1:] if argv is None else argv)
    parser = program_parser(program, given[0] if given else None)
    try:
        options = parser.parse_args(given)
        run: Run | None = getattr(options, "run", None)
        if run is None:
            parser.print_help()
            return EXIT_OK
        with _orderly_end():
            code = run(options)
            sys.stdout.flush()
    except BrokenPipeError:
        _discard_stdout()
        return EXIT_OK
    except (PowerhallError, OSError, KeyboardInterrupt, _Terminated) as error:
        line, code = _end_of(error)
        sys.stderr.write(f"{program.name}: {line}\n")
        return code
    except Exception:  # noqa: BLE001 - the last line of defence of every program
        traceback.print_exc()
        return EXIT_INTERNAL
    return code


class _Terminated(BaseException):
    """SIGTERM arrived; not an Exception, so that nothing but the end of the program handles it."""


@contextlib.contextmanager
def _orderly_end() -> Iterator[None]:
    """Let SIGTERM unwind the command, so that it ends its children; only where nobody else handles the signal."""
    ours = threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    if ours:
        signal.signal(signal.SIGTERM, _raise_terminated)
    try:
        yield
    finally:
        if ours:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _raise_terminated(_number: int, _frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a second one ends at once; children are not to ignore theirs
    raise _Terminated


def _end_of(error: BaseException) -> tuple[str, int]:
    """Return the line and the exit code of an end that is no fault; what the system refused names the file if known."""
    if isinstance(error, KeyboardInterrupt):
        return "interrupted", EXIT_INTERRUPTED
    if isinstance(error, _Terminated):
        return "ended by SIGTERM", EXIT_TERMINATED
    if isinstance(error, OSError):
        why = error.strerror or str(error) or type(error).__name__
        return f"{error.filename}: {why}" if error.filename else why, EXIT_REFUSED
    return str(error), EXIT_REFUSED


def _discard_stdout() -> None:
    """Send what is left of stdout to nowhere: its reader (`| head`) has ended, and exiting would flush it again."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
