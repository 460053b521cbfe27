"""The meters of the simulated building: IT power per zone, losses, cooling, and the heat that stays in a hall.

Thermal inertia is first order: `C dT/dt = heat - removed`. The plants remove heat up to their capacity and reduce an
excess temperature with a time constant. C is the water of the loop: 10 l per kW of plant (41.8 J/K per W, 418 s for
10 K without any cooling).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from powerhall.physics.cooling import HallLoad, hall_load
from powerhall.physics.weather import Weather
from powerhall.site.index import SiteIndex
from powerhall.site.topology import Hall, Site

__all__ = ["HallMeter", "Reading", "SiteMeter"]

_WATER_J_PER_K_W = 41.8
_PULL_BACK_S = 600.0


@dataclass(frozen=True, slots=True)
class Reading:
    """One moment, in W: IT power per zone (feeds, halls, rows, racks), load and excess in K per hall, site power."""

    it_w: Mapping[str, float]
    halls: Mapping[str, HallLoad]
    excess_k: Mapping[str, float]
    facility_w: float

    def power_w(self, site: Site, zone: str) -> float:
        """Return the power that counts against a zone's budget: facility power for the site, IT power below."""
        return self.facility_w if zone == site.name else self.it_w[zone]


@dataclass(slots=True)
class HallMeter:
    """The heat stored in one hall, as kelvin above the set point."""

    hall: Hall
    excess_k: float = 0.0

    def advance(self, load: HallLoad, dt_s: float) -> None:
        """Advance the temperature by `dt_s` seconds."""
        heat_w, capacity_w = sum(load.heat_w.values()), sum(load.capacity_w.values())
        water_j_per_k = _WATER_J_PER_K_W * sum(plant.capacity_w for plant in self.hall.plants)
        if water_j_per_k <= 0:
            return
        over_w = sum(max(0.0, load.heat_w[m] - load.capacity_w[m]) for m in load.heat_w)
        spare_w = max(0.0, capacity_w - heat_w) if over_w <= 0 else 0.0
        pull_w = min(spare_w, water_j_per_k * self.excess_k / max(_PULL_BACK_S, dt_s))
        self.excess_k = max(0.0, self.excess_k + (over_w - pull_w) * dt_s / water_j_per_k)


@dataclass(slots=True)
class SiteMeter:
    """Reads the whole site from the power of its racks."""

    site: Site
    halls: dict[str, HallMeter] = field(default_factory=dict)

    @classmethod
    def of(cls, site: Site) -> "SiteMeter":
        """Return meters of a site at its set points."""
        return cls(site, {hall.zone: HallMeter(hall) for hall in site.halls})

    def read(self, rack_w: Mapping[str, float], weather: Weather, dt_s: float) -> Reading:
        """Take one reading from the IT power of every rack; `dt_s` is the time since the last one."""
        index = SiteIndex.of(self.site)
        it_w = dict.fromkeys((z for rack in index.racks for z in index.zones_above(rack)), 0.0)
        for rack, power_w in rack_w.items():
            for zone in index.zones_above(rack):
                it_w[zone] += power_w
        loads = {hall.zone: self._hall(hall, rack_w, weather) for hall in self.site.halls}
        for zone, load in loads.items():
            self.halls[zone].advance(load, dt_s)
        excess_k = {zone: meter.excess_k for zone, meter in self.halls.items()}
        return Reading(it_w, loads, excess_k, sum(load.facility_power_w for load in loads.values()))

    def _hall(self, hall: Hall, rack_w: Mapping[str, float], weather: Weather) -> HallLoad:
        liquid_w = air_w = 0.0
        for rack in hall.racks():
            share = self.site.node_types[rack.node_type].liquid_fraction
            liquid_w += share * rack_w[rack.zone]
            air_w += (1 - share) * rack_w[rack.zone]
        return hall_load(hall, liquid_w, air_w, weather)
