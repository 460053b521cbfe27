"""What a site file says beside the topology: files of weather, prices and carbon, the time zone, and bills."""

from datetime import tzinfo
from pathlib import Path

import msgspec

from powerhall.forecasts.coverage import Coverage
from powerhall.forecasts.csv_series import Outside
from powerhall.forecasts.local_time import parse_zone
from powerhall.site.billing import Billing
from powerhall.site.site_tables import StaleForecast

__all__ = ["Planning"]


class Planning(msgspec.Struct, frozen=True):
    """Files that a plan needs besides the site: weather, prices ($/MWh), carbon intensity (g/kWh).

    `timezone` and `altitude_m` belong to the site; `grid_budget` is what its file of budgets covers; `billing` says who
    pays.
    """

    weather: Path | None = None
    prices: Path | None = None
    carbon: Path | None = None
    timezone: str | None = None
    altitude_m: float | None = None
    stale_forecast: StaleForecast = "worst_case"
    grid_budget: Coverage | None = None
    billing: Billing = Billing()

    @property
    def zone(self) -> tzinfo | None:
        """Time zone of times without an offset; None where the site names none."""
        return None if self.timezone is None else parse_zone(self.timezone)

    @property
    def outside(self) -> Outside:
        """What holds where a file has no value."""
        return "hold_last" if self.stale_forecast == "hold_last" else "worst_case"
