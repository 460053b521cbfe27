"""What the store says the site did: meters, and the GPUs as the agents measured them."""

from collections.abc import Mapping
from dataclasses import dataclass

from powerhall.cooling import media
from powerhall.store.base import Store
from powerhall.store.query import Query, Select
from powerhall.topology import Hall, Site
from powerhall_twin.gpus import node_model

__all__ = ["Telemetry", "agents_against_meters", "read_telemetry"]

_SITE = ("facility_power_w", "it_power_w", "cooling_power_w", "loss_power_w", "budget_w")
_HALL = ("it_power_w", "cooling_power_w", "budget_w")


@dataclass(frozen=True, slots=True)
class Telemetry:
    """Series by column, each as long as `times_s`; `gpu_w[hall]` maps times to the sum of the hall's GPUs.

    `cooling[hall, medium]` holds heat and capacity of the plants that serve the medium ("all", "liquid" or "air").
    """

    times_s: tuple[float, ...]
    site: Mapping[str, tuple[float | None, ...]]
    halls: Mapping[str, Mapping[str, tuple[float | None, ...]]]
    cooling: Mapping[tuple[str, str], tuple[tuple[float | None, ...], tuple[float | None, ...]]]
    gpu_w: Mapping[str, Mapping[float, float]]
    dry_bulb_c: tuple[float | None, ...]
    wet_bulb_c: tuple[float | None, ...]


def _columns(
    store: Store, measurement: str, names: tuple[str, ...], where: Mapping[str, str], span: tuple[float, float]
) -> tuple[tuple[float, ...], dict[str, tuple[float | None, ...]]]:
    query = Query(measurement, tuple(Select(name) for name in names), dict(where), tuple(where))
    rows = store.query(query, *span)
    return tuple(r.time_s for r in rows), {name: tuple(r.number(name) for r in rows) for name in names}


def _cooling(
    store: Store, where: Mapping[str, str], medium: str, span: tuple[float, float]
) -> tuple[tuple[float | None, ...], tuple[float | None, ...]]:
    """Return heat and capacity of the plants that serve a medium in a hall."""
    device = {**where, "device": f"cooling_{medium}"}
    heat, capacity = (
        _columns(store, "facility", ("value",), {**device, "point": point}, span)[1]["value"]
        for point in ("heat_w", "capacity_w")
    )
    return heat, capacity


def read_telemetry(store: Store, site: Site, start_s: float, end_s: float, sample_s: float) -> Telemetry:
    """Read the whole run; times are those of the site's meter."""
    span, where = (start_s, end_s + 1.0), {"site": site.name}
    times_s, whole = _columns(store, "site_10s", _SITE, where, span)
    halls = {h.zone: _columns(store, "hall_10s", _HALL, {**where, "hall": h.zone}, span)[1] for h in site.halls}
    _, air = _columns(store, "weather", ("dry_bulb_c", "wet_bulb_c"), where, span)
    query = Query("gpu", (Select("power_w", "sum"),), where, ("hall",), every_s=sample_s)
    gpu_w: dict[str, dict[float, float]] = {hall.zone: {} for hall in site.halls}
    for row in store.query(query, *span):
        power_w = row.number("power_w")
        if power_w is not None:
            gpu_w[row.tags["hall"]][row.time_s] = power_w
    cooling = {(h.zone, m): _cooling(store, {**where, "hall": h.zone}, m, span) for h in site.halls for m in media(h)}
    return Telemetry(times_s, whole, halls, cooling, gpu_w, air["dry_bulb_c"], air["wet_bulb_c"])


def agents_against_meters(site: Site, telemetry: Telemetry, sample_s: float) -> float | None:
    """Return the mean relative difference of the halls' IT power: meters, and computed from the agents' GPU power.

    The first record of an agent is a mean that reaches back to the idle site, and is left out.
    """
    errors = []
    for hall in site.halls:
        for time_s, meter_w in zip(telemetry.times_s, telemetry.halls[hall.zone]["it_power_w"], strict=True):
            gpus_w = telemetry.gpu_w[hall.zone].get(time_s // sample_s * sample_s)
            if gpus_w and meter_w and time_s >= telemetry.times_s[0] + 1.5 * sample_s:
                errors.append(abs(_it_w(site, hall, gpus_w) - meter_w) / meter_w)
    return sum(errors) / len(errors) if errors else None


def _it_w(site: Site, hall: Hall, gpus_w: float) -> float:
    """Return the hall's IT power for the power of all its GPUs; its nodes are taken to be of the first rack's type."""
    racks = list(hall.racks())
    model = node_model(site.node_types[racks[0].node_type])
    assert model is not None
    nodes = sum(len(rack.nodes) for rack in racks)
    idle_w = nodes * model.gpus * model.gpu.idle_w
    return nodes * model.rest_idle_w + gpus_w + model.rest_slope * max(0.0, gpus_w - idle_w)
