"""The EnergyPlus models of electric chillers, from curve sets, safe outside the range that the curves were fitted for.

EnergyPlus Engineering Reference, "Electric Chiller Model Based on Condenser Entering Temperature"
(`Chiller:Electric:EIR`) and "... Condenser Leaving Temperature" (`Chiller:Electric:ReformulatedEIR`):

    capacity = reference capacity * CAPFT(evaporator leaving, condenser)
    power = reference power * CAPFT * EIRFT(evaporator leaving, condenser) * EIRFPLR(part load ratio)

CAPFT and EIRFT are biquadratic. EIRFPLR is a polynomial of the part load ratio, or for the reformulated model bicubic
in condenser leaving temperature and part load ratio. Here a table of the power over the load is made per condenser
temperature, and the model is kept safe:

* Temperatures are moved to the next step of 0.5 K that is warmer, then to the curves' limits. The evaporator above its
  limit is as at its limit (it would do better); the condenser above its limit loses 1 % of capacity and draws 2.8 %
  more per unit of heat for each K (the steeper end of what the EnergyPlus chillers York YK and Carrier 19XR show
  within their limits).
* A condenser may always be held warmer than the weather allows. Fitted curves turn at low temperatures; the least power
  and the largest capacity at this or a warmer condenser rise and fall with the weather as physics says.
* Power never falls as the load rises: it is taken as the highest at any lower load. It never beats Carnot's.
"""

from collections.abc import Iterator
from functools import lru_cache
from itertools import accumulate
from math import ceil, inf
from typing import Literal

import msgspec

__all__ = ["ChillerCurves", "capacity_share", "condenser_step", "power_share"]

_STEP_K = 0.5
_PARTS = 64
"""Parts of the reference capacity that the table has."""
_MOST_PART_LOAD = 2.0
_CAPACITY_LOSS_PER_K = 0.01
_POWER_RISE_PER_K = 0.028
Pair = tuple[float, float]


class ChillerCurves(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A curve set: coefficients in the order of EnergyPlus, temperatures in degC, each range as lowest and highest.

    `condenser_temp_c` is the condenser's entering temperature for `electric_eir` and its leaving temperature for
    `reformulated_eir`, where `condenser_rise_k` is the rise from entering to leaving at full load; it follows the load.
    """

    capacity_f_temp: tuple[float, float, float, float, float, float]
    """CAPFT: 1, te, te^2, tc, tc^2, te * tc with te of the evaporator and tc of the condenser."""
    eir_f_temp: tuple[float, float, float, float, float, float]
    """EIRFT: as CAPFT."""
    eir_f_plr: tuple[float, ...]
    """EIRFPLR: 1, p, p^2 and maybe p^3; reformulated also 1, tc, tc^2, p, p^2, tc*p, tc^3, p^3, tc^2*p, tc*p^2."""
    evaporator_temp_c: Pair
    """Lowest and highest evaporator leaving temperature of the fit."""
    condenser_temp_c: Pair
    """Lowest and highest condenser temperature of the fit."""
    part_load: Pair
    """Lowest and highest part load ratio; below the lowest the chiller runs part of the time."""
    type: Literal["electric_eir", "reformulated_eir"] = "electric_eir"
    """Whether the condenser's entering or leaving temperature is meant."""
    cop: float = 5.0
    """Coefficient of performance at the reference point."""
    condenser_rise_k: float = 0.0
    """Rise of the condenser's water at full load, for `reformulated_eir`."""
    name: str = ""
    """Name of the curve set."""

    def check(self) -> str:
        """Return what is wrong with the curve set in a few words, or nothing."""
        for name in ("evaporator_temp_c", "condenser_temp_c"):
            low, high = getattr(self, name)
            if not -50.0 <= low < high <= 120.0:
                return f"{name} must be a lower and a higher temperature from -50 to 120"
        if not 0.0 < self.part_load[0] < 1.0 <= self.part_load[1] <= _MOST_PART_LOAD:
            return f"part_load must be a lowest ratio below 1 and a highest from 1 to {_MOST_PART_LOAD:g}"
        if len(self.eir_f_plr) not in ((3, 4) if self.type == "electric_eir" else (3, 4, 10)):
            return "eir_f_plr must have 3 or 4 coefficients, or 10 where the type is reformulated_eir"
        if not 0.1 <= self.cop <= 100.0 or not 0.0 <= self.condenser_rise_k <= 30.0:
            return "cop must be from 0.1 to 100 and condenser_rise_k from 0 to 30"
        return self._check_values()

    def _check_values(self) -> str:
        for evaporator_c in _spread(self.evaporator_temp_c):
            for condenser_c in _spread(self.condenser_temp_c):
                shares = [
                    _biquadratic(self.capacity_f_temp, evaporator_c, condenser_c),
                    _biquadratic(self.eir_f_temp, evaporator_c, condenser_c),
                    _part_load_factor(self, condenser_c, 1.0),
                ]
                if not all(0.05 < share < 5.0 for share in shares):
                    at = f"evaporator {evaporator_c:.1f} degC and condenser {condenser_c:.1f} degC"
                    return f"the curves are not between 0.05 and 5 at {at}"
        for entering_c in _spread((self.condenser_temp_c[0] - _rise_k(self), self.condenser_temp_c[1])):
            for ratio in _spread((self.part_load[0], 1.0)):
                condenser_c = _limited(entering_c + _rise_k(self) * ratio, self.condenser_temp_c)
                if _part_load_factor(self, condenser_c, ratio) <= 0.0:
                    return f"eir_f_plr is not above 0 at part load {ratio:.2f} and condenser {condenser_c:.1f} degC"
        return ""


def condenser_step(condenser_c: float) -> int:
    """Return the step of condenser entering temperature at or above this one; warm air is never taken as cooler."""
    return ceil(min(max(condenser_c, -60.0), 120.0) / _STEP_K - 1e-9)


@lru_cache(maxsize=4096)
def capacity_share(curves: ChillerCurves, evaporator_c: float, step: int) -> float:
    """Return the available capacity over the reference capacity; it may be above 1."""
    return max(_capacity(curves, evaporator_c, entering_c) for entering_c in _warmer(curves, step))


def power_share(curves: ChillerCurves, evaporator_c: float, step: int, load: float) -> float:
    """Return power over reference power at a load over reference capacity; above 1 the last slope goes on."""
    table = _table(curves, evaporator_c, step)
    place = max(0.0, load) * _PARTS
    part = min(int(place), _PARTS - 1)
    return table[part] + (place - part) * (table[part + 1] - table[part])


@lru_cache(maxsize=4096)
def _table(curves: ChillerCurves, evaporator_c: float, step: int) -> tuple[float, ...]:
    """Return the least power at each load among the condenser temperatures that can carry it."""
    warmer = list(_warmer(curves, step))
    capacities = [_capacity(curves, evaporator_c, entering_c) for entering_c in warmer]
    most = max(capacities)
    rows: list[list[float]] = []
    for entering_c, capacity in zip(warmer, capacities, strict=True):
        if capacity > 0 or most <= 0:
            loads = [part / _PARTS for part in range(_PARTS + 1)]
            powers = accumulate((_power(curves, evaporator_c, entering_c, capacity, load) for load in loads), max)
            fits = [load <= capacity or capacity >= most for load in loads]
            rows.append([power if fit else inf for fit, power in zip(fits, powers, strict=True)])
    return tuple(accumulate((min(column) for column in zip(*rows, strict=True)), max))


def _warmer(curves: ChillerCurves, step: int) -> Iterator[float]:
    """Yield this step's entering temperature and every warmer one at which part load is within the curves' limits."""
    low, high = curves.condenser_temp_c
    first = max(step, condenser_step(low - _rise_k(curves)))
    return (at * _STEP_K for at in range(first, max(first, condenser_step(high)) + 1))


def _rise_k(curves: ChillerCurves) -> float:
    return curves.condenser_rise_k if curves.type == "reformulated_eir" else 0.0


def _limited(temp_c: float, limits: Pair) -> float:
    return min(max(temp_c, limits[0]), limits[1])


def _above_k(curves: ChillerCurves, entering_c: float) -> float:
    return max(0.0, entering_c + _rise_k(curves) - curves.condenser_temp_c[1])


def _capacity(curves: ChillerCurves, evaporator_c: float, entering_c: float) -> float:
    te = _limited(evaporator_c, curves.evaporator_temp_c)
    share = _biquadratic(curves.capacity_f_temp, te, _limited(entering_c + _rise_k(curves), curves.condenser_temp_c))
    return max(0.0, share) * max(0.0, 1.0 - _CAPACITY_LOSS_PER_K * _above_k(curves, entering_c))


def _power(curves: ChillerCurves, evaporator_c: float, entering_c: float, capacity: float, load: float) -> float:
    """Return power over reference power; the condenser's rise follows the load, and no machine beats Carnot's."""
    te = _limited(evaporator_c, curves.evaporator_temp_c)
    ratio = min(max(load / max(capacity, 1e-9), curves.part_load[0]), _MOST_PART_LOAD)
    tc = _limited(entering_c + _rise_k(curves) * min(ratio, 1.0), curves.condenser_temp_c)
    full = _biquadratic(curves.capacity_f_temp, te, tc) * _biquadratic(curves.eir_f_temp, te, tc)
    power = max(0.0, full) * max(0.0, _part_load_factor(curves, tc, ratio))
    least = ratio * capacity * curves.cop * max(0.0, entering_c - te) / (te + 273.15)
    return max(power, least) * (1.0 + _POWER_RISE_PER_K * _above_k(curves, entering_c))


def _biquadratic(c: tuple[float, ...], x: float, y: float) -> float:
    return c[0] + (c[1] + c[2] * x) * x + (c[3] + c[4] * y) * y + c[5] * x * y


def _part_load_factor(curves: ChillerCurves, condenser_c: float, ratio: float) -> float:
    c, t, p = curves.eir_f_plr, condenser_c, ratio
    if len(c) == 10:
        plane = c[0] + (c[1] + c[2] * t + c[6] * t**2) * t + (c[3] + c[4] * p + c[7] * p**2) * p
        return plane + (c[5] + c[8] * t + c[9] * p) * t * p
    return sum(factor * p**power for power, factor in enumerate(c))


def _spread(limits: Pair) -> Iterator[float]:
    low, high = limits
    return (low + (high - low) * part / 6 for part in range(7))
