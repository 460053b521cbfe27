"""Contribution of storage to the proven bound, in exact fractions and without a solver.

With prices lambda of the capacities and any value pi_t of a stored J after slot t (the certificate has both), no
dispatch of a storage unit adds more value than

    keep * pi_1 * e_0 + sum over t of (gd_t - dt * pi_t)+ * D + (efficiency * dt * pi_t - gc_t)+ * C
    + sum over t < T of max over e in [low_t, high] of (keep * pi_{t+1} - pi_t) * e
    + max over e in [low_T, high] of - pi_T * e - short * (end - e)+

where gd is the gain of a W delivered and gc the cost of a W taken up: the prices of the capacity that it adds, less its
cost. This is the Lagrangian of the unit's dynamics, an upper bound whatever pi is (weak duality); pi from the dual of
the linear program makes it tight.
"""

from collections.abc import Mapping, Sequence
from fractions import Fraction

from powerhall.site.storage import keep_factor
from powerhall_optimizer.problem.arrays import Ints, PriceCertificate
from powerhall_optimizer.storage.model import COST_SCALE, SCALE, StorageModel, StorageUnit

__all__ = ["STORED_VALUE_SCALE", "stored_bound"]

STORED_VALUE_SCALE = 1 << 20
"""The value of a J is a whole number over the certificate's scale times this."""


def stored_bound(model: StorageModel, prices: PriceCertificate, stored_value: Mapping[str, Sequence[int]]) -> Fraction:
    """Return the most value that all storage units can add; ValueError where the certificate does not fit."""
    touched = {effect.resource for store in model.units for effect in store.effects}
    if any(cut.resource in touched for cut in prices.cuts):
        raise ValueError("certificate: a resource that storage adds to must not be priced in whole multiples")
    total = Fraction(0)
    for store in model.units:
        row = stored_value.get(store.storage.name, (0,) * model.slots)
        if len(row) != model.slots:
            raise ValueError(f"certificate.stored.{store.storage.name}: must have one number per slot")
        scale = (1 << prices.scale_bits) * STORED_VALUE_SCALE
        total += _most(store, model, prices, [Fraction(int(number), scale) for number in row])
    return total


def _earned(prices: Ints, amounts: Ints, bits: int) -> list[Fraction]:
    scale = (1 << bits) * SCALE
    return [Fraction(int(p) * int(a), scale) for p, a in zip(prices, amounts, strict=True)]


def _most(
    store: StorageUnit, model: StorageModel, prices: PriceCertificate, stored_value: Sequence[Fraction]
) -> Fraction:
    zero = Fraction(0)
    keep = keep_factor(store.storage, model.slot_s)
    stored = Fraction(round(store.storage.efficiency * 1_000_000), 1_000_000) * model.slot_s
    gain = [Fraction(-int(cost), COST_SCALE) for cost in store.discharge_cost]
    load = [Fraction(int(cost), COST_SCALE) for cost in store.charge_cost]
    for effect in store.effects:
        row = prices.price[effect.resource]
        gain = [g + e for g, e in zip(gain, _earned(row, effect.gain, prices.scale_bits), strict=True)]
        load = [g + e for g, e in zip(load, _earned(row, effect.load, prices.scale_bits), strict=True)]
    total = keep * stored_value[0] * store.start_j
    for slot in range(model.slots):
        total += max(zero, gain[slot] - model.slot_s * stored_value[slot]) * store.discharge_w
        total += max(zero, stored * stored_value[slot] - load[slot]) * store.charge_w
        if slot + 1 < model.slots:
            kept = keep * stored_value[slot + 1] - stored_value[slot]
            total += kept * (store.high_j if kept > 0 else store.low_j[slot + 1])
    short = Fraction(store.short_cost, COST_SCALE)
    ends = {store.low_j[-1], store.high_j, min(max(store.end_j, store.low_j[-1]), store.high_j)}
    return total + max(-stored_value[-1] * e - short * max(0, store.end_j - e) for e in ends)
