"""Where a chassis shows its power and intake temperature, from the standard's newest place to the makers' own.

Each source is a function of the resources that it names; the first one with a plausible number is kept and read alone
from then on. Places and property names: DMTF DSP0268 (EnvironmentMetrics, Power, PowerSubsystem, Sensors,
TelemetryService), and the makers' documents for `Oem`.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, Protocol

from powerhall_agent.redfish.values import (
    Document,
    is_in_use,
    item,
    items,
    link,
    members,
    number,
    part,
    text,
    word_list,
)

__all__ = ["Get", "Source", "intake_sources", "power_sources", "report_sources"]

_PARTS: Final = frozenset(
    word_list(
        "cpu gpu mem memory dimm dram fan pump psu ps supply drive disk hsc nvlink switch pcie nic soc module hgx sxm "
        "fpga processor accelerator storage"
    )
)
"""Words of sensors and controls that show a part of the host."""
_NOT_NOW: Final = frozenset(
    word_list("output out peak max maximum min minimum avg average limit cap budget available capacity headroom")
)
"""Words of sensors that show no consumption of this moment."""
_WHOLE: Final = frozenset(word_list("total system sys systemboard chassis node server platform host input board"))
_POWER: Final = frozenset(word_list("power pwr watt watts consumption"))
_OEM_TOTALS: Final = (
    "TotalPower",  # Inspur, Kaytus and H3C: Oem.Public
    "TotalPowerWatts",
    "CurrentPowerConsumptionW",  # Fujitsu: Oem.ts_fujitsu.ChassisPowerConsumption
    "SystemPowerConsumption",  # Lenovo
    "SystemPowerWatts",
    "TotalSystemPower",
    "CurrentPowerWatts",
    "PowerConsumedWatts",  # Supermicro, Dell, HPE where PowerControl lacks it
    "CurConsumedWatts",
)
"""Names of the host's power in `Oem`; lists there hold parts and are not looked into."""
_REPORT_TOTALS: Final = frozenset(
    ("systeminputpower", "totalsystempower", "systempowerconsumption", "powerconsumedwatts", "totalpower")
)
"""MetricIds of the host's power in MetricReports (Dell: SystemInputPower)."""


class Get(Protocol):
    """Reads a resource; None where the service has none."""

    def __call__(self, path: str, /) -> Document | None:
        """Return the resource."""
        ...


@dataclass(frozen=True, slots=True)
class Source:
    """A place that shows a number: how it is called in doctor, and how to read it."""

    name: str
    read: Callable[[], float | None]


def power_sources(get: Get, path: str, chassis: Document) -> Iterator[Source]:
    """Yield the places of a chassis that may show its power in W."""
    metrics = link(chassis, "EnvironmentMetrics")
    if metrics:
        yield Source("EnvironmentMetrics", lambda: number(part(get(metrics), "PowerWatts")))
    power = link(chassis, "Power")
    if power:
        yield Source("Power", lambda: _power(get(power)))
    sensors = link(chassis, "Sensors")
    if sensors:
        yield from _sensor_sources(get, sensors)
    if power:
        yield Source("Power.Oem", lambda: _oem_total(part(get(power), "Oem")))
    yield Source("Chassis.Oem", lambda: _oem_total(part(get(path), "Oem")))
    subsystem = link(chassis, "PowerSubsystem")
    if subsystem:
        yield Source("PowerSubsystem.PowerSupplies", lambda: _supplies(get, get(subsystem)))
    if power:
        yield Source("Power.PowerSupplies", lambda: _older_supplies(get(power)))


def report_sources(get: Get, root: Document) -> Iterator[Source]:
    """Yield the metric reports of the service that may show its host's power in W."""
    service = link(root, "TelemetryService")
    reports = link(get(service), "MetricReports") if service else ""
    for path in members(get, reports):
        if "power" in path.lower():
            yield Source(f"MetricReport {path.rpartition('/')[2]}", lambda path=path: _report(get(path)))  # type: ignore[misc]


def intake_sources(get: Get, chassis: Document) -> Iterator[Source]:
    """Yield the places of a chassis that may show the temperature of the air or coolant that enters, in degC."""
    subsystem = link(chassis, "ThermalSubsystem")
    if subsystem:
        yield Source("ThermalMetrics", lambda: _intake(get, subsystem))
    thermal = link(chassis, "Thermal")
    if thermal:
        yield Source("Thermal", lambda: _older_intake(get(thermal)))
    metrics = link(chassis, "EnvironmentMetrics")
    if metrics:
        yield Source("EnvironmentMetrics", lambda: number(part(get(metrics), "TemperatureCelsius")))


def _power(power: Document | None) -> float | None:
    """Return the power of the control that stands for the whole chassis; before 2016 it stood beside the controls."""
    controls = items(power, "PowerControl")
    whole = [entry for entry in controls if is_in_use(entry) and (len(controls) == 1 or not _PARTS & _words(entry))]
    for names in (("PowerConsumedWatts",), ("PowerMetrics", "CurConsumedWatts")):  # AMI has the second alone
        found = (number(part(control, *names)) for control in whole)
        found_w = next((power_w for power_w in found if power_w is not None), None)
        if found_w is not None:
            return found_w
    beside_w = number(part(power, "PowerConsumedWatts"))
    means = (number(part(control, "PowerMetrics", "AverageConsumedWatts")) for control in whole)
    return beside_w if beside_w is not None else next((mean_w for mean_w in means if mean_w is not None), None)


def _words(control: Document) -> set[str]:
    return set(word_list(text(control, "Name"), text(control, "PhysicalContext")))


def _oem_total(oem: object, depth: int = 4) -> float | None:
    """Return the total under one of its known names in a maker's object; the outermost first."""
    if not isinstance(oem, dict) or depth == 0:
        return None
    for name in _OEM_TOTALS:
        found_w = number(oem.get(name))
        if found_w is not None:
            return found_w
    whole = (value for name, value in oem.items() if not _PARTS & set(word_list(str(name))))
    inner = (_oem_total(value, depth - 1) for value in whole)
    return next((found_w for found_w in inner if found_w is not None), None)


def _sensor_sources(get: Get, collection: str) -> Iterator[Source]:
    """Yield the sensors whose names say that they show the whole: TotalPower, SystemBoardPwrConsumption."""
    for path in members(get, collection):
        words = set(word_list(path.rpartition("/")[2]))
        if words & _POWER and words & _WHOLE and not words & (_PARTS | _NOT_NOW):
            yield Source(f"Sensor {path.rpartition('/')[2]}", lambda path=path: _sensor(get(path)))  # type: ignore[misc]


def _sensor(sensor: Document | None) -> float | None:
    kind, unit = text(sensor, "ReadingType"), text(sensor, "ReadingUnits")
    if (kind and kind != "Power") or (unit and unit.lower() not in {"w", "watts", "watt"}) or not is_in_use(sensor):
        return None
    return number(part(sensor, "Reading"))


def _supplies(get: Get, subsystem: Document | None) -> float | None:
    """Return the input power of all supplies together; None when one that is there does not show it."""
    total_w = None
    for path in members(get, link(subsystem, "PowerSupplies")):
        supply = get(path)
        if text(supply, "Status", "State") == "Absent":
            continue
        metrics = link(supply, "Metrics")
        input_w = number(part(get(metrics), "InputPowerWatts")) if metrics else None
        if input_w is None:
            return None
        total_w = (total_w or 0.0) + input_w
    return total_w


def _older_supplies(power: Document | None) -> float | None:
    total_w = None
    for supply in items(power, "PowerSupplies"):
        if text(supply, "Status", "State") == "Absent":
            continue
        input_w = number(part(supply, "PowerInputWatts"))
        if input_w is None:
            return None
        total_w = (total_w or 0.0) + input_w
    return total_w


def _report(report: Document | None) -> float | None:
    for value in items(report, "MetricValues"):
        stale = part(value, "Oem", "Nvidia", "MetricValueStale") is True
        if text(value, "MetricId").lower() in _REPORT_TOTALS and not stale:
            return number(part(value, "MetricValue"))
    return None


def _intake(get: Get, subsystem: str) -> float | None:
    metrics = link(get(subsystem), "ThermalMetrics") or f"{subsystem}/ThermalMetrics"
    return number(item(get(metrics), "TemperatureSummaryCelsius").get("Intake"))


def _older_intake(thermal: Document | None) -> float | None:
    for sensor in items(thermal, "Temperatures"):
        if {"intake", "inlet"} & set(word_list(text(sensor, "PhysicalContext"), text(sensor, "Name"))):
            found_c = number(part(sensor, "ReadingCelsius"))
            if found_c is not None:
                return found_c
    return None
