"""Models against what others measured and published; without their data these tests skip."""

import os
import statistics
import sys
from pathlib import Path

import pytest

from powerhall.jobs.model import Job
from powerhall.runtime.errors import Rejected
from powerhall_twin.engine.simulate import simulate
from powerhall_twin.policies.policy import PolicyInputs
from powerhall_twin.policies.registry import policy_kind
from powerhall_twin.site.raps_system import raps_site, read_raps_system
from powerhall_twin.site.scenario import Scenario

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("POWERHALL_DATA", ROOT.parent / "shared" / "data"))
sys.path.insert(0, str(ROOT / "benchmarks"))
pytestmark = pytest.mark.skipif(not (DATA / "power").exists(), reason="needs the published data in ../shared/data")


@pytest.fixture(scope="module")
def figures():
    import fidelity

    return fidelity.all_figures(DATA)


def test_energy_of_other_runs_follows_from_times_and_two_powers(figures):
    means = {
        (name, bench): statistics.fmean(errors)
        for name in ("one_node", "eight_nodes")
        for bench, errors in figures[name].items()
    }
    missed = {key for key, error in means.items() if abs(error) > 0.02}
    assert missed == {("one_node", "resnet")}, "docs/fidelity.md says which miss the target"
    assert max(abs(e) for name in ("one_node", "eight_nodes") for es in figures[name].values() for e in es) < 0.036
    assert max(map(abs, figures["supply"])) < 0.007


def test_chillers_are_those_of_the_tables_or_err_to_the_safe_side(figures):
    for points in figures["chillers"].values():
        usual = [error for load, error in points if 0.4 <= load <= 1.0]
        assert statistics.median(map(abs, usual)) < 0.0125
        assert sum(abs(error) <= 0.01 for error in usual) >= 22


def test_frontier_is_that_of_raps(figures):
    found = figures["frontier"]
    assert found["nodes"] == 9472
    assert found["idle_w"] == pytest.approx(7.24e6, rel=0.01)
    assert found["peak_w"] == pytest.approx(28.2e6, rel=0.005)
    assert found["efficiency"] == pytest.approx(0.9335, abs=0.001)


def test_a_system_of_raps_runs_on_the_engine():
    site = raps_site(read_raps_system(DATA / "systems" / "selene.yaml"), "selene")
    jobs = tuple(Job(f"j{i}", 8 * 100, 1800.0, submit_s=0.0) for i in range(5))
    scenario = Scenario(site, jobs, 0.0, 3600.0)
    outcome = simulate(scenario, policy_kind("easy", PolicyInputs(scenario)).open(PolicyInputs(scenario)), "easy")
    assert outcome.jobs_done == 5
    assert 560 * 2068 < outcome.peak_w < 560 * 4944 * 1.1


@pytest.mark.parametrize(("old", "new"), [("num_cdus: 25", "num_cdus: 0"), ("0.98", "0"), ("power:", "pawer:")])
def test_a_configuration_that_makes_no_site_is_refused_in_one_line(tmp_path, old, new):
    path = tmp_path / "system.yaml"
    path.write_text((DATA / "systems" / "frontier.yaml").read_text().replace(old, new, 1))
    with pytest.raises(Rejected) as refused:
        read_raps_system(path)
    assert len(str(refused.value).splitlines()) == 1
