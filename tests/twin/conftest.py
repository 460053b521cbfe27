"""The demo's site and small scenarios on it."""

import sys
from importlib import resources
from pathlib import Path

import pytest

from powerhall.jobs.model import Job
from powerhall.site.site_file import read_site
from powerhall.site.topology import Site
from powerhall_twin.site.scenario import Scenario

sys.path.insert(0, str(Path(__file__).parent))  # so that tests write `from twin_jobs import ...`
sys.path.insert(0, str(Path(__file__).parent / "oracle"))  # the engine of objects, which judges that of arrays

from twin_jobs import START_S


@pytest.fixture(scope="session")
def demo_folder() -> Path:
    """The folder of the demo's site files."""
    return Path(str(resources.files("powerhall_twin.demo").joinpath("demo_site")))


@pytest.fixture(scope="session")
def site(demo_folder: Path) -> Site:
    """The demo's site."""
    return read_site(demo_folder / "site.toml")[0]


@pytest.fixture(scope="session")
def scenario_of(site: Site):
    """Makes a scenario of mild weather from a tuple of jobs."""

    def make(jobs: tuple[Job, ...], hours: float = 4.0, on: Site = site) -> Scenario:
        return Scenario(on, jobs, START_S, START_S + hours * 3600)

    return make


@pytest.fixture
def scenario(scenario_of):
    """Makes a scenario of mild weather from some jobs."""
    return lambda *jobs, **more: scenario_of(jobs, **more)
