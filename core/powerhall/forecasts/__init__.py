"""Files of values over time that a plan reads ahead: coverage, gaps, and what holds outside."""

from powerhall.forecasts.coverage import Coverage, Forecast
from powerhall.forecasts.csv_series import SeriesKind, read_forecast
from powerhall.forecasts.local_time import LocalTimes, parse_zone

__all__ = ["Coverage", "Forecast", "LocalTimes", "SeriesKind", "parse_zone", "read_forecast"]
