"""Limits, effect on capacities and cost of a storage unit, in whole numbers; and its part of the bound.

A storage unit delivers `d` W or takes up `c` W per slot and holds `e` J. Powers and contents are whole W and J. A W
delivered adds at most `gain / 2**20` W to a resource (rounded up), a W taken up costs at least `load / 2**20` W of it
(rounded down), by tangents of the curves where they bend; what it saves at the meter is in `meter`. Costs are multiples
of 2**-30 units of value per W and slot, or per J that is missing at the end. All sums are fractions of whole numbers,
so nothing is lost.

Why the sum of `most_value` proves its part: with prices lambda of the capacities and any value pi_t of a J after slot
t, add `pi_t * (keep * e_(t-1) + dt * (efficiency * c_t - d_t) - e_t)`, which is 0 for every dispatch that obeys the
unit's dynamics, to the gain of the unit. The rest falls apart into terms of one d, c or e each, and each is at most its
maximum over its own range. So the sum of the maxima is an upper bound whatever pi is (weak Lagrangian duality).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from powerhall.physics.cooling import medium_load
from powerhall.plan.plan import Snapshot
from powerhall.site.storage import Storage, keep_factor, trajectory
from powerhall_optimizer.verify.capacities import Capacities, air_slope, it_at_air_heat_w, it_at_heat_w
from powerhall_optimizer.verify.options import energy_usd_per_mwh

__all__ = ["STORED_VALUE_SCALE", "StorageTerms", "dispatch_cost", "most_value", "storage_terms"]

Floats = npt.NDArray[np.float64]
_PER_W = 1 << 20
_PER_COST = 1 << 30
STORED_VALUE_SCALE = 1 << 20
"""The certificate gives the value of a J in units of value over its scale times this."""


@dataclass(frozen=True, slots=True)
class StorageTerms:
    """One storage unit; `low_j` has a value per slot and one for the end, costs and effects one per slot.

    `effects[resource]` is (gain, load) over 2**20; costs are over 2**30.
    """

    storage: Storage
    slot_s: int
    start_j: int
    low_j: tuple[int, ...]
    high_j: int
    end_j: int
    discharge_cost: tuple[int, ...]
    charge_cost: tuple[int, ...]
    missing_cost: int
    effects: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]]


def storage_terms(snapshot: Snapshot, capacities: Capacities, unit: float) -> list[StorageTerms]:
    """Return the terms of every storage unit of a site; `unit` is the unit of value in USD."""
    return [_terms(snapshot, capacities, storage, unit) for storage in snapshot.site.storages]


def _terms(s: Snapshot, capacities: Capacities, storage: Storage, unit: float) -> StorageTerms:
    high_j = int(storage.capacity_j)
    start_j = max(0, min(int(s.stored_j.get(storage.name, storage.start_j)), high_j))
    left_j = [int(state) for state in trajectory(storage, start_j, (0,) * s.slots, s.slot_s)]
    low_j = [min(int(storage.min_j), left) for left in left_j[:-1]]
    low_j.append(min(int(storage.end_j), left_j[-1], high_j))
    wear = storage.cycle_usd_per_mwh / 3.6e9 * s.slot_s / unit
    per_w = energy_usd_per_mwh(s) / 3.6e9 * s.slot_s / unit
    effects, meter_w_per_w = _effects(s, capacities, storage)
    energy = per_w * meter_w_per_w
    return StorageTerms(
        storage,
        s.slot_s,
        start_j,
        tuple(low_j),
        high_j,
        min(int(storage.end_j), high_j),
        _rounded((wear - energy) * _PER_COST),
        _rounded((energy + (0.0 if storage.kind == "battery" else wear)) * _PER_COST),
        round(storage.refill_usd_per_mwh / 3.6e9 / unit * _PER_COST),
        effects,
    )


def _effects(
    s: Snapshot, capacities: Capacities, storage: Storage
) -> tuple[dict[str, tuple[tuple[int, ...], tuple[int, ...]]], Floats]:
    """Return the effect of a W on every resource that it touches, and the W at the meter that its cost counts."""
    one = np.ones(s.slots)
    if storage.kind == "battery":
        return {f"{zone}.it_w": _effect(one, one) for zone in capacities.index.feeds_above(storage.zone)}, one
    effect = _effect(*_heat(s, capacities, storage))
    return {f"{storage.zone}.heat_{storage.medium}_w": effect}, _mean_slope(s, capacities, storage)


def _effect(gain: Floats, load: Floats) -> tuple[tuple[int, ...], tuple[int, ...]]:
    up, down = np.ceil(gain * _PER_W), np.floor(load * _PER_W)
    return tuple(int(w) for w in up.tolist()), tuple(int(w) for w in down.tolist())


def _heat(s: Snapshot, capacities: Capacities, storage: Storage) -> tuple[Floats, Floats]:
    """Gain and load of a tank or loop at its plants.

    The IT power that the plants carry is concave in their capacity where losses bend upwards: its slope at their own
    capacity is an upper bound of the gain and a lower bound of the load. Heat to air: the least slope of any node type.
    """
    one = np.ones(s.slots)
    if storage.medium == "liquid":
        return one, one
    idle = next(part for part in capacities.halls if part.hall.zone == storage.zone)
    losses, capacity_w = idle.hall.losses, capacities.plants_w(idle.hall, storage.medium)
    if storage.medium == "all":
        top_w = np.array([it_at_heat_w(losses, capacity + 1.0) for capacity in capacity_w.tolist()])
        at_top: Floats = 1.0 / (1.0 + losses.linear + 2.0 * losses.quadratic_per_w * top_w)
        return at_top * (1 + 1e-12), at_top * (1 - 1e-12)
    room_w = capacity_w - idle.air_w - losses.power_w(idle.idle_w)
    least: Floats = one
    for name in idle.kinds:
        kind = s.site.node_types[name]
        slope = air_slope(losses, kind, idle.idle_w)
        if slope > 0:
            it_w = [it_at_air_heat_w(losses, 1.0 - kind.liquid_fraction, idle.idle_w, w + 1.0) for w in room_w.tolist()]
            per_w: Floats = slope / (slope + 2.0 * losses.quadratic_per_w * np.array(it_w))
            least = np.minimum(least, per_w)
    return one, least * (1 - 1e-12)


def _mean_slope(s: Snapshot, capacities: Capacities, storage: Storage) -> Floats:
    """Return per slot the W that the plants draw per W of heat, the mean up to their capacity."""
    hall = s.site.hall(storage.zone)
    slopes = {}
    for air in set(capacities.air):
        capacity_w, idle_w = medium_load(hall, storage.medium, 0.0, air)
        full_w = medium_load(hall, storage.medium, capacity_w, air)[1]
        slopes[air] = (full_w - idle_w) / capacity_w if capacity_w > 0 else 0.0
    return np.array([slopes[air] for air in capacities.air])


def _rounded(values: Floats) -> tuple[int, ...]:
    return tuple(round(value) for value in values.tolist())


def dispatch_cost(terms: StorageTerms, power_w: Sequence[int]) -> Fraction:
    """Return the cost in units of value of delivering `power_w` (negative: taking up) slot by slot."""
    if len(power_w) != len(terms.discharge_cost):
        raise ValueError(f"{terms.storage.name}: must have one power per slot")
    total = Fraction(0)
    for watts, give, take in zip(power_w, terms.discharge_cost, terms.charge_cost, strict=True):
        total += watts * give if watts > 0 else -watts * take
    end_j = trajectory(terms.storage, terms.start_j, power_w, terms.slot_s)[-1]
    return (total + terms.missing_cost * max(Fraction(0), terms.end_j - end_j)) / _PER_COST


def most_value(
    terms: StorageTerms,
    prices: Mapping[str, Sequence[int]],
    scale: int,
    worth: Sequence[int] | None,
    meter: Sequence[Fraction],
) -> Fraction:
    """Return an upper bound of every dispatch's gain at these prices over `scale`; `worth`: pi over `scale * 2**20`.

    `meter` is the value of what a W delivered saves at the meter, and of what a W taken up costs there.
    """
    slots = len(terms.discharge_cost)
    if worth is not None and len(worth) != slots:
        raise ValueError(f"certificate.stored.{terms.storage.name}: must have one number per slot")
    pi = [Fraction(number, scale * STORED_VALUE_SCALE) for number in worth or (0,) * slots]
    keep = keep_factor(terms.storage, terms.slot_s)
    filled = Fraction(round(terms.storage.efficiency * 1_000_000), 1_000_000) * terms.slot_s
    total = keep * pi[0] * terms.start_j
    for slot in range(slots):
        earned = Fraction(-terms.discharge_cost[slot], _PER_COST) + meter[slot]
        paid = Fraction(terms.charge_cost[slot], _PER_COST) + meter[slot]
        for resource, (gain, load) in terms.effects.items():
            price = prices[resource][slot] if resource in prices else 0
            earned += Fraction(price * gain[slot], scale * _PER_W)
            paid += Fraction(price * load[slot], scale * _PER_W)
        total += int(terms.storage.discharge_w) * max(Fraction(0), earned - terms.slot_s * pi[slot])
        total += int(terms.storage.charge_w) * max(Fraction(0), filled * pi[slot] - paid)
        if slot + 1 < slots:
            kept = keep * pi[slot + 1] - pi[slot]
            total += max(kept * terms.low_j[slot + 1], kept * terms.high_j)
    return total + _most_at_end(terms, pi[-1])


def _most_at_end(terms: StorageTerms, worth: Fraction) -> Fraction:
    """The value of the content at the end is concave with one kink, so it is greatest at a limit or at the kink."""
    low_j, high_j = terms.low_j[-1], terms.high_j
    missing = Fraction(terms.missing_cost, _PER_COST)
    kink_j = min(max(terms.end_j, low_j), high_j)
    return max(-worth * held_j - missing * max(0, terms.end_j - held_j) for held_j in (low_j, kink_j, high_j))
