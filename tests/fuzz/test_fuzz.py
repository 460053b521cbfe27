"""The short form of `make fuzz`: a hundred changed inputs of every entry point."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_changed_inputs_are_read_or_refused_in_one_line():
    command = [sys.executable, str(Path(__file__).with_name("run.py")), "--inputs", "100", "--jobs", "2"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    assert "failures=0" in done.stdout
