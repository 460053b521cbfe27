"""Partitions and reservations of nodes, from `scontrol -o show`: where Slurm lets a job start, and when."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

from powerhall.hostlist import expand

__all__ = ["Partition", "PlacementRules", "ReservedNodes", "parse_partitions", "parse_reserved_nodes"]


@dataclass(frozen=True, slots=True)
class Partition:
    """A partition: its nodes, whether it starts jobs, and whether it gives them whole nodes."""

    name: str
    nodes: frozenset[str]
    is_up: bool = True
    is_whole: bool = False


@dataclass(frozen=True, slots=True)
class ReservedNodes:
    """Nodes that a reservation keeps for others, from `start_s` to `end_s`, in s since the epoch."""

    name: str
    nodes: frozenset[str]
    start_s: float
    end_s: float


@dataclass(frozen=True, slots=True)
class PlacementRules:
    """What limits where jobs start beside their own wishes; nothing where it was not read."""

    partitions: dict[str, Partition] = field(default_factory=dict)
    reserved: tuple[ReservedNodes, ...] = ()

    def of(self, names: str) -> list[Partition]:
        """Return the partitions of a job, as far as they are known."""
        return [self.partitions[name] for name in names.split(",") if name in self.partitions]


def _lines(text: str, first: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield the name of each object and its fields; of a field that repeats the first counts."""
    for line in text.splitlines():
        pairs: dict[str, str] = {}
        for key, value in re.findall(r"(\w+)=(\S*)", line):
            pairs.setdefault(key, value)
        if line.startswith(f"{first}="):
            yield pairs[first], pairs


def _nodes(text: str) -> frozenset[str]:
    try:
        return frozenset(() if text in ("", "(null)") else expand(text))
    except ValueError:
        return frozenset()


def parse_partitions(text: str) -> dict[str, Partition]:
    """Read `scontrol -o show partition`."""
    return {
        name: Partition(
            name,
            _nodes(pairs.get("Nodes", "")),
            pairs.get("State", "UP") == "UP",
            pairs.get("OverSubscribe", "").startswith("EXCLUSIVE"),
        )
        for name, pairs in _lines(text, "PartitionName")
    }


def parse_reserved_nodes(text: str) -> tuple[ReservedNodes, ...]:
    """Read `scontrol -o show reservation` in UTC; reservations without nodes, such as those of licences, are none."""
    found: list[ReservedNodes] = []
    for name, pairs in _lines(text, "ReservationName"):
        nodes = _nodes(pairs.get("Nodes", ""))
        try:
            times = [
                datetime.fromisoformat(pairs[key]).replace(tzinfo=UTC).timestamp() for key in ("StartTime", "EndTime")
            ]
        except (KeyError, ValueError):
            times = [0.0, float("inf")]  # not understood: reserved
        if nodes:
            found.append(ReservedNodes(name, nodes, *times))
    return tuple(found)
