"""Lookups over a site: nodes, zones of every kind, feeds, modes and the limits in force at a time."""

import msgspec
import pytest

from powerhall.site.index import SiteIndex, ZoneKind
from powerhall.site.topology import Feed, Hall, Losses, Mode, NodeType, Rack, RackRow, Site
from powerhall.timeseries import Series

FAST, SLOW = Mode("fast", "power_limit", 1000.0, 1.0), Mode("slow", "power_limit", 600.0, 0.8)
H100 = NodeType("h100", "H100", 8, 2000.0, 10_200.0, 3000.0, 0.7, (FAST, SLOW))
B200 = NodeType("b200", "B200", 4, 2000.0, 10_200.0, 3000.0, 0.7, (SLOW,))


def rack(zone: str, kind: str = "h100", limit_w: float | None = None) -> Rack:
    return Rack(zone, kind, tuple(f"{zone.replace('/', '-')}-n{i}" for i in (1, 2)), limit_w)


def hall(name: str, kind: str = "h100") -> Hall:
    rows = tuple(
        RackRow(f"{name}/{r}", tuple(rack(f"{name}/{r}/k{k}", kind, 9e3 if k == 1 else None) for k in (1, 2)))
        for r in ("x", "y")
    )
    return Hall(name, rows, (), Losses(), 5e4)


SITE = Site(
    "s",
    (hall("dc1.hall1"), hall("b", "b200")),
    {"h100": H100, "b200": B200},
    feeds=(
        Feed("f", ("dc1.hall1",), 1e6),
        Feed("g", ("b/x", "b/y/k1"), 1e6, "f"),
        Feed("h", ("dc1.hall1/x",), 1e6, "g"),
    ),
    budgets={
        "dc1.hall1": Series((0.0, 100.0), (9e4, 4e4)),
        "b/x": Series((0.0, 100.0), (7e3, 6e3)),
    },
)


@pytest.fixture
def index() -> SiteIndex:
    return SiteIndex.of(SITE)


def test_a_site_keeps_its_index_and_a_changed_copy_has_its_own():
    assert SiteIndex.of(SITE) is SiteIndex.of(SITE)
    changed = msgspec.structs.replace(SITE, power_limit_w=1.0)
    assert SiteIndex.of(changed).limits_w["s"] == 1.0
    assert SiteIndex.of(SITE).limits_w["s"] is None
    assert msgspec.json.decode(msgspec.json.encode(SITE), type=Site) == SITE


def test_a_node_leads_to_its_rack_row_hall_and_type(index):
    for lookup in SITE.halls:
        for row in lookup.rows:
            for place in row.racks:
                assert index.row_of_rack[place.zone] is row
                assert index.hall_of_rack[place.zone] is lookup
                for node in place.nodes:
                    assert index.rack_of[node] is place
                    assert index.hall_of(node) is lookup
                    assert index.node_type(node) is SITE.node_types[place.node_type]
    assert list(index.rack_of) == [node for place in SITE.racks() for node in place.nodes]
    assert index.gpus == 8 * 8 + 8 * 4


def test_every_zone_has_a_kind_and_a_limit_entry(index):
    assert list(index.kinds) == list(SITE.zones())
    assert set(index.limits_w) == set(SITE.zones())
    kinds = {"s": "site", "g": "feed", "dc1.hall1": "hall", "dc1.hall1/x": "row", "dc1.hall1/x/k1": "rack"}
    assert {zone: index.kinds[zone] for zone in kinds} == kinds
    assert [k for k in index.kinds.values() if k is ZoneKind.RACK] == [ZoneKind.RACK] * 8


def test_racks_under_a_zone_of_any_kind(index):
    assert len(index.racks_under("s")) == 8
    assert [r.zone for r in index.racks_under("dc1.hall1/x")] == ["dc1.hall1/x/k1", "dc1.hall1/x/k2"]
    assert [r.zone for r in index.racks_under("b/y/k1")] == ["b/y/k1"]
    assert index.racks_under("dc1.hall1") == tuple(SITE.halls[0].racks())
    below = [place.zone for place in index.racks_under("f")]
    assert len(below) == len(set(below)) == 4 + 3
    assert [r.zone for r in index.racks_under("h")] == ["dc1.hall1/x/k1", "dc1.hall1/x/k2"]
    with pytest.raises(KeyError):
        index.racks_under("dc1")


def test_zones_above_a_rack_hold_its_hall_row_and_every_feed_that_carries_it(index):
    assert index.zones_above("dc1.hall1/x/k1") == ("dc1.hall1", "dc1.hall1/x", "dc1.hall1/x/k1", "f", "g", "h")
    assert index.zones_above("b/y/k2") == ("b", "b/y", "b/y/k2")
    for place in SITE.racks():
        assert all(place in index.racks_under(zone) for zone in index.zones_above(place.zone))


def test_feeds_above_a_feed_end_at_a_cycle_and_are_none_for_other_zones(index):
    assert index.feeds_above("h") == ("h", "g", "f")
    assert index.feeds_above("dc1.hall1") == index.feeds_above("nowhere") == ()
    loop = msgspec.structs.replace(SITE, feeds=(Feed("f", (), 1.0, "g"), Feed("g", (), 1.0, "f")))
    assert SiteIndex.of(loop).feeds_above("f") == ("f", "g")


def test_a_mode_is_found_by_its_name(index):
    assert index.mode("h100", "slow") is SLOW
    assert H100.find_mode("turbo") is H100.find_mode(None) is None
    with pytest.raises(KeyError, match="fast"):
        index.mode("b200", "fast")


@pytest.mark.parametrize(
    ("zone", "before_w", "after_w"),
    [
        ("dc1.hall1", 5e4, 4e4),
        ("b/x", 7e3, 6e3),
        ("b", 5e4, 5e4),
        ("b/x/k1", 9e3, 9e3),
        ("s", None, None),
        ("nowhere", None, None),
    ],
)
def test_the_limit_in_force_is_the_lower_of_the_constant_one_and_its_series(index, zone, before_w, after_w):
    assert index.budget_at(zone, 99.0) == before_w
    assert index.budget_at(zone, 100.0) == after_w
    assert index.budgets_at(100.0).get(zone) == after_w


def test_limits_in_force_are_those_of_zones_that_have_one(index):
    found = index.budgets_at(0.0)
    assert set(found) == {"f", "g", "h", "dc1.hall1", "b", "b/x", *(r.zone for r in SITE.racks() if r.power_limit_w)}
