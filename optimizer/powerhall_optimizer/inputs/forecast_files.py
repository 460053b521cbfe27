"""Weather, prices and carbon intensity of a site, sampled on a plan's slots; what the files do not cover is told."""

from collections.abc import Iterable
from dataclasses import dataclass

from powerhall.forecasts.coverage import Coverage
from powerhall.forecasts.csv_series import CARBON, PRICES, SeriesKind, read_forecast
from powerhall.physics.plants.kinds import kind_of
from powerhall.physics.weather_files import MOST_RISE_K, WeatherRules, read_weather
from powerhall.runtime.errors import Rejected
from powerhall.site.site_file import Planning
from powerhall.site.topology import Site
from powerhall_optimizer.inputs.horizon import Horizon

__all__ = ["ForecastInputs", "forecast_inputs"]

Values = tuple[float, ...]


@dataclass(frozen=True, slots=True)
class ForecastInputs:
    """One value per slot of everything that the site has a file for, and a line on each file that does not cover it."""

    dry_bulb_c: Values = ()
    wet_bulb_c: Values = ()
    price_per_mwh: Values = ()
    carbon_g_per_kwh: Values = ()
    stale: tuple[str, ...] = ()


_HELD = {
    "weather": f"the highest of the day beside it and up to {MOST_RISE_K:g} K more hold there",
    "price": "the mean of its last week holds there",
    "carbon intensity": "the mean of its last week holds there",
    "grid budget": "its lowest value holds there",
}


class _Reader:
    def __init__(self, planning: Planning, horizon: Horizon) -> None:
        self.planning = planning
        self.horizon = horizon
        self.grid = horizon.start_s, horizon.slot_s, horizon.slots
        self.end_s = horizon.start_s + horizon.slots * horizon.slot_s
        self.stale: list[str] = []

    def check(self, what: str, coverage: Coverage) -> None:
        """Note, or refuse, a file that does not cover the plan."""
        trouble = coverage.trouble(self.horizon.start_s, self.end_s)
        if trouble is None:
            return
        if self.planning.stale_forecast == "refuse":
            raise Rejected(f"{trouble}: must cover the plan, or planning.stale_forecast must not be 'refuse'")
        held = _HELD[what] if self.planning.stale_forecast == "worst_case" else "its nearest value holds there"
        self.stale.append(f"{what}: {trouble}; {held}")

    def weather(self) -> tuple[Values, Values]:
        planning = self.planning
        if planning.weather is None:
            return (), ()
        rules = WeatherRules(planning.zone, planning.altitude_m, planning.outside)
        found = read_weather(planning.weather, self.horizon.start_s, self.end_s, rules)
        self.check("weather", found.coverage)
        return found.dry_bulb.slots(*self.grid, "max"), found.wet_bulb.slots(*self.grid, "max")

    def means(self, kind: SeriesKind) -> Values:
        path = self.planning.prices if kind is PRICES else self.planning.carbon
        if path is None:
            return ()
        found = read_forecast(path, kind, self.planning.zone, self.planning.outside)
        self.check(kind.what, found.coverage)
        return found.series.slots(*self.grid, "mean")


def forecast_inputs(site: Site, planning: Planning, horizon: Horizon) -> ForecastInputs:
    """Read the files of a site for a plan; a wrong file, or a stale one where that is refused, raises Rejected."""
    reader = _Reader(planning, horizon)
    plants = sorted(_need_weather(site))
    if planning.weather is None and plants:
        raise Rejected.field(
            "site", "planning.weather", None, f"the cooling plants {', '.join(plants)} need weather data"
        )
    if planning.grid_budget is not None:
        reader.check("grid budget", planning.grid_budget)
    dry, wet = reader.weather()
    return ForecastInputs(dry, wet, reader.means(PRICES), reader.means(CARBON), tuple(reader.stale))


def _need_weather(site: Site) -> Iterable[str]:
    return {plant.name for hall in site.halls for plant in hall.plants if kind_of(plant).needs_weather}
