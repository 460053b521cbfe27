"""What the yearly report needs and no sensor of ours shows: water, reused heat and renewable energy, month by month."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from powerhall.runtime.decode.csv_table import read_csv
from powerhall.runtime.decode.numbers_in import finite
from powerhall.runtime.errors import Rejected

__all__ = ["REPORTED", "ReportedMonths", "read_reported"]

REPORTED: Final = {
    "water_m3": "total water input",
    "potable_water_m3": "potable water input",
    "reused_heat_kwh": "waste heat that others reuse, at the point where it is handed over",
    "waste_heat_c": "mean temperature of the waste heat fluid",
    "renewable_goo_kwh": "renewable energy by guarantees of origin",
    "renewable_ppa_kwh": "renewable energy by power purchase agreements",
    "renewable_onsite_kwh": "renewable energy made on site",
}
"""Columns of the file, beside `month`."""
_MONTH: Final = re.compile(r"\d{4}-(0[1-9]|1[0-2])")
_NEGATIVE: Final = frozenset({"waste_heat_c"})


@dataclass(frozen=True, slots=True)
class ReportedMonths:
    """Values by month (`2026-11`) and column; a month or value that is not there is not known."""

    months: dict[str, dict[str, float]] = field(default_factory=dict)

    def value(self, month: str, column: str) -> float | None:
        """Return a value of a month; None where it is not known."""
        return self.months.get(month, {}).get(column)


def read_reported(path: str | Path | None) -> ReportedMonths:
    """Read the file; no file gives no months. A wrong file raises Rejected with line and column."""
    if path is None:
        return ReportedMonths()
    table, source = read_csv(path), str(path)
    known = [name for name in table.header if name in REPORTED]
    if "month" not in table.header or not known:
        header = ",".join(table.header)[:200]
        raise Rejected.field(source, "header", header, f"must have the column month, and some of {', '.join(REPORTED)}")
    months: dict[str, dict[str, float]] = {}
    for line, cells in table:
        month = (cells.get("month") or "").strip()
        if not _MONTH.fullmatch(month) or month in months:
            raise Rejected.field(source, f"line {line}: month", month, "must be a month such as 2026-11, each once")
        months[month] = {
            name: _number(cells[name] or "", name, f"{source}: line {line}")
            for name in known
            if (cells[name] or "").strip()
        }
    return ReportedMonths(months)


def _number(text: str, column: str, source: str) -> float:
    try:
        value = finite(text)
    except ValueError as error:
        raise Rejected.field(source, column, text[:80], str(error)) from None
    if value < 0 and column not in _NEGATIVE:
        raise Rejected.field(source, column, text[:80], "must not be negative")
    return value
