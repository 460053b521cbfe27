"""Plan files: ids stay the same, and an invalid file is refused in one line."""

import msgspec
import pytest

from powerhall.jobs.model import Job
from powerhall.physics.plants.plant import Plant
from powerhall.plan.multi_site import multi_site_hash, read_multi_site_plan, read_plans
from powerhall.plan.plan import Plan, Planned, Snapshot, read_plan, snapshot_hash, write_plan
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
        ('"version":1', '"version":9', "version: 9: must be 1"),
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
