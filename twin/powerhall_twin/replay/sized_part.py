"""Parts of a site that may be larger or smaller: batteries, tanks, cooling plants; each in proportion."""

from collections.abc import Callable

import msgspec

from powerhall.physics.plants.plant import Plant
from powerhall.runtime.errors import Rejected
from powerhall.site.storage import Storage
from powerhall.site.topology import Site

__all__ = ["PARTS", "SizedPart", "part_of"]


class SizedPart(msgspec.Struct, frozen=True):
    """Units of a kind, all or those of a name, and what they have together now."""

    kind: str
    units: tuple[str, ...]
    """Names of stores, or HALL/PLANT."""
    own: float
    unit: str

    def scaled(self, site: Site, factor: float) -> Site:
        """Return the site with these units `factor` times as large, powers and contents in proportion."""
        return _SCALED[self.kind](site, frozenset(self.units), factor)


def part_of(site: Site, kind: str, name: str | None) -> SizedPart:
    """Return the units of a kind at a site; Rejected where it has none, or none of this name."""
    if kind == "cooling":
        sizes = {f"{hall.zone}/{plant.name}": plant.capacity_w / 1e3 for hall in site.halls for plant in hall.plants}
    else:
        sizes = {unit.name: unit.capacity_j / 3.6e6 for unit in site.storages if unit.kind == kind}
    if not sizes:
        raise Rejected.field("command line", "--of", kind, "needs one in the site file, which is then scaled")
    found = {unit: size for unit, size in sizes.items() if name in (None, unit, unit.partition("/")[0])}
    if not found:
        raise Rejected.field("command line", "--name", name, f"must be one of {', '.join(sizes)}")
    return SizedPart(kind, tuple(found), sum(found.values()), "kW" if kind == "cooling" else "kWh")


def _stores(site: Site, names: frozenset[str], factor: float) -> Site:
    kept = (_store(unit, factor) if unit.name in names else unit for unit in site.storages)
    return msgspec.structs.replace(site, storages=tuple(unit for unit in kept if unit.capacity_j > 0))


def _store(unit: Storage, factor: float) -> Storage:
    return msgspec.structs.replace(
        unit,
        charge_w=factor * unit.charge_w,
        discharge_w=factor * unit.discharge_w,
        capacity_j=factor * unit.capacity_j,
        start_j=factor * unit.start_j,
        end_j=factor * unit.end_j,
        min_j=factor * unit.min_j,
    )


def _plants(site: Site, names: frozenset[str], factor: float) -> Site:
    halls = tuple(
        msgspec.structs.replace(
            hall,
            plants=tuple(
                _plant(plant, factor) if f"{hall.zone}/{plant.name}" in names else plant for plant in hall.plants
            ),
        )
        for hall in site.halls
    )
    return msgspec.structs.replace(site, halls=halls)


def _plant(plant: Plant, factor: float) -> Plant:
    return msgspec.structs.replace(
        plant,
        capacity_w=factor * plant.capacity_w,
        fan_power_w=factor * plant.fan_power_w,
        pump_power_w=factor * plant.pump_power_w,
    )


_SCALED: dict[str, Callable[[Site, frozenset[str], float], Site]] = {
    "battery": _stores,
    "tank": _stores,
    "cooling": _plants,
}
PARTS = tuple(_SCALED)
