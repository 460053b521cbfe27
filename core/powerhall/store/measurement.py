"""Kinds of rows of the schema: field, measurement, class of retention."""

from dataclasses import dataclass
from typing import Literal

__all__ = ["RETENTION_DAYS", "Field", "Measurement", "Retention"]

Retention = Literal["fine", "recent", "history"]
RETENTION_DAYS: dict[Retention, int] = {"fine": 7, "recent": 90, "history": 3650}
"""Classes of retention: readings of every few seconds, data of recent weeks, and long-term history."""


@dataclass(frozen=True, slots=True)
class Field:
    """One field: its name, its unit ("" where it has none), its meaning, and whether it is text.

    A moment is in seconds since the epoch; a counter only grows, but for a new start of what counts.
    """

    name: str
    unit: str
    text: str
    is_text: bool = False
    is_moment: bool = False
    is_counter: bool = False


@dataclass(frozen=True, slots=True)
class Measurement:
    """One measurement: fixed tags in order, fields, usual seconds between points and class of retention."""

    name: str
    text: str
    tags: tuple[str, ...]
    fields: tuple[Field, ...]
    cadence_s: float
    retention: Retention

    @property
    def retention_days(self) -> int:
        """Days after which a point may be deleted."""
        return RETENTION_DAYS[self.retention]

    def field(self, name: str) -> Field:
        """Return the field of this name; KeyError when the measurement has none."""
        for entry in self.fields:
            if entry.name == name:
                return entry
        raise KeyError(f"{self.name}.{name}")
