"""site.toml into a `Site`; a refusal is one line with file, field, value and what is allowed."""

from collections.abc import Iterator
from pathlib import Path

import msgspec

from powerhall.hostlist import expand
from powerhall.physics.plants.kinds import PLANT_KINDS
from powerhall.physics.plants.plant import Plant
from powerhall.runtime.errors import Rejected
from powerhall.runtime.settings import read_toml
from powerhall.site import site_tables as tables
from powerhall.site.curtailment import NO_LIMIT_W, Event, Ramp, curtailed, parse_event, read_events
from powerhall.site.index import SiteIndex
from powerhall.site.quantities import Quantity, quantity_hook
from powerhall.site.storage_reader import read_storages
from powerhall.site.topology import Feed, Hall, JobClass, Losses, Mode, NodeType, Rack, RackRow, Site
from powerhall.timeseries import Series, read_series
from powerhall.units import format_power

__all__ = ["Planning", "read_site"]


class Planning(msgspec.Struct, frozen=True):
    """Files that a plan needs besides the site: weather, prices ($/MWh), carbon intensity (g/kWh)."""

    weather: Path | None = None
    prices: Path | None = None
    carbon: Path | None = None


def _value(quantity: Quantity | None) -> float | None:
    return None if quantity is None else quantity.value


class _SiteReader:
    """Builds the topology from the decoded file and checks conditions on several fields."""

    def __init__(self, path: Path, raw: tables.SiteFile) -> None:
        self.path = path
        self.raw = raw

    def refuse(self, field: str, value: object, allowed: str) -> Rejected:
        return Rejected.field(str(self.path), field, value, allowed)

    def name(self, field: str, text: str) -> str:
        if not tables.is_name(text):
            raise self.refuse(field, text, tables.NAME)
        return text

    def node_type(self, name: str, raw: tables.NodeTypeTable) -> NodeType:
        field = f"node_types.{self.name('node_types', name)}"
        idle, most = raw.idle_power.value, raw.max_power.value
        if most <= idle:
            allowed = f"must be above idle_power ({raw.idle_power.text})"
            raise self.refuse(f"{field}.max_power", raw.max_power.text, allowed)
        safe = raw.safe_cap or raw.idle_power
        if not idle <= safe.value <= most:
            raise self.refuse(f"{field}.safe_cap", safe.text, "must lie between idle_power and max_power")
        if not raw.modes:
            raise self.refuse(f"{field}.modes", "[]", "must name at least one mode")
        found = [self.mode(f"{field}.modes[{i}]", mode, raw) for i, mode in enumerate(raw.modes)]
        modes = tuple(sorted(found, key=lambda mode: -mode.speed))
        self.unique(f"{field}.modes", [mode.name for mode in modes])
        return NodeType(name, raw.gpu, raw.gpus, idle, most, safe.value, raw.liquid_fraction, modes)

    def mode(self, field: str, raw: tables.ModeTable, node: tables.NodeTypeTable) -> Mode:
        idle_w, most_w = node.idle_power.value / node.gpus, node.max_power.value / node.gpus
        if not idle_w <= raw.gpu_power.value <= most_w + 1e-6:
            allowed = f"must lie between the GPU's share of idle ({idle_w:.0f} W) and of maximum ({most_w:.0f} W)"
            raise self.refuse(f"{field}.gpu_power", raw.gpu_power.text, allowed)
        if raw.kind == "clock_lock" and raw.sm_clock_mhz is None:
            raise self.refuse(f"{field}.sm_clock_mhz", None, "a clock_lock mode needs sm_clock_mhz")
        name, limit_w = self.name(f"{field}.name", raw.name), _value(raw.gpu_power_limit)
        return Mode(name, raw.kind, raw.gpu_power.value, raw.speed, limit_w, raw.sm_clock_mhz)

    def job_class(self, name: str, raw: tables.JobClassTable) -> JobClass:
        known = {mode.name for kind in self.raw.node_types.values() for mode in kind.modes}
        for table, values in (("draw", raw.draw), ("speed", raw.speed)):
            for mode in values:
                if mode not in known:
                    allowed = f"must be one of the modes {', '.join(sorted(known))}"
                    raise self.refuse(f"job_classes.{name}.{table}.{mode}", mode, allowed)
        return JobClass(name, raw.draw, raw.speed)

    def plant(self, field: str, index: int, raw: tables.PlantTable) -> Plant:
        if raw.kind not in PLANT_KINDS:
            raise self.refuse(f"{field}.kind", raw.kind, f"must be one of {', '.join(PLANT_KINDS)}")
        return Plant(
            name=self.name(f"{field}.name", raw.name or f"plant{index + 1}"),
            kind=raw.kind,
            capacity_w=raw.capacity.value,
            serves=raw.serves,
            supply_temp_c=raw.supply_temp.value,
            return_rise_k=raw.return_rise_k,
            approach_k=raw.approach_k,
            rated_ambient_c=raw.rated_ambient.value,
            cop=raw.cop,
            fan_power_w=raw.fan_power.value,
            pump_power_w=raw.pump_power.value,
            free_cooling=raw.free_cooling,
        )

    def racks(self, field: str, zone: str, raw: tables.RackTable) -> Iterator[Rack]:
        if raw.node_type not in self.raw.node_types:
            allowed = f"must be one of {', '.join(sorted(self.raw.node_types))}"
            raise self.refuse(f"{field}.node_type", raw.node_type, allowed)
        if isinstance(raw.nodes, str) and raw.count != 1:
            raise self.refuse(f"{field}.nodes", raw.nodes, "node names need count = 1; give each rack its own entry")
        limit_w = _value(raw.power_limit)
        base = self.name(f"{field}.name", "k" if raw.name is None else raw.name)
        for i in range(raw.count):
            rack = base if raw.count == 1 and raw.name is not None else f"{base}{i + 1:02d}"
            yield Rack(f"{zone}/{rack}", raw.node_type, self.nodes(field, f"{zone}/{rack}", raw.nodes), limit_w)

    def nodes(self, field: str, zone: str, raw: int | str) -> tuple[str, ...]:
        if isinstance(raw, int):
            if not 1 <= raw <= 10_000:
                raise self.refuse(f"{field}.nodes", raw, "must be 1 to 10000, or names such as 'gn[01-16]'")
            stem = zone.replace("/", "-")
            if "[" in stem or "]" in stem:
                raise self.refuse(f"{field}.nodes", raw, f"names made of {zone} would read as a range; name the nodes")
            return tuple(f"{stem}-n{i + 1:02d}" for i in range(raw))
        try:
            return expand(raw)
        except ValueError as error:
            raise self.refuse(f"{field}.nodes", raw, str(error)) from None

    def row(self, field: str, hall: str, raw: tables.RowTable) -> RackRow:
        zone = f"{hall}/{self.name(f'{field}.name', raw.name)}"
        racks = tuple(
            rack for i, entry in enumerate(raw.racks) for rack in self.racks(f"{field}.racks[{i}]", zone, entry)
        )
        return RackRow(zone, racks, _value(raw.power_limit))

    def hall(self, field: str, raw: tables.HallTable) -> Hall:
        name = self.name(f"{field}.name", raw.name)
        rows = tuple(self.row(f"{field}.rows[{i}]", name, row) for i, row in enumerate(raw.rows))
        plants = tuple(self.plant(f"{field}.cooling[{i}]", i, plant) for i, plant in enumerate(raw.cooling))
        serves = sorted({plant.serves for plant in plants})
        if serves not in ([], ["all"], ["air", "liquid"]):
            raise self.refuse(
                f"{field}.cooling.serves", serves, "must be all of them 'all', or both 'liquid' and 'air'"
            )
        losses = raw.losses or self.raw.site.losses
        lost = Losses(losses.fixed.value, losses.linear, losses.quadratic_per_w)
        return Hall(name, rows, plants, lost, _value(raw.power_limit))

    def unique(self, field: str, names: list[str]) -> None:
        seen: set[str] = set()
        for name in names:
            if name in seen:
                raise self.refuse(field, name, "must be unique")
            seen.add(name)

    def feeds(self) -> tuple[Feed, ...]:
        feeds = tuple(
            Feed(self.name(f"feeds[{i}].name", raw.name), raw.members, raw.power_limit.value, raw.parent)
            for i, raw in enumerate(self.raw.feeds)
        )
        parents = {feed.zone: feed.parent for feed in feeds}
        for i, feed in enumerate(feeds):
            seen = {feed.zone}
            at = feed.parent
            while at is not None:
                if at not in parents:
                    raise self.refuse(
                        f"feeds[{i}].parent", at, f"must be one of the feeds {', '.join(sorted(parents))}"
                    )
                if at in seen:
                    raise self.refuse(f"feeds[{i}].parent", feed.parent, "must not form a cycle")
                seen.add(at)
                at = parents[at]
        return feeds

    def budgets(self, site: Site) -> dict[str, Series]:
        series: dict[str, Series] = {}
        grid = self.raw.site.grid_budget
        if grid is not None:
            columns = {"power_w": 1.0, "power_kw": 1e3, "power_mw": 1e6}
            budget = read_series(self.path.parent / grid, columns)
            if min(budget.values) < 0:
                raise Rejected.field(str(self.path.parent / grid), "power", min(budget.values), "must not be negative")
            series[site.name] = budget
        limits = SiteIndex.of(site).limits_w
        ramp = Ramp(site.ramp_down_w_per_s, site.ramp_up_w_per_s)
        events: dict[str, list[Event]] = {}
        for field, event in self.events(site.name):
            if event.zone not in limits:
                raise self.refuse(f"{field}.zone", event.zone, "must be the id of a zone, such as 'hall1/row1'")
            if event.limit_w is None and limits[event.zone] is None and event.zone not in series:
                raise self.refuse(f"{field}.reduce_percent", event.share * 100, "the zone has no power limit to reduce")
            events.setdefault(event.zone, []).append(event)
        for zone, listed in events.items():
            limit_w = limits[zone]
            before = series.get(zone) or Series((0.0,), (NO_LIMIT_W if limit_w is None else limit_w,))
            series[zone] = curtailed(before, listed, ramp)
        return series

    def events(self, site: str) -> Iterator[tuple[str, Event]]:
        for i, raw in enumerate(self.raw.events):
            try:
                yield f"events[{i}]", parse_event(raw.zone, raw.start, raw.end, raw.power_limit, raw.reduce_percent)
            except ValueError as error:
                raise Rejected(f"{self.path}: events[{i}].{error}") from None
        if self.raw.site.events is not None:
            path = self.path.parent / self.raw.site.events
            for i, event in enumerate(read_events(path, site)):
                yield f"{self.raw.site.events}[{i}]", event

    def site(self) -> Site:
        raw = self.raw
        if not raw.halls:
            raise self.refuse("halls", "[]", "must name at least one hall")
        site = Site(
            name=self.name("site.name", raw.site.name),
            halls=tuple(self.hall(f"halls[{i}]", hall) for i, hall in enumerate(raw.halls)),
            node_types={name: self.node_type(name, kind) for name, kind in raw.node_types.items()},
            job_classes={name: self.job_class(name, kind) for name, kind in raw.job_classes.items()},
            feeds=self.feeds(),
            power_limit_w=_value(raw.site.power_limit),
            ramp_up_w_per_s=_value(raw.site.ramp_up),
            ramp_down_w_per_s=_value(raw.site.ramp_down),
        )
        self.unique("zones", list(site.zones()))
        self.unique("nodes", [node for rack in site.racks() for node in rack.nodes])
        zones = set(site.zones())
        for i, feed in enumerate(site.feeds):
            for member in feed.members:
                if member not in zones or member == site.name or any(member == f.zone for f in site.feeds):
                    raise self.refuse(f"feeds[{i}].members", member, "must be the id of a hall, row or rack")
        site = msgspec.structs.replace(
            site, budgets=self.budgets(site), storages=read_storages(self.path, self.raw, site)
        )
        self.above_idle(site)
        return site

    def above_idle(self, site: Site) -> None:
        """Refuse a constant limit below the idle load of its zone: no plan could hold it."""
        index = SiteIndex.of(site)
        idle = dict.fromkeys(index.kinds, 0.0)
        for rack in site.racks():
            load_w = index.rack_type(rack).idle_power_w * len(rack.nodes)
            for zone in index.zones_above(rack.zone):
                idle[zone] += load_w
        idle[site.name] = sum(idle[hall.zone] + hall.losses.power_w(idle[hall.zone]) for hall in site.halls)
        for zone, limit in index.limits_w.items():
            if limit is not None and limit < idle[zone]:
                allowed = f"must be at least the zone's idle load of {format_power(idle[zone])}"
                raise self.refuse(f"{zone}.power_limit", format_power(limit), allowed)


def read_site(path: str | Path) -> tuple[Site, Planning]:
    """Read site.toml; paths inside it are relative to it. A wrong file raises Rejected or ConfigError with one line."""
    path = Path(path)
    raw = read_toml(path, tables.SiteFile, quantity_hook)
    site = _SiteReader(path, raw).site()

    def beside(name: str | None) -> Path | None:
        return None if name is None else path.parent / name

    plan = raw.planning
    return site, Planning(beside(plan.weather), beside(plan.prices), beside(plan.carbon))
