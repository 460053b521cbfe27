"""Figures of a year as Delegated Regulation (EU) 2024/1364 asks for them: what is known, and the hours that are not.

    PUE = E_DC / E_IT    WUE = W_IN / E_IT in l per kWh    ERF = E_REUSE / E_DC    REF = E_RES-TOT / E_DC

(Annexes II and III). Energies are sums over the hours that the store's roll-ups cover, the water too where the site
reports none by month. Nothing is scaled up to the year: every figure says how many hours it lacks, and a ratio takes
both of its sums from the same months.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from typing import Final

import numpy as np

from powerhall.site.reported_months import ReportedMonths
from powerhall.site.site_file import Planning
from powerhall.site.topology import Site
from powerhall.store import Query, Select, Store
from powerhall_optimizer.billing.buckets import Buckets, Floats
from powerhall_optimizer.billing.metered import Gap, read_halls
from powerhall_optimizer.billing.period import month_span

__all__ = ["NOT_HERE", "Figure", "Month", "Year", "make_year"]

NOT_HERE: Final = (
    "C_SERV and C_STOR: capacity of servers and storage",
    "T_IN: mean set point of the air that enters IT equipment",
    "refrigerants in the cooling systems",
    "incoming and outgoing traffic",
    "energy of generators for backup, and of functions for the grid",
)
"""What the regulation asks for and the store does not know."""
_RENEWABLE: Final = ("renewable_goo_kwh", "renewable_ppa_kwh", "renewable_onsite_kwh")
_HOT_C, _BASE_C = 24.0, 21.0
"""Cooling degree days as Eurostat counts them: of days with a mean of 24 degC or more, the excess over 21 degC."""
_DAY_HOURS: Final = 18
"""Hours of a day that must be known for its mean temperature."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure with its unit and source; None where nothing is known. `missing_h` are hours that it does not cover."""

    value: float | None
    unit: str
    source: str
    missing_h: float = 0.0


@dataclass(frozen=True, slots=True)
class Month:
    """A month: energies in kWh over the hours that the meters of all halls cover, and what the site reports."""

    name: str
    hours: float
    missing_h: float
    site_kwh: float
    it_kwh: float
    assumed_kwh: float
    water_m3: float
    dry_h: float
    """Hours without water, `missing_h` among them."""
    gaps: tuple[Gap, ...]
    degree_days: float = 0.0
    weather_days: int = 0


@dataclass(frozen=True, slots=True)
class Year:
    """The year: inputs and indicators by the regulation's names, the months behind them, and the gaps."""

    site: str
    year: int
    inputs: dict[str, Figure]
    indicators: dict[str, Figure]
    months: tuple[Month, ...]

    @property
    def gaps(self) -> list[Gap]:
        """The gaps of all halls in the order of time."""
        return [gap for month in self.months for gap in month.gaps]


def make_year(store: Store, site: Site, planning: Planning, year: int, reported: ReportedMonths) -> Year:
    """Read a year of the site's calendar from the store. Errors of the store are passed on."""
    zone = planning.zone
    months = tuple(
        _month(store, site, planning, f"{year}-{number:02d}", month_span(year, number, zone)) for number in range(1, 13)
    )
    figures = _Figures(months, reported)
    most_kw = sum(site.node_types[r.node_type].max_power_w * len(r.nodes) for r in site.racks()) / 1000
    measured = "meters at the grid" if planning.billing.meters else "roll-up: IT power with modelled cooling and losses"
    inputs = {"P_IT": Figure(most_kw, "kW", "site file: nodes at their highest power")}
    inputs["E_DC"] = figures.total(lambda month: month.site_kwh, "kWh", measured)
    inputs["E_IT"] = figures.total(lambda month: month.it_kwh, "kWh", "roll-up: measured and estimated nodes")
    inputs["E_IT_assumed"] = figures.total(
        lambda month: month.assumed_kwh, "kWh", "part of E_IT that nobody measured: silent nodes at their worst"
    )
    inputs["W_IN"] = figures.water()
    inputs["W_IN-POT"] = figures.reported("potable_water_m3", "m3")
    inputs["E_REUSE"] = figures.reported("reused_heat_kwh", "kWh")
    inputs["T_WH"] = figures.mean("waste_heat_c", "degC")
    for name, column in zip(("E_RES-GOO", "E_RES-PPA", "E_RES-OT"), _RENEWABLE, strict=True):
        inputs[name] = figures.reported(column, "kWh")
    inputs["E_RES-TOT"] = figures.renewable()
    days = sum(month.weather_days for month in months)
    degree_days = sum(month.degree_days for month in months) if days else None
    hours = sum(month.hours for month in months)
    inputs["CDD"] = Figure(degree_days, "K d", "weather in the store, days with a mean", hours - 24.0 * days)
    return Year(site.name, year, inputs, figures.indicators(), months)


def _month(store: Store, site: Site, planning: Planning, name: str, span: tuple[float, float]) -> Month:
    buckets = Buckets.of(*span)
    meters = read_halls(store, site.name, [hall.zone for hall in site.halls], buckets, planning.billing.meters)
    known = np.min([meter.known for meter in meters], axis=0)
    wet = known * np.min([np.isfinite(meter.water_l_per_h) for meter in meters], axis=0)
    hours = buckets.lengths_s / 3600

    def total(rows: Sequence[Floats], where: Floats) -> float:
        return float(sum((np.nan_to_num(row) * hours * where).sum() for row in rows))

    length_h = float(hours.sum())
    degree_days, weather_days = _degree_days(store, site.name, span, planning.zone)
    return Month(
        name,
        length_h,
        float((hours * (1 - known)).sum()),
        total([meter.facility_w for meter in meters], known) / 1000,
        total([meter.it_w for meter in meters], known) / 1000,
        total([np.minimum(meter.assumed_w, meter.it_w) for meter in meters], known) / 1000,
        total([meter.water_l_per_h for meter in meters], wet) / 1000,
        float((hours * (1 - wet)).sum()),
        tuple(gap for meter in meters for gap in meter.gaps),
        degree_days,
        weather_days,
    )


def _degree_days(store: Store, site: str, span: tuple[float, float], zone: tzinfo | None) -> tuple[float, int]:
    """Return cooling degree days in K d, and the number of days whose mean is known."""
    query = Query("weather", (Select("dry_bulb_c", "mean"),), {"site": site}, every_s=3600.0)
    days: dict[str, list[float]] = {}
    for row in store.query(query, *span):
        value = row.number("dry_bulb_c")
        if value is not None:
            days.setdefault(datetime.fromtimestamp(row.time_s, zone or UTC).date().isoformat(), []).append(value)
    means = [sum(hours) / len(hours) for hours in days.values() if len(hours) >= _DAY_HOURS]
    return sum(mean - _BASE_C for mean in means if mean >= _HOT_C), len(means)


@dataclass(frozen=True, slots=True)
class _Figures:
    """Sums over months, each with the hours that it lacks."""

    months: tuple[Month, ...]
    given: ReportedMonths

    def total(self, of: Callable[[Month], float], unit: str, source: str) -> Figure:
        """Return the sum of what the store knows of each month."""
        missing_h = sum(month.missing_h for month in self.months)
        known = any(month.missing_h < month.hours for month in self.months)
        return Figure(sum(of(month) for month in self.months) if known else None, unit, source, missing_h)

    def reported(self, column: str, unit: str) -> Figure:
        """Return the sum of a column of the site's own file."""
        values = [(month, self.given.value(month.name, column)) for month in self.months]
        found = [value for _, value in values if value is not None]
        missing_h = sum(month.hours for month, value in values if value is None)
        return Figure(sum(found) if found else None, unit, f"reported by month ({column})", missing_h)

    def mean(self, column: str, unit: str) -> Figure:
        """Return the mean of a column over the hours of its months."""
        values = [(month.hours, self.given.value(month.name, column)) for month in self.months]
        found = [(hours, value) for hours, value in values if value is not None]
        known_h = sum(hours for hours, _ in found)
        mean = sum(hours * value for hours, value in found) / known_h if known_h else None
        missing_h = sum(hours for hours, value in values if value is None)
        return Figure(mean, unit, f"reported by month ({column})", missing_h)

    def water(self) -> Figure:
        """Return the water input: as reported, in other months that of the plants' model."""
        parts = [self._water(month) for month in self.months]
        found = [value for value, _ in parts if value is not None]
        source = "reported by month (water_m3), in other months the plants' model"
        return Figure(sum(found) if found else None, "m3", source, sum(missing for _, missing in parts))

    def _water(self, month: Month) -> tuple[float | None, float]:
        given = self.given.value(month.name, "water_m3")
        if given is not None:
            return given, 0.0
        return (None if month.dry_h >= month.hours else month.water_m3), month.dry_h

    def renewable(self) -> Figure:
        """Return the renewable energy of the months that report any of its kinds."""
        parts = [(month, self._renewable(month)) for month in self.months]
        found = [value for _, value in parts if value is not None]
        missing_h = sum(month.hours for month, value in parts if value is None)
        source = "reported by month: guarantees of origin, purchase agreements, on site"
        return Figure(sum(found) if found else None, "kWh", source, missing_h)

    def _renewable(self, month: Month) -> float | None:
        found = [value for name in _RENEWABLE if (value := self.given.value(month.name, name)) is not None]
        return sum(found) if found else None

    def indicators(self) -> dict[str, Figure]:
        """Return the ratios; each takes the months of which it knows both sums."""
        return {
            "PUE": self._ratio(lambda m: m.site_kwh, lambda m: m.it_kwh, "", "E_DC / E_IT"),
            "WUE": self._ratio(self._litres, lambda m: m.it_kwh, "l/kWh", "W_IN / E_IT"),
            "ERF": self._ratio(
                lambda m: self.given.value(m.name, "reused_heat_kwh"), lambda m: m.site_kwh, "", "E_REUSE / E_DC"
            ),
            "REF": self._ratio(self._renewable, lambda m: m.site_kwh, "", "E_RES-TOT / E_DC"),
        }

    def _litres(self, month: Month) -> float | None:
        """Return the water of a month, None where a part of what its energy was used in has none."""
        value, missing_h = self._water(month)
        return None if value is None or missing_h > month.missing_h + 0.1 else value * 1000

    def _ratio(
        self, above: Callable[[Month], float | None], below: Callable[[Month], float], unit: str, source: str
    ) -> Figure:
        parts = [(month, above(month), below(month)) for month in self.months]
        both = [(month, high, low) for month, high, low in parts if high is not None and low > 0]
        low_sum = sum(low for _, _, low in both)
        value = sum(high for _, high, _ in both) / low_sum if low_sum > 0 else None
        counted = {month.name for month, _, _ in both}
        missing_h = sum(m.missing_h if m.name in counted else m.hours for m in self.months)
        return Figure(value, unit, source, missing_h)
