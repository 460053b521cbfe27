"""Failures of parts: what runs there stops, goes on from its checkpoint, and heat that is not taken warms a hall."""

import dataclasses

import msgspec
import pytest
from twin_jobs import START_S, job

from powerhall.runtime.errors import Rejected
from powerhall.site.topology import Feed
from powerhall_twin.engine.simulate import simulate
from powerhall_twin.policies.policy import PolicyInputs
from powerhall_twin.policies.registry import POLICY_KINDS
from powerhall_twin.site.failures import (
    Failure,
    FailureFile,
    FailureKind,
    FailureRules,
    failures_of,
    read_failures,
)
from powerhall_twin.site.node_power import draw_of

HOUR = 3600.0


def under(case, *failures, name="easy", rules=None):
    broken = dataclasses.replace(case, failures=failures, rules=rules or FailureRules())
    return simulate(broken, POLICY_KINDS[name].open(PolicyInputs(broken)), name)


def failed(kind, name, at_h, repair_h):
    return Failure(FailureKind(kind), name, START_S + at_h * HOUR, START_S + (at_h + repair_h) * HOUR)


def ended_h(outcome, job_id):
    return next((one.end_s - START_S) / HOUR for one in outcome.job_outcomes if one.job_id == job_id)


def test_a_job_on_a_failed_node_goes_on_elsewhere_from_its_last_checkpoint(site, scenario):
    case = scenario(job("a", 64, 2.0, halls=("hall1",)), hours=5)
    nodes = [node for rack in site.halls[0].racks() for node in rack.nodes]
    whole = under(case)
    where = [under(case, failed("node", node, 1.5, 1.0)) for node in nodes]
    hit = [outcome for outcome in where if outcome.interrupted]
    assert len(hit) == 8, "the job stands on eight nodes"
    for outcome in hit:
        assert ended_h(outcome, "a") == pytest.approx(2.5, abs=1e-3), "half an hour since the checkpoint is done again"
        assert outcome.lost_gpu_s == pytest.approx(64 * 0.5 * HOUR)
        assert outcome.work_gpu_s == pytest.approx(whole.work_gpu_s)
        assert (outcome.failures, outcome.stops) == (1, 1)
    assert all(ended_h(outcome, "a") == 2.0 for outcome in where if not outcome.interrupted)


def test_a_failed_gpu_takes_one_gpu_and_a_failed_node_all_until_they_are_repaired(site, scenario):
    node = site.halls[0].rows[0].racks[0].nodes[0]
    one_node = msgspec.structs.replace(site.halls[0].rows[0].racks[0], nodes=(node,), power_limit_w=None)
    row = msgspec.structs.replace(site.halls[0].rows[0], racks=(one_node,))
    on = msgspec.structs.replace(site, halls=(msgspec.structs.replace(site.halls[0], rows=(row,)),), feeds=())
    jobs = [job(f"j{i}", 1, 3.0) for i in range(8)]
    gpu = under(scenario(*jobs, hours=8, on=on), failed("gpu", node, 1.0, 4.0), failed("gpu", node, 1.0, 4.0))
    assert gpu.interrupted == 2
    assert sorted(round(ended_h(gpu, f"j{i}"), 2) for i in range(8)) == [3.0] * 6 + [5.0, 5.0], "in the free places"
    whole = under(scenario(*jobs, hours=8, on=on), failed("node", node, 1.0, 4.0), failed("gpu", node, 2.0, 1.0))
    assert whole.interrupted == 8
    assert {round(ended_h(whole, f"j{i}"), 2) for i in range(8)} == {7.0}


def test_nodes_without_their_feed_draw_nothing(site, scenario):
    on = msgspec.structs.replace(site, feeds=(Feed("f1", ("hall1", "hall2"), 500e3),))
    calm, dark = under(scenario(on=on, hours=2)), under(scenario(on=on, hours=2), failed("feed", "f1", 0.5, 1.0))
    idle_w = 64 * site.node_types["hgx-h100"].idle_power_w
    assert calm.it_energy_j - dark.it_energy_j == pytest.approx(idle_w * HOUR, rel=1e-9)


def test_heat_that_a_failed_plant_leaves_throttles_then_trips_a_hall_as_its_water_warms(site, scenario):
    kind = site.node_types["hgx-h100"]
    one = job("a", 64, 3.0, halls=("hall1",))
    late = FailureRules(reaction_s=2 * HOUR)
    outcome = under(scenario(one, hours=2), failed("plant", "hall1/chiller1", 0.5, 0.75), rules=late)
    full_w = 64 * (draw_of(site, one, kind, kind.modes[0]).gpu_power_w - kind.idle_gpu_power_w) + 32 * kind.idle_power_w
    slow_w = 64 * (draw_of(site, one, kind, kind.modes[-1]).gpu_power_w - kind.idle_gpu_power_w)
    slow_w += 32 * kind.idle_power_w
    losses = site.halls[0].losses
    water_j_per_k = 41.8 * 255e3

    def heat_w(it_w):
        return it_w + losses.fixed_w + losses.linear * it_w + losses.quadratic_per_w * it_w**2

    to_throttle_s, to_trip_s = 5 * water_j_per_k / heat_w(full_w), 5 * water_j_per_k / heat_w(slow_w)
    assert (outcome.trips, outcome.interrupted) == (1, 1)
    ran_s = 0.5 * HOUR + to_throttle_s + to_trip_s
    lost_s = 0.5 * HOUR + to_throttle_s + to_trip_s * draw_of(site, one, kind, kind.modes[-1]).speed
    assert 0 < to_trip_s <= outcome.throttled_s
    assert outcome.hall_excess_k["hall1"] >= 10.0
    assert outcome.lost_gpu_s == pytest.approx(64 * lost_s, rel=2e-3), f"ran {ran_s} s, no checkpoint yet"


def test_whoever_sees_the_failed_plant_in_time_stops_jobs_before_the_hall_trips(scenario):
    one = job("a", 64, 3.0, halls=("hall1",), preemptible=True)
    outcome = under(scenario(one, hours=2), failed("plant", "hall1/chiller1", 0.5, 0.5))
    assert (outcome.trips, outcome.interrupted, outcome.stops) == (0, 0, 1)
    assert 0 < outcome.hall_excess_k["hall1"] < 10.0


RATES = FailureFile(
    rates={
        FailureKind.NODE: (2000 * HOUR, 2 * HOUR),
        FailureKind.GPU: (4000 * HOUR, HOUR),
        FailureKind.PLANT: (50 * HOUR, HOUR),
        FailureKind.PUMP: (50 * HOUR, HOUR),
    }
)


def test_drawn_failures_follow_their_rates_and_a_seed_gives_the_same_to_the_bit(site, scenario):
    window = START_S, START_S + 2000 * HOUR
    drawn = failures_of(RATES, site, *window, seed=1)
    assert drawn == failures_of(RATES, site, *window, seed=1) != failures_of(RATES, site, *window, seed=2)
    of_kind = {kind: [one for one in drawn if one.kind is kind] for kind in FailureKind}
    assert len(of_kind[FailureKind.NODE]) == pytest.approx(96, rel=0.4)
    assert len(of_kind[FailureKind.GPU]) == pytest.approx(384, rel=0.2)
    repairs = [one.end_s - one.start_s for one in of_kind[FailureKind.GPU]]
    assert sum(repairs) / len(repairs) == pytest.approx(HOUR, rel=0.2)
    jobs = [job(f"j{i}", 32, 1.5, submit_s=START_S + 120 * i, preemptible=True) for i in range(40)]
    case = scenario(*jobs, hours=6)
    often = FailureFile(rates={kind: (mtbf_s / 20, repair_s) for kind, (mtbf_s, repair_s) in RATES.rates.items()})
    few = failures_of(often, site, START_S, START_S + 6 * HOUR, seed=3)
    first, second = under(case, *few, name="lowcap"), under(case, *few, name="lowcap")
    assert first == second
    assert first.failures == len(few) > 0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            '[[failures]]\nkind = "node"\nname = "x"\nstart = "2026-07-15T10:00Z"\nrepair = "1h"',
            "failures[0].name: 'x'",
        ),
        ('[[failures]]\nkind = "plant"\nname = "hall1/chiller1"\nstart = "noon"\nrepair = "1h"', "failures[0].start"),
        ('[[failures]]\nkind = "plant"\nname = "hall1/chiller1"\nstart = "2026-07-15T10:00Z"\nrepair = "0s"', "repair"),
        ('[rates.node]\nmtbf = "often"\nrepair = "1h"', "rates.node.mtbf"),
        ('[rates.disk]\nmtbf = "1h"\nrepair = "1h"', "disk"),
        ("[rules]\nthrottle_k = 12.0", "recover_k <= throttle_k <= trip_k"),
        ("[rules]\ncheckpoint_h = 1", "checkpoint_h"),
    ],
)
def test_a_wrong_file_of_failures_is_refused_by_file_field_and_value(site, tmp_path, text, words):
    path = tmp_path / "failures.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(Rejected) as refused:
        read_failures(path, site)
    assert words in str(refused.value)
    assert str(path) in str(refused.value)
    assert "\n" not in str(refused.value)
