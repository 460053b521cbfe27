"""A job larger than a node has its nodes to itself, also on the last one, which it does not fill."""

import msgspec
import pytest

from powerhall.hostlist import expand
from powerhall.jobs import Job
from powerhall.plan.plan import Placement, Snapshot
from powerhall.runtime.log import Log
from powerhall.site.site_file import read_site
from powerhall_optimizer.inputs.round_settings import RoundSettings
from powerhall_optimizer.planning.planner import make_plan
from powerhall_optimizer.verify.plan import verify_plan

START_S = 1_700_000_100
SITE = """
[site]
name = "s1"
[node_types.h]
gpu = "H100"
gpus = 8
idle_power = "1.8 kW"
max_power = "10.2 kW"
modes = [{name = "p700", gpu_power = "970 W", speed = 1.0}]
[[halls]]
name = "hall1"
rows = [{name = "a", racks = [{node_type = "h", name = "r", nodes = "gn[01-03]"}]}]
"""
replace = msgspec.structs.replace


@pytest.fixture
def planned(tmp_path):
    (tmp_path / "site.toml").write_text(SITE)
    site, _ = read_site(tmp_path / "site.toml")

    def plan(*jobs):
        snapshot = Snapshot(START_S, START_S, 300, 12, site, jobs)
        found = make_plan(snapshot, RoundSettings(), 1.0, created_s=START_S, log=Log(quiet=True))
        assert verify_plan(found) == []
        return found

    return plan


def nodes_of(plan, job_id):
    (entry,) = [a for a in plan.assignments if a.job_id == job_id]
    return {node for placement in entry.placements for node in expand(placement.nodes)}


def test_nothing_starts_on_the_last_node_of_a_gang(planned):
    plan = planned(Job("gang", 12, 36_000.0, weight=50.0), *(Job(f"s{i}", 4, 36_000.0) for i in range(6)))
    gang = nodes_of(plan, "gang")
    assert len(gang) == 2
    small = [nodes_of(plan, a.job_id) for a in plan.assignments if a.job_id != "gang"]
    assert len(small) == 2
    assert not any(gang & nodes for nodes in small)


def test_nothing_starts_beside_a_gang_that_runs(planned):
    runs = Job("r", 12, 36_000.0, state="running", hall="hall1", mode="p700", nodes="gn[01-02]", start_s=0.0)
    plan = planned(runs, *(Job(f"s{i}", 4, 36_000.0) for i in range(6)))
    assert all(nodes_of(plan, a.job_id) == {"gn03"} for a in plan.assignments if a.job_id != "r")


def test_the_checker_finds_a_job_beside_a_gang(planned):
    plan = planned(Job("gang", 12, 36_000.0, weight=50.0), Job("s", 4, 36_000.0))
    part = next(p for a in plan.assignments if a.job_id == "gang" for p in a.placements if p.gpus_per_node == 4)
    beside = (Placement(part.rack, part.nodes, 4),)
    moved = tuple(replace(a, placements=beside) if a.job_id == "s" else a for a in plan.assignments)
    assert "gang" in {violation.kind for violation in verify_plan(replace(plan, assignments=moved))}


def test_the_bound_counts_the_whole_nodes_of_gangs(planned):
    """Two gangs of 12 on three nodes of 8 have GPUs enough and nodes too few: the bound is that of one and a half."""
    one = planned(Job("a", 12, 3600.0))
    two = planned(Job("a", 12, 3600.0), Job("b", 12, 3600.0))
    assert one.value <= two.value <= two.bound <= 1.55 * one.value
