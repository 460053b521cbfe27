"""Names of zones and nodes in a site file as it stands, also in pieces of it that are wrong otherwise."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from powerhall.runtime.errors import PowerhallError

__all__ = ["RawNames", "raw_names"]

Json = Mapping[str, object]
Nodes = Callable[[str, str, int | str], tuple[str, ...]]
"""Reads the nodes of a rack: the field, its zone, and a count or a host list."""
_MOST_RACKS = 10_000
_VALUE = re.compile(r": '([^']*)': ")


@dataclass(frozen=True, slots=True)
class RawNames:
    """Zones and node types, and nodes as often as racks name them; `are_whole` where no name was unreadable."""

    zones: frozenset[str] = frozenset()
    nodes: tuple[str, ...] = ()
    are_whole: bool = False

    def is_nowhere(self, line: str) -> bool:
        """Whether the name that a refusal is about stands nowhere in the file."""
        found = _VALUE.search(line)
        return self.are_whole and found is not None and found[1] not in self.zones and found[1] not in self.nodes


def raw_names(data: Json, nodes: Nodes) -> RawNames:
    """Return the names of a site file; `nodes` reads those of a rack."""
    zones: set[str] = {name for feed in _tables(data, "feeds") if isinstance(name := feed.get("name"), str)}
    kinds, site = data.get("node_types"), data.get("site")
    zones |= kinds.keys() if isinstance(kinds, dict) else set()
    if isinstance(site, dict) and isinstance(site.get("name"), str):
        zones.add(site["name"])
    found: list[str] = []
    whole = True
    for zone, listed in _zones(data):
        if zone is None or (listed is not None and not isinstance(listed, int | str)):
            whole = False
            continue
        zones.add(zone)
        try:
            found += () if listed is None else nodes("", zone, listed)
        except PowerhallError:
            whole = False
    return RawNames(frozenset(zones), tuple(found), whole)


def _zones(data: Json) -> Iterator[tuple[str | None, object]]:
    """Yield halls, rows and racks by name, None where there is none, with the nodes of racks as they are written."""
    for hall in _tables(data, "halls"):
        of_hall = _name(hall)
        yield of_hall, None
        for row in _tables(hall, "rows"):
            name = _name(row)
            of_row = None if of_hall is None or name is None else f"{of_hall}/{name}"
            yield of_row, None
            for rack in _tables(row, "racks"):
                yield from ((of_row and f"{of_row}/{name}", rack.get("nodes", "")) for name in _racks(rack))


def _racks(rack: Json) -> Iterator[str]:
    """Yield the names of the racks that one entry stands for, as the site file's reader gives them."""
    base, count = rack.get("name", "k"), rack.get("count", 1)
    if isinstance(base, str) and isinstance(count, int) and 1 <= count <= _MOST_RACKS:
        single = count == 1 and "name" in rack
        yield from [base] if single else (f"{base}{i + 1:02d}" for i in range(count))


def _name(table: Json) -> str | None:
    name = table.get("name")
    return name if isinstance(name, str) and "/" not in name else None


def _tables(data: Json, key: str) -> Iterator[Json]:
    found = data.get(key)
    yield from (entry for entry in found if isinstance(entry, dict)) if isinstance(found, list) else ()
