"""Everything that is wrong with a site file, in one pass; `read_site` stops at the first fault.

The file is checked piece by piece: a piece (a node type, a rack, a plant, an event) with a value that does not fit is
named and left out, the others are checked further, and names that a broken piece may have held are not called unknown.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TypeVar

import msgspec

from powerhall.forecasts.csv_series import CARBON, PRICES, read_forecast
from powerhall.hostlist import compress
from powerhall.physics.weather_files import WeatherRules, read_weather
from powerhall.runtime.all_refusals import all_refusals
from powerhall.runtime.decode.bytes_in import read_file
from powerhall.runtime.decode.limits import MOST_TOML_BYTES
from powerhall.runtime.decode.toml_data import decode_toml
from powerhall.runtime.errors import PowerhallError
from powerhall.site import site_tables as tables
from powerhall.site.billing import (
    AllowanceKind,
    AllowanceTable,
    BillingTable,
    DemandChargeTable,
    billing_of,
    owners_of,
)
from powerhall.site.block_reader import read_levels
from powerhall.site.index import SiteIndex
from powerhall.site.quantities import Power, quantity_hook
from powerhall.site.raw_names import RawNames, raw_names
from powerhall.site.reported_months import read_reported
from powerhall.site.site_file import SiteReader
from powerhall.site.storage_reader import read_storages
from powerhall.site.topology import Hall, NodeType, Rack, RackRow, Site

__all__ = ["site_faults"]

Json = Mapping[str, object]
T = TypeVar("T")


def site_faults(path: str | Path) -> list[str]:
    """Return one line for each fault of a site file, `FILE: FIELD: VALUE: what is allowed`; none for a good one."""
    path = Path(path)
    try:
        data = decode_toml(read_file(path, MOST_TOML_BYTES), str(path))
    except PowerhallError as error:
        return [str(error)]
    check = _SiteCheck(path, data)
    check.run()
    return list(dict.fromkeys(check.lines))


class _SiteCheck:
    """The pieces of one file that fit so far, and the lines about those that do not."""

    def __init__(self, path: Path, data: Json) -> None:
        self.path, self.data = path, data
        self.lines: list[str] = []
        self.bad: list[str] = []
        for where, line in all_refusals(data, tables.SiteFile, quantity_hook):
            self.bad.append(where)
            self.lines.append(f"{path}: {line}")
        self.unsure = any(where.startswith(("halls", "feeds", "site", "node_types")) for where in self.bad)
        """A zone, plant or limit may be missing from what was read, so that a name of it is not called unknown."""

        self.plants_missing: set[str] = set()
        """Halls of which a plant does not fit."""
        self.names = RawNames()

    def run(self) -> None:
        """Check every piece."""
        given = self.data.get("site")
        name = given.get("name") if isinstance(given, dict) else None
        zone = given.get("timezone") if isinstance(given, dict) else None
        otherwise = tables.SiteTable(name if isinstance(name, str) else "site")
        if isinstance(zone, str):
            otherwise = msgspec.structs.replace(otherwise, timezone=zone)
        site = self._piece("site", tables.SiteTable) or otherwise
        kinds = self._tables("node_types", tables.NodeTypeTable)
        feeds = [feed for _, feed in self._list("feeds", tables.FeedTable)]
        planning = self._piece("planning", tables.PlanningTable) or self._files_named()
        raw = tables.SiteFile(site, kinds, (), tuple(feeds), planning=planning)
        reader = self.attempt(SiteReader, self.path, raw)
        if reader is None:
            raw = msgspec.structs.replace(raw, site=msgspec.structs.replace(site, timezone=None))
            reader = SiteReader(self.path, raw)
        self.attempt(reader.name, "site.name", site.name)
        self.names = raw_names(data=self.data, nodes=reader.nodes)
        types = {name: kind for name, table in kinds.items() if (kind := self._node_type(reader, name, table))}
        self._figures_of_broken(reader)
        halls = [hall for i, entry in self._entries("halls") if (hall := self._hall(reader, i, entry))]
        if not self._entries("halls") and "halls" not in self.bad:
            self.lines.append(f"{self.path}: halls: []: must name at least one hall")
        self._job_classes(reader)
        read_feeds = self.attempt(reader.feeds) or ()
        built = self.attempt(
            lambda: Site(
                site.name,
                tuple(halls),
                types,
                {},
                read_feeds,
                None if site.power_limit is None else site.power_limit.value,
            )
        )
        if built is not None:
            self._whole(reader, built)
        self._files(reader)
        self._billing(planning)

    def _billing(self, planning: tables.PlanningTable) -> None:
        """Check each budget and demand charge by itself, then the budgets together, and the files."""
        given = self.data.get("billing")
        table = given if isinstance(given, dict) else {}
        names = [name if isinstance(name := table.get(key), str) else None for key in ("owners", "reported")]
        files: dict[AllowanceKind, str | None] = {"cost": planning.prices, "co2": planning.carbon}
        budgets: tuple[AllowanceTable, ...] = ()
        for i, entry in enumerate(_tables_in(table.get("budgets"))):
            budget = self._piece(f"billing.budgets[{i}]", AllowanceTable, entry)
            more = budgets if budget is None else (*budgets, budget)
            before = len(self.lines)
            fits = self.attempt(billing_of, self.path, BillingTable(budgets=more), files)
            self._renumber(before, "billing.budgets", i, len(budgets))
            budgets = more if fits else budgets
        for i, entry in enumerate(_tables_in(table.get("demand_charges"))):
            charge = self._piece(f"billing.demand_charges[{i}]", DemandChargeTable, entry)
            before = len(self.lines)
            raw = BillingTable(demand_charges=() if charge is None else (charge,))
            self.attempt(billing_of, self.path, raw, files)
            self._renumber(before, "billing.demand_charges", i)
        whole = billing_of(self.path, BillingTable(names[0], (), names[1], budgets), files)
        self.attempt(owners_of, whole)
        self.attempt(read_reported, whole.reported)

    def _renumber(self, before: int, key: str, i: int, at: int = 0) -> None:
        """Give lines since `before` about a piece, checked as number `at` of an array, its own number `i`."""
        self.lines[before:] = [line.replace(f"{key}[{at}]", f"{key}[{i}]", 1) for line in self.lines[before:]]

    def _files_named(self) -> tables.PlanningTable:
        """Return the files of a table of which another value does not fit."""
        given = self.data.get("planning")
        found = given if isinstance(given, dict) else {}
        names = [name if isinstance(name := found.get(key), str) else None for key in ("weather", "prices", "carbon")]
        return tables.PlanningTable(names[0], names[1], names[2])

    def attempt(self, make: Callable[..., T], *given: object) -> T | None:
        """Return what `make` returns; a refusal is noted, and None returned."""
        try:
            return make(*given)
        except PowerhallError as error:
            self.lines.append(str(error))
        except (KeyError, AssertionError):  # a name that a broken piece may have held
            self.unsure = True
        return None

    def _broken(self, where: str) -> bool:
        return any(bad == where or bad.startswith((f"{where}.", f"{where}[")) for bad in self.bad)

    def _piece(self, where: str, kind: type[T], data: object = None) -> T | None:
        data = self.data.get(where) if data is None else data
        if data is None or self._broken(where):
            return None
        return msgspec.convert(data, kind, dec_hook=quantity_hook)

    def _entries(self, key: str) -> list[tuple[int, Json]]:
        found = self.data.get(key)
        return (
            [(i, entry) for i, entry in enumerate(found) if isinstance(entry, dict)] if isinstance(found, list) else []
        )

    def _list(self, key: str, kind: type[T]) -> Iterator[tuple[int, T]]:
        for i, entry in self._entries(key):
            if (piece := self._piece(f"{key}[{i}]", kind, entry)) is not None:
                yield i, piece

    def _tables(self, key: str, kind: type[T]) -> dict[str, T]:
        found = self.data.get(key)
        entries = found.items() if isinstance(found, dict) else ()
        pieces = {name: self._piece(f"{key}.{name}", kind, entry) for name, entry in entries}
        return {name: piece for name, piece in pieces.items() if piece is not None}

    def _node_type(self, reader: SiteReader, name: str, raw: tables.NodeTypeTable) -> NodeType | None:
        field = f"node_types.{name}"
        for check in (reader.node_figures, reader.node_split):
            self.attempt(check, field, raw)
        if raw.max_power.value > raw.idle_power.value:
            for i, mode in enumerate(raw.modes):
                self.attempt(reader.mode, f"{field}.modes[{i}]", mode, raw)
        self.attempt(reader.unique, f"{field}.modes", [mode.name for mode in raw.modes])
        before = len(self.lines)
        kind = self.attempt(reader.node_type, name, raw)
        self._keep_new(before)
        self.unsure = self.unsure or kind is None
        return kind

    def _figures_of_broken(self, reader: SiteReader) -> None:
        """Check powers and mode names of node types of which another value does not fit."""
        given = self.data.get("node_types")
        for name, entry in given.items() if isinstance(given, dict) else ():
            where = f"node_types.{name}"
            if not isinstance(entry, dict) or not self._broken(where):
                continue
            modes = list(_tables_in(entry.get("modes")))
            self.attempt(
                reader.unique, f"{where}.modes", [n for mode in modes if isinstance(n := mode.get("name"), str)]
            )
            fit = [mode for i, mode in enumerate(modes) if not self._broken(f"{where}.modes[{i}]")]
            whole = {key: value for key, value in entry.items() if not self._broken(f"{where}.{key}")}
            try:
                patched = {"gpu": name, "gpus": 1, **whole, "modes": fit}
                table = msgspec.convert(patched, tables.NodeTypeTable, dec_hook=quantity_hook)
            except msgspec.ValidationError:
                continue
            self.attempt(reader.node_figures, where, table)

    def _keep_new(self, before: int) -> None:
        """Drop lines that only repeat an earlier one."""
        self.lines[before:] = [line for line in self.lines[before:] if line not in self.lines[:before]]

    def _hall(self, reader: SiteReader, i: int, entry: Json) -> Hall | None:
        field = f"halls[{i}]"
        name = entry.get("name")
        if not isinstance(name, str) or self.attempt(reader.name, f"{field}.name", name) is None:
            self.unsure = True
            return None
        rows = []
        listed = entry.get("rows")
        for j, row in enumerate(listed) if isinstance(listed, list) else ():
            if isinstance(row, dict):
                rows.append(self._row(reader, f"{field}.rows[{j}]", name, row))
        plants = []
        cooling = entry.get("cooling")
        for j, plant in enumerate(cooling) if isinstance(cooling, list) else ():
            where = f"{field}.cooling[{j}]"
            table = self._piece(where, tables.PlantTable, plant) if isinstance(plant, dict) else None
            if table is not None:
                self.attempt(reader.plant_name, where, j, table)
                before = len(self.lines)
                built = self.attempt(reader.plant, where, j, table)
                self._keep_new(before)
                plants += [] if built is None else [built]
        if isinstance(cooling, list) and len(plants) < len(cooling):
            self.plants_missing.add(name)
            self.unsure = True
        if isinstance(cooling, list) and len(plants) == len(cooling):
            self.attempt(reader.check_serves, field, plants)
        if self._broken(f"{field}.losses") or self._broken("site.losses") or self._broken(f"{field}.power_limit"):
            self.unsure = True
        losses = reader.losses_of(self._piece(f"{field}.losses", tables.LossesTable, entry.get("losses")))
        limit = None if self._broken(f"{field}.power_limit") else _watts(entry.get("power_limit"))
        return Hall(name, tuple(row for row in rows if row), tuple(plants), losses, limit)

    def _row(self, reader: SiteReader, field: str, hall: str, entry: Json) -> RackRow | None:
        name = entry.get("name")
        if not isinstance(name, str) or self.attempt(reader.name, f"{field}.name", name) is None:
            self.unsure = True
            return None
        racks: list[Rack] = []
        listed = entry.get("racks")
        for i, rack in enumerate(listed) if isinstance(listed, list) else ():
            where = f"{field}.racks[{i}]"
            table = self._piece(where, tables.RackTable, rack) if isinstance(rack, dict) else None
            if table is None or self._of_broken_type(table.node_type):
                if table is not None:
                    self.attempt(reader.nodes, where, f"{hall}/{name}", table.nodes)
                self.unsure = True
                continue
            found: list[Rack] | None = self.attempt(list, reader.racks(where, f"{hall}/{name}", table))
            self.unsure = self.unsure or found is None
            racks += found or []
        limit = None if self._broken(f"{field}.power_limit") else _watts(entry.get("power_limit"))
        return RackRow(f"{hall}/{name}", tuple(racks), limit)

    def _of_broken_type(self, name: str) -> bool:
        return self._broken(f"node_types.{name}") or "node_types" in self.bad

    def _job_classes(self, reader: SiteReader) -> None:
        given = self.data.get("node_types")
        kinds = given.values() if isinstance(given, dict) else ()
        written = {
            mode.get("name") for kind in kinds if isinstance(kind, dict) for mode in _tables_in(kind.get("modes"))
        }
        unsure = written if self._broken("node_types") else set()
        for name, table in self._tables("job_classes", tables.JobClassTable).items():
            for mode, share in table.draw.items():
                if mode not in unsure:
                    self.attempt(reader.job_class, name, tables.JobClassTable(draw={mode: share}))
            for mode, share in table.speed.items():
                if mode not in unsure:
                    self.attempt(reader.job_class, name, tables.JobClassTable(speed={mode: share}))

    def _whole(self, reader: SiteReader, site: Site) -> None:
        """Check what names zones and nodes, and the limits."""
        self.attempt(reader.unique, "zones", list(site.zones()))
        if twice := sorted({node for node, count in Counter(self.names.nodes).items() if count > 1}):
            self.lines.append(f"{self.path}: nodes: {compress(twice)!r}: must be unique")
        zones = SiteIndex.of(site).kinds
        for i, feed in enumerate(site.feeds):
            for member in feed.members:
                self._named(partial(reader.check_member, site, i, member), member not in zones)
        for i, entry in self._entries("feeds"):
            members = entry.get("members") if self._broken(f"feeds[{i}]") else None
            for member in members if isinstance(members, list) else ():
                self._named(partial(reader.check_member, site, i, member), True)
        for key, kind in (("batteries", tables.BatteryTable), ("tanks", tables.TankTable), ("loops", tables.LoopTable)):
            for i, piece in self._list(key, kind):
                hall = getattr(piece, "hall", None)
                doubtful = hall not in zones or hall in self.plants_missing if hall else True
                one = msgspec.structs.replace(reader.raw, **{key: (piece,)})
                self._named(partial(read_storages, self.path, one, site), doubtful, key, i)
        for name, level in self._tables("blocks", tables.BlocksTable).items():
            one = msgspec.structs.replace(reader.raw, blocks={name: level})
            self._named(partial(read_levels, self.path, one, site), True)
        for i, event in self._list("events", tables.EventTable):
            one = msgspec.structs.replace(reader.raw, events=(event,), site=_without_files(reader.raw.site))
            self._named(partial(SiteReader(self.path, one).budgets, site), True, "events", i)
        stored = [str(entry.get("name")) for key in ("batteries", "tanks", "loops") for _, entry in self._entries(key)]
        self.attempt(reader.unique, "names of stores", stored)
        if not self._broken("node_types") and len(site.node_types) == len(reader.raw.node_types):
            self.lines += [str(refusal) for refusal in reader.below_idle(site)]

    def _named(self, check: Callable[[], object], doubtful: bool, key: str = "", i: int = 0) -> None:
        """Check a piece that names others; where the named one may be in a broken piece, an unknown name is no fault.

        With `key`, the piece was checked alone, as the first of its array, and is number `i` of the file.
        """
        before = len(self.lines)
        self.attempt(check)
        if key:
            self._renumber(before, key, i)
        self.lines[before:] = [
            line
            for line in self.lines[before:]
            if not (self.unsure and doubtful and _about_a_name(line)) or self.names.is_nowhere(line)
        ]

    def _files(self, reader: SiteReader) -> None:
        """Read every file that the site names."""
        plan, zone = reader.planning, reader.planning.zone
        rules = WeatherRules(zone, plan.altitude_m, plan.outside)
        reads: Iterable[tuple[Path | None, Callable[[Path], object]]] = (
            (plan.weather, lambda p: read_weather(p, 1.75e9, 1.75e9 + 3600, rules)),
            (plan.prices, lambda p: read_forecast(p, PRICES, zone)),
            (plan.carbon, lambda p: read_forecast(p, CARBON, zone)),
        )
        for path, read in reads:
            if path is not None:
                self.attempt(read, path)
        grid = reader.raw.site
        if grid.grid_budget or grid.events:
            only = msgspec.structs.replace(reader.raw, events=())
            self.attempt(SiteReader(self.path, only).budgets, Site(grid.name, (), {}, {}, ()))


def _tables_in(value: object) -> Iterator[Json]:
    for entry in value if isinstance(value, list) else ():
        yield entry if isinstance(entry, dict) else {}


def _watts(text: object) -> float | None:
    return None if text is None else msgspec.convert(text, Power, dec_hook=quantity_hook).value


def _without_files(site: tables.SiteTable) -> tables.SiteTable:
    return msgspec.structs.replace(site, events=None, grid_budget=None)


def _about_a_name(line: str) -> bool:
    """Whether a refusal is about a name that is not known, which a broken piece may hold."""
    return any(words in line for words in _OF_NAMES)


_OF_NAMES = (
    *("must be the id of", "must be one of", "must be a node or", "must be a hall", "must be the site"),
    *("must be what its plants", "must have at least one block", "has no power limit", "must name nodes of the site"),
)
