"""What a shell gets when a reader presses Tab, asked as bash does it: through the script that `completion` prints."""

import os
import pty
import select
import shutil
import subprocess
import sys
import time
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


def _real(shell: str, folder: Path) -> dict[str, str]:
    """Return the environment of a real shell that has read the script as `completion --help` says."""
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} not installed")
    home = folder / "home"
    places = {
        "fish": home / ".config/fish/completions/powerhall-optimizer.fish",
        "zsh": home / ".zfunc/_powerhall-optimizer",
    }
    places[shell].parent.mkdir(parents=True)
    places[shell].write_text(shell_code("powerhall-optimizer", shell))
    return os.environ | {"PATH": f"{BIN}:{os.environ['PATH']}", "HOME": str(home), "TERM": "dumb"}


OFFERED = [
    ("powerhall-optimizer ro", ["rollup", "round"]),
    ("powerhall-optimizer queue --sched", ["--scheduler"]),
    ("powerhall-optimizer queue --scheduler ", ["file", "kubernetes", "slurm"]),
    ("powerhall-optimizer check si", ["site.toml"]),
]


@pytest.mark.parametrize(("line", "offered"), OFFERED)
def test_a_real_fish_offers_the_same(line: str, offered: list[str], tmp_path: Path) -> None:
    environment = _real("fish", tmp_path)
    (tmp_path / "site.toml").touch()
    done = subprocess.run(
        ["fish", "-c", f"complete -C '{line}'"],
        env=environment, cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert done.stderr == ""
    assert sorted(word.split("\t")[0] for word in done.stdout.splitlines()) == offered


ZSHRC = "PROMPT=; fpath=($HOME/.zfunc $fpath); autoload -Uz compinit; compinit -u -D"


class Zsh:
    """An interactive zsh on a terminal of its own."""

    def __init__(self, environment: dict[str, str], folder: Path) -> None:
        self._terminal, inside = pty.openpty()
        self.process = subprocess.Popen(
            ["zsh", "-f", "-i"], stdin=inside, stdout=inside, stderr=inside, env=environment, cwd=folder,
            start_new_session=True,
        )  # fmt: skip
        os.close(inside)
        self._seen = ""

    def types(self, text: str, *awaited: str) -> str:
        """Type a text and return what is shown until all awaited words are, for half a minute at most."""
        os.write(self._terminal, text.encode())
        self._seen, deadline_s = "", time.monotonic() + 30.0
        while time.monotonic() < deadline_s and not all(word in self._seen for word in awaited):
            if select.select([self._terminal], [], [], 0.2)[0]:
                self._seen += os.read(self._terminal, 65_536).decode(errors="replace")
        return self._seen

    def close(self) -> None:
        self.process.kill()
        self.process.wait(10)
        os.close(self._terminal)


@pytest.mark.parametrize(("line", "offered"), OFFERED)
def test_a_real_zsh_offers_the_same(line: str, offered: list[str], tmp_path: Path) -> None:
    shell = Zsh(_real("zsh", tmp_path), tmp_path)
    (tmp_path / "site.toml").touch()
    try:
        shell.types(f"{ZSHRC}; print READY$((1+1))\n", "READY2")
        seen = shell.types(f"{line}\t\t", *offered)
        assert [word for word in offered if word not in seen] == [], seen
    finally:
        shell.close()
