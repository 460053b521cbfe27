"""Every console command: version, help with examples, usage errors, and one line for a missing extra."""

import subprocess
import sys
from pathlib import Path

import pytest

import powerhall
from powerhall.runtime.extras import EXIT_REFUSED, run_command

COMMANDS = ("powerhall-agent", "powerhall-optimizer", "powerhall-twin", "powerhall-dashboards")


def run(command: str, *args: str) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).with_name(command)
    return subprocess.run([program, *args], capture_output=True, text=True, check=False, timeout=120)


@pytest.mark.parametrize("command", COMMANDS)
def test_version(command):
    done = run(command, "--version")
    assert done.returncode == 0
    assert powerhall.__version__ in done.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_examples(command):
    done = run(command, "--help")
    assert done.returncode == 0
    assert "examples" in done.stdout.lower()
    assert f"  {command} " in done.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_an_unknown_option_is_a_usage_error(command):
    done = run(command, "--no-such-option")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_a_missing_extra_is_named_in_one_line(capsys):
    assert run_command("powerhall-agent", "agent", ("no_such_module",), "nowhere") == EXIT_REFUSED
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "powerhall[agent]" in error
