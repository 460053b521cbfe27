"""A limit that did not hold."""

from dataclasses import dataclass
from enum import StrEnum

__all__ = ["Breach", "LimitKind"]


class LimitKind(StrEnum):
    """The limit that a breach is about."""

    POWER = "power"
    COOLING = "cooling"


@dataclass(frozen=True, slots=True)
class Breach:
    """A zone above its power budget, or a hall whose heat exceeds the capacity of its plants."""

    time_s: float
    zone: str
    limit: LimitKind
    value_w: float
    limit_w: float
