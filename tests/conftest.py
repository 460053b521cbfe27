"""Fixtures for the whole suite."""

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))  # so that tests write `from rigs import ...`

settings.register_profile("powerhall", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("powerhall")  # the speed of a machine must not decide whether a test passes

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in jobs of a script: programs under test inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)

_FIXED_PORTS = "tests/agent/facility/"
"""Its servers listen where the examples of the documents say, so its files share one process."""


class _ByFile(LoadFileScheduling):
    """The tests of a file in one process, where `make test` uses several."""

    def _split_scope(self, nodeid: str) -> str:
        return _FIXED_PORTS if nodeid.startswith(_FIXED_PORTS) else super()._split_scope(nodeid)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadFileScheduling:
    """Hand out whole files, those of servers at fixed ports together."""
    return _ByFile(config, log)


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


@pytest.fixture(scope="session")
def influx_1_8() -> Iterator[object]:
    """A real InfluxDB 1.8.3, which has the v2 write endpoint itself, started once per run."""
    from rigs import influxdb

    if not influxdb.BUILT.is_file():
        pytest.skip(f"no {influxdb.BUILT}; `make influxd` builds it")
    with influxdb.start_1_8() as rig:
        yield rig
