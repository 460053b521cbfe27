"""The event-driven engine: exact on a single job, budgets held by every policy, work never lost."""

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twin_jobs import START_S, job

from powerhall.site.topology import JobClass
from powerhall.timeseries import Series
from powerhall_twin.policies.easy import Easy
from powerhall_twin.policies.engine import simulate
from powerhall_twin.policies.fcfs import Fcfs
from powerhall_twin.policies.planned_rounds import PlannedRounds
from powerhall_twin.policies.policy import PolicyInputs, RoundTiming
from powerhall_twin.policies.registry import BASELINES
from powerhall_twin.policies.uniform_cap import UniformCap
from powerhall_twin.site.building_meters import MILD, SiteMeter
from powerhall_twin.site.node_power import draw_of

CALM = settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])


def with_grid(site, *steps: tuple[float, float]):
    series = Series(tuple(t for t, _ in steps), tuple(w for _, w in steps))
    return msgspec.structs.replace(site, budgets={site.name: series})


def idle_w(site) -> float:
    racks = {r.zone: len(r.nodes) * site.node_types[r.node_type].idle_power_w for r in site.racks()}
    return SiteMeter.of(site).read(racks, MILD, 0.0).facility_w


def test_one_job_takes_its_time_and_its_energy(site, scenario):
    one = job("a", 64, 2.0)
    outcome = simulate(scenario(one, hours=3), Fcfs(), "fcfs")
    kind = site.node_types["hgx-h100"]
    added_j = 64 * (draw_of(site, one, kind, kind.modes[0]).gpu_power_w - kind.idle_gpu_power_w) * 7200.0
    idle_j = 96 * kind.idle_power_w * 3 * 3600.0
    assert outcome.it_energy_j == pytest.approx(idle_j + added_j, rel=1e-6)
    assert outcome.work_gpu_s == pytest.approx(64 * 7200.0)
    assert (outcome.jobs, outcome.jobs_done, outcome.stops) == (1, 1, 0)
    assert outcome.times_s[0] == START_S


def test_the_first_in_the_queue_holds_back_the_others_but_not_under_easy(scenario):
    big, small = job("big", 250, 1.0, halls=("hall1",)), job("small", 8, 0.5, submit_s=START_S + 2, halls=("hall1",))
    runs = job("runs", 128, 1.0, submit_s=START_S - 1, halls=("hall1",))
    fcfs = simulate(scenario(runs, big, small, hours=1), Fcfs(), "fcfs")
    easy = simulate(scenario(runs, big, small, hours=1), Easy(), "easy")
    assert fcfs.jobs_done == 1
    assert easy.jobs_done == 2, "the small job fits before the big one's reservation"


def test_a_curtailment_stops_the_youngest_jobs_and_the_budget_holds(site, scenario):
    low_w = idle_w(site) + 60e3
    cut = with_grid(site, (0.0, 700e3), (START_S + 3600, low_w), (START_S + 7200, 700e3))
    jobs = [job(f"j{i}", 32, 3.0, submit_s=START_S - 10 + i) for i in range(8)]
    outcome = simulate(scenario(*jobs, on=cut), Fcfs(), "fcfs")
    assert outcome.stops >= 4
    assert not outcome.guard.breaches
    assert outcome.jobs_done >= 1


def test_one_cap_for_all_falls_with_the_budget(site, scenario):
    full = simulate(scenario(job("a", 64, 2.0), on=with_grid(site, (0.0, 2e6))), UniformCap(), "uniform")
    tight = simulate(scenario(job("a", 64, 2.0), on=with_grid(site, (0.0, 560e3))), UniformCap(), "uniform")
    assert tight.it_energy_j < full.it_energy_j
    assert tight.peak_w < full.peak_w


@CALM
@given(
    sizes=st.lists(st.tuples(st.sampled_from([1, 8, 24, 64, 128]), st.floats(0.1, 3.0)), min_size=1, max_size=25),
    cut=st.floats(1.05, 3.0),
    kind=st.sampled_from(BASELINES),
)
def test_no_policy_exceeds_a_budget_or_does_more_work_than_there_is(site, scenario, sizes, cut, kind):
    cut_w = idle_w(site) * cut
    on = with_grid(site, (0.0, 700e3), (START_S + 1800, cut_w), (START_S + 5400, 700e3))
    jobs = [
        job(f"j{i}", gpus, hours, submit_s=START_S + 60 * i, preemptible=True) for i, (gpus, hours) in enumerate(sizes)
    ]
    case = scenario(*jobs, on=on)
    outcome = simulate(case, kind.open(PolicyInputs(case)), kind.name)
    assert not outcome.guard.breaches
    assert outcome.work_gpu_s <= sum(j.gpus * j.duration_s for j in jobs) * (1 + 1e-9) + outcome.stops * 128 * 3600
    assert outcome.jobs_done <= outcome.jobs


def test_a_planning_figure_below_the_physics_shows_as_a_breach(site, scenario):
    budget = with_grid(site, (0.0, 330e3))
    wrong = msgspec.structs.replace(budget, job_classes={"pretrain": JobClass("pretrain", draw={"p700": 0.5})})
    jobs = [job(f"j{i}", 64, 2.0) for i in range(12)]
    honest = simulate(scenario(*jobs, on=budget), Fcfs(), "fcfs")
    assert not honest.guard.breaches
    outcome = simulate(scenario(*jobs, on=wrong), Fcfs(), "fcfs")
    assert outcome.over_budget_s > 0
    assert {"demo"} <= {breach.zone for breach in outcome.guard.breaches}


def test_rounds_keep_a_foreseen_curtailment_without_stopping_what_may_not_stop(site, scenario):
    low_w = idle_w(site) + 150e3
    on = with_grid(site, (0.0, 700e3), (START_S + 3600, low_w), (START_S + 7200, 700e3))
    jobs = [job(f"j{i}", 64, 2.5, submit_s=START_S - 60) for i in range(5)]
    case = scenario(*jobs, on=on)
    policy = PlannedRounds(case, RoundTiming(round_s=1800.0, solve_s=0.5))
    outcome = simulate(case, policy, "powerhall")
    assert not outcome.guard.breaches
    assert outcome.stops == 0
    assert len(policy.gaps) == 8
    assert outcome.work_gpu_s > 0
