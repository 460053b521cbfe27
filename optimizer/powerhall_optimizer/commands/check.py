"""`powerhall-optimizer check` and `init`: a site file is checked as a whole, and a first one is written."""

import argparse
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from powerhall.physics.weather import Weather
from powerhall.physics.weather_files import WeatherRules, read_weather
from powerhall.runtime.command_line import Commands, add_command, add_file, option_value
from powerhall.runtime.decode.numbers_in import whole
from powerhall.runtime.errors import Rejected
from powerhall.runtime.extras import EXIT_OK, EXIT_REFUSED
from powerhall.runtime.files import replace_file
from powerhall.site.carrying import LimitShare, carried, load_cases
from powerhall.site.gpu_catalogue import CATALOGUE
from powerhall.site.index import SiteIndex
from powerhall.site.json_schema import site_schema
from powerhall.site.new_site import NewSite, site_text
from powerhall.site.site_check import site_faults
from powerhall.site.site_file import Planning, read_site
from powerhall.site.topology import Site
from powerhall.timeseries import Series
from powerhall.units import format_power, parse_power

__all__ = ["add_parser"]

_YEAR_S = 366 * 86_400.0
_SHOWN = 12
_MILD = Weather(25.0, 18.0)
"""Where the site names no weather: near the rated ambient of plants."""

_CHECK = """\
Names everything that is wrong with a site file in one run, each with what is allowed; then, for a file without faults,
what its limits carry: how many nodes at full power and at each mode, which limit binds first, and the worst hour of
each month of its weather file.
"""
_INIT = """\
Writes a commented site.toml from published power figures of GPU servers. Without options it asks. `check` passes on
what it writes; limits that it is not told are wide enough for all nodes.

examples:
  powerhall-optimizer init --name phx --gpu GB200 --hall h1=144 --hall h2=144 --power-limit 3MW
  powerhall-optimizer init
"""


def add_parser(commands: Commands) -> None:
    """Add both sub-commands."""
    check = add_command(
        commands, "check", _check, help="name every fault of a site file, and what it can carry", description=_CHECK
    )
    add_file(check, "site", "site.toml")
    check.add_argument("--json", action="store_true", help="print faults and limits as JSON")
    check.add_argument("--schema", action="store_true", help="print the JSON Schema of site.toml for editors")
    init = add_command(commands, "init", _init, help="write a first site.toml", description=_INIT)
    init.add_argument("--out", type=Path, default=Path("site.toml"), help="default: site.toml")
    init.add_argument("--name", help="name of the site")
    init.add_argument("--gpu", help=f"one of {', '.join(CATALOGUE)}")
    init.add_argument(
        "--hall", action="append", default=[], metavar="NAME=NODES", help="a hall and its nodes; repeatable"
    )
    init.add_argument("--nodes-per-rack", type=int, metavar="N", help="default: 18 for GB200 and GB300, else 4")
    init.add_argument("--power-limit", metavar="POWER", help="limit at the meter, such as 3MW")
    init.add_argument("--json", action="store_true", help="print the result as JSON")
    init.add_argument("--force", action="store_true", help="replace an existing file")


def _check(args: argparse.Namespace) -> int:
    if args.schema:
        sys.stdout.write(json.dumps(site_schema(), indent=2) + "\n")
        return EXIT_OK
    faults = site_faults(args.site)
    if faults:
        if args.json:
            sys.stdout.write(json.dumps({"faults": faults}, indent=2) + "\n")
        else:
            sys.stdout.write("".join(f"{line}\n" for line in faults))
            count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
            sys.stderr.write(f"powerhall-optimizer: {args.site}: {count}\n")
        return EXIT_REFUSED
    site, planning = read_site(args.site)
    moments = list(_moments(planning))
    if args.json:
        sys.stdout.write(json.dumps({"faults": [], "carries": _as_data(site, moments)}, indent=2) + "\n")
    else:
        sys.stdout.writelines(f"{line}\n" for line in _lines(args.site, site, moments))
    return EXIT_OK


def _moments(planning: Planning) -> Iterator[tuple[str, Weather]]:
    """Yield the worst hour of each month that the weather file covers; without a file one mild hour."""
    if planning.weather is None:
        yield "any weather", _MILD
        return
    rules = WeatherRules(planning.zone, planning.altitude_m, planning.outside)
    covered = read_weather(planning.weather, 0.0, _YEAR_S, rules).coverage
    typical_year = ".epw" in planning.weather.name.lower()
    start_s = 0.0 if typical_year else covered.start_s
    end_s = start_s + _YEAR_S if typical_year else min(covered.end_s, start_s + _YEAR_S)
    found = read_weather(planning.weather, start_s, end_s, rules)
    hottest, wettest = (
        _by_month(series, start_s, end_s, "%B" if typical_year else "%Y-%m")
        for series in (found.dry_bulb, found.wet_bulb)
    )
    yield from ((month, Weather(dry_c, wettest[month])) for month, dry_c in hottest.items())


def _by_month(series: Series, start_s: float, end_s: float, form: str) -> dict[str, float]:
    """Return the highest value of each month, in UTC."""
    most: dict[str, float] = {}
    for time_s, value in zip(series.times_s, series.values, strict=True):
        if start_s <= time_s < end_s:
            month = time.strftime(form, time.gmtime(time_s))
            most[month] = max(value, most.get(month, value))
    return most


def _lines(path: Path, site: Site, moments: list[tuple[str, Weather]]) -> Iterator[str]:
    index = SiteIndex.of(site)
    kinds = [(len(rack.nodes), index.rack_type(rack)) for rack in site.racks()]
    idle, most = (
        format_power(sum(count * getattr(kind, name) for count, kind in kinds))
        for name in ("idle_power_w", "max_power_w")
    )
    yield f"{path}: no fault found"
    yield f"{site.name}: {sum(n for n, _ in kinds)} nodes, {index.gpus} GPUs; IT {idle} idle, {most} at most"
    cases = load_cases(site)
    when, weather = min(moments, key=lambda entry: carried(site, cases[0], entry[1])[0].share)
    yield ""
    air = f"{weather.dry_bulb_c:.0f} degC, wet bulb {weather.wet_bulb_c:.0f} degC"
    yield f"Nodes that each limit carries ({when}, {air}):"
    yield from _table(cases, {case: carried(site, case, weather) for case in cases})
    yield ""
    yield from (_binding(case, carried(site, case, weather)[0]) for case in cases)
    if len(moments) > 1:
        yield ""
        yield from _months(site, cases[0], moments)


def _table(cases: list[str], found: dict[str, list[LimitShare]]) -> Iterator[str]:
    """Yield the limits that carry the least share of their nodes at full power, and one line about the others."""
    shown, others = found[cases[0]][:_SHOWN], found[cases[0]][_SHOWN:]
    by_name = {case: {entry.name: entry.nodes_carried for entry in found[case]} for case in cases}
    width = max((len(entry.name) for entry in shown), default=5)
    yield f"{'limit':<{width}}  {'holds':>9}  {'nodes':>6}" + "".join(f"  {case:>10}" for case in cases)
    for entry in shown:
        cells = "".join(f"  {by_name[case][entry.name]:>10}" for case in cases)
        yield f"{entry.name:<{width}}  {format_power(entry.limit_w):>9}  {entry.nodes:>6}{cells}"
    if others:
        yield f"{len(others)} more limits carry {others[0].share:.0%} of their nodes or more at full power"


def _binding(case: str, first: LimitShare) -> str:
    if first.share >= 1.0:
        return f"{case}: nothing binds, all nodes fit"
    load, limit = format_power(first.load_w), format_power(first.limit_w)
    nodes = f"{first.nodes_carried} of {first.nodes} nodes"
    return f"{case}: {first.name} binds first, at {nodes} ({load} with all busy, {limit} allowed)"


def _months(site: Site, case: str, moments: list[tuple[str, Weather]]) -> Iterator[str]:
    yield f"By month, worst hour, {case}:"
    for month, weather in moments:
        first = carried(site, case, weather)[0]
        air = f"{weather.dry_bulb_c:5.1f} degC, wet bulb {weather.wet_bulb_c:5.1f} degC"
        binds = first.name if first.share < 1 else "nothing binds"
        yield f"  {month:<10} {air}  {first.nodes_carried:>6} of {first.nodes} nodes: {binds}"


def _as_data(site: Site, moments: list[tuple[str, Weather]]) -> list[dict[str, object]]:
    return [
        {
            "when": when,
            "dry_bulb_c": weather.dry_bulb_c,
            "wet_bulb_c": weather.wet_bulb_c,
            "case": case,
            "limits": [
                {
                    "limit": e.name,
                    "limit_w": e.limit_w,
                    "load_w": e.load_w,
                    "nodes": e.nodes,
                    "nodes_carried": e.nodes_carried,
                }
                for e in carried(site, case, weather)
            ],
        }
        for when, weather in moments
        for case in load_cases(site)
    ]


def _init(args: argparse.Namespace) -> int:
    if args.out.exists() and not args.force:
        raise Rejected.field("init", "--out", str(args.out), "is there already; --force replaces it")
    name = args.name or _ask("Name of the site", "site1")
    gpu = args.gpu or _ask(f"GPU ({', '.join(CATALOGUE)})", "H100")
    given = args.hall or _ask("Halls with their number of nodes", "hall1=8").replace(",", " ").split()
    halls = tuple(_hall(text) for text in given)
    limit = option_value("--power-limit", args.power_limit, parse_power) if args.power_limit else None
    per_rack = args.nodes_per_rack or (18 if gpu.upper() in ("GB200", "GB300") else 4)
    if per_rack < 1:
        raise Rejected.field("init", "--nodes-per-rack", per_rack, "must be at least 1")
    text = site_text(NewSite(name, gpu.upper(), halls, per_rack, limit))
    replace_file(args.out, text.encode())
    if args.json:
        sys.stdout.write(json.dumps({"file": str(args.out)}) + "\n")
        return EXIT_OK
    sys.stdout.write(f"{args.out}: written; next: edit it, then powerhall-optimizer check {args.out}\n")
    return EXIT_OK


def _hall(text: str) -> tuple[str, int]:
    name, _, count = text.partition("=")
    allowed = "must be NAME=NODES, such as hall1=16"
    try:
        nodes = whole(count)
    except ValueError:
        raise Rejected.field("init", "--hall", text, allowed) from None
    if not name or not 1 <= nodes <= 100_000:
        raise Rejected.field("init", "--hall", text, allowed)
    return name, nodes


def _ask(question: str, default: str) -> str:
    if not sys.stdin.isatty():
        raise Rejected("init: --name, --gpu and --hall are needed where nobody can be asked")
    return input(f"{question} [{default}]: ").strip() or default
