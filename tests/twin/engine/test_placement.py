"""Where jobs start: found exactly where a search through all ways finds a place; not before they may."""

import itertools
import random
from collections import Counter

import pytest
from twin_jobs import START_S, job

from powerhall.site.index import SiteIndex
from powerhall.site.topology import Hall, Losses, Mode, NodeType, Rack, RackRow, Site
from powerhall_twin.engine.columns import N_WAITING, STATUS, WAITING, WAITING_LIST
from powerhall_twin.engine.queue_passes import GREEDY_ORDER, run_queue
from powerhall_twin.engine.sim_state import SimState
from powerhall_twin.engine.simulate import simulate
from powerhall_twin.policies.policy import PolicyInputs
from powerhall_twin.policies.queue_policy import fastest_rule
from powerhall_twin.policies.registry import BASELINES, POLICY_KINDS
from powerhall_twin.site.scenario import Scenario

KIND = NodeType("x", "X", 8, 1600.0, 10_000.0, 3000.0, 0.8, (Mode("full", "power_limit", 1200.0, 1.0),))
ADDED_W = 1000.0
"""What a busy GPU adds to an idle node."""


def random_site(rng):
    racks, nodes, per_row = rng.randint(1, 4), rng.randint(1, 4), rng.choice((1, 2))

    def limit_w(count):
        return None if rng.random() < 0.3 else count * 1600 + rng.randint(0, count * 8) * ADDED_W + rng.choice((0, 500))

    made = [
        Rack(f"h/r{i // per_row}/k{i}", "x", tuple(f"k{i}n{n}" for n in range(nodes)), limit_w(nodes))
        for i in range(racks)
    ]
    rows = [
        RackRow(f"h/r{at // per_row}", tuple(part), limit_w(nodes * len(part)))
        for at in range(0, racks, per_row)
        for part in [made[at : at + per_row]]
    ]
    hall = Hall("h", tuple(rows), (), Losses(), limit_w(nodes * racks))
    return Site("s", (hall,), {"x": KIND}, power_limit_w=1e9)


def fits_somewhere(site, state, gpus):
    """Go through all ways to give whole nodes, the last in part, within the limits of all zones."""
    index = SiteIndex.of(site)
    limits = index.budgets_at(START_S)
    room_w = {z: limits[z] - state.world.now.zone_nw[i] / 1e9 for i, z in enumerate(state.arrays.zones) if z in limits}
    racks = list(site.racks())
    free = [[int(state.world.now.free[state.arrays.node_of[node]]) for node in rack.nodes] for rack in racks]

    def holds(counts):
        used = Counter()
        for rack, count in zip(racks, counts, strict=True):
            for zone in index.zones_above(rack.zone):
                used[zone] += count * ADDED_W
        return all(used[zone] <= room_w[zone] + 1e-6 for zone in used if zone in room_w)

    every = range(len(racks))
    if gpus <= 8:
        return any(max(free[k]) >= gpus and holds([gpus * (k == i) for i in every]) for k in every)
    need = -(-gpus // 8)
    less = 8 * need - gpus
    whole = [sum(count == 8 for count in one) for one in free]
    return any(
        holds([8 * n - less * (i == last) for i, n in enumerate(nodes)])
        for nodes in itertools.product(*[range(count + 1) for count in whole])
        if sum(nodes) == need
        for last in every
        if nodes[last]
    )


def test_a_job_starts_where_any_way_of_giving_nodes_holds_every_limit():
    seen = Counter()
    for seed in range(300):
        rng = random.Random(seed)
        site, gpus = random_site(rng), rng.choice((1, 3, 8, 9, 12, 15, 16, 17, 20, 24, 25, 28, 32, 40))
        fillers = [job(f"f{i}", rng.randint(1, 8), 1.0) for i in range(rng.randint(0, 4))]
        state = SimState.of(Scenario(site, (job("x", gpus, 1.0), *fillers), START_S, START_S + 3600))
        state.set_budgets(SiteIndex.of(site).budgets_at(START_S))
        for one in fillers:
            node = rng.choice(state.arrays.node_names)
            if state.has_room({node: one.gpus}, 1200.0):
                state.start(state.number_of[one.job_id], {node: one.gpus}, 0, 1200.0)
        expected = fits_somewhere(site, state, gpus)
        j, jobs = state.number_of["x"], state.world.jobs
        jobs.ints[WAITING_LIST, 0], jobs.ints[STATUS, j], jobs.sizes[N_WAITING] = j, WAITING, 1
        started = run_queue(state.world, fastest_rule(state), state.memory, GREEDY_ORDER, START_S) == 1
        assert started == expected, (seed, gpus)
        seen[started, gpus % 8 > 0 and gpus > 8] += 1
    assert min(seen.values()) > 20, seen


@pytest.mark.parametrize("policy", [kind.name for kind in BASELINES])
def test_no_job_starts_before_it_may(site, scenario, policy):
    late, now = job("late", 8, 0.5, earliest_s=START_S + 5400), job("now", 8, 0.5, submit_s=START_S + 60)
    case = scenario(late, now, hours=3)
    outcome = simulate(case, POLICY_KINDS[policy].open(PolicyInputs(case)), policy)
    assert {one.job_id: one.start_s - START_S for one in outcome.job_outcomes} == {"late": 5400.0, "now": 60.0}
    assert outcome.wait_s == 0.0
