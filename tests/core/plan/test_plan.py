"""Plan files: ids stay the same, and an invalid file is refused in one line."""

import msgspec
import pytest

from powerhall.jobs.model import Job
from powerhall.physics.plants.plant import Plant
from powerhall.plan.multi_site import MultiSitePlan, multi_site_hash, read_multi_site_plan, read_plans
from powerhall.plan.plan import Assignment, Placement, Plan, Planned, Snapshot, read_plan, snapshot_hash, write_plan
from powerhall.runtime.errors import ConfigError, Rejected
from powerhall.site.index import SiteIndex
from powerhall.site.storage import Storage
from powerhall.site.topology import Feed, Hall, JobClass, Losses, Mode, NodeType, Rack, RackRow, Site
from powerhall.timeseries import Series

KIND = NodeType("h100", "H100", 8, 2000.0, 10_200.0, 3000.0, 0.7, (Mode("full", "power_limit", 1200.0, 1.0),))
HALL = Hall(
    "dc1.hall1",
    (RackRow("dc1.hall1/r1", (Rack("dc1.hall1/r1/k01", "h100", ("n1", "n2"), 3e4),)),),
    (Plant("p", "tower_chiller", 1e6),),
    Losses(10.0, 0.02, 1e-9),
    5e4,
)
SITE = Site(
    "dc1",
    (HALL,),
    {"h100": KIND},
    {"pretrain": JobClass("pretrain", {"full": 0.9})},
    (Feed("f", ("dc1.hall1",), 1e6),),
    1e6,
    {"dc1": Series((0.0,), (9e5,))},
    (Storage("b", "battery", "dc1", 1e3, 1e3, 1e6, 5e5, 5e5),),
)
SNAPSHOT = Snapshot(0, 0, 900, 4, SITE, (Job("a", 8, 60.0),), margin_w={"f": 5.0})
ID = "4276d5767ff627f4c0abf5b3a09ad4414959b2e31cf6bedfd94fe00df9eb44d2"


def test_the_id_of_a_snapshot_stays_as_it_was():
    assert snapshot_hash(SNAPSHOT) == ID


def test_the_id_depends_neither_on_the_last_plan_nor_on_lookups():
    SiteIndex.of(SITE).budgets_at(0.0)
    last = (Planned("a", "dc1.hall1", "full", 0),)
    assert snapshot_hash(msgspec.structs.replace(SNAPSHOT, planned=last)) == ID
    assert snapshot_hash(msgspec.structs.replace(SNAPSHOT, timezone="Europe/Berlin")) == ID, "what readers see alone"
    assert snapshot_hash(msgspec.structs.replace(SNAPSHOT, slots=5)) != ID
    assert multi_site_hash([SNAPSHOT], SNAPSHOT.jobs) != ID


@pytest.fixture
def plan() -> Plan:
    return Plan(1, ID, 0, "feasible", 1, 2, 0.5, (), (), (), SNAPSHOT)


def test_a_plan_is_read_back_as_it_was_written(plan, tmp_path):
    write_plan(plan, tmp_path / "plan.json")
    assert read_plan(tmp_path / "plan.json") == read_plans(tmp_path / "plan.json") == plan


def test_a_plan_that_does_not_fit_is_refused_in_one_line(plan, tmp_path):
    path = tmp_path / "plan.json"
    text = msgspec.json.encode(plan).decode()
    for old, new, said in (
        ('"version":1', '"version":9', "version: 9: must be 1 or 2"),
        ('"feasible"', '"perfect"', "status: 'perfect': must be one of optimal, feasible, fallback"),
        ('"tower_chiller"', '"no_such_plant"', "kind 'no_such_plant': must be one of fixed, dry_cooler, tower_chiller"),
        ('"battery"', '"flywheel"', "snapshot.site.storages[0].kind: 'flywheel': must be one of battery, tank, loop"),
        ('"gap":0.5', '"gap":"small"', "gap: 'small': expected `float`, got `str`"),
        ("}]", "", "plan.json"),
    ):
        assert old in text
        path.write_text(text.replace(old, new, 1))
        with pytest.raises(Rejected) as caught:
            read_plan(path)
        assert said in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("nodes", ["gn[-1-02]", "gn[]", "gn[01", "gn[2-1]", "gn[1-2000000]", ",", "x" * 300 + "[1-2]"])
@pytest.mark.parametrize("place", ["placement", "job", "part"])
def test_a_malformed_host_list_in_a_plan_is_refused_where_the_plan_is_read(plan, tmp_path, nodes, place):
    """Every reader of a plan expands them, and none looks for errors."""
    placed = Assignment("a", "dc1.hall1", "h100", "full", 8, 1200.0, 0, 60, (Placement("k01", nodes, 8),))
    changed = msgspec.structs.replace(plan, assignments=(placed,))
    if place == "job":
        job = Job("a", 8, 60.0, state="running", nodes=nodes)
        changed = msgspec.structs.replace(plan, snapshot=msgspec.structs.replace(SNAPSHOT, jobs=(job,)))
    path = tmp_path / "plan.json"
    if place == "part":
        several = MultiSitePlan(1, ID, 0, "feasible", 1, 2, 0.5, (), (changed,), None)
        path.write_bytes(msgspec.json.encode(several))
    else:
        write_plan(changed, path)
    with pytest.raises(Rejected, match="a: ") as caught:
        read_plans(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("change", [{"gpus": 10**9}, {"gpus": 0}, {"speed": 0.0}, {"speed": 5e-324}, {"speed": -1.0}])
def test_node_types_that_no_site_file_has_are_refused_in_a_plan(plan, tmp_path, change):
    """Reports make a list of the GPUs of a node, and `verify` divides by the speed."""
    kind = msgspec.structs.replace(KIND, gpus=change.get("gpus", 8))
    kind = msgspec.structs.replace(kind, modes=(Mode("full", "power_limit", 1200.0, change.get("speed", 1.0)),))
    site = msgspec.structs.replace(SITE, node_types={"h100": kind})
    changed = msgspec.structs.replace(plan, snapshot=msgspec.structs.replace(SNAPSHOT, site=site))
    write_plan(changed, tmp_path / "plan.json")
    with pytest.raises(Rejected, match=r"h100.*must be"):
        read_plan(tmp_path / "plan.json")


def test_host_lists_of_a_plan_are_bounded_together(plan, tmp_path):
    """Each has a million names at most; a thousand of them would take hours."""
    placed = Assignment("a", "h", "h100", "full", 8, 1.0, 0, 60, (Placement("k01", "gn[1-900000]", 8),) * 1000)
    write_plan(msgspec.structs.replace(plan, assignments=(placed,)), tmp_path / "plan.json")
    with pytest.raises(Rejected, match="4,000,000 nodes with all others"):
        read_plan(tmp_path / "plan.json")


def test_a_plan_of_several_sites_is_no_plan_of_one(plan, tmp_path):
    path = tmp_path / "plan.json"
    path.write_text('{"plans": [1]}')
    with pytest.raises(Rejected, match="must be the plan of one site"):
        read_plan(path)
    write_plan(plan, path)
    with pytest.raises(Rejected):
        read_multi_site_plan(path)
    with pytest.raises(ConfigError, match="No such file"):
        read_plans(tmp_path / "nowhere.json")
