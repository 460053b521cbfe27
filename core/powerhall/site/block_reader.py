"""Levels of blocks of site.toml into `BlockLevel`; a refusal names file, field, value and what is allowed."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from powerhall.hostlist import compress, expand
from powerhall.runtime.errors import Rejected
from powerhall.site import site_tables as tables
from powerhall.site.index import ZONE_LEVELS, SiteIndex
from powerhall.site.topology import Block, BlockLevel, Site
from powerhall.site.topology_files import read_topology

__all__ = ["read_levels"]


def read_levels(path: Path, raw: tables.SiteFile, site: Site) -> tuple[BlockLevel, ...]:
    """Return the levels of a site file, without those that every site has; a wrong one raises Rejected."""
    return tuple(_LevelReader(path, name, table, site).level() for name, table in raw.blocks.items())


class _LevelReader:
    def __init__(self, path: Path, name: str, raw: tables.BlocksTable, site: Site) -> None:
        self.path = path
        self.name = name
        self.field = f"blocks.{name}"
        self.raw = raw
        self.site = site
        self.index = SiteIndex.of(site)

    def refuse(self, field: str, value: object, allowed: str) -> Rejected:
        return Rejected.field(str(self.path), f"{self.field}{field}", value, allowed)

    def level(self) -> BlockLevel:
        if not tables.is_name(self.name) or self.name in ZONE_LEVELS:
            allowed = f"{tables.NAME}, and none of {', '.join(ZONE_LEVELS)}, which every site has"
            raise self.refuse("", self.name, allowed)
        given = [key for key in ("each", "members", "file") if getattr(self.raw, key) is not None]
        if len(given) != 1:
            raise self.refuse("", " and ".join(given) or None, "must have exactly one of each, members, file")
        self._alone(given[0])
        blocks = {"each": self._each, "members": self._members, "file": self._file}[given[0]]()
        return BlockLevel(self.name, self._disjoint(blocks), self.raw.label or "")

    def _alone(self, source: str) -> None:
        """Refuse keys that mean nothing beside this source of the blocks."""
        of_source = {"nodes": "each", "node_types": "each", "topology": "file"}
        for key, needs in of_source.items():
            if getattr(self.raw, key) and source != needs:
                raise self.refuse(f".{key}", getattr(self.raw, key), f"needs {needs!r}")
        for kind in self.raw.node_types:
            if kind not in self.site.node_types:
                raise self.refuse(".node_types", kind, f"must be one of {', '.join(sorted(self.site.node_types))}")

    def _each(self) -> Mapping[str, Sequence[str]]:
        found: dict[str, Sequence[str]] = {}
        zones = {"rack": self.index.racks, "row": self.index.rows, "hall": self.index.halls}[self.raw.each or "rack"]
        for zone in zones:
            racks = self.index.racks_under(zone)
            nodes = [n for r in racks if r.node_type in (self.raw.node_types or (r.node_type,)) for n in r.nodes]
            if self.raw.nodes is None:
                found[zone] = nodes
            else:
                size = self.raw.nodes
                parts = [nodes[first : first + size] for first in range(0, len(nodes), size)]
                found |= {f"{zone}/{number}": part for number, part in enumerate(parts, 1)}
        return found

    def _members(self) -> Mapping[str, Sequence[str]]:
        found: dict[str, Sequence[str]] = {}
        for name, members in (self.raw.members or {}).items():
            if not tables.is_name(name):
                raise self.refuse(".members", name, tables.NAME)
            found[name] = [node for member in members for node in self._nodes_of(name, member)]
        return found

    def _nodes_of(self, block: str, member: str) -> Iterator[str]:
        if member in self.index.kinds:
            yield from (node for rack in self.index.racks_under(member) for node in rack.nodes)
            return
        try:
            names = expand(member)
        except ValueError as error:
            raise self.refuse(f".members.{block}", member, str(error)) from None
        for name in names:
            if name not in self.index.rack_of:
                raise self.refuse(f".members.{block}", name, "must be a node or a zone of the site")
        yield from names

    def _file(self) -> Mapping[str, Sequence[str]]:
        file = self.path.parent / (self.raw.file or "")
        found = read_topology(file, self.raw.topology, self.raw.tier, self.raw.label)
        known = {name: [n for n in nodes if n in self.index.rack_of] for name, nodes in found.items()}
        if not any(known.values()):
            example = next((node for nodes in found.values() for node in nodes), None)
            raise self.refuse(".file", self.raw.file, f"must name nodes of the site; it has {example!r}")
        return known

    def _disjoint(self, blocks: Mapping[str, Sequence[str]]) -> tuple[Block, ...]:
        seen: dict[str, str] = {}
        for name, nodes in blocks.items():
            for node in nodes:
                if node in seen:
                    allowed = f"is in the blocks {seen[node]} and {name}; a node is in one block of a level at most"
                    raise self.refuse("", node, allowed)
                seen[node] = name
        found = tuple(Block(name, compress(nodes)) for name, nodes in blocks.items() if nodes)
        if not found:
            raise self.refuse("", None, "must have at least one block with nodes")
        return found
