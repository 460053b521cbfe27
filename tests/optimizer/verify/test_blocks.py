"""The checker finds gangs outside their blocks; what the planner refuses says which block is too small."""

import random

import msgspec
import pytest

from powerhall.hostlist import compress, expand
from powerhall.jobs import Job
from powerhall.plan.plan import Placement, Snapshot, snapshot_hash
from powerhall.runtime.errors import Rejected
from powerhall.runtime.log import Log
from powerhall.site.topology import Block, BlockLevel, Hall, Losses, Mode, NodeType, Rack, RackRow, Site
from powerhall_optimizer.inputs.round_settings import RoundSettings
from powerhall_optimizer.inputs.snapshot import check_fit
from powerhall_optimizer.planning.explanation import job_explanation
from powerhall_optimizer.planning.planner import make_plan
from powerhall_optimizer.verify.plan import verify_plan

START_S = 1_700_000_100
replace = msgspec.structs.replace
KIND = NodeType("gb", "X", 4, 1000.0, 6000.0, 1000.0, 0.0, (Mode("full", "power_limit", 1500.0, 1.0),))
RACKS = tuple(Rack(f"h/r/k{k}", "gb", tuple(f"k{k}n{n}" for n in range(4))) for k in range(3))
DOMAINS = (Block("d0", "k0n[0-3],k1n[0-1]"), Block("d1", "k1n[2-3],k2n[0-2]"))
SITE = Site(
    "s1",
    (Hall("h", (RackRow("h/r", RACKS),), (), Losses()),),
    {"gb": KIND},
    levels=(BlockLevel("nvlink_domain", DOMAINS),),
)


def planned(*jobs, site=SITE, **fields):
    snapshot = Snapshot(START_S, START_S, 300, 12, site, jobs, **fields)
    plan = make_plan(snapshot, RoundSettings(workers=1), 0.5, created_s=START_S, log=Log(quiet=True))
    assert verify_plan(plan) == []
    return plan


def nodes_of(plan, job_id):
    (entry,) = [a for a in plan.assignments if a.job_id == job_id]
    return [node for placement in entry.placements for node in expand(placement.nodes)]


def moved(plan, job_id, nodes, gpus=4):
    """The plan with a job on other nodes."""
    rack_of = {node: rack.zone for rack in RACKS for node in rack.nodes}
    placements = tuple(Placement(rack_of[node], node, gpus) for node in nodes)
    entries = tuple(replace(a, placements=placements) if a.job_id == job_id else a for a in plan.assignments)
    return replace(plan, assignments=entries)


def kinds(plan):
    """Kinds of violations; figures of zones are those of the nodes before."""
    return {violation.kind for violation in verify_plan(plan)} - {"zones"}


def test_a_gang_stays_within_its_domain_and_the_checker_finds_one_that_does_not():
    plan = planned(Job("a", 20, 3600.0, within="nvlink_domain"))
    assert set(nodes_of(plan, "a")) <= {"k0n0", "k0n1", "k0n2", "k0n3", "k1n0", "k1n1"} or set(
        nodes_of(plan, "a")
    ) == set(expand(DOMAINS[1].nodes))
    assert kinds(moved(plan, "a", ["k0n0", "k0n1", "k0n2", "k0n3", "k1n2"])) == {"topology"}
    assert kinds(moved(plan, "a", ["k2n3", "k2n0", "k2n1", "k2n2", "k1n2"])) == {"topology"}  # k2n3 is in none


def test_parts_are_whole_within_each_block():
    plan = planned(Job("a", 24, 3600.0, within="nvlink_domain", block_nodes=3))
    assert kinds(moved(plan, "a", ["k0n0", "k0n1", "k0n2", "k1n2", "k1n3", "k2n0"])) == set()
    assert kinds(moved(plan, "a", ["k0n0", "k0n1", "k0n2", "k0n3", "k2n1", "k2n0"])) == {"topology"}


@pytest.mark.parametrize("level", ["rack", "row", "hall"])
def test_zones_are_levels_too(level):
    plan = planned(Job("a", 16, 3600.0, within=level), Job("b", 4, 3600.0, within=level))
    across = moved(plan, "a", ["k0n0", "k0n1", "k1n2", "k1n3"])
    assert kinds(across) - {"gpus", "gang"} == ({"topology"} if level == "rack" else set())


def test_a_job_that_runs_stays_where_it_is_and_blocks_count_what_it_leaves():
    runs = Job(
        "r", 8, 36_000.0, state="running", hall="h", mode="full", nodes="k0n0,k2n2", start_s=0.0, within="nvlink_domain"
    )
    plan = planned(runs, Job("five", 20, 3600.0, within="nvlink_domain"), Job("four", 16, 3600.0, within="rack"))
    assert set(nodes_of(plan, "five")) == {"k0n1", "k0n2", "k0n3", "k1n0", "k1n1"}
    (waits,) = [w for w in plan.waiting if w.job_id == "four"]
    assert waits.code in ("topology", "gpus")


def test_explain_says_which_block_has_how_many_nodes_free_and_which_level_has_enough():
    """Running jobs leave 3 of 6 and 5 of 5 nodes; 4 nodes of one rack are free nowhere."""
    runs = Job("r", 12, 36_000.0, state="running", hall="h", mode="full", nodes="k0n0,k1n0,k2n2", start_s=0.0)
    plan = planned(runs, Job("a", 16, 36_000.0, within="rack"))
    (waits,) = plan.waiting
    assert waits.code == "topology"
    lines = [line.strip() for line in job_explanation(plan, "a", "plan.json").lines if "blocks:" in line]
    start = "2023-11-14T22:15Z"
    assert (
        lines[0]
        == f"blocks: h/r/k0 has at most 3 of its 4 nodes free together, from {start}; the job needs 4 within rack"
    )
    assert (
        lines[-1]
        == f"blocks: nodes enough are free within row from {start}, hall from {start}, nvlink_domain from {start}"
    )
    assert job_explanation(plan, "r", "plan.json").lines


def test_a_job_that_no_block_holds_now_waits_for_topology():
    plan = planned(Job("a", 24, 3600.0, within="nvlink_domain"), down_nodes=("k0n0",))
    (waits,) = plan.waiting
    assert (waits.code, waits.reason) == ("topology", "needs 6 nodes within one nvlink_domain; the largest has 5")


@pytest.mark.parametrize(
    ("job", "says"),
    [
        (Job("a", 8, 60.0, within="pod"), "within: 'pod': must be one of rack, row, hall, nvlink_domain"),
        (
            Job("a", 28, 60.0, within="nvlink_domain"),
            "no hall's blocks of this level hold its 7 nodes; the largest has 6",
        ),
        (
            Job("a", 28, 60.0, within="rack", block_nodes=2),
            "block_nodes: 2: must divide the 7 nodes that the job takes",
        ),
        (
            Job("a", 48, 60.0, within="nvlink_domain", block_nodes=6),
            "hold its 12 nodes in parts of 6; the largest has 6",
        ),
    ],
)
def test_what_no_plan_can_place_is_refused_by_field(job, says):
    with pytest.raises(Rejected) as refused:
        check_fit(SITE, [job], "jobs.csv")
    assert says in str(refused.value)


def test_blocks_that_overlap_are_a_fault_of_the_plan():
    levels = (BlockLevel("nvlink_domain", (Block("d0", "k0n[0-3]"), Block("d1", "k0n3,k1n0"))),)
    plan = planned(Job("a", 8, 3600.0))
    snapshot = replace(plan.snapshot, site=replace(SITE, levels=levels))
    wrong = replace(plan, snapshot=snapshot, plan_id=snapshot_hash(snapshot))
    assert [str(v) for v in verify_plan(wrong)] == ["site: k0n3: is in two blocks of nvlink_domain"]


def test_nodes_at_random_are_found_out_exactly_when_a_part_is_split():
    """Random choices of nodes against the definition, written out once more."""
    draw = random.Random(1)
    nodes = [node for rack in RACKS for node in rack.nodes]
    domains = [set(expand(block.nodes)) for block in DOMAINS]
    seen = set()
    for each in (1, 2, 3, 6):
        plan = planned(Job("a", 24, 3600.0, within="nvlink_domain", block_nodes=each))
        for _ in range(40):
            chosen = draw.sample(nodes, 6)
            parts = sum(len(domain & set(chosen)) // each for domain in domains)
            holds = parts * each == 6
            seen.add((each, holds))
            assert ("topology" in kinds(moved(plan, "a", chosen))) == (not holds), (each, chosen)
    assert len(seen) >= 6


def test_ids_of_plans_without_blocks_stay():
    """The id of a snapshot that has no blocks does not see their fields."""
    plain = Snapshot(START_S, START_S, 300, 12, replace(SITE, levels=()), (Job("a", 8, 3600.0),))
    assert snapshot_hash(plain) == "f567cc93bcd05ce2dce43ff0e643c6e8d00fc4ea1a451ba101ea0c8f2632010c"
    assert snapshot_hash(replace(plain, jobs=(Job("a", 8, 3600.0, within="rack"),))) != snapshot_hash(plain)
    assert compress(expand(DOMAINS[0].nodes)) == DOMAINS[0].nodes
