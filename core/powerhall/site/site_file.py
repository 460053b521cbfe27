"""site.toml into a `Site`; a refusal is one line with file, field, value and what is allowed."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from powerhall.forecasts.csv_series import BUDGET, read_forecast
from powerhall.forecasts.local_time import parse_zone
from powerhall.hostlist import expand
from powerhall.physics.plants.chiller_curves import ChillerCurves
from powerhall.physics.plants.kinds import PLANT_KINDS
from powerhall.physics.plants.plant import Plant
from powerhall.runtime.errors import Rejected
from powerhall.runtime.settings import read_toml
from powerhall.site import site_tables as tables
from powerhall.site.billing import billing_of
from powerhall.site.block_reader import read_levels
from powerhall.site.chiller_files import checked_curves, read_curves
from powerhall.site.curtailment import NO_LIMIT_W, Event, Ramp, curtailed, event_end, parse_event, read_events
from powerhall.site.index import SiteIndex, ZoneKind
from powerhall.site.planning import Planning
from powerhall.site.quantities import Quantity, quantity_hook
from powerhall.site.storage_reader import read_storages
from powerhall.site.topology import Feed, Hall, JobClass, Losses, Mode, NodeType, Rack, RackRow, Site
from powerhall.timeseries import Series, parse_time
from powerhall.units import format_power

__all__ = ["Planning", "SiteReader", "read_site"]


def _value(quantity: Quantity | None) -> float | None:
    return None if quantity is None else quantity.value


class SiteReader:  # read_site builds a site with it; site_check takes its checks one by one
    """Builds the topology from the decoded file and checks conditions on several fields."""

    def __init__(self, path: Path, raw: tables.SiteFile) -> None:
        self.path = path
        self.raw = raw
        self.meters: dict[str, tuple[str, ...]] = {}
        self.metered: set[str] = set()
        self.planning = self.planning_of(raw)

    def planning_of(self, raw: tables.SiteFile) -> Planning:
        if raw.site.timezone is not None:
            try:
                parse_zone(raw.site.timezone)
            except ValueError as error:
                raise self.refuse("site.timezone", raw.site.timezone, str(error)) from None
        plan = raw.planning
        return Planning(
            self.beside(plan.weather),
            self.beside(plan.prices),
            self.beside(plan.carbon),
            raw.site.timezone,
            raw.site.altitude_m,
            plan.stale_forecast,
            billing=billing_of(self.path, raw.billing, {"cost": plan.prices, "co2": plan.carbon}),
        )

    def beside(self, name: str | None) -> Path | None:
        return None if name is None else self.path.parent / name

    def refuse(self, field: str, value: object, allowed: str) -> Rejected:
        return Rejected.field(str(self.path), field, value, allowed)

    def name(self, field: str, text: str) -> str:
        if not tables.is_name(text):
            raise self.refuse(field, text, tables.NAME)
        return text

    def node_type(self, name: str, raw: tables.NodeTypeTable) -> NodeType:
        field = f"node_types.{self.name('node_types', name)}"
        safe = self.node_figures(field, raw)
        if not raw.modes:
            raise self.refuse(f"{field}.modes", "[]", "must name at least one mode")
        found = [self.mode(f"{field}.modes[{i}]", mode, raw) for i, mode in enumerate(raw.modes)]
        modes = tuple(sorted(found, key=lambda mode: -mode.speed))
        self.unique(f"{field}.modes", [mode.name for mode in modes])
        self.node_split(field, raw)
        split = raw.gpu_parts, raw.mig, raw.gpu_fill
        power_w = raw.idle_power.value, raw.max_power.value, safe.value
        return NodeType(name, raw.gpu, raw.gpus, *power_w, raw.liquid_fraction, modes, *split)

    def node_figures(self, field: str, raw: tables.NodeTypeTable) -> Quantity:
        """Check the powers of a node type; return its safe cap."""
        idle, most = raw.idle_power.value, raw.max_power.value
        if most <= idle:
            allowed = f"must be above idle_power ({raw.idle_power.text})"
            raise self.refuse(f"{field}.max_power", raw.max_power.text, allowed)
        safe = raw.safe_cap or raw.idle_power
        if not idle <= safe.value <= most:
            raise self.refuse(f"{field}.safe_cap", safe.text, "must lie between idle_power and max_power")
        return safe

    def node_split(self, field: str, raw: tables.NodeTypeTable) -> None:
        """Check the parts of a GPU."""
        if raw.mig and raw.gpu_parts == 1:
            raise self.refuse(
                f"{field}.gpu_parts", raw.gpu_parts, "must be the MIG instances of each GPU where mig is set"
            )

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
        curves = self.curves(field, raw)
        self.temperatures(field, raw, curves)
        default_cop = 6.0 if curves is None else curves.cop
        return Plant(
            name=self.plant_name(field, index, raw),
            kind=raw.kind,
            capacity_w=raw.capacity.value,
            serves=raw.serves,
            supply_temp_c=raw.supply_temp.value,
            return_rise_k=raw.return_rise_k,
            approach_k=raw.approach_k,
            rated_ambient_c=raw.rated_ambient.value,
            cop=default_cop if raw.cop is None else raw.cop,
            fan_power_w=raw.fan_power.value,
            pump_power_w=raw.pump_power.value,
            free_cooling=raw.free_cooling,
            units=raw.units,
            min_part_load=raw.min_part_load,
            heat_rejection=raw.heat_rejection,
            pad_effectiveness=raw.pad_effectiveness,
            concentration_cycles=raw.concentration_cycles,
            drift_share=raw.drift_share,
            curves=curves,
        )

    def plant_name(self, field: str, index: int, raw: tables.PlantTable) -> str:
        return self.name(f"{field}.name", raw.name or f"plant{index + 1}")

    def curves(self, field: str, raw: tables.PlantTable) -> ChillerCurves | None:
        """Return the curve set of a chiller, which it needs and no other kind may have."""
        given = [name for name in ("curves", "curves_file") if getattr(raw, name) is not None]
        if raw.kind != "chiller":
            if given:
                raise self.refuse(f"{field}.{given[0]}", "given", f"kind {raw.kind!r} has no curve set")
            return None
        if len(given) != 1:
            value = " and ".join(given) or None
            raise self.refuse(f"{field}.curves", value, "a chiller needs curves or curves_file, one of them")
        if raw.curves_file is not None:
            return read_curves(self.path.parent / raw.curves_file, raw.curve_set)
        assert raw.curves is not None
        return checked_curves(raw.curves, str(self.path), f"{field}.curves")

    def temperatures(self, field: str, raw: tables.PlantTable, curves: ChillerCurves | None) -> None:
        """Refuse set points at which the plant's formulas do not hold."""
        supply, rated = raw.supply_temp, raw.rated_ambient
        if curves is not None and supply.value < curves.evaporator_temp_c[0]:
            allowed = f"must be at least {curves.evaporator_temp_c[0]:g} degC, the lowest of its curve set"
            raise self.refuse(f"{field}.supply_temp", supply.text, allowed)
        if raw.kind == "evaporative" and supply.value - raw.approach_k < rated.value + 0.5:
            allowed = f"must be at least approach_k ({raw.approach_k:g} K) and 0.5 K above rated_ambient ({rated.text})"
            raise self.refuse(f"{field}.supply_temp", supply.text, allowed)
        if raw.kind == "adiabatic" and supply.value < rated.value + 0.5:
            allowed = f"must be at least 0.5 K above rated_ambient ({rated.text})"
            raise self.refuse(f"{field}.supply_temp", supply.text, allowed)

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
            self.meter(f"{field}.meters", f"{zone}/{rack}", tuple(name.replace("{rack}", rack) for name in raw.meters))
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

    def meter(self, field: str, zone: str, devices: tuple[str, ...]) -> None:
        """Note the meters of a zone; one device meters one zone."""
        for device in devices:
            if not device or device in self.metered:
                raise self.refuse(field, device, "must name each device once; {rack} is the rack's name")
            self.metered.add(device)
        if devices:
            self.meters[zone] = devices

    def row(self, field: str, hall: str, raw: tables.RowTable) -> RackRow:
        zone = f"{hall}/{self.name(f'{field}.name', raw.name)}"
        racks = tuple(
            rack for i, entry in enumerate(raw.racks) for rack in self.racks(f"{field}.racks[{i}]", zone, entry)
        )
        return RackRow(zone, racks, _value(raw.power_limit))

    def hall(self, field: str, raw: tables.HallTable) -> Hall:
        name = self.name(f"{field}.name", raw.name)
        self.meter(f"{field}.meters", name, raw.meters)
        rows = tuple(self.row(f"{field}.rows[{i}]", name, row) for i, row in enumerate(raw.rows))
        plants = tuple(self.plant(f"{field}.cooling[{i}]", i, plant) for i, plant in enumerate(raw.cooling))
        self.check_serves(field, plants)
        return Hall(name, rows, plants, self.losses_of(raw.losses), _value(raw.power_limit))

    def check_serves(self, field: str, plants: Sequence[Plant]) -> None:
        """Refuse plants of which some serve all and others a medium, or only one medium is served."""
        self.unique(f"{field}.cooling", [plant.name for plant in plants])
        serves = sorted({plant.serves for plant in plants})
        if serves not in ([], ["all"], ["air", "liquid"]):
            raise self.refuse(
                f"{field}.cooling.serves", serves, "must be all of them 'all', or both 'liquid' and 'air'"
            )

    def losses_of(self, own: tables.LossesTable | None) -> Losses:
        losses = own or self.raw.site.losses
        return Losses(losses.fixed.value, losses.linear, losses.quadratic_per_w)

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
        for i, feed in enumerate(feeds):
            self.unique(f"feeds[{i}].members", list(feed.members))
        parents = {feed.zone: feed.parent for feed in feeds}
        for i, feed in enumerate(feeds):
            if not feed.members and feed.zone not in parents.values():
                raise self.refuse(
                    f"feeds[{i}].members", [], "must name a hall, row or rack, or another feed its parent"
                )
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
            budget = read_forecast(self.path.parent / grid, BUDGET, self.planning.zone, self.planning.outside)
            series[site.name] = budget.series
            self.planning = msgspec.structs.replace(self.planning, grid_budget=budget.coverage)
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

    def check_moment(self, field: str, moment: str | float) -> None:
        try:
            if moment != "":
                parse_time(str(moment), self.planning.zone)
        except ValueError as error:
            raise self.refuse(field, moment, str(error)) from None

    def events(self, site: str) -> Iterator[tuple[str, Event]]:
        for i, raw in enumerate(self.raw.events):
            for key, moment in (("start", raw.start), ("end", raw.end)):
                self.check_moment(f"events[{i}].{key}", moment)
            try:
                zone, end = self.planning.zone, raw.end
                if end == "":
                    end = event_end(parse_time(str(raw.start), zone), str(raw.duration), zone)
                amounts = raw.power_limit, raw.reduce_percent
                event = parse_event(raw.zone, raw.start, end, *amounts, zone, reduce_by=raw.reduce_by)
                yield f"events[{i}]", event
            except ValueError as error:
                raise Rejected(f"{self.path}: events[{i}].{error}") from None
        if self.raw.site.events is not None:
            path = self.path.parent / self.raw.site.events
            for i, event in enumerate(read_events(path, site, self.planning.zone)):
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
        for i, feed in enumerate(site.feeds):
            for member in feed.members:
                self.check_member(site, i, member)
        site = msgspec.structs.replace(
            site,
            budgets=self.budgets(site),
            storages=read_storages(self.path, self.raw, site),
            levels=read_levels(self.path, self.raw, site),
            meters=self.meters,
        )
        for refusal in self.below_idle(site):
            raise refusal
        return site

    def check_member(self, site: Site, i: int, member: str) -> None:
        """Refuse a member of a feed that is no hall, row or rack."""
        if SiteIndex.of(site).kinds.get(member) not in (ZoneKind.HALL, ZoneKind.ROW, ZoneKind.RACK):
            raise self.refuse(f"feeds[{i}].members", member, "must be the id of a hall, row or rack")

    def below_idle(self, site: Site) -> Iterator[Rejected]:
        """Yield the refusals of constant limits below the idle load of their zone: no plan could hold them."""
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
                yield self.refuse(f"{zone}.power_limit", format_power(limit), allowed)


def read_site(path: str | Path) -> tuple[Site, Planning]:
    """Read site.toml; paths inside it are relative to it. A wrong file raises Rejected or ConfigError with one line."""
    path = Path(path)
    raw = read_toml(path, tables.SiteFile, quantity_hook)
    reader = SiteReader(path, raw)
    return reader.site(), reader.planning
