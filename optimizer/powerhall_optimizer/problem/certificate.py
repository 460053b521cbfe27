"""Certificates as the plan carries them (prices by resource name) and as the problem has them (arrays)."""

from collections.abc import Mapping

import numpy as np

from powerhall.plan.plan import Certificate
from powerhall.runtime.errors import Rejected
from powerhall_optimizer.problem.arrays import Certificate as Prices
from powerhall_optimizer.problem.arrays import Cut, Problem

__all__ = ["for_site", "from_prices", "to_prices"]


def from_prices(problem: Problem, prices: Prices) -> Certificate:
    """Return the certificate to publish; resources that nowhere bind are left out."""
    named = {
        name: tuple(row.tolist()) for name, row in zip(problem.resource_names, prices.price, strict=True) if row.any()
    }
    for cut, row in zip(prices.cuts, prices.cut_price, strict=True):
        if row.any():
            named[f"{problem.resource_names[cut.resource]}//{cut.divisor}"] = tuple(row.tolist())
    return Certificate(1 << prices.scale_bits, named)


def for_site(certificate: Certificate, site: str, factor: float) -> Certificate:
    """Return one site's prices out of a joint certificate, `factor` times as large; they prove a bound for the site.

    Any prices do, so rounding is harmless; the scale falls where the numbers would become large.
    """
    own = _of(certificate.prices, f"{site}:")
    stored = _of(certificate.stored, f"{site}:")
    scale, most = certificate.scale, max((max(row) for row in own.values()), default=0)
    while scale > 1 and most * factor >= 2**45:
        scale, factor = scale // 2, factor / 2
    prices = {name: tuple(round(price * factor) for price in row) for name, row in own.items()}
    worth = {name: tuple(round(number * factor) for number in row) for name, row in stored.items()}
    return Certificate(scale, {name: row for name, row in prices.items() if any(row)}, worth)


def _of(rows: Mapping[str, tuple[int, ...]], front: str) -> dict[str, tuple[int, ...]]:
    return {name.removeprefix(front): row for name, row in rows.items() if name.startswith(front)}


def to_prices(problem: Problem, certificate: Certificate, shift: int = 0) -> Prices:
    """Return the prices as arrays, `shift` slots later; names that the problem does not have raise Rejected.

    Slots beyond the certificate's own take its last price.
    """
    bits = certificate.scale.bit_length() - 1
    if certificate.scale != 1 << max(bits, 0):
        raise Rejected.field("plan", "certificate.scale", certificate.scale, "must be a power of two")
    index = {name: number for number, name in enumerate(problem.resource_names)}
    price = np.zeros(problem.capacity.shape, np.int64)
    cuts: list[Cut] = []
    cut_rows: list[np.ndarray] = []
    for key, values in certificate.prices.items():
        name, _, divisor = key.partition("//")
        if name not in index or not values or (divisor and not divisor.isdigit()):
            raise Rejected.field("plan", "certificate.prices", key, "must name a resource, with one price per slot")
        if shift == 0 and len(values) != problem.slots:
            raise Rejected.field("plan", f"certificate.prices.{key}", len(values), f"must be {problem.slots} prices")
        row = np.array([values[min(shift + i, len(values) - 1)] for i in range(problem.slots)], np.int64)
        if divisor:
            cuts.append(Cut(index[name], int(divisor)))
            cut_rows.append(row)
        else:
            price[index[name]] = row
    cut_price = np.array(cut_rows, np.int64).reshape(len(cuts), problem.slots)
    return Prices(price, bits, tuple(cuts), cut_price)
