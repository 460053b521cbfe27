"""What a shell offers on Tab: sub-commands, options, choices and files of every program.

The shell starts the program itself with `_ARGCOMPLETE` set, so that what is offered is what this version takes. Only
the module of the sub-command at hand is imported.
"""

import argparse
import os
from collections.abc import Callable, Iterator
from typing import Final

from powerhall.runtime.errors import PowerhallError

__all__ = ["SHELLS", "is_asked", "offer", "shell_code"]

SHELLS: Final = ("bash", "fish", "zsh")


def is_asked() -> bool:
    """Return whether a shell asks what may stand next, instead of a person for work."""
    return "_ARGCOMPLETE" in os.environ


def offer(parser_for: Callable[[str], argparse.ArgumentParser]) -> None:
    """Print what may stand next on the shell's line, and end the process; `parser_for` takes the sub-command, or ""."""
    import argcomplete

    words = os.environ.get("COMP_LINE", "")[: int(os.environ.get("COMP_POINT", "0") or 0)].split(" ")
    parser = parser_for(words[1] if len(words) > 2 else "")
    for action in _actions(parser):
        if action.metavar == "DIR":
            action.completer = argcomplete.completers.DirectoriesCompleter()  # type: ignore[attr-defined]
    argcomplete.autocomplete(parser)


def shell_code(program: str, shell: str) -> str:
    """Return what one of SHELLS has to read once; where argcomplete is absent PowerhallError says so."""
    try:
        from argcomplete import shell_integration
    except ImportError:
        raise PowerhallError("completion needs argcomplete: pip install argcomplete") from None
    code: str = shell_integration.shellcode([program], shell=shell)
    return code


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """Yield every argument of a parser and of its sub-commands."""
    for action in parser._actions:  # noqa: SLF001 - argparse has no public way to list them
        yield action
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            for inner in action.choices.values():
                yield from _actions(inner)
