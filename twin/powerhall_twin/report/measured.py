"""Telemetry of a run, read back from the store: meters, and the GPUs as the agents measured them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from powerhall.physics.cooling import media
from powerhall.site.topology import Hall, Site
from powerhall.store.base import Store
from powerhall.store.query import Query, Row, Select
from powerhall_twin.site.node_power import node_model

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


_Columns = Mapping[str, tuple[float | None, ...]]


class _Reader:
    """Reads a run's series at the times of the site's meter.

    A run that is interrupted leaves its last sample half written, so rows are matched by time, not by their number.
    """

    def __init__(self, store: Store, site: str, start_s: float, end_s: float) -> None:
        self._store, self._site, self._span = store, site, (start_s, end_s + 1.0)
        self.times_s = tuple(self._rows("site_10s", _SITE, {}))

    def columns(self, measurement: str, names: tuple[str, ...], **tags: str) -> _Columns:
        """Return a series for each field, None where the store has no row at a time."""
        rows = self._rows(measurement, names, tags)
        return {name: tuple(rows[at].number(name) if at in rows else None for at in self.times_s) for name in names}

    def _rows(self, measurement: str, names: tuple[str, ...], tags: Mapping[str, str]) -> dict[float, Row]:
        where = {"site": self._site, **tags}
        query = Query(measurement, tuple(Select(name) for name in names), where, tuple(where))
        return {row.time_s: row for row in self._store.query(query, *self._span)}

    def gpu_w(self, halls: Iterable[str], sample_s: float) -> dict[str, dict[float, float]]:
        """Return the sum of each hall's GPUs by sample."""
        query = Query("gpu", (Select("power_w", "sum"),), {"site": self._site}, ("hall",), every_s=sample_s)
        sums: dict[str, dict[float, float]] = {hall: {} for hall in halls}
        for row in self._store.query(query, *self._span):
            power_w = row.number("power_w")
            if power_w is not None:
                sums[row.tags["hall"]][row.time_s] = power_w
        return sums


def _cooling(reader: _Reader, hall: str, medium: str) -> tuple[tuple[float | None, ...], tuple[float | None, ...]]:
    """Return heat and capacity of the plants that serve a medium in a hall."""
    heat, capacity = (
        reader.columns("facility", ("value",), hall=hall, device=f"cooling_{medium}", point=point)["value"]
        for point in ("heat_w", "capacity_w")
    )
    return heat, capacity


def read_telemetry(store: Store, site: Site, start_s: float, end_s: float, sample_s: float) -> Telemetry:
    """Read the whole run; times are those of the site's meter."""
    reader = _Reader(store, site.name, start_s, end_s)
    return Telemetry(
        times_s=reader.times_s,
        site=reader.columns("site_10s", _SITE),
        halls={hall.zone: reader.columns("hall_10s", _HALL, hall=hall.zone) for hall in site.halls},
        cooling={(h.zone, m): _cooling(reader, h.zone, m) for h in site.halls for m in media(h)},
        gpu_w=reader.gpu_w((hall.zone for hall in site.halls), sample_s),
    )


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
