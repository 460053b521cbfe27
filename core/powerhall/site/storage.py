"""Storage of a site: batteries (electricity), chilled-water tanks and the water of cooling loops (cooling).

A storage delivers `p > 0` W or takes `-p > 0` W over a slot of `dt` s, and holds after it

    e' = keep * e + dt * (efficiency * charge - discharge)        charge = max(-p, 0), discharge = max(p, 0)

in J. Losses of a round trip count when it charges, so that `e` is the energy that can still be delivered. Arithmetic is
exact (fractions), so that every machine computes the same states.

A cooling loop of heat capacity C (J/K) obeys C dT/dt = heat - cooling. It stores cooling: `e = C * (T_max - T)`; heat
above what the plant takes up discharges it, and cooling it down again charges it.
"""

from collections.abc import Sequence
from fractions import Fraction
from typing import Literal

import msgspec

__all__ = ["W_CLASSES", "Storage", "keep_factor", "parse_heat_capacity", "stored_after", "trajectory"]

W_CLASSES = {"W17": 17.0, "W27": 27.0, "W32": 32.0, "W40": 40.0, "W45": 45.0}
"""Highest supply temperature in degC of the ASHRAE TC 9.9 liquid cooling classes (Thermal Guidelines, 5th edition);
W+ has no limit of its own: give the maker's."""

_MJ_PER_M3_K = 4.18
_DYADIC = 1 << 30


class Storage(msgspec.Struct, frozen=True):
    """A battery, a tank or a loop. Powers in W and energies in J: of electricity for a battery, of heat for the others.

    `zone` is the site or a feed for a battery, a hall for the others; `medium` is the part of the hall's heat that its
    plant takes. `end_j` is the wanted content at the end of a plan; each J less costs `refill_usd_per_mwh`.
    A loop's state is a temperature: full at `min_supply_c`, empty where its supply or return would leave its limit.
    """

    name: str
    kind: Literal["battery", "tank", "loop"]
    zone: str
    charge_w: float
    discharge_w: float
    capacity_j: float
    start_j: float
    end_j: float
    min_j: float = 0.0
    medium: Literal["all", "liquid", "air"] = "all"
    efficiency: float = 1.0
    loss_per_h: float = 0.0
    cycle_usd_per_mwh: float = 0.0
    refill_usd_per_mwh: float = 10_000.0
    heat_capacity_j_per_k: float = 0.0
    min_supply_c: float = 0.0
    max_supply_c: float = 0.0
    max_return_c: float | None = None

    def temp_c(self, stored_j: float) -> float:
        """Return the supply temperature of a loop that stores this much cooling."""
        return self.min_supply_c + (self.capacity_j - stored_j) / self.heat_capacity_j_per_k

    def at_temp_j(self, temp_c: float) -> float:
        """Return the cooling that a loop stores at this supply temperature, within its limits."""
        stored_j = self.capacity_j - (temp_c - self.min_supply_c) * self.heat_capacity_j_per_k
        return min(max(stored_j, 0.0), self.capacity_j)


def keep_factor(storage: Storage, slot_s: int) -> Fraction:
    """Return the share of its content that a storage keeps over a slot, as a multiple of 2**-30 (rounded down)."""
    if storage.loss_per_h <= 0:
        return Fraction(1)
    return Fraction(int((1.0 - storage.loss_per_h) ** (slot_s / 3600) * _DYADIC), _DYADIC)


def stored_after(storage: Storage, keep: Fraction, stored_j: Fraction, power_w: int, slot_s: int) -> Fraction:
    """Return the content in J a slot later when `power_w` is delivered (taken up where negative)."""
    efficiency = Fraction(round(storage.efficiency * 1_000_000), 1_000_000)
    change_w = -power_w if power_w >= 0 else efficiency * -power_w
    return keep * stored_j + slot_s * change_w


def trajectory(storage: Storage, start_j: int, power_w: Sequence[int], slot_s: int) -> list[Fraction]:
    """Return the content in J at the start of every slot and at the end: one value more than powers."""
    keep = keep_factor(storage, slot_s)
    states = [Fraction(start_j)]
    for watts in power_w:
        states.append(stored_after(storage, keep, states[-1], watts, slot_s))
    return states


def parse_heat_capacity(text: str) -> float:
    """Read a heat capacity in J/K from text such as `"80 MJ/K"`, or from its water, such as `"20 m3"`."""
    number, _, unit = text.strip().partition(" ")
    factor = {"kJ/K": 1e3, "MJ/K": 1e6, "GJ/K": 1e9, "m3": _MJ_PER_M3_K * 1e6}.get(unit.strip())
    try:
        value = float(number) * (factor or 0.0)
    except ValueError:
        value = 0.0
    if not 0.0 < value < 1e18:
        raise ValueError("must be a heat capacity or a volume of water, such as '80 MJ/K' or '20 m3'")
    return value
