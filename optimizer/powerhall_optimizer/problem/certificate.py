"""Convert certificates between the plan (prices by resource name) and the problem (arrays)."""

from collections.abc import Sequence
from dataclasses import replace

import msgspec
import numpy as np

from powerhall.plan.plan import Certificate
from powerhall.runtime.errors import Rejected
from powerhall_optimizer.problem.arrays import Cut, PriceCertificate, Problem
from powerhall_optimizer.problem.meter import hall_loads_w
from powerhall_optimizer.problem.resources import ResourceNames, is_blocks, name_at_site

_PARTS = {0: ("it_w",), 1: ("it_w", "heat_all_w"), 2: ("it_w", "heat_liquid_w", "heat_air_w")}
"""The curves of a hall by its number of media."""

__all__ = ["make_certificate", "read_certificate", "site_certificate", "unit_prices", "without_lost_blocks"]


def make_certificate(problem: Problem, prices: PriceCertificate) -> Certificate:
    """Return the certificate to publish; resources that nowhere bind are left out."""
    named = {
        str(resource): tuple(row.tolist())
        for resource, row in zip(problem.resource_keys, prices.price, strict=True)
        if row.any()
    }
    for cut, row in zip(prices.cuts, prices.cut_price, strict=True):
        if row.any():
            key = ResourceNames.multiple(problem.resource_keys[cut.resource], cut.divisor)
            named[key] = tuple(row.tolist())
    return Certificate(1 << prices.scale_bits, named, points=_points(problem, prices))


def _points(problem: Problem, prices: PriceCertificate) -> dict[str, tuple[int, ...]]:
    """Return the loads at which lines touch the halls' curves: IT power, and heat per medium, in W."""
    curves = problem.curves
    found: dict[str, tuple[int, ...]] = {}
    if prices.it_w is None:
        return found
    for hall, pool in enumerate(curves.first[:-1].tolist()):
        rows = prices.it_w[pool : curves.first[hall + 1]]
        if not len(rows):
            continue
        key = problem.resource_keys[curves.pool_row[pool]]
        for part, row in zip(_PARTS[int(curves.media[hall])], hall_loads_w(curves, hall, list(rows)), strict=False):
            found[name_at_site(key.site, f"{key.zone}.{part}")] = tuple(row.tolist())
    return found


def site_certificate(
    certificate: Certificate, joint: Problem, site: str, stores: Sequence[str], factor: float
) -> Certificate:
    """Return one site's prices out of a joint certificate, `factor` times as large; they prove a bound for the site.

    `stores` names the site's storage units. Any prices do, so rounding is harmless; the scale falls where the numbers
    would become large.
    """
    own = _of_site(certificate, joint, site)
    stored = {name: certificate.stored.get(name_at_site(site, name)) for name in stores}
    scale, most = certificate.scale, max((max(row) for row in own.values()), default=0)
    while scale > 1 and most * factor >= 2**45:
        scale, factor = scale // 2, factor / 2
    prices = {name: tuple(round(price * factor) for price in row) for name, row in own.items()}
    value = {name: tuple(round(number * factor) for number in row) for name, row in stored.items() if row is not None}
    points = {
        name.removeprefix(f"{site}:"): row for name, row in certificate.points.items() if name.startswith(f"{site}:")
    }
    return Certificate(scale, {name: row for name, row in prices.items() if any(row)}, value, points)


def _of_site(certificate: Certificate, joint: Problem, site: str) -> dict[str, tuple[int, ...]]:
    """Return the prices of a site's resources by the names that they have in its own problem."""
    names = ResourceNames(joint.resource_keys)
    own: dict[str, tuple[int, ...]] = {}
    for key, row in certificate.prices.items():
        number, divisor = names.find(key) or (-1, 0)
        if number >= 0 and joint.resource_keys[number].site == site:
            resource = replace(joint.resource_keys[number], site="")
            own[ResourceNames.multiple(resource, divisor) if divisor else str(resource)] = row
    return own


def read_certificate(problem: Problem, certificate: Certificate, shift: int = 0) -> PriceCertificate:
    """Return the prices as arrays, `shift` slots later; names that the problem does not have raise Rejected.

    Slots beyond the certificate's own take its last price.
    """
    bits = certificate.scale.bit_length() - 1
    if certificate.scale != 1 << max(bits, 0):
        raise Rejected.field("plan", "certificate.scale", certificate.scale, "must be a power of two")
    names = ResourceNames(problem.resource_keys)
    price = np.zeros(problem.capacity.shape, np.int64)
    cuts: list[Cut] = []
    cut_rows: list[np.ndarray] = []
    for key, values in certificate.prices.items():
        found = names.find(key)
        if found is None or not values:
            raise Rejected.field("plan", "certificate.prices", key, "must name a resource, with one price per slot")
        if shift == 0 and len(values) != problem.slots:
            raise Rejected.field("plan", f"certificate.prices.{key}", len(values), f"must be {problem.slots} prices")
        row = np.array([values[min(shift + i, len(values) - 1)] for i in range(problem.slots)], np.int64)
        number, divisor = found
        if divisor:
            cuts.append(Cut(number, divisor))
            cut_rows.append(row)
        else:
            price[number] = row
    _old_meter(problem, certificate, price)
    cut_price = np.array(cut_rows, np.int64).reshape(len(cuts), problem.slots)
    return PriceCertificate(price, bits, tuple(cuts), cut_price)


def unit_prices(problem: Problem, prices: PriceCertificate) -> PriceCertificate:
    """Return prices without cuts, for explanations and as a start: a cut's price is spread over the units it counts.

    A cut of the IT power that a meter counts stands for the limit there, too. They prove less than the cuts.
    """
    price = prices.price.copy()
    curves = problem.curves
    for cut, row in zip(prices.cuts, prices.cut_price, strict=True):
        price[cut.resource] += row // cut.divisor
        pool = int(curves.row_pool[cut.resource])
        if pool >= 0:
            hall = int(curves.pool_curve[pool])
            price[curves.meter_row[hall]] += (row / cut.divisor / curves.steepest[hall]).astype(np.int64)
    return PriceCertificate(price, prices.scale_bits, it_w=prices.it_w)


def without_lost_blocks(problem: Problem, certificate: Certificate) -> Certificate:
    """Return the certificate without prices of parts in blocks that the problem does not count: the queue changes."""
    names = ResourceNames(problem.resource_keys)
    kept = {name: row for name, row in certificate.prices.items() if names.find(name) or not is_blocks(name)}
    return msgspec.structs.replace(certificate, prices=kept)


def _old_meter(problem: Problem, certificate: Certificate, price: np.ndarray) -> None:
    """Derive prices of the pools' IT power from the meter's where a plan of version 1 has the latter alone."""
    curves = problem.curves
    if not certificate.points:
        for pool, row in enumerate(curves.pool_row.tolist()):
            if not price[row].any():
                price[row] = price[curves.meter_row[curves.pool_curve[pool]]]
