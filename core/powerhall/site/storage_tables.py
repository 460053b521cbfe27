"""The batteries, tanks and loops of site.toml into `Storage`; every refusal names file, field, value and allowed."""

import math
from collections.abc import Callable, Iterator
from pathlib import Path

from powerhall.physics.cooling import media
from powerhall.physics.plants.kinds import kind_of
from powerhall.physics.plants.plant import Plant
from powerhall.runtime.errors import Rejected
from powerhall.site import site_tables as tables
from powerhall.site.storage import W_CLASSES, Storage, parse_heat_capacity
from powerhall.site.topology import Hall, Site
from powerhall.units import parse_energy, parse_power, parse_temperature

__all__ = ["read_storages"]

_HEAT_USD_PER_MWH = 0.1
"""Wear of pumps and valves: nothing moves without a reason."""


class _Reader:
    def __init__(self, path: Path, site: Site) -> None:
        self.path = path
        self.site = site

    def refuse(self, field: str, value: object, allowed: str) -> Rejected:
        return Rejected.field(str(self.path), field, value, allowed)

    def quantity(self, field: str, text: str, parse: Callable[[str], float]) -> float:
        try:
            value = parse(text)
        except ValueError as error:
            raise self.refuse(field, text, str(error)) from None
        if parse is not parse_temperature and not 0.0 < value < 1e15:
            raise self.refuse(field, text, "must be above zero")
        return value

    def number(self, field: str, value: float, low: float, high: float) -> float:
        if not (math.isfinite(value) and low <= value <= high):
            raise self.refuse(field, value, f"must be a number from {low:g} to {high:g}")
        return value

    def shares(self, field: str, raw: tables.BatteryTable | tables.TankTable) -> tuple[float, float, float]:
        """Return least, first and last content as shares; at the end a store should hold what it held at the start."""
        least = self.number(f"{field}.min_share", raw.min_share, 0.0, 1.0)
        start = self.number(f"{field}.start_share", raw.start_share, least, 1.0)
        end = start if raw.end_share is None else self.number(f"{field}.end_share", raw.end_share, least, 1.0)
        return least, start, end

    def battery(self, field: str, raw: tables.BatteryTable) -> Storage:
        at = self.site.name if raw.at is None else raw.at
        feeds = {feed.zone: feed for feed in self.site.feeds}
        if at != self.site.name and at not in feeds:
            allowed = f"must be the site {self.site.name}" + (f" or a feed: {', '.join(feeds)}" if feeds else "")
            raise self.refuse(f"{field}.at", at, allowed)
        for zone in self.site.feeds_above(at):
            racks = {rack.zone for rack in self.site.feed_racks(feeds[zone])}
            for hall in self.site.halls:
                inside = [rack.zone in racks for rack in hall.racks()]
                if any(inside) and not all(inside):
                    allowed = f"must hang under feeds of whole halls; {zone} carries a part of {hall.zone}"
                    raise self.refuse(f"{field}.at", at, allowed)
        energy = self.quantity(f"{field}.energy", raw.energy, parse_energy)
        least, start, end = self.shares(field, raw)
        return Storage(
            raw.name,
            "battery",
            at,
            self.quantity(f"{field}.charge_power", raw.charge_power, parse_power),
            self.quantity(f"{field}.discharge_power", raw.discharge_power, parse_power),
            energy,
            energy * start,
            energy * end,
            energy * least,
            efficiency=self.number(f"{field}.round_trip", raw.round_trip, 0.1, 1.0),
            cycle_usd_per_mwh=self.number(f"{field}.cycle_usd_per_mwh", raw.cycle_usd_per_mwh, 0.0, 1e6),
            refill_usd_per_mwh=self.number(f"{field}.refill_usd_per_mwh", raw.refill_usd_per_mwh, 0.0, 1e6),
        )

    def plants(self, field: str, hall: str, serves: str) -> list[Plant]:
        """Return the plants that a store of cooling stands beside."""
        halls: dict[str, Hall] = {entry.zone: entry for entry in self.site.halls if entry.plants}
        if hall not in halls:
            raise self.refuse(f"{field}.hall", hall, f"must be a hall with cooling: {', '.join(halls) or 'none has'}")
        if serves not in media(halls[hall]):
            raise self.refuse(
                f"{field}.serves", serves, f"must be what its plants serve: {', '.join(media(halls[hall]))}"
            )
        return [plant for plant in halls[hall].plants if plant.serves == serves]

    def tank(self, field: str, raw: tables.TankTable) -> Storage:
        self.plants(field, raw.hall, raw.serves)
        energy = self.quantity(f"{field}.energy", raw.energy, parse_energy)
        least, start, end = self.shares(field, raw)
        return Storage(
            raw.name,
            "tank",
            raw.hall,
            self.quantity(f"{field}.charge_power", raw.charge_power, parse_power),
            self.quantity(f"{field}.discharge_power", raw.discharge_power, parse_power),
            energy,
            energy * start,
            energy * end,
            energy * least,
            raw.serves,
            self.number(f"{field}.efficiency", raw.efficiency, 0.1, 1.0),
            self.number(f"{field}.loss_per_h", raw.loss_per_h, 0.0, 0.5),
            _HEAT_USD_PER_MWH,
            self.number(f"{field}.refill_usd_per_mwh", raw.refill_usd_per_mwh, 0.0, 1e6),
        )

    def temp_c(self, field: str, text: str | None, default_c: float) -> float:
        return default_c if text is None else self.quantity(field, text, parse_temperature)

    def limit_c(self, field: str, text: str) -> float:
        if text in W_CLASSES:
            return W_CLASSES[text]
        try:
            return parse_temperature(text)
        except ValueError:
            allowed = f"must be a temperature such as '32 degC', or an ASHRAE class: {', '.join(W_CLASSES)}"
            raise self.refuse(field, text, allowed) from None

    def loop(self, field: str, raw: tables.LoopTable, beside_w: float) -> Storage:
        """Return a loop; tanks beside it deliver `beside_w` at most, by which the heat of its racks may be higher."""
        plants = self.plants(field, raw.hall, raw.serves)
        overshoot = self.quantity(f"{field}.overshoot", raw.overshoot, parse_power)
        recovery = overshoot if raw.recovery is None else self.quantity(f"{field}.recovery", raw.recovery, parse_power)
        heat = self.quantity(f"{field}.heat_capacity", raw.heat_capacity, parse_heat_capacity)
        set_c = max(plant.supply_temp_c for plant in plants)
        low_c = self.temp_c(f"{field}.min_supply", raw.min_supply, set_c)
        if low_c < set_c and any(kind_of(plant).needs_weather for plant in plants):
            allowed = f"must be at least {set_c:g} degC, for which the capacity of its plants is known"
            raise self.refuse(f"{field}.min_supply", raw.min_supply, allowed)
        most_c = self.limit_c(f"{field}.max_supply", raw.max_supply)
        back_c = None if raw.max_return is None else self.temp_c(f"{field}.max_return", raw.max_return, 0.0)
        full_c = most_c
        if back_c is not None:  # the return is warmest at the highest heat that the plan may foresee
            rated_w = sum(plant.capacity_w for plant in plants)
            rise_k = max(plant.return_rise_k for plant in plants) * (1.0 + (overshoot + beside_w) / max(rated_w, 1.0))
            full_c = min(full_c, back_c - rise_k)
        if full_c <= low_c:
            name = "max_supply" if full_c == most_c else "max_return"
            value = raw.max_supply if full_c == most_c else raw.max_return
            allowed = f"must leave room above the set point: the supply may rise from {low_c:g} to {full_c:g} degC"
            raise self.refuse(f"{field}.{name}", value, allowed)
        end_c = max(low_c, min(set_c, full_c))
        start_c = self.temp_c(f"{field}.start_supply", raw.start_supply, end_c)
        if not low_c <= start_c <= full_c:
            raise self.refuse(f"{field}.start_supply", raw.start_supply, f"must be {low_c:g} to {full_c:g} degC")
        room_j = heat * (full_c - low_c)
        return Storage(
            raw.name,
            "loop",
            raw.hall,
            recovery,
            overshoot,
            room_j,
            heat * (full_c - start_c),
            heat * (full_c - end_c),
            medium=raw.serves,
            cycle_usd_per_mwh=_HEAT_USD_PER_MWH,
            refill_usd_per_mwh=self.number(f"{field}.refill_usd_per_mwh", raw.refill_usd_per_mwh, 0.0, 1e6),
            heat_capacity_j_per_k=heat,
            min_supply_c=low_c,
            max_supply_c=most_c,
            max_return_c=back_c,
        )

    def all(self, raw: tables.SiteFile) -> Iterator[tuple[str, Storage]]:
        for i, battery in enumerate(raw.batteries):
            yield f"batteries[{i}]", self.battery(f"batteries[{i}]", battery)
        beside_w: dict[tuple[str, str], float] = {}
        for i, entry in enumerate(raw.tanks):
            tank = self.tank(f"tanks[{i}]", entry)
            beside_w[tank.zone, tank.medium] = beside_w.get((tank.zone, tank.medium), 0.0) + tank.discharge_w
            yield f"tanks[{i}]", tank
        for i, loop in enumerate(raw.loops):
            if any((other.hall, other.serves) == (loop.hall, loop.serves) for other in raw.loops[:i]):
                allowed = f"must be one loop per hall and medium; {loop.hall} ({loop.serves}) has one"
                raise self.refuse(f"loops[{i}].serves", loop.serves, allowed)
            yield f"loops[{i}]", self.loop(f"loops[{i}]", loop, beside_w.get((loop.hall, loop.serves), 0.0))


def read_storages(path: Path, raw: tables.SiteFile, site: Site) -> tuple[Storage, ...]:
    """Return the stores of a site whose halls and feeds are read."""
    reader = _Reader(path, site)
    found: list[Storage] = []
    seen = set(site.zones())
    for field, storage in reader.all(raw):
        name = storage.name
        if not name or any(c in name for c in "/,=\" \\\n\t'") or not name.isprintable():
            allowed = "must be a name without spaces, '/', ',', '=', quotes or backslashes"
            raise reader.refuse(f"{field}.name", name, allowed)
        if name in seen:
            raise reader.refuse(f"{field}.name", name, "must be unique among zones and stores")
        seen.add(name)
        found.append(storage)
    return tuple(found)
