"""Margins below budgets for the error of the draw forecast, and cooling plants scaled to measurements."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist, median

import msgspec
import numpy as np

from powerhall.physics.cooling import hall_load
from powerhall.physics.weather import Weather
from powerhall.plan.plan import Snapshot
from powerhall.site.index import SiteIndex
from powerhall.site.topology import Hall, Site
from powerhall_optimizer.inputs.forecast import Draw

__all__ = ["CoolingReading", "margins_w", "scaled_plants"]

_PRIOR_HOURS = 5.0


def margins_w(snapshot: Snapshot, learned: Mapping[str, Draw], risk: float) -> dict[str, float]:
    """Return the margin below each zone's budget such that the true draw exceeds it with a probability of `risk`.

    Errors of different jobs are independent: where many jobs share a zone their sum grows with the square root of their
    number, so the margin of a site is small. A rack may hold a single job, so there all GPUs are taken to be wrong
    together. Under a power limit no job draws more than the mode's planning figure, whatever its class is like: that
    bounds the error. Nothing is kept free before anything was learned.
    """
    head = worst = 0.0
    limited = {m.name for k in snapshot.site.node_types.values() for m in k.modes if m.kind == "power_limit"}
    for key, draw in learned.items():
        most = 1.0 if key.rpartition(" ")[2] in limited else math.inf
        head = max(head, min(draw.quantile(1 - risk), most) - draw.mean)
        worst = max(worst, draw.spread)
    if head <= 0:
        return {}
    sigma = NormalDist().inv_cdf(1 - risk) * worst
    job_w = _typical_job_w(snapshot)
    index = SiteIndex.of(snapshot.site)
    margins: dict[str, float] = {}
    for zone, full_w in _dynamic_w(snapshot.site).items():
        if index.limits_w[zone] is None and zone not in snapshot.site.budgets:
            continue
        independent = sigma * math.sqrt(full_w * min(job_w, full_w))
        margins[zone] = round(head * full_w if zone in index.racks else min(head * full_w, independent), 1)
    return margins


def _typical_job_w(snapshot: Snapshot) -> float:
    """Power of the job that a random busy watt belongs to: sum of squares over sum, at the fastest mode of any type."""
    per_gpu = max(m.gpu_power_w - k.idle_gpu_power_w for k in snapshot.site.node_types.values() for m in k.modes)
    sizes = np.array([job.gpus * per_gpu for job in snapshot.jobs] or [per_gpu])
    return float((sizes**2).sum() / sizes.sum())


def _dynamic_w(site: Site) -> dict[str, float]:
    """Return the most IT power that jobs can add in each zone."""
    index = SiteIndex.of(site)
    found: dict[str, float] = {}
    racks: dict[str, float] = {}
    for rack in site.racks():
        kind = site.node_types[rack.node_type]
        most = max(mode.gpu_power_w for mode in kind.modes) * kind.gpus - kind.idle_power_w
        racks[rack.zone] = most * len(rack.nodes)
        hall, row = index.hall_of_rack[rack.zone].zone, index.row_of_rack[rack.zone].zone
        for zone in (site.name, hall, row, rack.zone):
            found[zone] = found.get(zone, 0.0) + racks[rack.zone]
    for feed in site.feeds:
        found[feed.zone] = sum(racks[rack.zone] for rack in index.racks_under(feed.zone))
    return found


@dataclass(frozen=True, slots=True)
class CoolingReading:
    """One hour of a hall: IT power, cooling power in W, and the weather."""

    it_power_w: float
    cooling_power_w: float
    weather: Weather


def scaled_plants(hall: Hall, liquid_share: float, readings: Sequence[CoolingReading]) -> Hall:
    """Return the hall with its plants' powers scaled by the median ratio of measured to modelled power.

    With few hours the factor is shrunk towards 1; it is kept within 0.7 to 2.
    """
    ratios: list[float] = []
    for reading in readings:
        liquid = reading.it_power_w * liquid_share
        model = hall_load(hall, liquid, reading.it_power_w - liquid, reading.weather).cooling_power_w
        if model > 0 and math.isfinite(reading.cooling_power_w) and reading.cooling_power_w > 0:
            ratios.append(reading.cooling_power_w / model)
    if not ratios:
        return hall
    factor = (_PRIOR_HOURS + len(ratios) * median(ratios)) / (_PRIOR_HOURS + len(ratios))
    factor = round(min(max(factor, 0.7), 2.0), 4)
    plants = tuple(
        msgspec.structs.replace(
            plant,
            cop=plant.cop / factor,
            fan_power_w=plant.fan_power_w * factor,
            pump_power_w=plant.pump_power_w * factor,
        )
        for plant in hall.plants
    )
    return msgspec.structs.replace(hall, plants=plants)
