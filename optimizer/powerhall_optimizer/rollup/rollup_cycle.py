"""One cycle of the roll-up: read a time range, compute its buckets, write them; repeating it changes nothing.

Every cycle computes the last `late_s` seconds anew, so that readings that come late, from a spool after an outage, are
in the roll-up too. A roll-up is a point like any other: written again it overwrites itself, so cycles may overlap,
repeat, and run beside each other, one per hall.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from powerhall.physics.weather import Weather
from powerhall.runtime.errors import PowerhallError
from powerhall.site.index import SiteIndex
from powerhall.site.topology import Hall, Site
from powerhall.store import Query, Row, Select, Store, what_answers
from powerhall.store.line_protocol import Point, encode
from powerhall.store.schema import MEASUREMENTS
from powerhall_optimizer.rollup.coarse import coarse_points, coarse_range
from powerhall_optimizer.rollup.doubts import doubt_points
from powerhall_optimizer.rollup.events import curtailments, plan_change
from powerhall_optimizer.rollup.planned_power import PlannedPower, gantt_points, read_planned
from powerhall_optimizer.rollup.readings import BUCKET_S, read_hall
from powerhall_optimizer.rollup.zone_sum import RollupContext
from powerhall_optimizer.rollup.zones import hall_points, site_points

__all__ = ["Rollup", "buckets"]

_WEATHER_MAX_AGE_S = 3 * 3600
_CHUNK_POINTS = 5000


def buckets(start_s: float, end_s: float) -> range:
    """Return the starts of the whole buckets in start_s <= time < end_s."""
    first, last = -int(-start_s // BUCKET_S) * BUCKET_S, int(end_s // BUCKET_S) * BUCKET_S
    return range(first, last, BUCKET_S)


@dataclass(slots=True)
class Rollup:
    """The roll-up of some halls of a site, and of the site itself where `with_site`."""

    store: Store
    site: Site
    halls: tuple[str, ...]
    with_site: bool
    stale_after_s: int = 30
    silent: dict[str, str] = field(default_factory=dict, init=False)
    """Why the store of a hall was silent in the last run, by hall; its nodes count at their worst case meanwhile."""
    _shown: PlannedPower | None = field(default=None, init=False)

    def run(self, start_s: float, end_s: float) -> int:
        """Compute and write every whole bucket in the range; return the number of points written."""
        times_s = buckets(start_s, end_s)
        if not times_s:
            return 0
        plan = read_planned(self.store.latest_document("plan", self.site.name))
        weather = self._weather(times_s[0], times_s[-1] + BUCKET_S)
        before, self.silent = self.silent, {}
        context = RollupContext(self.site, weather, _planned(plan), self.stale_after_s)
        written = 0
        for hall in self.halls:
            written += self._write_hall(context, SiteIndex.of(self.site).halls[hall], times_s)
        written += self._write(self._alerts(before, times_s[-1] + BUCKET_S))
        if self.with_site:
            written += self._write(site_points(context, self._hall_rows(times_s)))
            written += self._write(curtailments(self.site, times_s))
            written += self._write_plan(plan)
        return written + self.coarse(times_s[0], times_s[-1] + BUCKET_S)

    def coarse(self, start_s: int, end_s: int) -> int:
        """Write the five-minute points that are complete at `end_s` and hold something after `start_s`."""
        start_s, end_s = coarse_range(start_s, end_s)
        if start_s >= end_s:
            return 0
        site = {"site": self.site.name}
        parts = [(level, site | {"hall": hall}) for hall in self.halls for level in ("rack", "hall")]
        parts += [("site", site)] if self.with_site else []
        return sum(self._write(coarse_points(self.store, level, where, start_s, end_s)) for level, where in parts)

    def _write_hall(self, context: RollupContext, hall: Hall, times_s: range) -> int:
        """Write the roll-ups of a hall and its racks, and the events of readings that are no longer believed."""
        site, since_s, until_s = self.site, times_s[0] - self.stale_after_s - 2 * BUCKET_S, times_s[-1] + BUCKET_S
        kinds = {node: site.node_types[rack.node_type] for rack in hall.racks() for node in rack.nodes}
        zones = [hall.zone, *(rack.zone for rack in hall.racks())]
        meters = {device for zone in zones for device in site.meters.get(zone, ())}
        where = {"site": site.name, "hall": hall.zone}
        ask = what_answers(self.store, lambda part, error: self._hear_not(hall.zone, part, error))
        readings = read_hall(ask, where, kinds, meters, (since_s, until_s))
        written = self._write(hall_points(context, hall, readings, times_s, unheard=hall.zone in self.silent))
        return written + self._write(doubt_points(context, hall, readings, times_s))

    def _hear_not(self, hall: str, part: str, error: PowerhallError) -> None:
        """Note that a hall's own store is silent; the site's is where roll-ups go, and nothing works without it."""
        if not part:
            raise error
        self.silent[hall] = str(error)

    def _alerts(self, before: Mapping[str, str], now_s: int) -> Iterator[Point]:
        """Yield the alarm of each hall whose store is silent, and its end."""
        for hall in {**before, **self.silent}:
            trouble = self.silent.get(hall)
            detail = f"its store is silent, its nodes count at their worst: {trouble}" if trouble else "answers"
            tags = {"site": self.site.name, "zone": hall, "kind": "silent_store"}
            yield Point("alert", tags, {"active": float(trouble is not None), "detail": detail}, now_s * 1000)

    def _write_plan(self, plan: PlannedPower | None) -> int:
        """Write Gantt rows and the event of a plan that is new since the last cycle."""
        before = self._shown
        if plan is None or (before is not None and plan.plan_id == before.plan_id):
            return 0
        halls = tuple(hall.zone for hall in self.site.halls)
        written = self._write(gantt_points(plan, self.site.name, halls))
        change = None if before is None else plan_change(self.site.name, before, plan)
        written += self._write([] if change is None else [change])
        self._shown = plan
        return written

    def _write(self, points: Iterable[Point]) -> int:
        lines = [encode(point) for point in points]
        for at in range(0, len(lines), _CHUNK_POINTS):
            self.store.write(b"".join(lines[at : at + _CHUNK_POINTS]))
        return len(lines)

    def _hall_rows(self, times_s: range) -> list[Row]:
        fields = tuple(Select(entry.name) for entry in MEASUREMENTS["hall_10s"].fields)
        query = Query("hall_10s", fields, {"site": self.site.name}, ("hall",))
        rows = self.store.query(query, times_s[0], times_s[-1] + BUCKET_S)
        return [row for row in rows if row.time_s % BUCKET_S == 0]

    def _weather(self, start_s: int, end_s: int) -> Callable[[float], Weather | None]:
        """Return the outdoor air by time: the newest reading before it within three hours."""
        fields = (Select("dry_bulb_c"), Select("wet_bulb_c"))
        query = Query("weather", fields, {"site": self.site.name})
        readings = [
            (row.time_s, Weather(dry_c, wet_c))
            for row in self.store.query(query, start_s - _WEATHER_MAX_AGE_S, end_s)
            if (dry_c := row.number("dry_bulb_c")) is not None and (wet_c := row.number("wet_bulb_c")) is not None
        ]

        def at(time_s: float) -> Weather | None:
            known = [air for taken_s, air in readings if taken_s <= time_s + BUCKET_S]
            return known[-1] if known else None

        return at


def _planned(plan: PlannedPower | None) -> Callable[[str, float], float | None]:
    return plan.planned_w if plan else lambda _zone, _time_s: None
