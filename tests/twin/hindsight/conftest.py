"""The small site of these tests."""

from pathlib import Path

import pytest

from rigs.sacct_history import SITE


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """The site file: 4 nodes, 32 GPUs, of which about 20 run at full power at a time."""
    path = tmp_path / "site.toml"
    path.write_text(SITE)
    return path
