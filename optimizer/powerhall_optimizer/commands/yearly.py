"""`powerhall-optimizer yearly`: the figures of a year that Delegated Regulation (EU) 2024/1364 asks for."""

import argparse
import contextlib
import json
import sys
from datetime import tzinfo
from pathlib import Path

from powerhall.runtime.command_line import Commands, add_command, option_value
from powerhall.runtime.extras import EXIT_OK
from powerhall.site.reported_months import read_reported
from powerhall.site.site_file import read_site
from powerhall.store import existing_store
from powerhall_optimizer.billing.bill_output import moment_text
from powerhall_optimizer.billing.period import parse_year
from powerhall_optimizer.billing.yearly import NOT_HERE, Figure, Year, make_year

__all__ = ["add_parser"]

_EPILOG = """\
examples:
  powerhall-optimizer yearly --site site.toml --store sqlite:///powerhall.db --year 2026
  powerhall-optimizer yearly --site site.toml --store ... --year 2026 --reported reported.csv --json

Energies are sums over the hours that the store covers. Nothing is scaled up: every figure says the hours that it lacks.
"""


def add_parser(commands: Commands) -> None:
    """Add the sub-command."""
    parser = add_command(
        commands,
        "yearly",
        run,
        help="PUE, WUE, ERF and REF of a year with their inputs, as (EU) 2024/1364 asks",
        description="Computes the indicators of Delegated Regulation (EU) 2024/1364 and the inputs that it lists, from "
        "the store's roll-ups and the site's own figures by month.",
        epilog=_EPILOG,
    )
    parser.add_argument("--site", type=Path, required=True, help="site.toml")
    parser.add_argument("--store", required=True, help="store URL")
    parser.add_argument("--year", required=True, help="a year of the site's calendar, such as 2026")
    parser.add_argument(
        "--reported", type=Path, metavar="FILE", help="CSV by month (default: billing.reported of the site)"
    )
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")


def run(args: argparse.Namespace) -> int:
    """Print the figures of a year."""
    site, planning = read_site(args.site)
    year = option_value("--year", args.year, parse_year)
    reported = read_reported(args.reported or planning.billing.reported)
    with contextlib.closing(existing_store(args.store)) as store:
        found = make_year(store, site, planning, year, reported)
    if args.json:
        sys.stdout.write(json.dumps(_data(found, planning.zone), indent=2) + "\n")
    else:
        sys.stdout.writelines(f"{line}\n" for line in _lines(found, planning.zone))
    return EXIT_OK


def _data(year: Year, zone: tzinfo | None) -> dict[str, object]:
    def figures(found: dict[str, Figure]) -> dict[str, object]:
        return {
            name: {
                "value": None if figure.value is None else round(figure.value, 6),
                "unit": figure.unit,
                "source": figure.source,
                "missing_hours": round(figure.missing_h, 4),
            }
            for name, figure in found.items()
        }

    return {
        "site": year.site,
        "year": year.year,
        "regulation": "(EU) 2024/1364",
        "indicators": figures(year.indicators),
        "inputs": figures(year.inputs),
        "months": [
            {
                "month": month.name,
                "hours": month.hours,
                "missing_hours": round(month.missing_h, 4),
                "energy_kwh": round(month.site_kwh, 3),
                "it_kwh": round(month.it_kwh, 3),
                "assumed_kwh": round(month.assumed_kwh, 3),
                "water_m3": round(month.water_m3, 3),
                "missing_water_hours": round(month.dry_h, 4),
            }
            for month in year.months
        ],
        "gaps": [
            {
                "hall": gap.hall,
                "start": moment_text(gap.start_s, zone),
                "end": moment_text(gap.end_s, zone),
                "hours": round(gap.hours, 4),
                "missing": gap.missing,
            }
            for gap in year.gaps
        ],
        "not_here": list(NOT_HERE),
    }


def _lines(year: Year, zone: tzinfo | None) -> list[str]:
    lines = [f"{year.site}, {year.year}, as (EU) 2024/1364 asks"]
    for name, figure in (*year.indicators.items(), *year.inputs.items()):
        form = ",.3f" if name in year.indicators else ",.1f"
        shown = "not known" if figure.value is None else f"{figure.value:{form}} {figure.unit}".rstrip()
        lacking = f"; {figure.missing_h:,.1f} h missing" if figure.missing_h > 0 else ""
        lines.append(f"{name:<13}{shown:>22}  {figure.source}{lacking}")
    if year.gaps:
        hours = sum(gap.hours for gap in year.gaps)
        lines.append(f"gaps: {hours:,.1f} hall hours without a meter, in no figure")
    for gap in year.gaps[:12]:
        span = f"{moment_text(gap.start_s, zone)} to {moment_text(gap.end_s, zone)}"
        lines.append(f"  {gap.hall}: no {gap.missing}, {span} ({gap.hours:,.1f} h)")
    if len(year.gaps) > 12:
        lines.append(f"  and {len(year.gaps) - 12} more (--json has all)")
    return [*lines, *(f"not here: {text}" for text in NOT_HERE)]
