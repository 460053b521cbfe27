"""Which of a service's chassis is the host: by what the host's system links, by type, by what holds what.

A service may list parts (GPUs and their baseboard, NVSwitches, supplies) and what holds several hosts (enclosures,
racks) as chassis, in any order.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from powerhall_agent.redfish.values import Document, link, links, text, word_list

__all__ = ["PART_WORDS", "identifier", "rank"]

PART_WORDS: Final = frozenset(
    word_list(
        "hgx gpu gpus sxm oam ubb switch nvlink retimer pcie fpga erot irot cpld psu supply dpu bluefield nic fan "
        "fans drive drives backplane riser midplane dimm bridge nvme storage shelf"
    )
)
"""Words in the ids of parts."""
_PART_TYPES: Final = frozenset(("module", "component", "card", "cartridge", "zone", "drawer", "expansion", "storage"))
_HOLDER_TYPES: Final = frozenset(
    ("enclosure", "rack", "rackgroup", "row", "pod", "shelf", "sidecar", "facility", "storageenclosure", "powerstrip")
)
_SERVER_TYPES: Final = frozenset(("rackmount", "standalone", "blade", "sled", "node"))
_REASONS: Final = (
    "the host's system names it",
    "holds what the host's system names",
    "is part of what the host's system names",
    "has the type of a server",
    "is no part of another",
    "nothing else belongs to the host's system",
)


def identifier(path: str) -> str:
    """Return the last part of a path."""
    return path.rstrip("/").rpartition("/")[2]


def rank(chassis: Mapping[str, Document], linked: Sequence[str], hosts: Sequence[str]) -> list[list[tuple[str, str]]]:
    """Return the chassis that may be the host with the reason, likeliest first; equals are in one list.

    `linked` are the chassis that the host's system names; `hosts` are the systems that are hosts.
    """
    named = {
        path for path in chassis if path in linked or set(links(chassis[path], "Links", "ComputerSystems")) & set(hosts)
    }
    groups: list[list[tuple[str, str]]] = [[] for _ in _REASONS]
    for path in chassis:
        place = _place(path, chassis, named)
        if place is not None:
            groups[place].append((path, _REASONS[place]))
    return [group for group in groups if group]


def _place(path: str, chassis: Mapping[str, Document], named: set[str]) -> int | None:
    """Return the group of a chassis, an index of _REASONS; None for a part or a holder of several hosts."""
    kind, holder = _kind(chassis[path]), _holder(path, chassis)
    if kind in _PART_TYPES or kind in _HOLDER_TYPES:
        return 5 if path in named else None
    if path in named:
        return 2 if holder else 0
    if any(_holder(inner, chassis) == path for inner in named):
        return 1
    if holder:
        return None
    return 3 if kind in _SERVER_TYPES else 4


def _kind(chassis: Document) -> str:
    return text(chassis, "ChassisType").lower()


def _holder(path: str, chassis: Mapping[str, Document]) -> str:
    """Return the chassis that this one is a part of; "" where it is none, or stands in an enclosure or a rack."""
    outer = link(chassis[path], "Links", "ContainedBy")
    return outer if outer in chassis and outer != path and _kind(chassis[outer]) not in _HOLDER_TYPES else ""
