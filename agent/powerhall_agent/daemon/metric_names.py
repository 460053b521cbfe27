"""Names of the metrics as Prometheus expects them: base units in full, counters end in `_total`.

The stored fields have short units in their names (`power_w`, `util_percent`); a metric has the base unit instead
(`power_watts`, `util_ratio`), and its value is converted.
(https://prometheus.io/docs/practices/naming/)
"""

from dataclasses import dataclass
from functools import cache
from typing import Final

from powerhall.store.schema import MEASUREMENTS

__all__ = ["Metric", "metric_of"]

_UNITS: Final = {
    "W": ("_w", "_watts", 1.0),
    "J": ("_j", "_joules", 1.0),
    "s": ("_s", "_seconds", 1.0),
    "degC": ("_c", "_celsius", 1.0),
    "K": ("_c", "_kelvin", 1.0),
    "%": ("_percent", "_ratio", 0.01),
    "MHz": ("_mhz", "_hertz", 1e6),
    "B": ("_bytes", "_bytes", 1.0),
    "l": ("_l", "_liters", 1.0),
    "l/h": ("_l_per_h", "_liters_per_hour", 1.0),
    "W/s": ("_w_per_s", "_watts_per_second", 1.0),
    "B/s": ("_bytes_per_s", "_bytes_per_second", 1.0),
}
"""Unit of a field: the end of its name, the end of the metric's name, and what a value is multiplied by."""


@dataclass(frozen=True, slots=True)
class Metric:
    """Name without `_total`, whether it is a counter, its help, and what a stored value is multiplied by."""

    family: str
    is_counter: bool
    help: str
    factor: float = 1.0

    @property
    def name(self) -> str:
        """Name of the samples; dcgm-exporter's counters have no suffix."""
        return f"{self.family}_total" if self.is_counter and self.family.startswith("powerhall_") else self.family


@cache
def metric_of(measurement: str, field: str) -> Metric:
    """Return the metric of a stored field; one that the schema does not have keeps its name."""
    entry = MEASUREMENTS.get(measurement)
    known = [one for one in entry.fields if one.name == field] if entry is not None else []
    if not known:
        return Metric(f"powerhall_{measurement}_{field}", False, field)
    short, long, factor = _UNITS.get(known[0].unit, ("", "", 1.0))
    name = field.removesuffix(short) if short else field
    if known[0].is_moment:
        long = "_timestamp_seconds"
    name = f"powerhall_{measurement}_{name}{long}".removesuffix("_total")
    return Metric(name, known[0].is_counter, known[0].text, factor)
