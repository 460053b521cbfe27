"""Lookups over one site: nodes, racks, rows, halls, feeds, power modes, and the limits in force at a time.

Every table is built on first use and once per site, so that a lookup costs no walk over the nodes. Zone ids are opaque:
containment follows from the topology, never from the characters of a name.
"""

from collections.abc import Mapping
from enum import StrEnum
from functools import cached_property

from powerhall.hostlist import expand
from powerhall.site.topology import Feed, Hall, Mode, NodeType, Rack, RackRow, Site

__all__ = ["ZONE_LEVELS", "SiteIndex", "ZoneKind"]

ZONE_LEVELS = ("rack", "row", "hall")
"""Levels of blocks that every site has: its zones."""


class ZoneKind(StrEnum):
    """The kind of zone that a zone id names."""

    SITE = "site"
    FEED = "feed"
    HALL = "hall"
    ROW = "row"
    RACK = "rack"


class SiteIndex:
    """Lookups over a site; get it with `SiteIndex.of(site)`. Unknown names raise KeyError unless the method says so.

    Invariant: a site never changes, so neither does its index. A changed copy of a site has an index of its own.
    """

    def __init__(self, site: Site) -> None:
        self.site = site

    @classmethod
    def of(cls, site: Site) -> "SiteIndex":
        """Return the index of a site, built once and kept with it."""
        kept = site.__dict__.get("_index")
        if isinstance(kept, cls):
            return kept
        made = cls(site)
        site.__dict__["_index"] = made
        return made

    @cached_property
    def halls(self) -> Mapping[str, Hall]:
        """Halls by zone id, in order."""
        return {hall.zone: hall for hall in self.site.halls}

    @cached_property
    def rows(self) -> Mapping[str, RackRow]:
        """Rows by zone id, in order."""
        return {row.zone: row for hall in self.site.halls for row in hall.rows}

    @cached_property
    def racks(self) -> Mapping[str, Rack]:
        """Racks by zone id, in order."""
        return {rack.zone: rack for rack in self.site.racks()}

    @cached_property
    def feeds(self) -> Mapping[str, Feed]:
        """Feeds by zone id, in order."""
        return {feed.zone: feed for feed in self.site.feeds}

    @cached_property
    def rack_of(self) -> Mapping[str, Rack]:
        """The rack of every node; its keys are all nodes of the site, in the order of halls, rows and racks."""
        return {node: rack for rack in self.site.racks() for node in rack.nodes}

    @cached_property
    def row_of_rack(self) -> Mapping[str, RackRow]:
        """The row of every rack, by the rack's zone id."""
        return {rack.zone: row for hall in self.site.halls for row in hall.rows for rack in row.racks}

    @cached_property
    def hall_of_rack(self) -> Mapping[str, Hall]:
        """The hall of every rack, by the rack's zone id."""
        return {rack.zone: hall for hall in self.site.halls for rack in hall.racks()}

    @cached_property
    def kinds(self) -> Mapping[str, ZoneKind]:
        """The kind of every zone id; its keys are all zones of the site, in the order of `Site.zones`."""
        kinds = dict.fromkeys(self.site.zones(), ZoneKind.RACK)
        kinds |= dict.fromkeys(self.rows, ZoneKind.ROW)
        kinds |= dict.fromkeys(self.halls, ZoneKind.HALL)
        kinds |= dict.fromkeys(self.feeds, ZoneKind.FEED)
        kinds[self.site.name] = ZoneKind.SITE
        return kinds

    @cached_property
    def limits_w(self) -> Mapping[str, float | None]:
        """The constant power limit of every zone in W, None where it has none."""
        limits: dict[str, float | None] = {self.site.name: self.site.power_limit_w}
        limits |= {feed.zone: feed.power_limit_w for feed in self.site.feeds}
        for hall in self.site.halls:
            limits[hall.zone] = hall.power_limit_w
            limits |= {row.zone: row.power_limit_w for row in hall.rows}
            limits |= {rack.zone: rack.power_limit_w for rack in hall.racks()}
        return limits

    @cached_property
    def block_levels(self) -> Mapping[str, Mapping[str, str]]:
        """Per level of blocks the name of every node's block; nodes in no block of a level are absent."""
        found: dict[str, Mapping[str, str]] = {
            "rack": {node: rack.zone for node, rack in self.rack_of.items()},
            "row": {node: self.row_of_rack[rack.zone].zone for node, rack in self.rack_of.items()},
            "hall": {node: self.hall_of_rack[rack.zone].zone for node, rack in self.rack_of.items()},
        }
        for level in self.site.levels:
            found[level.name] = {node: block.name for block in level.blocks for node in expand(block.nodes)}
        return found

    @cached_property
    def gpus(self) -> int:
        """GPUs of the whole site."""
        return sum(self.rack_gpus(rack) for rack in self.site.racks())

    @cached_property
    def _carriers(self) -> Mapping[str, tuple[str, ...]]:
        found: dict[str, list[str]] = {}
        for hall in self.site.halls:
            for row in hall.rows:
                for rack in row.racks:
                    found[rack.zone] = [hall.zone, row.zone, rack.zone]
        for feed in self.site.feeds:
            for rack in self._feed_racks[feed.zone]:
                found[rack.zone].append(feed.zone)
        return {rack: tuple(zones) for rack, zones in found.items()}

    @cached_property
    def _feed_racks(self) -> Mapping[str, tuple[Rack, ...]]:
        return {feed.zone: self._racks_of_feed(feed) for feed in self.site.feeds}

    def _racks_of_feed(self, feed: Feed) -> tuple[Rack, ...]:
        below = {feed.zone}
        while grown := {f.zone for f in self.site.feeds if f.parent in below} - below:
            below |= grown
        members = {member for f in self.site.feeds if f.zone in below for member in f.members}
        return tuple(
            rack
            for hall in self.site.halls
            for row in hall.rows
            for rack in row.racks
            if not members.isdisjoint((hall.zone, row.zone, rack.zone))
        )

    def racks_under(self, zone: str) -> tuple[Rack, ...]:
        """Return all racks of a zone of any kind in order, each once; of a feed, those of its child feeds too."""
        kind = self.kinds[zone]
        if kind is ZoneKind.FEED:
            return self._feed_racks[zone]
        if kind is ZoneKind.HALL:
            return tuple(self.halls[zone].racks())
        if kind is ZoneKind.ROW:
            return self.rows[zone].racks
        return (self.racks[zone],) if kind is ZoneKind.RACK else tuple(self.site.racks())

    def zones_above(self, rack: str) -> tuple[str, ...]:
        """Return the zones that carry a rack: its hall, its row, the rack itself, then its feeds; not the site."""
        return self._carriers[rack]

    def feeds_above(self, zone: str) -> tuple[str, ...]:
        """Return the feed of this name and every feed that it hangs under; nothing for other zones."""
        found: list[str] = []
        feed = self.feeds.get(zone)
        while feed is not None and feed.zone not in found:
            found.append(feed.zone)
            feed = None if feed.parent is None else self.feeds.get(feed.parent)
        return tuple(found)

    def hall_of(self, node: str) -> Hall:
        """Return the hall of a node."""
        return self.hall_of_rack[self.rack_of[node].zone]

    def node_type(self, node: str) -> NodeType:
        """Return the type of a node."""
        return self.site.node_types[self.rack_of[node].node_type]

    def type_in_hall(self, hall: str | None, node: str | None) -> str | None:
        """Return the type of a hall's node, of the hall's first rack without a node; None where either is unknown."""
        place = self.halls.get(hall or "")
        if place is None:
            return None
        rack = next(place.racks(), None) if node is None else self.rack_of.get(node)
        return None if rack is None or self.hall_of_rack[rack.zone] is not place else rack.node_type

    def rack_type(self, rack: Rack) -> NodeType:
        """Return the type of a rack's nodes."""
        return self.site.node_types[rack.node_type]

    def rack_gpus(self, rack: Rack) -> int:
        """Return the GPUs of a rack."""
        return self.site.node_types[rack.node_type].gpus * len(rack.nodes)

    def mode(self, node_type: str, name: str) -> Mode:
        """Return a power mode of a node type."""
        return self.site.node_types[node_type].mode(name)

    def budget_at(self, zone: str, time_s: float) -> float | None:
        """Return the limit of a zone in force at a time in W: the lower of the constant one and its time series.

        None for a zone without a limit, and for a zone that the site does not have.
        """
        limit_w, series = self.limits_w.get(zone), self.site.budgets.get(zone)
        if series is None:
            return limit_w
        now_w = series.at(time_s)
        return now_w if limit_w is None else min(limit_w, now_w)

    def budgets_at(self, time_s: float) -> dict[str, float]:
        """Return the limit in force at a time in W of every zone that has one."""
        found = {zone: self.budget_at(zone, time_s) for zone in self.limits_w}
        return {zone: budget_w for zone, budget_w in found.items() if budget_w is not None}
