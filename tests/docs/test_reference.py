"""The generated files are up to date, and what they are made from is complete."""

import argparse
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from tools.reference import structs
from tools.reference.__main__ import PAGES
from tools.reference.commands import console_commands, subcommands, top_parser

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("page", PAGES)
def test_the_committed_page_is_what_the_code_makes(page: str) -> None:
    assert (ROOT / page).read_text(encoding="utf-8") == PAGES[page](ROOT), "run: make reference"


@pytest.mark.parametrize(("command", "entry"), console_commands(ROOT).items())
def test_every_option_has_a_help_text(command: str, entry: str) -> None:
    for parser in subcommands(top_parser(command, entry)):
        bare = [action.dest for action in parser._actions if not action.help and not isinstance(action, _GROUPS)]
        assert bare == [], parser.prog


_GROUPS = (argparse._SubParsersAction,)


def test_a_field_without_a_docstring_fails() -> None:
    with pytest.raises(LookupError, match=r"Bare\.key"):
        structs.table(Bare)


class Bare(msgspec.Struct):
    """A table."""

    key: int = 1


def test_a_stale_file_of_any_kind_fails_the_check(tmp_path: Path) -> None:
    for name in ("tools", "docs", "pyproject.toml", "dashboards/grafana", "deploy/grafana"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(["cp", "-r", ROOT / name, tmp_path / name], check=True)
    command = [sys.executable, "-m", "tools.reference", "--check"]
    subprocess.run(command, cwd=tmp_path, check=True)
    stale = [
        "docs/reference/commands.md",
        "dashboards/grafana/powerhall-node.json",
        "deploy/grafana/provisioning/alerting/powerhall.json",
        "docs/reference/schema.md",
        "docs/reference/alerts.md",
    ]
    for name in stale:
        with (tmp_path / name).open("a") as file:
            file.write("\n")
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines() == [f"{name}: differs from the code; run `make reference`" for name in stale]
