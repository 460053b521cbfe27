"""What a spool hands out: lines to deliver, and how much waits."""

from dataclasses import dataclass, field
from pathlib import Path

from powerhall_agent.delivery.restamp import Change

__all__ = ["Batch", "SpoolSegment", "SpoolStats"]


@dataclass(slots=True, eq=False)
class SpoolSegment:
    """One file; `counts` are the points of each record, of which the first `delivered` are acknowledged."""

    path: Path
    size: int = 0
    counts: list[int] = field(default_factory=list)
    delivered: int = 0
    in_flight: int = 0
    packed: bool = False
    gone: bool = False
    changes: list[Change] = field(default_factory=list)
    """Changes that the lines still need when they are read; packing writes them down."""

    @property
    def points(self) -> int:
        """Count the points that wait."""
        return sum(self.counts[self.delivered :])


@dataclass(frozen=True, slots=True)
class Batch:
    """Lines to deliver; hand the batch back by `Spool.ack` (delivered) or `Spool.release` (not now)."""

    lines: bytes
    points: int
    parts: tuple[tuple[SpoolSegment, int], ...]
    """Segments and the record number up to which each is delivered with this batch."""
    loose: int = 0
    """Records from memory only (the disk did not take them)."""


@dataclass(frozen=True, slots=True)
class SpoolStats:
    """Amount of data that waits, and that was lost since the start."""

    bytes_waiting: int
    points_waiting: int
    segments: int
    dropped_points: int
    damaged_bytes: int
