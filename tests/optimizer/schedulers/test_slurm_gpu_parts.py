"""Shards, MPS units and MIG instances of Slurm: planned where node types offer such parts, and counted always."""

import random
import re

import msgspec
import pytest

from powerhall.runtime.log import Log
from powerhall_optimizer.inputs.round_settings import RoundSettings
from powerhall_optimizer.physics.plan_loads import power_now_w
from powerhall_optimizer.planning.planner import make_plan
from powerhall_optimizer.schedulers.slurm.desired_state import desired_jobs
from powerhall_optimizer.schedulers.slurm.slurm_settings import SlurmSettings
from powerhall_optimizer.schedulers.slurm.tres import parse_gres
from rigs.slurm_world import GPU_W, IDLE_W, NOW_S, SITE, job, pending, random_world, seen

replace = msgspec.structs.replace


def site_with(parts: int, *, mig: bool = False):
    kinds = dict(SITE.node_types)
    kinds["hgx"] = replace(kinds["hgx"], gpu_parts=parts, mig=mig, gpu_fill=not mig)
    return replace(SITE, node_types=kinds)


@pytest.mark.parametrize("seed", range(30))
def test_watts_are_those_of_gpus_in_use_where_shards_are_planned_with(seed):
    """Shards of one GPU count it once, beyond its parts and beside others too; each GPU at its highest mode."""
    rows, states, total_w = random_world(random.Random(seed), modern=False)
    _, snapshot = seen(rows, states, modern=False, site=site_with(4))
    assert not snapshot.stale_nodes
    assert power_now_w(snapshot) == pytest.approx(total_w, abs=1)


def running(job_id, shards, gpu, **more):
    return job(job_id, modern=False, nodes="gn01", gres_detail=[f"shard:h200:{shards}(IDX:{gpu})"],
               node_count=1, tres_alloc_str="cpu=1,node=1", **more)  # fmt: skip


@pytest.mark.parametrize(
    ("asks", "gres", "parts", "share"),
    [
        ({"tres_per_node": "gres:shard:1"}, None, 4, "1/4"),
        ({"tres_per_node": "gres/shard:h200:3"}, None, 4, "3/4"),
        ({"tres_per_node": "gres/shard:4"}, None, 4, None),
        ({"tres_per_node": "gres/mps:30"}, "gpu:h200:8,mps:800", 10, "3/10"),
        ({"tres_per_node": "gres/gpu:1g.10gb:1"}, "gpu:1g.10gb:56", 7, "1/7"),
    ],
)
def test_a_waiting_job_may_ask_for_a_part(asks, gres, parts, share):
    mig = "1g" in (gres or "")
    queue, snapshot = seen([pending(1, **asks)], site=site_with(parts, mig=mig), gres_of=gres and {"hgx": gres})
    assert [(one.gpus, one.gpu_share, one.allowed_nodes, one.node_types) for one in queue.jobs] == [
        (1, share, "gn[01-08]", ("hgx",))
    ]
    plan = make_plan(snapshot, RoundSettings(workers=1), 0.3, created_s=0, log=Log(quiet=True))
    assert [entry.placements[0].nodes[:2] for entry in plan.assignments] == ["gn"]


@pytest.mark.parametrize(
    ("asks", "gres", "parts"),
    [
        ({"tres_per_node": "gres/shard:5"}, None, 4),
        ({"tres_per_node": "gres/shard:1"}, None, 1),
        ({"tres_per_node": "gres/shard:1", "node_count": 2}, None, 4),
        ({"tres_per_node": "gres/gpu:1g.10gb:2"}, "gpu:1g.10gb:56", 7),
        ({"tres_per_node": "gres/gpu:1g.10gb:1"}, "gpu:1g.10gb:32,gpu:3g.40gb:8", 7),
        ({"tres_per_node": "gres/gpu:h200:1,gres/shard:1"}, None, 4),
    ],
)
def test_what_is_no_part_of_one_gpu_is_left_to_slurm(asks, gres, parts):
    queue, _ = seen(
        [pending(1, **asks)], site=site_with(parts, mig="1g" in (gres or "")), gres_of=gres and {"hgx": gres}
    )
    assert queue.jobs == ()
    assert re.match("asks for parts of GPUs that no node type", queue.left_out["1"])


def test_shards_that_run_are_planned_and_new_ones_join_them():
    rows = [
        running(1, 1, 5),
        running(2, 2, 5),
        running(3, 4, 6),
        pending(4, tres_per_node="gres/shard:1", time_limit=20),
    ]
    site = replace(site_with(4), power_limit_w=8 * IDLE_W["hgx"] + 4 * IDLE_W["pcie"] + 2 * (GPU_W["hgx"] - 200) + 1)
    _, snapshot = seen(rows, site=site)
    by_id = {one.job_id: (one.gpus, one.gpu_share, one.gpu_number) for one in snapshot.jobs}
    assert {by_id["1"], by_id["2"]} == {(0, "1/4", 5), (1, "1/2", 5)}
    assert snapshot.held[0].gpus == 1  # all four shards of a GPU: counted, as a whole GPU is
    free = replace(snapshot, left_out=(), held=())
    plan = make_plan(free, RoundSettings(workers=1), 0.3, created_s=0, log=Log(quiet=True))
    assert {entry.job_id: entry.beside for entry in plan.assignments}["4"] in ("1", "2")
    settings = SlurmSettings(licence="kw", licence_w=1000.0)
    licences = {one.job_id: one.values.get("lic") for one in desired_jobs(plan, settings, NOW_S)}
    assert licences == {"1": "2", "2": "2", "4": "2"}  # each may be the last one on its GPU


def test_mig_instances_count_a_gpu_each_and_more_of_them_as_the_whole_node():
    rows = [
        job(n, modern=False, nodes="gn01", gres_detail=["gpu:1g.10gb:1(IDX:0)"], node_count=1) for n in range(1, 12)
    ]
    _, snapshot = seen(rows, site=site_with(7, mig=True), gres_of={"hgx": "gpu:1g.10gb:56"})
    assert sum(one.gpus for one in snapshot.jobs) == 8
    assert (len(snapshot.left_out), snapshot.stale_nodes) == (3, ("gn01",))


@pytest.mark.parametrize(
    ("text", "gpus"),
    [
        ("shard:h200:1(IDX:3)", {3}),
        ("shard:h200:1(0/4,0/4,1/4,0/4)", {2}),
        ("gpu:h200:1(IDX:0),shard:h200:6(0/4,4/4,2/4)", {1, 2}),
        ("mps:50(50/100,0/100)", {0}),
        ("shard:h200:1(0/4,x/4)", set()),
    ],
)
def test_the_gpu_of_a_part_is_read_as_each_version_writes_it(text, gpus):
    """22.05 names the GPU; 24.11 has the parts of each GPU in their order, as seen on a cluster."""
    assert parse_gres(text).indices == gpus
