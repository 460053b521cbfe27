"""The engine gives what the engine of objects gave, which shares none of its kernels: `tests/twin/oracle`."""

import pytest
from object_easy import Easy
from object_engine import simulate as simulate_objects
from object_fcfs import Fcfs
from object_uniform import UniformCap
from twin_jobs import START_S

from powerhall.timeseries import Series
from powerhall_twin.engine.simulate import simulate
from powerhall_twin.jobs.generator import generate
from powerhall_twin.policies.policy import PolicyInputs
from powerhall_twin.policies.registry import POLICY_KINDS
from powerhall_twin.site.scenario import Scenario

ORACLES = {"fcfs": Fcfs, "easy": Easy, "uniform": UniformCap}


@pytest.mark.parametrize("name", ORACLES)
@pytest.mark.parametrize("seed", [1, 2])
def test_jobs_energy_work_and_limits_are_those_of_the_object_engine(mixed, name, seed):
    jobs = generate(mixed, START_S, 3 * 3600.0, seed=seed)
    warm = Series((0.0, START_S + 3600, START_S + 5400), (25.0, 39.0, 33.0))
    wet = Series((0.0, START_S + 3600, START_S + 5400), (16.0, 24.0, 21.0))
    price = Series((0.0, START_S + 4200), (40.0, 90.0))
    case = Scenario(mixed, jobs, START_S, START_S + 3 * 3600.0, warm, wet, price)
    new = simulate(case, POLICY_KINDS[name].open(PolicyInputs(case)), name)
    old = simulate_objects(case, ORACLES[name](), name)
    assert (new.jobs, new.jobs_done, new.stops) == (old.jobs, old.jobs_done, old.stops)
    new.work_gpu_s += new.lost_gpu_s  # the engine of objects counts what stops lose as work
    new.weighted_work += new.lost_weighted
    for figure in ("energy_j", "it_energy_j", "work_gpu_s", "weighted_work", "cost", "wait_s", "peak_w"):
        assert getattr(new, figure) == pytest.approx(getattr(old, figure), rel=1e-9), figure
    assert new.over_budget_s == old.over_budget_s
    assert new.times_s == pytest.approx(old.times_s, abs=1e-6)
    assert new.facility_w == pytest.approx(old.facility_w, rel=1e-9)
    for zone, headroom in old.guard.worst_headroom.items():
        assert new.worst_headroom[zone] == pytest.approx(headroom, abs=1e-9), zone
