"""What runs on the nodes of a site is in its power, planned with or not: against sums of the tests' own."""

import random

import msgspec
import pytest

from powerhall.hostlist import compress, expand
from powerhall.jobs.left_out import LeftOut
from powerhall.jobs.model import Job
from powerhall.plan.plan import Assignment, Placement, Snapshot, hashed_fields
from powerhall.site.topology import Hall, Losses, Mode, NodeType, Rack, RackRow, Site
from powerhall_optimizer.inputs.observed_nodes import observed_nodes
from powerhall_optimizer.physics.plan_loads import loads_of, power_now_w
from powerhall_optimizer.verify.loads import loads_of as checked_loads_of
from powerhall_optimizer.verify.loads import power_before_w

START_S = 1_800_000_000
IDLE_W = {"hgx": 1600.0, "pcie": 1200.0}
MAX_W = {"hgx": 10_000.0, "pcie": 3_000.0}
GPUS = {"hgx": 8, "pcie": 4}
GPU_W = {("hgx", "full"): 1250.0, ("hgx", "eco"): 750.0, ("pcie", "full"): 750.0}


def site():
    """Two halls: sixteen nodes of eight GPUs, eight of four."""
    kinds = {
        name: NodeType(
            name,
            name,
            GPUS[name],
            IDLE_W[name],
            MAX_W[name],
            2_000.0,
            0.5,
            tuple(
                Mode(mode, "power_limit", watts, 1.0 if mode == "full" else 0.8, gpu_power_limit_w=400.0)
                for (kind, mode), watts in GPU_W.items()
                if kind == name
            ),
        )
        for name in IDLE_W
    }
    halls = []
    for hall, kind, first, count in (("h1", "hgx", 1, 16), ("h2", "pcie", 17, 8)):
        racks = tuple(
            Rack(f"{hall}/a/r{n}", kind, tuple(f"gn{i:02d}" for i in range(n, n + 4)))
            for n in range(first, first + count, 4)
        )
        halls.append(Hall(hall, (RackRow(f"{hall}/a", racks),), (), Losses()))
    return Site("plant", tuple(halls), kinds, power_limit_w=1e6)


SITE = site()
KIND = {node: rack.node_type for rack in SITE.racks() for node in rack.nodes}


def snapshot(jobs=(), left_out=()):
    return Snapshot(START_S, START_S, 300, 4, SITE, tuple(jobs), left_out=tuple(left_out))


def running(job_id, nodes, gpus, mode="full", spread=(), **more):
    hall = "h1" if KIND[nodes[0]] == "hgx" else "h2"
    return Job(job_id, gpus, 3600.0, state="running", hall=hall, node_type=KIND[nodes[0]], mode=mode,
               nodes=compress(nodes), start_s=START_S - 60.0, gpus_on_nodes=spread, **more)  # fmt: skip


def going_on(seen):
    """Return assignments that let every running job of a snapshot go on in its mode, with the GPUs that it says."""
    found = []
    for job in seen.jobs:
        split = dict(zip(_nodes(job), job.gpus_on_nodes, strict=True)) if job.gpus_on_nodes else None
        split = split or {node: job.gpus // len(_nodes(job)) for node in _nodes(job)}
        places = tuple(
            Placement(next(r.zone for r in SITE.racks() if node in r.nodes), node, gpus)
            for node, gpus in split.items()
            if gpus
        )
        times = GPU_W[job.node_type, job.mode], START_S, START_S + 3600
        found.append(Assignment(job.job_id, job.hall, job.node_type, job.mode, job.gpus, *times, places, True))
    return found


def _nodes(job):
    return expand(job.nodes)


def random_world(draw):
    """Return jobs, left-out entries, nodes down and off, and the site's true power in W, kept beside them."""
    free = {node: GPUS[kind] for node, kind in KIND.items()}
    watts = {node: IDLE_W[kind] for node, kind in KIND.items()}
    jobs, left_out = [], []
    for number in range(draw.randint(0, 20)):
        kind = draw.choice(list(IDLE_W))
        managed = draw.random() < 0.6
        pool = [n for n in free if free[n] and (not managed or KIND[n] == kind)]
        nodes = sorted(draw.sample(pool, min(len(pool), draw.choice([1, 1, 2, 3, 5]))))
        if not nodes:
            continue
        spread = tuple(draw.randint(1, free[node]) for node in nodes)
        mode = draw.choice([m for k, m in GPU_W if k == kind]) if managed else "full"
        for node, gpus in zip(nodes, spread, strict=True):
            free[node] -= gpus
            each_w = GPU_W[KIND[node], mode] if managed else MAX_W[KIND[node]] / GPUS[KIND[node]]
            watts[node] += gpus * (each_w - IDLE_W[KIND[node]] / GPUS[KIND[node]])
        if managed:
            jobs.append(running(f"j{number}", nodes, sum(spread), mode, spread))
        else:
            entry = LeftOut(f"x{number}", "counted", "", True, sum(spread), None, compress(nodes), spread)
            left_out.append(entry)
    busy = {node for node in free if free[node] < GPUS[KIND[node]]}
    down = {node for node in free if draw.random() < 0.25}
    off = {node for node in free if draw.random() < 0.2}
    total_w = sum(w for node, w in watts.items() if node in busy or node not in off)
    return jobs, left_out, down, off, total_w


@pytest.mark.parametrize("seed", range(60))
def test_power_of_a_snapshot_is_the_sum_over_nodes_that_are_on_and_gpus_that_run(seed):
    draw = random.Random(seed)
    jobs, left_out, down, off, total_w = random_world(draw)
    seen = observed_nodes(snapshot(jobs, left_out), down, off)
    assert seen.stale_nodes == ()
    assert len(seen.jobs) == len(jobs)
    assert power_now_w(seen) == pytest.approx(total_w, abs=0.5)
    assert power_before_w(seen) == pytest.approx(total_w, abs=0.5)
    for loads in (loads_of(seen, going_on(seen)), checked_loads_of(seen, going_on(seen))):
        assert loads.zone_w["plant"] == pytest.approx(total_w, abs=0.5), "in each slot"


def test_a_gang_of_8_and_4_beside_a_job_of_4_keeps_its_gpus():
    jobs = [running("gang", ["gn01", "gn02"], 12), running("four", ["gn02"], 4)]
    seen = observed_nodes(snapshot(jobs), (), ())
    assert {job.job_id: job.gpus_on_nodes for job in seen.jobs} == {"gang": (8, 4), "four": ()}
    assert not seen.left_out
    assert not seen.stale_nodes


def test_even_gangs_are_left_as_they_are():
    jobs = [running("gang", ["gn01", "gn02"], 12), running("one", ["gn02"], 1)]
    assert observed_nodes(snapshot(jobs), (), ()).jobs == tuple(jobs)


def test_more_gpus_than_a_node_has_put_it_at_its_maximum_and_stop_nothing():
    jobs = [running("a", ["gn01"], 8), running("b", ["gn01"], 8), running("c", ["gn02"], 8)]
    seen = observed_nodes(snapshot(jobs), (), ())
    assert [job.job_id for job in seen.jobs] == ["a", "c"]
    assert [(entry.job_id, entry.running) for entry in seen.left_out] == [("b", True)]
    assert seen.stale_nodes == ("gn01",)
    assert power_now_w(seen) == 10_000 + (10_000) + 14 * 1600 + 8 * 1200


def test_a_job_over_two_halls_counts_with_its_gpus_and_leaves_the_others():
    entry = LeftOut("50", "counted", "", True, 8, None, "gn[15-18]", (2, 2, 2, 2))
    seen = observed_nodes(snapshot([], [entry]), (), ())
    assert [(h.nodes, h.gpus, h.gpu_power_w) for h in seen.held] == [("gn[15-16]", 2, 1250.0), ("gn[17-18]", 2, 750.0)]
    assert power_now_w(seen) == 16 * 1600 + 8 * 1200 + 4 * (1250 - 200) + 4 * (750 - 300)


def test_unknown_gpus_of_nodes_put_them_at_their_maximum_and_unknown_nodes_take_the_costliest():
    entries = [
        LeftOut("a", "field", "", True, 0, None, "gn05"),
        LeftOut("b", "field", "", True, 9, None, "gn[06-07]"),
        LeftOut("c", "field", "", True, 9),
        LeftOut("d", "field", "", False, 9, None, "gn09"),
    ]
    seen = observed_nodes(snapshot([], entries), (), ())
    assert seen.stale_nodes == ("gn05", "gn06", "gn07", "gn01", "gn02")


def test_a_node_on_which_something_runs_is_not_off():
    seen = observed_nodes(snapshot([running("a", ["gn01"], 8)]), ["gn03", "other"], ["gn01", "gn02", "other"])
    assert (seen.down_nodes, seen.off_nodes) == (("gn01", "gn03"), ("gn02",))
    assert power_now_w(seen) == 10_000 + 14 * 1600 + 8 * 1200


def test_held_gpus_and_off_nodes_count_in_the_plan_id_only_where_there_are_any():
    plain = hashed_fields(snapshot([running("a", ["gn01"], 8)]))
    assert not {"held", "off_nodes"} & plain.keys()
    assert "gpus_on_nodes" not in plain["jobs"][0]
    split = msgspec.structs.replace(snapshot([running("a", ["gn01"], 8, spread=(8,))]), off_nodes=("gn05",))
    assert hashed_fields(split)["jobs"][0]["gpus_on_nodes"] == (8,)
    assert hashed_fields(split)["off_nodes"] == ("gn05",)
