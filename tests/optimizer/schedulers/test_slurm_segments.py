"""Segments of Slurm (`--segment`): each in one of the site's blocks, in the plan and on a Slurm that has them."""

import json

import msgspec
import pytest

from powerhall.hostlist import expand
from powerhall.runtime.log import Log
from powerhall.site.topology import Block, BlockLevel
from powerhall_optimizer.inputs.round_settings import RoundSettings
from powerhall_optimizer.planning.planner import make_plan
from rigs import slurm as rig
from rigs.slurm_world import SITE, job, number, pending, seen

BLOCKS = (Block("b1", "gn[01-03]"), Block("b2", "gn[04-05]"), Block("b3", "gn[06-08]"))
PODS = (Block("west", "gn[01-05]"), Block("east", "gn[06-08]"))
BLOCKED = msgspec.structs.replace(SITE, levels=(BlockLevel("pod", PODS), BlockLevel("domain", BLOCKS)))


def segmented(segment, nodes=4, **more):
    asks = {"tres_per_node": "gres/gpu:h200:8", "node_count": number(nodes, modern=True)}
    return pending(1, **asks, segment_size=segment, **more)


def test_every_segment_lies_in_one_of_the_smallest_blocks():
    queue, snapshot = seen([segmented(2)], site=BLOCKED)
    assert [(one.gpus, one.within, one.block_nodes) for one in queue.jobs] == [(32, "domain", 2)]
    plan = make_plan(snapshot, RoundSettings(workers=1), 0.5, created_s=0, log=Log(quiet=True))
    (start,) = plan.assignments
    nodes = {node for place in start.placements for node in expand(place.nodes)}
    taken = [len(nodes & set(expand(block.nodes))) for block in BLOCKS]
    assert sum(taken) == 4
    assert all(count % 2 == 0 for count in taken)


@pytest.mark.parametrize("segment", [0, {"set": False, "infinite": False, "number": 0}, None])
def test_a_job_without_segments_is_free_in_its_blocks(segment):
    queue, _ = seen([segmented(segment)], site=BLOCKED)
    assert [(one.within, one.block_nodes) for one in queue.jobs] == [(None, None)]


def test_segments_without_blocks_in_the_site_file_are_left_to_slurm_and_said():
    queue, _ = seen([segmented(2)])
    assert queue.jobs == ()
    assert "segments of 2 nodes, and the site file names no blocks" in queue.left_out["1"]


def test_one_that_runs_is_counted_where_it_is():
    runs = job(1, nodes="gn[01,04]", node_count=number(2, modern=True), segment_size=2,
               tres_alloc_str="gres/gpu=16,gres/gpu:h200=16")  # fmt: skip
    queue, _ = seen([runs], site=BLOCKED)
    assert [(one.state, one.nodes, one.within) for one in queue.jobs] == [("running", "gn[01,04]", None)]


@pytest.mark.rig
@pytest.mark.slow
@pytest.mark.skipif(bool(rig.missing()) or rig.installed_version() < (26, 5), reason="Slurm 26.05 says segments")
def test_slurm_says_the_segments_of_a_job(root):
    def blocks(folder):
        with (folder / "slurm.conf").open("a") as conf:
            conf.write("TopologyPlugin=topology/block\n")
        text = "BlockName=b1 Nodes=gn[01-02]\nBlockName=b2 Nodes=gn[03-04]\nBlockSizes=2\n"
        (folder / "topology.conf").write_text(text)

    with rig.start(root / "deploy/slurm/job_submit.lua", nodes=4, change=blocks) as slurm:
        slurm.submit("-N4", "--segment=2", "--gres=gpu:8", "-t", "5", "--begin=now+900")
        (found,) = json.loads(slurm.run("squeue", "--json"))["jobs"]
    assert found["segment_size"] == 2 or found["segment_size"]["number"] == 2
