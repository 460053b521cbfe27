"""Shared by the agent's tests: the real captures, where they are."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def data_dir():
    """The folder of real data; tests skip where it is absent."""
    root = Path(__file__).parents[2]
    found = Path(os.environ.get("POWERHALL_DATA", root.parent / "shared" / "data"))
    if not found.is_dir():
        pytest.skip("real data is absent (set POWERHALL_DATA)")
    return found
