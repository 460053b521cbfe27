# ruff: noqa: E501 - rows of tables
"""docs/reference/commands.md from the argparse parsers of every console command."""

import argparse
import importlib
import re
import sys
import textwrap
import tomllib
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

_WIDTH = 118
HEAD = """\
# Commands

This page is generated from the parsers by `make reference`; `make check` fails while they differ. `--help` shows the
same.

## All commands alike

| what | how it is written | where |
|---|---|---|
| a duration (`SPAN`) | `90 s`, `30min`, `1.5h`, `2d` or ISO 8601 (`PT2H`); a bare number is in seconds; `lease` wants the unit | `--length`, `--horizon`, `--seconds`, `--within`, `--for`, `--settle`, `--round`, `--interval` |
| a share (`SHARE`) | `30%` or `30` | `--by` |
| a power | `350MW`, `1.2 MW` | `--to`, `--power-limit`, `--what-if` |
| a moment | ISO 8601, UTC or the site's zone without an offset; or seconds since the epoch | `--start`, `--at`, `--end`, `--since`, `--until` |
| a plan | by its place or by `--plan`; default `plan.json` | `verify`, `report`, `explain`, `lease`, `schedule`, `shed` |
| a site file | by `--site`; `check` takes it by its place as well | |
| a store | `sqlite:///PATH` or `influxdb://HOST:PORT/BUCKET?...` | `--store` |
| the result for a program | `--json`; services log lines of `key=value` | every command with a result |

`--hours` and `--minutes` are older names of `--length`, in that unit, and still taken; so is `install-units` for
`install`. `completion` prints what bash, fish and zsh need to complete all of this on Tab.

| exit code | meaning |
|---|---|
| 0 | done |
| 1 | refused: a value of an option, a file, a failed check, a full disk; one line says what and what is allowed |
| 2 | wrong usage: an unknown option or command, or one that is missing |
| 3 | internal error, with a traceback |
| 130, 143 | ended by Ctrl-C or SIGTERM, with every process that the command started |

"""


class _Built(BaseException):
    """Raised in place of parsing, with the finished parser."""


def _capture(parser: argparse.ArgumentParser, *_args: object, **_more: object) -> None:
    raise _Built(parser)


def console_commands(root: Path) -> dict[str, str]:
    """Return the console commands of pyproject.toml and their entry points."""
    scripts: dict[str, str] = tomllib.loads((root / "pyproject.toml").read_text())["project"]["scripts"]
    return scripts


def top_parser(command: str, entry: str) -> argparse.ArgumentParser:
    """Return the parser of a console command as its `main` builds it."""
    module, _, function = entry.partition(":")
    main = getattr(importlib.import_module(module), function)
    with (
        mock.patch.object(argparse.ArgumentParser, "parse_args", _capture),
        mock.patch.object(sys, "argv", [command]),
    ):
        try:
            main()
        except _Built as built:
            parser: argparse.ArgumentParser = built.args[0]
            return parser
    raise RuntimeError(f"{command}: its main parsed no arguments")


def subcommands(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """Yield the parser and, depth first, every parser below it."""
    yield parser
    for action in parser._actions:  # noqa: SLF001 - argparse has no public way to list actions
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            for child in dict.fromkeys(action.choices.values()):
                yield from subcommands(child)


def _lines(parser: argparse.ArgumentParser) -> list[str]:
    text = f"{parser.description or ''}\n{parser.epilog or ''}"
    return re.sub(r"\\\n *", "", text).splitlines()


def examples(parser: argparse.ArgumentParser) -> list[tuple[str, str]]:
    """Return the example command lines of a help page, continued lines joined, each with its remark."""
    found = (re.fullmatch(r"  +(powerhall-\S+ .*?)(?:  +#? *(.*))?", line.rstrip()) for line in _lines(parser))
    return [(match[1], match[2] or "") for match in found if match]


def _description(parser: argparse.ArgumentParser) -> str:
    """Return the paragraphs before the first heading of a list, such as `examples:`."""
    text = (parser.description or "").strip()
    return re.split(r"\n\n(?=[^\n]*:\n)", f"{text}\n")[0].strip()


def _cell(text: str) -> str:
    return re.sub(r"([|\[\]*<])", r"\\\1", " ".join(text.split()))


def _code(text: str) -> str:
    return text.replace("|", "\\|")


def _name(action: argparse.Action) -> str:
    value = ""
    if action.nargs != 0:
        made = argparse.HelpFormatter("")._format_args(action, (action.dest or "").upper())  # noqa: SLF001
        value = "" if action.choices and not action.metavar else made
    if not action.option_strings:
        return f"`{_code(value or action.dest)}`"
    return ", ".join(f"`{option} {value}`" if value else f"`{option}`" for option in action.option_strings)


def _default(action: argparse.Action) -> str:
    if action.required:
        return "required"
    if action.default in (None, False, argparse.SUPPRESS) or action.default in ([], "") or action.nargs == 0:
        return ""
    return f"`{_code(str(action.default))}`"


def _meaning(parser: argparse.ArgumentParser, action: argparse.Action) -> str:
    text = action.help or ""
    shown = _cell(parser._get_formatter()._expand_help(action)) if text else ""  # noqa: SLF001
    if action.choices:
        shown += ("; " if shown else "") + "one of " + ", ".join(f"`{choice}`" for choice in action.choices)
    repeats = isinstance(action, argparse._AppendAction)  # noqa: SLF001
    said = re.search(r"more than once|several times|repeatable", shown)
    return f"{shown} (may be repeated)" if repeats and not said else shown


def _section(parser: argparse.ArgumentParser, depth: int) -> Iterator[str]:
    yield f"{'#' * depth} {parser.prog}\n"
    for paragraph in filter(None, _description(parser).split("\n\n")):
        yield f"{textwrap.fill(_cell(paragraph), _WIDTH, break_long_words=False)}\n"
    rows = [
        f"| {_name(action)} | {_default(action)} | {_meaning(parser, action)} |"
        for action in parser._actions  # noqa: SLF001
        if not isinstance(action, argparse._HelpAction | argparse._SubParsersAction)  # noqa: SLF001
        and action.help != argparse.SUPPRESS
    ]
    if rows:
        yield "| option | default | meaning |\n|---|---|---|"
        yield "\n".join(rows) + "\n"
    shown = examples(parser)
    if shown:
        yield "```sh\n" + "\n".join(_example(line, note) for line, note in shown) + "\n```\n"


def _example(line: str, note: str) -> str:
    """Return an example with its remark, broken before options where it is too long."""
    text = f"{line}  # {note}" if note else line
    if len(text) <= _WIDTH:
        return text
    parts = textwrap.wrap(line.replace(" -", "\n-").replace(" ", "\0").replace("\n", " "), _WIDTH - 4)
    return " \\\n  ".join(part.replace("\0", " ") for part in parts)


def render(root: Path) -> str:
    """Return the page."""
    parts: list[str] = []
    for command, entry in console_commands(root).items():
        top = top_parser(command, entry)
        for parser in subcommands(top):
            depth = 2 if parser is top else 3 if parser.prog.count(" ") == 1 else 4
            parts.extend(_section(parser, depth))
    return HEAD + "\n".join(parts).rstrip() + "\n"
