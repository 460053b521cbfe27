"""Runs on numbered GPUs: the engine counts a node's GPUs, drivers and agents name them.

Invariant: a GPU belongs to at most one run.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from powerhall.jobs.model import Job
from powerhall.site.index import SiteIndex
from powerhall.site.topology import Mode, Site

__all__ = ["FreeGpus", "PlacedRun", "Slice"]


@dataclass(frozen=True, slots=True)
class Slice:
    """GPUs of one node, by their numbers."""

    node: str
    gpus: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class PlacedRun:
    """A run of a job in a power mode on these GPUs of one hall."""

    job: Job
    hall: str
    mode: Mode
    slices: tuple[Slice, ...]
    start_s: float


@dataclass(slots=True)
class FreeGpus:
    """The numbers of the free GPUs of every node."""

    numbers: dict[str, set[int]]

    @classmethod
    def of(cls, site: Site) -> "FreeGpus":
        """Return a site whose GPUs are all free."""
        index = SiteIndex.of(site)
        return cls({node: set(range(index.rack_type(rack).gpus)) for node, rack in index.rack_of.items()})

    def take(self, nodes: Mapping[str, int]) -> tuple[Slice, ...] | None:
        """Take so many GPUs of each node, the lowest first; None, and nothing taken, where a node has too few."""
        if any(len(self.numbers.get(node, ())) < count for node, count in nodes.items()):
            return None
        slices = tuple(Slice(node, tuple(sorted(self.numbers[node])[:count])) for node, count in nodes.items())
        for part in slices:
            self.numbers[part.node] -= set(part.gpus)
        return slices

    def give_back(self, slices: Iterable[Slice]) -> None:
        """Free these GPUs."""
        for part in slices:
            self.numbers[part.node] |= set(part.gpus)
