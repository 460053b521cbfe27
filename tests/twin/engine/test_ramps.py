"""Ramp limits of the grid: no policy starts jobs faster, and what is too fast is counted; judged by sums of its own."""

import msgspec
import pytest
from twin_jobs import START_S, job

from powerhall.timeseries import Series
from powerhall_twin.engine.simulate import simulate
from powerhall_twin.policies.policy import PolicyInputs
from powerhall_twin.policies.registry import BASELINES, POLICY_KINDS

WINDOW_S = 300.0


def with_ramps(site, up_w=None, down_w=None, **more):
    """Return the site with limits of what power may change by in five minutes."""
    rates = [None if w is None else w / WINDOW_S for w in (up_w, down_w)]
    return msgspec.structs.replace(site, ramp_up_w_per_s=rates[0], ramp_down_w_per_s=rates[1], **more)


def under(name, case):
    return simulate(case, POLICY_KINDS[name].open(PolicyInputs(case)), name)


def changes(outcome, end_s, sign):
    """Return for each stretch of constant power its change over what stood within five minutes before its begin."""
    times, power = outcome.times_s, outcome.facility_w
    ends = [*times[1:], end_s]
    return [
        max((sign * (power[i] - power[k]) for k in range(i) if ends[k] > times[i] - WINDOW_S), default=0.0)
        for i in range(len(times))
    ]


@pytest.mark.parametrize("policy", [kind.name for kind in BASELINES])
def test_no_policy_lets_power_rise_faster_than_the_ramp_and_all_jobs_run(site, scenario, policy):
    jobs = [job(f"j{i:02d}", 16, 0.5, submit_s=START_S + 60 * (i // 8)) for i in range(24)]
    cut = Series((0.0, START_S + 2400, START_S + 4800), (700e3, 420e3, 700e3))
    on = with_ramps(site, 40e3, None, budgets={site.name: cut})
    outcome = under(policy, scenario(*jobs, hours=6, on=on))
    assert outcome.jobs_done == 24
    rises = changes(outcome, START_S + 6 * 3600, 1)
    assert 20e3 < max(rises) <= 40e3 + 1.0
    assert outcome.fast_rises == 0
    assert outcome.steepest_rise_w_per_s == pytest.approx(max(rises) / WINDOW_S)


def test_falls_are_counted_as_they_are(site, scenario):
    jobs = [job(f"j{i}", 32, 1.0) for i in range(4)]
    outcome = under("fcfs", scenario(*jobs, hours=3, on=with_ramps(site, None, 40e3)))
    falls = changes(outcome, START_S + 3 * 3600, -1)
    assert max(falls) > 40e3
    assert outcome.fast_falls == 1, "all four end at once"
    assert outcome.steepest_fall_w_per_s == pytest.approx(max(falls) / WINDOW_S)
    assert outcome.fast_rises == 0


def test_a_job_steeper_than_the_ramp_holds_back_nobody(site, scenario):
    jobs = job("steep", 128, 0.5, submit_s=START_S - 1), job("small", 8, 0.5)
    outcome = under("fcfs", scenario(*jobs, hours=2, on=with_ramps(site, 40e3)))
    assert [one.job_id for one in outcome.job_outcomes if one.end_s is not None] == ["small"]


def test_without_ramp_limits_nothing_waits_and_nothing_is_counted(site, scenario):
    outcome = under("fcfs", scenario(*[job(f"j{i}", 32, 1.0) for i in range(4)], hours=2))
    assert all(one.start_s == START_S for one in outcome.job_outcomes)
    assert (outcome.fast_rises, outcome.fast_falls, outcome.steepest_rise_w_per_s) == (0, 0, 0.0)
