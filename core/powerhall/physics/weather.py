"""Outdoor air at one moment."""

from dataclasses import dataclass

__all__ = ["Weather"]


@dataclass(frozen=True, slots=True)
class Weather:
    """Outdoor air: dry-bulb and wet-bulb temperature in degC."""

    dry_bulb_c: float
    wet_bulb_c: float
