"""A GPU host installs `powerhall[agent]` only, and that brings nothing heavy."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = {"numpy", "ortools", "scipy", "numba", "pandas", "plotly"}


@pytest.mark.slow
def test_the_agent_extra_brings_no_numpy_and_no_or_tools(root, tmp_path):
    uv = Path(sys.executable).with_name("uv")
    if not uv.exists():
        found = shutil.which("uv")
        if found is None:
            pytest.skip("needs uv to make a clean environment")
        uv = Path(found)
    venv = tmp_path / "venv"
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, venv], check=True)
    python = venv / "bin" / "python"
    subprocess.run([uv, "pip", "install", "--quiet", "--python", python, f"{root}[agent]"], check=True)
    listed = subprocess.run(
        [uv, "pip", "list", "--python", python, "--format", "freeze"], check=True, capture_output=True
    )
    names = {line.split("==")[0].lower() for line in listed.stdout.decode().splitlines()}
    assert {"nvidia-ml-py", "influxdb-client", "msgspec", "powerhall"} <= names
    assert not names & HEAVY
    done = subprocess.run(
        [venv / "bin" / "powerhall-agent", "once", "--simulate", "--format", "line"], capture_output=True, check=True
    )
    assert done.stdout.startswith(b"gpu")
    other = subprocess.run(
        [venv / "bin" / "powerhall-optimizer", "--help"], capture_output=True, text=True, check=False
    )
    assert other.returncode == 1
    assert "powerhall[optimizer]" in other.stderr
