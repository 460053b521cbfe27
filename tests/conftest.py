"""Fixtures for the whole suite."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))  # so that tests write `from rigs import ...`

settings.register_profile("powerhall", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("powerhall")  # the speed of a machine must not decide whether a test passes


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Real traces and captures, from $POWERHALL_DATA or ../shared/data; tests skip where they are absent."""
    path = Path(os.environ.get("POWERHALL_DATA", ROOT.parent / "shared" / "data"))
    if not path.is_dir():
        pytest.skip(f"no real data at {path}; set POWERHALL_DATA")
    return path


@pytest.fixture(scope="session")
def influx() -> Iterator[object]:
    """A real InfluxDB 1.6 with a v2 write endpoint in front (rigs.influxdb.InfluxRig), started once per run."""
    from rigs import influxdb

    if reason := influxdb.missing():
        pytest.skip(reason)
    with influxdb.start() as rig:
        yield rig
