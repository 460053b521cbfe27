"""Batteries, tanks and loops of site.toml into `Storage`; a refusal names file, field, value and what is allowed."""

from collections.abc import Iterator
from pathlib import Path

from powerhall.physics.cooling import media
from powerhall.physics.plants.kinds import kind_of
from powerhall.physics.plants.plant import Plant
from powerhall.runtime.errors import Rejected
from powerhall.site import site_tables as tables
from powerhall.site.index import SiteIndex
from powerhall.site.storage import Storage
from powerhall.site.topology import Hall, Site

__all__ = ["read_storages"]

_HEAT_USD_PER_MWH = 0.1
"""Wear of pumps and valves; keeps a plan from moving heat for no gain."""


class _StorageReader:
    def __init__(self, path: Path, site: Site) -> None:
        self.path = path
        self.site = site

    def refuse(self, field: str, value: object, allowed: str) -> Rejected:
        return Rejected.field(str(self.path), field, value, allowed)

    def number(self, field: str, value: float, low: float) -> float:
        if value < low:
            raise self.refuse(field, value, f"must be a number from {low:g} to 1")
        return value

    def shares(self, field: str, raw: tables.BatteryTable | tables.TankTable) -> tuple[float, float, float]:
        """Return the least, first and last content as shares; the last defaults to the first."""
        least = raw.min_share
        start = self.number(f"{field}.start_share", raw.start_share, least)
        end = start if raw.end_share is None else self.number(f"{field}.end_share", raw.end_share, least)
        return least, start, end

    def battery(self, field: str, raw: tables.BatteryTable) -> Storage:
        at = self.site.name if raw.at is None else raw.at
        index = SiteIndex.of(self.site)
        feeds = index.feeds
        if at != self.site.name and at not in feeds:
            allowed = f"must be the site {self.site.name}" + (f" or a feed: {', '.join(feeds)}" if feeds else "")
            raise self.refuse(f"{field}.at", at, allowed)
        for zone in index.feeds_above(at):
            racks = {rack.zone for rack in index.racks_under(zone)}
            for hall in self.site.halls:
                inside = [rack.zone in racks for rack in hall.racks()]
                if any(inside) and not all(inside):
                    allowed = f"must hang under feeds of whole halls; {zone} carries a part of {hall.zone}"
                    raise self.refuse(f"{field}.at", at, allowed)
        energy = raw.energy.value
        least, start, end = self.shares(field, raw)
        return Storage(
            raw.name,
            "battery",
            at,
            raw.charge_power.value,
            raw.discharge_power.value,
            energy,
            energy * start,
            energy * end,
            energy * least,
            efficiency=raw.round_trip,
            cycle_usd_per_mwh=raw.cycle_usd_per_mwh,
            refill_usd_per_mwh=raw.refill_usd_per_mwh,
        )

    def plants(self, field: str, hall: str, serves: str) -> list[Plant]:
        """Return the plants that a storage of cooling relieves."""
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
        energy = raw.energy.value
        least, start, end = self.shares(field, raw)
        return Storage(
            raw.name,
            "tank",
            raw.hall,
            raw.charge_power.value,
            raw.discharge_power.value,
            energy,
            energy * start,
            energy * end,
            energy * least,
            raw.serves,
            raw.efficiency,
            raw.loss_per_h,
            _HEAT_USD_PER_MWH,
            raw.refill_usd_per_mwh,
        )

    def lowest_supply_c(self, field: str, raw: tables.LoopTable, set_c: float, plants: list[Plant]) -> float:
        """Return the supply temperature of a full loop; below the set point only for plants that need no weather."""
        if raw.min_supply is None:
            return set_c
        if raw.min_supply.value < set_c and any(kind_of(plant).needs_weather for plant in plants):
            allowed = f"must be at least {set_c:g} degC, for which the capacity of its plants is known"
            raise self.refuse(f"{field}.min_supply", raw.min_supply.text, allowed)
        return raw.min_supply.value

    def highest_supply_c(
        self, field: str, raw: tables.LoopTable, low_c: float, plants: list[Plant], above_w: float
    ) -> float:
        """Return the supply temperature of an empty loop when its heat may exceed the plants' capacity by `above_w`."""
        name, limit, full_c = "max_supply", raw.max_supply.text, raw.max_supply.value
        if raw.max_return is not None:  # the return is warmest at the highest heat that a plan may foresee
            rated_w = sum(plant.capacity_w for plant in plants)
            rise_k = max(plant.return_rise_k for plant in plants) * (1.0 + above_w / max(rated_w, 1.0))
            if raw.max_return.value - rise_k < full_c:
                name, limit, full_c = "max_return", raw.max_return.text, raw.max_return.value - rise_k
        if full_c <= low_c:
            allowed = f"must leave room above the set point: the supply may rise from {low_c:g} to {full_c:g} degC"
            raise self.refuse(f"{field}.{name}", limit, allowed)
        return full_c

    def loop(self, field: str, raw: tables.LoopTable, beside_w: float) -> Storage:
        """Return a loop; the tanks of its hall and medium deliver `beside_w` at most, which its racks may add."""
        plants = self.plants(field, raw.hall, raw.serves)
        heat, overshoot = raw.heat_capacity.value, raw.overshoot.value
        recovery = overshoot if raw.recovery is None else raw.recovery.value
        set_c = max(plant.supply_temp_c for plant in plants)
        low_c = self.lowest_supply_c(field, raw, set_c, plants)
        full_c = self.highest_supply_c(field, raw, low_c, plants, overshoot + beside_w)
        end_c = max(low_c, min(set_c, full_c))
        start_c = end_c if raw.start_supply is None else raw.start_supply.value
        if not low_c <= start_c <= full_c:
            shown = raw.start_supply and raw.start_supply.text
            raise self.refuse(f"{field}.start_supply", shown, f"must be {low_c:g} to {full_c:g} degC")
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
            refill_usd_per_mwh=raw.refill_usd_per_mwh,
            heat_capacity_j_per_k=heat,
            min_supply_c=low_c,
            max_supply_c=raw.max_supply.value,
            max_return_c=None if raw.max_return is None else raw.max_return.value,
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
    """Return the storages of a site whose halls and feeds are read."""
    reader = _StorageReader(path, site)
    found: list[Storage] = []
    seen = set(site.zones())
    for field, storage in reader.all(raw):
        name = storage.name
        if not tables.is_name(name):
            raise reader.refuse(f"{field}.name", name, tables.NAME)
        if name in seen:
            raise reader.refuse(f"{field}.name", name, "must be unique among zones and stores")
        seen.add(name)
        found.append(storage)
    return tuple(found)
