"""The event-driven engine: exact on a single job, budgets held by every policy, work never lost."""

import math

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from object_meters import SiteMeter
from twin_jobs import START_S, job

from powerhall.site.topology import JobClass, Rack, RackRow
from powerhall.timeseries import Series
from powerhall_twin.engine.simulate import simulate
from powerhall_twin.policies.planned_rounds import PlannedRounds
from powerhall_twin.policies.policy import PolicyInputs, RoundTiming
from powerhall_twin.policies.registry import BASELINES, POLICY_KINDS
from powerhall_twin.site.node_power import draw_of
from powerhall_twin.site.scenario import MILD

CALM = settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])


def with_grid(site, *steps: tuple[float, float]):
    series = Series(tuple(t for t, _ in steps), tuple(w for _, w in steps))
    return msgspec.structs.replace(site, budgets={site.name: series})


def under(name, case):
    """Simulate a scenario under a policy of the registry."""
    return simulate(case, POLICY_KINDS[name].open(PolicyInputs(case)), name)


def starts_s(outcome) -> dict[str, float]:
    """Return the first starts of the jobs, in seconds from the start."""
    return {one.job_id: one.start_s - START_S for one in outcome.job_outcomes if one.start_s is not None}


def idle_w(site) -> float:
    racks = {r.zone: len(r.nodes) * site.node_types[r.node_type].idle_power_w for r in site.racks()}
    return SiteMeter.of(site).read(racks, MILD, 0.0).facility_w


def test_one_job_takes_its_time_and_its_energy(site, scenario):
    one = job("a", 64, 2.0)
    outcome = under("fcfs", scenario(one, hours=3))
    kind = site.node_types["hgx-h100"]
    added_j = 64 * (draw_of(site, one, kind, kind.modes[0]).gpu_power_w - kind.idle_gpu_power_w) * 7200.0
    idle_j = 96 * kind.idle_power_w * 3 * 3600.0
    assert outcome.it_energy_j == pytest.approx(idle_j + added_j, rel=1e-6)
    assert outcome.work_gpu_s == pytest.approx(64 * 7200.0)
    assert (outcome.jobs, outcome.jobs_done, outcome.stops) == (1, 1, 0)
    assert outcome.times_s[0] == START_S


def test_the_first_in_the_queue_holds_back_the_others_but_not_under_easy(scenario):
    big, small = job("big", 200, 1.0, halls=("hall1",)), job("small", 8, 0.5, submit_s=START_S + 2, halls=("hall1",))
    runs = job("runs", 128, 1.0, submit_s=START_S - 1, halls=("hall1",))
    fcfs = under("fcfs", scenario(runs, big, small, hours=1))
    easy = under("easy", scenario(runs, big, small, hours=1))
    assert fcfs.jobs_done == 1
    assert easy.jobs_done == 2, "the small job fits before the big one's reservation"


@pytest.fixture
def racks_of_five(site):
    """A hall of 4 racks of 5 nodes, each rack with the power of three full ones."""
    hall = site.halls[0]
    racks = tuple(
        Rack(
            f"hall1/a/k{r}", "hgx-h100", tuple(f"k{r}-n{n}" for n in range(5)), 5 * 1660.0 + 3.5 * (8 * 977.0 - 1660.0)
        )
        for r in range(4)
    )
    hall = msgspec.structs.replace(hall, rows=(RackRow("hall1/a", racks),), power_limit_w=None)
    return msgspec.structs.replace(site, halls=(hall,), budgets={}, power_limit_w=600e3)


@pytest.mark.parametrize("policy", ["fcfs", "easy", "uniform", "lowcap"])
def test_a_job_spreads_over_racks_where_no_rack_has_the_power_for_it(scenario, racks_of_five, policy):
    jobs = [job("a", 40, 1.0), *(job(f"b{i}", 8, 1.0, submit_s=START_S + i + 1) for i in range(9))]
    outcome = under(policy, scenario(*jobs, on=racks_of_five))
    assert outcome.jobs_done == 10
    assert not outcome.breaches


@pytest.mark.parametrize("policy", ["fcfs", "easy"])
def test_a_job_that_an_empty_site_could_not_carry_holds_back_nobody(scenario, racks_of_five, policy):
    jobs = [job("never", 160, 1.0), job("b", 8, 1.0, submit_s=START_S + 1)]
    assert under(policy, scenario(*jobs, on=racks_of_five)).jobs_done == 1


def test_the_reservation_of_easy_counts_power_and_jobs_beside_it_do_not_delay_it(scenario, racks_of_five):
    first = job("first", 64, 1.0)  # 8 of the 12 nodes that have the power
    head = job("head", 64, 1.0, submit_s=START_S + 1)
    short = job("short", 16, 0.5, submit_s=START_S + 2)
    long = job("long", 16, 3.0, submit_s=START_S + 3)
    more = job("more", 32, 3.0, submit_s=START_S + 4)  # would take the power that the head is promised
    started = starts_s(under("easy", scenario(first, head, short, long, more, on=racks_of_five)))
    assert started["short"] <= 2
    assert started["long"] <= 3, "it goes on beside the head"
    assert started["head"] == pytest.approx(3600.0, abs=5.0)
    assert started["more"] >= started["head"]


def test_conservative_backfilling_delays_no_earlier_job_where_easy_delays_all_but_the_head(scenario, racks_of_five):
    jobs = [
        job("runs", 64, 1.0),  # 8 of the 12 nodes that have the power
        job("head", 64, 1.0, submit_s=START_S + 1),
        job("third", 96, 1.0, submit_s=START_S + 2),
        job("long", 32, 3.0, submit_s=START_S + 3),
        job("short", 32, 0.9, submit_s=START_S + 4),
    ]
    case = scenario(*jobs, hours=8, on=racks_of_five)
    easy, kept = starts_s(under("easy", case)), starts_s(under("conservative", case))
    assert easy["head"] == pytest.approx(3600.0, abs=5.0)
    assert easy["long"] <= 5
    assert easy["third"] >= 3 * 3600.0
    assert kept["head"] == pytest.approx(3600.0, abs=5.0)
    assert kept["third"] == pytest.approx(2 * 3600.0, abs=605.0), "in steps of five minutes"
    assert kept["short"] <= 5, "it delays nobody"
    assert kept["long"] >= 3 * 3600.0


def test_only_jobs_under_the_exceeded_limit_are_stopped_and_preemptible_ones_first(site, scenario):
    row_w = {"hall1/a": Series((0.0, START_S + 1800), (126e3, 2 * 8 * 1660.0 + 5 * 8 * 800.0))}
    on = msgspec.structs.replace(with_grid(site, (0.0, 2e6)), budgets={"demo": Series((0.0,), (2e6,)), **row_w})
    jobs = [
        job("kept", 40, 3.0, halls=("hall1",)),
        job("stopped", 24, 3.0, halls=("hall1",), submit_s=START_S + 1, preemptible=True),
        job("younger", 8, 3.0, halls=("hall2",), submit_s=START_S + 2, preemptible=True),
    ]
    outcome = under("fcfs", scenario(*jobs, on=on))
    stops = [one.job_id for one in outcome.job_outcomes if one.stops]
    assert stops == ["stopped"]


def test_a_curtailment_stops_the_youngest_jobs_and_the_budget_holds(site, scenario):
    low_w = idle_w(site) + 60e3
    cut = with_grid(site, (0.0, 700e3), (START_S + 3600, low_w), (START_S + 7200, 700e3))
    jobs = [job(f"j{i}", 32, 3.0, submit_s=START_S - 10 + i) for i in range(8)]
    outcome = under("fcfs", scenario(*jobs, on=cut))
    assert outcome.stops >= 4
    assert not outcome.breaches
    assert outcome.jobs_done >= 1


def test_one_cap_for_all_falls_with_the_budget(site, scenario):
    full = under("uniform", scenario(job("a", 64, 2.0), on=with_grid(site, (0.0, 2e6))))
    tight = under("uniform", scenario(job("a", 64, 2.0), on=with_grid(site, (0.0, 560e3))))
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
    assert not outcome.breaches
    assert outcome.work_gpu_s <= sum(j.gpus * j.duration_s for j in jobs) * (1 + 1e-9) + outcome.stops * 128 * 3600
    assert outcome.jobs_done <= outcome.jobs


def test_a_planning_figure_below_the_physics_shows_as_a_breach(site, scenario):
    budget = with_grid(site, (0.0, 330e3))
    wrong = msgspec.structs.replace(budget, job_classes={"pretrain": JobClass("pretrain", draw={"p700": 0.5})})
    jobs = [job(f"j{i}", 64, 2.0) for i in range(12)]
    honest = under("fcfs", scenario(*jobs, on=budget))
    assert not honest.breaches
    outcome = under("fcfs", scenario(*jobs, on=wrong))
    assert outcome.over_budget_s > 0
    assert {"demo"} <= {breach.zone for breach in outcome.breaches}


def test_a_job_that_comes_between_rounds_starts_at_a_round_of_its_own(scenario):
    late = job("late", 8, 0.5, submit_s=START_S + 700)
    case = scenario(job("first", 8, 2.0, submit_s=START_S - 1), late, hours=1.5)
    for event_s, latest_s in ((300.0, 1000.0), (math.inf, 3660.0)):
        policy = PlannedRounds(case, RoundTiming(round_s=3600.0, solve_s=0.3, event_s=event_s))
        started = starts_s(simulate(case, policy, "powerhall"))["late"]
        assert 700.0 <= started <= latest_s
        assert (started > 3000.0) == (event_s == math.inf)


def test_rounds_keep_a_foreseen_curtailment_without_stopping_what_may_not_stop(site, scenario):
    low_w = idle_w(site) + 150e3
    on = with_grid(site, (0.0, 700e3), (START_S + 3600, low_w), (START_S + 7200, 700e3))
    jobs = [job(f"j{i}", 64, 2.5, submit_s=START_S - 60) for i in range(5)]
    case = scenario(*jobs, on=on)
    policy = PlannedRounds(case, RoundTiming(round_s=1800.0, solve_s=0.5))
    outcome = simulate(case, policy, "powerhall")
    assert not outcome.breaches
    assert outcome.stops == 0
    assert len(policy.gaps) == 8
    assert outcome.work_gpu_s > 0
