"""The results of a small scenario, pinned: a change of any of them is a change of the engine or of a policy."""

import msgspec
import pytest
from twin_jobs import START_S

from powerhall.timeseries import Series
from powerhall_twin.engine.simulate import simulate
from powerhall_twin.jobs.generator import generate
from powerhall_twin.policies.policy import PolicyInputs
from powerhall_twin.policies.registry import BASELINES
from powerhall_twin.site.scenario import Scenario

PINNED = {
    "fcfs": (42, 9, 133, 0.0, 5684531698.146949, 4588160.0, 19.93330320095109),
    "easy": (64, 23, 151, 0.0, 6357362713.612969, 5571987.0, 21.113065879783914),
    "conservative": (61, 20, 148, 0.0, 6373879439.656892, 5465566.0, 20.397207102574235),
    "density": (80, 26, 167, 0.0, 6383260694.262472, 5787280.0, 20.61553672022913),
    "uniform": (91, 4, 178, 0.0, 5451997132.963798, 6282950.001875121, 18.120915386960075),
    "lowcap": (83, 26, 174, 0.0, 6401023015.323302, 6150623.779519096, 20.863533105027585),
    "tdp": (64, 22, 155, 0.0, 5977211145.672706, 5026522.0, 19.904599551917997),
}
"""Jobs done, stops, events, seconds over a budget, energy in J, work in GPU s with what was lost, cost."""


@pytest.mark.parametrize("kind", BASELINES, ids=lambda kind: kind.name)
def test_the_results_of_a_curtailed_afternoon_are_what_they_were(site, kind):
    grid = Series((0.0, START_S + 3600, START_S + 7200), (700e3, 480e3, 700e3))
    dry, wet = Series((0.0, START_S + 3600), (30.0, 41.0)), Series((0.0, START_S + 3600), (20.0, 24.0))
    price = Series((0.0, START_S + 3600), (40.0, -5.0))
    on = msgspec.structs.replace(site, budgets={site.name: grid})
    jobs = generate(site, START_S, 3 * 3600.0, seed=3)
    case = Scenario(on, jobs, START_S, START_S + 3 * 3600.0, dry, wet, price)
    o = simulate(case, kind.open(PolicyInputs(case)), kind.name)
    assert (o.jobs_done, o.stops, len(o.times_s), o.over_budget_s) == PINNED[kind.name][:4]
    assert (o.energy_j, o.work_gpu_s + o.lost_gpu_s, o.cost) == pytest.approx(PINNED[kind.name][4:], rel=1e-12)
