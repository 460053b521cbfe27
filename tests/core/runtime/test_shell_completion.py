"""What a shell gets when a reader presses Tab, asked as bash does it: through the script that `completion` prints."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from powerhall.runtime.shell_completion import SHELLS, shell_code

BIN = Path(sys.executable).parent
PRESS_TAB = """
source /dev/stdin <<< "$SCRIPT"
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMP_LINE="$*"; COMP_POINT=${#COMP_LINE}; COMP_TYPE=9
function=$(complete -p "$1" | sed -n 's/.*-F \\([^ ]*\\).*/\\1/p')
$function "$1"
printf '%s\\n' "${COMPREPLY[@]}"
"""


def tab(folder: Path, *words: str) -> list[str]:
    environment = os.environ | {"PATH": f"{BIN}:{os.environ['PATH']}", "SCRIPT": shell_code(words[0], "bash")}
    done = subprocess.run(
        ["bash", "-c", PRESS_TAB, "bash", *words],
        env=environment, cwd=folder, capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert done.stderr == ""
    return [line.strip() for line in done.stdout.splitlines()]


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (("powerhall-optimizer", "ro"), ["round", "rollup"]),
        (("powerhall-agent", "inst"), ["install"]),
        (("powerhall-dashboards", "ser"), ["serve"]),
        (("powerhall-twin", "rep"), ["replay"]),
        (("powerhall-optimizer", "queue", "--sched"), ["--scheduler"]),
        (("powerhall-optimizer", "queue", "--scheduler", ""), ["file", "kubernetes", "slurm"]),
        (("powerhall-dashboards", "build", "--retention", "c"), ["classes"]),
        (("powerhall-agent", "completion", ""), ["-h", "--help", *SHELLS]),
        (("powerhall-agent", "run", "--config", "fi"), ["file.toml"]),
        (("powerhall-agent", "install", "--root", "f"), ["folder/"]),
        (("powerhall-optimizer", "no-such-command", "--x"), []),
    ],
)
def test_tab_offers_what_may_stand_next(words: tuple[str, ...], offered: list[str], tmp_path: Path) -> None:
    (tmp_path / "file.toml").touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "inside").touch()
    assert [word for word in tab(tmp_path, *words) if word] == offered


@pytest.mark.parametrize("shell", SHELLS)
def test_every_shell_has_a_script_that_names_the_program(shell: str) -> None:
    assert "powerhall-agent" in shell_code("powerhall-agent", shell)
