"""What the system refuses is one line: a full disk, a folder that is none, a signal; nothing half-written stays."""

import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from powerhall.runtime.files import replace_file, replace_files
from powerhall.store import open_store
from powerhall_agent.cli import main as agent
from powerhall_dashboards.cli import main as dashboards
from powerhall_optimizer.cli import main as optimizer
from rigs.site_data import SiteData


@contextmanager
def full_disk(most_bytes: int) -> Iterator[None]:
    """Let no file grow above this size; writing on raises OSError, as a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_on_a_full_disk_the_old_file_stays_and_no_part_of_the_new_one(tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_bytes(b"old")
    with full_disk(1000), pytest.raises(OSError, match=r"plan\.json"):
        replace_file(tmp_path / "plan.json", b"x" * 2000)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"plan.json": b"old"}


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        (dashboards, ["preview", "--store", "sqlite:///{}/site.db", "--out", "{}/out"]),
        (dashboards, ["build", "--out", "{}/out"]),
        (dashboards, ["install", "--root", "{}/out"]),
        (dashboards, ["deploy-files", "--out", "{}/out"]),
        (agent, ["install", "--root", "{}/out"]),
        (agent, ["schema", "--out", "{}/out"]),
        (optimizer, ["schema", "--out", "{}/out"]),
        (optimizer, ["init", "--name", "a", "--gpu", "H100", "--hall", "h=4", "--out", "{}/site.toml"]),
    ],
    ids=lambda value: " ".join(value[:1]) if isinstance(value, list) else "",
)
def test_on_a_full_disk_every_writer_is_one_line_and_leaves_no_part(
    command: Callable[[list[str]], int], arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each file that is there afterwards is whole: the same as on a disk with room."""
    store = open_store(f"sqlite:///{tmp_path / 'site.db'}")
    store.write(SiteData(end_s=1_790_000_100, hours=0.1).lines())
    store.close()
    roomy, full = tmp_path / "roomy", tmp_path / "full"
    for folder in (roomy, full):
        folder.mkdir()
        shutil.copy(tmp_path / "site.db", folder)
    assert command([word.format(roomy) for word in arguments]) == 0
    capsys.readouterr()
    with full_disk(200_000 if arguments[0] == "preview" else 900):  # SQLite itself writes beside the store
        assert command([word.format(full) for word in arguments]) == 1
    error = capsys.readouterr().err
    assert "File too large" in error
    assert [line for line in error.splitlines() if "warning" not in line][1:] == [], error
    for path in full.rglob("*"):
        if path.is_file() and not path.name.startswith("site.db"):
            assert path.read_bytes() == (roomy / path.relative_to(full)).read_bytes(), path


def test_files_that_belong_together_change_together(tmp_path: Path) -> None:
    for name in ("ladder.json", "plan.json"):
        (tmp_path / name).write_bytes(b"old")
    new = {tmp_path / "ladder.json": b"new", tmp_path / "plan.json": b"x" * 2000}
    with full_disk(1000), pytest.raises(OSError, match=r"plan\.json"):
        replace_files(new)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"plan.json": b"old", "ladder.json": b"old"}
    replace_files(dict.fromkeys(new, b"new"))
    assert {path.read_bytes() for path in tmp_path.iterdir()} == {b"new"}


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert dashboards(["build", "--root", str(tmp_path / "file")]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "file" in error
    assert "Not a directory" in error


_PROGRAM = """
import subprocess, sys, types
sys.modules["slow"] = types.SimpleNamespace(add_parser=lambda commands: add_command(commands, "slow", run, help="wait"))
from powerhall.runtime.command_line import Program, add_command, run_program

def run(_options):
    child = subprocess.Popen(["sleep", "60"])
    try:
        print(child.pid, flush=True)
        return child.wait()
    finally:
        child.kill()
        child.wait()

raise SystemExit(run_program(Program("p", "d", "e", {"slow": "slow"}), ["slow"]))
"""


def test_sigterm_ends_a_command_in_order_with_its_children() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _PROGRAM], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as program:
        child = int(program.stdout.readline())
        program.send_signal(signal.SIGTERM)
        _, error = program.communicate(timeout=20)
    assert program.returncode == 143
    assert error == "p: ended by SIGTERM\n"
    assert not Path(f"/proc/{child}").exists()
