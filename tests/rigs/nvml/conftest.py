"""Builds the simulated C library once per run, from the project's own source."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from rigs.nvml.headers import write_headers

HERE = Path(__file__).parent


def compiler():
    found = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if found is None:
        pytest.skip("no C compiler (cc): the simulated NVML C library cannot be built", allow_module_level=False)
    return found


@pytest.fixture(scope="session")
def nvml_library(tmp_path_factory):
    """The folder that holds libnvidia-ml.so.1."""
    folder = tmp_path_factory.mktemp("nvml")
    write_headers(folder)
    command = [
        compiler(), "-O2", "-Wall", "-Wextra", "-Werror", "-fvisibility=hidden", "-shared", "-fPIC", f"-I{folder}",
        "-Wl,-soname,libnvidia-ml.so.1", "-o", str(folder / "libnvidia-ml.so.1"), str(HERE / "nvmlsim.c"), "-lpthread",
    ]  # fmt: skip
    subprocess.run(command, check=True)
    return folder


@pytest.fixture(scope="session")
def nvml_header():
    """NVIDIA's own header, from the nvidia-nvml-dev-cu12 distribution."""
    spec = importlib.util.find_spec("nvidia")
    for place in spec.submodule_search_locations if spec else ():
        found = sorted(Path(place).glob("**/nvml.h"))
        if found:
            return found[0]
    pytest.skip("NVIDIA's nvml.h is not installed (pip install nvidia-nvml-dev-cu12)")


@pytest.fixture
def c_environment(nvml_library):
    """Build the environment of a process that loads the C library with a state file."""

    def build(state: Path) -> dict[str, str]:
        return {**os.environ, "LD_LIBRARY_PATH": str(nvml_library), "NVMLSIM_STATE": str(state)}

    return build


@pytest.fixture
def ask(c_environment):
    """Ask everything of one of the two libraries: `ask("c", path)` or `ask("python", path)`."""

    def run(kind: str, state: Path) -> dict:
        import json

        done = subprocess.run(
            [sys.executable, str(HERE / "ask.py"), kind, str(state)],
            env=c_environment(state), capture_output=True, text=True, timeout=60, check=True,
        )  # fmt: skip
        return json.loads(done.stdout)

    return run
