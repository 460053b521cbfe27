"""The limit at the meter in the bound: prices of each pool's IT power and of the meter, against lines below the curves.

With a price `mu` of a W of IT in each pool and slot, and `lam` of a W at the meter, the jobs of every plan pay `mu` for
their IT power `x`, and what they pay is at most

    lam * limit + max over 0 <= x <= most of ( sum of mu * x - lam * power(x) )

because `power(x)`, IT, losses and plants of all halls less the batteries, is within the limit. `power` is replaced by
a line below it (`curves`), so that the maximum falls apart into pools: `most * max(0, mu - lam * slope)`. The
certificate has the points at which the lines touch; any points do.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from powerhall.physics.cooling import hall_load, media
from powerhall.physics.weather import Weather
from powerhall.runtime.errors import Rejected
from powerhall.site.storage import Storage
from powerhall_optimizer.verify.capacities import Capacities, HallLoadAtIdle, Pool
from powerhall_optimizer.verify.curves import ONE, Line, loss_line, plants_line

__all__ = ["SiteMeter"]

Points = Mapping[str, Sequence[int]]


@dataclass(frozen=True, slots=True)
class _HallLine:
    """A plane below a hall's power at the meter: its value when idle, slopes per pool and per medium, all over ONE."""

    idle: int
    slopes: tuple[int, ...]
    media: Mapping[str, int]


class SiteMeter:
    """The limit at the meter of a site with lines at the points of a certificate; names are without the site's."""

    def __init__(self, capacities: Capacities, points: Points) -> None:
        self.capacities = capacities
        self.site = capacities.snapshot.site.name
        self.limit = capacities.amounts.get(f"{self.site}.facility_w")
        self.pools = [[capacities.pools[h.hall.zone, kind] for kind in h.kinds] for h in capacities.halls]
        self.names = {self.capacities.meter_name(pool) for row in self.pools for pool in row}
        self.lines: list[list[_HallLine]] = []
        if self.limit is not None:
            self.lines = [self._hall(idle, row, points) for idle, row in zip(capacities.halls, self.pools, strict=True)]

    def prices_of(self, plain: Mapping[str, Sequence[int]]) -> Sequence[int]:
        """Return the price of a W at the meter per slot."""
        return plain.get(f"{self.site}.facility_w", (0,) * self.capacities.snapshot.slots)

    def cost(self, plain: Mapping[str, Sequence[int]]) -> int:
        """Return the most that jobs can pay for their IT power, rounded up, in the unit of the prices."""
        if self.limit is None:
            return 0
        total = 0
        for slot, (price, limit) in enumerate(zip(self.prices_of(plain), self.limit.tolist(), strict=True)):
            total += price * (limit * ONE - sum(lines[slot].idle for lines in self.lines))
        for lines, pools in zip(self.lines, self.pools, strict=True):
            for number, pool in enumerate(pools):
                row = plain.get(self.capacities.meter_name(pool))
                if row is not None:
                    most = self.capacities.meter_most[pool.hall, pool.kind.name].tolist()
                    paid = zip(row, self.prices_of(plain), most, lines, strict=True)
                    total += sum(x * max(0, mu * ONE - lam * line.slopes[number]) for mu, lam, x, line in paid)
        return -(-total // ONE)

    def earned(self, storage: Storage) -> list[int]:
        """Return per slot the W at the meter, over ONE, that a W from a unit saves."""
        slots = self.capacities.snapshot.slots
        if self.limit is None:
            return [0] * slots
        if storage.kind == "battery":
            return [ONE] * slots
        hall = next(n for n, idle in enumerate(self.capacities.halls) if idle.hall.zone == storage.zone)
        return [line.media.get(storage.medium, 0) for line in self.lines[hall]]

    def most_it_w(self, name: str) -> list[int]:
        """Return per slot the most IT power of a pool within the limit at the meter, every other pool idle."""
        assert self.limit is not None
        idle, pool = next(
            (idle, pool)
            for idle, row in zip(self.capacities.halls, self.pools, strict=True)
            for pool in row
            if self.capacities.meter_name(pool) == name
        )
        free_w = self.limit - self.capacities.idle_meter_w()
        most = self.capacities.meter_most[pool.hall, pool.kind.name]
        known: dict[tuple[Weather, float, int], int] = {}
        for key in zip(self.capacities.air, free_w.tolist(), most.tolist(), strict=True):
            if key not in known:
                known[key] = _inverse(idle, pool.kind.liquid_fraction, *key)
        return [known[key] for key in zip(self.capacities.air, free_w.tolist(), most.tolist(), strict=True)]

    def _hall(self, idle: HallLoadAtIdle, pools: Sequence[Pool], points: Points) -> list[_HallLine]:
        slots = self.capacities.snapshot.slots
        zone = idle.hall.zone
        most_w = {m: max(1.0, *self.capacities.plants_w(idle.hall, m).tolist()) for m in media(idle.hall)}
        loss_w = idle.hall.losses.power_w(idle.idle_w)
        heat_w = {"all": idle.idle_w + loss_w, "liquid": idle.liquid_w, "air": idle.air_w + loss_w}
        tops = {"it_w": idle.idle_w + idle.jobs_w} | {f"heat_{m}_w": max(w, heat_w[m]) for m, w in most_w.items()}
        starts = {"it_w": idle.idle_w} | {f"heat_{m}_w": heat_w[m] for m in most_w}
        rows = [_row(points, f"{zone}.{part}", starts[part], top_w, slots) for part, top_w in tops.items()]
        known: dict[tuple[Weather, tuple[int, ...]], _HallLine] = {}
        found: list[_HallLine] = []
        for air, at in zip(self.capacities.air, zip(*rows, strict=True), strict=True):
            if (air, at) not in known:
                parts = zip(most_w, at[1:], strict=True)
                plants = {m: plants_line(idle.hall, m, air, w, tops[f"heat_{m}_w"]) for m, w in parts}
                known[air, at] = _plane(idle, pools, loss_line(idle.hall.losses, at[0]), plants)
            found.append(known[air, at])
        return found


def _row(points: Points, name: str, default_w: float, most_w: float, slots: int) -> list[int]:
    """Return the points of one curve, within its range; where the certificate has none, the idle hall's."""
    row = points.get(name)
    if row is None:
        return [math.floor(default_w)] * slots
    if len(row) != slots:
        raise Rejected.field("plan", f"certificate.points.{name}", len(row), f"must be {slots} numbers")
    top = math.ceil(most_w)
    return [min(max(point, 0), top) for point in row]


def _plane(idle: HallLoadAtIdle, pools: Sequence[Pool], loss: Line, plants: Mapping[str, Line]) -> _HallLine:
    """Add up the lines: the heat of the plants follows from IT power and losses, and plants draw more for more heat."""
    it = math.floor(idle.idle_w) * ONE
    lost = loss.over_one(it)
    heat = {"all": it + lost, "liquid": math.floor(idle.liquid_w) * ONE, "air": math.floor(idle.air_w) * ONE + lost}
    total = it + lost + sum(line.over_one(heat[medium]) for medium, line in plants.items())
    slopes: list[int] = []
    for pool in pools:
        share = pool.kind.liquid_fraction
        part = {
            "all": ONE + loss.slope,
            "liquid": math.floor(share * ONE),
            "air": math.floor((1.0 - share) * ONE) + loss.slope,
        }
        slopes.append(ONE + loss.slope + sum(line.slope * part[medium] // ONE for medium, line in plants.items()))
    return _HallLine(total, tuple(slopes), {medium: line.slope for medium, line in plants.items()})


def _inverse(idle: HallLoadAtIdle, share: float, air: Weather, free_w: float, most: int) -> int:
    """Return the most whole W of IT on one node type that raise a hall's power at the meter by `free_w`, at most."""

    def rise_w(it_w: int) -> float:
        load = hall_load(idle.hall, idle.liquid_w + share * it_w, idle.air_w + (1.0 - share) * it_w, air)
        return load.facility_power_w - idle_w

    idle_w = hall_load(idle.hall, idle.liquid_w, idle.air_w, air).facility_power_w
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        if rise_w(middle) <= free_w:
            low = middle
        else:
            high = middle - 1
    return low
