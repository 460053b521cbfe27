"""Kernels: nodes and planned power that are taken, and what fits beside them.

An `Occupancy` is the site at one moment: now, at a reservation, or empty.
"""

from typing import NamedTuple

import numpy as np

from powerhall_twin.engine.columns import (
    HALL_ZONE,
    POOL_FREE,
    POOL_NW,
    POOL_WHOLE,
    RACK_HALL,
    RACK_TYPE,
    RACK_ZONES,
)
from powerhall_twin.engine.hall_power import hall_facility
from powerhall_twin.engine.jit import inlined_kernel, inner_kernel, kernel
from powerhall_twin.engine.plant_curves import PlantCurves
from powerhall_twin.engine.site_arrays import Flags, Floats, Ints, Layout

__all__ = [
    "Found",
    "Limits",
    "Occupancy",
    "book",
    "commit",
    "copy_to",
    "fits_beside",
    "fits_hall",
    "lesser",
    "refresh",
    "refresh_all",
    "rise_fits",
    "rooms_over",
    "site_w",
]


class Limits(NamedTuple):
    """Budgets in force, with their tolerance."""

    zone_nw: Ints  # [Z]
    site_w: Floats  # [1] infinite without a budget
    rise_w: Floats  # [2] planned power of the site that jobs may start up to now, and the most that one may add


class Occupancy(NamedTuple):
    """Free GPUs and planned power at one moment."""

    free: Ints  # [N] free GPUs of a node
    rack_whole: Ints  # [R] nodes with every GPU free
    pools: Ints  # [3, H*T]
    zone_nw: Ints  # [Z] planned IT power
    hall_w: Floats  # [H] planned power at the meter


class Found(NamedTuple):
    """The result of `node_search.find`, and its scratch."""

    nodes: Ints  # [N]
    place: Ints  # [5] nodes found, hall, type, GPUs on the last node, 1 where the site's budget was in the way
    taken_nw: Ints  # [Z] scratch, zero between calls
    halls: Ints  # [H] scratch
    most: Ints  # [R] scratch


@inner_kernel
def site_w(occ: Occupancy) -> float:
    """Return the planned power of the site in W."""
    total = 0.0
    for hall in range(len(occ.hall_w)):
        total += occ.hall_w[hall]
    return total


@inner_kernel
def book(layout: Layout, occ: Occupancy, node: int, gpus: int, nw: int) -> None:
    """Take GPUs of a node, or give them back where `gpus` is negative; `nw` is added to its zones."""
    rack = layout.node_rack[node]
    most = layout.type_gpus[layout.racks[RACK_TYPE, rack]]
    pool = layout.racks[RACK_HALL, rack] * len(layout.type_gpus) + layout.racks[RACK_TYPE, rack]
    was, now = occ.free[node], occ.free[node] - gpus
    occ.free[node] = now
    whole = (1 if now == most else 0) - (1 if was == most else 0)
    occ.rack_whole[rack] += whole
    occ.pools[POOL_WHOLE, pool] += whole
    occ.pools[POOL_FREE, pool] -= gpus
    occ.pools[POOL_NW, pool] += nw
    for z in range(layout.racks[RACK_ZONES, rack], layout.racks[RACK_ZONES, rack + 1]):
        occ.zone_nw[layout.rack_zone[z]] += nw


@inner_kernel
def refresh(layout: Layout, plants: PlantCurves, occ: Occupancy, hall: int) -> None:
    """Compute a hall's power anew after a change."""
    occ.hall_w[hall], _ = hall_facility(layout, plants, occ.pools[POOL_NW], hall, -1, 0)


@inner_kernel
def commit(
    layout: Layout, plants: PlantCurves, occ: Occupancy, nodes: Ints, counts: Ints, gpu_nw: int, sign: int
) -> None:
    """Take GPUs on nodes of one hall at a planned power per GPU; `sign` -1 gives them back."""
    for i in range(len(nodes)):
        book(layout, occ, nodes[i], sign * counts[i], sign * counts[i] * gpu_nw)
    refresh(layout, plants, occ, layout.racks[RACK_HALL, layout.node_rack[nodes[0]]])


@inner_kernel
def copy_to(source: Occupancy, target: Occupancy) -> None:
    """Overwrite one occupancy by another."""
    for node in range(len(source.free)):
        target.free[node] = source.free[node]
    for rack in range(len(source.rack_whole)):
        target.rack_whole[rack] = source.rack_whole[rack]
    for row in range(source.pools.shape[0]):
        for pool in range(source.pools.shape[1]):
            target.pools[row, pool] = source.pools[row, pool]
    for z in range(len(source.zone_nw)):
        target.zone_nw[z] = source.zone_nw[z]
    for hall in range(len(source.hall_w)):
        target.hall_w[hall] = source.hall_w[hall]


@inner_kernel
def lesser(layout: Layout, one: Occupancy, two: Occupancy, out: Occupancy, nodes: Ints) -> None:
    """Write for these nodes what is free in both, and for their zones the higher power of both."""
    for i in range(len(nodes)):
        node = nodes[i]
        book(layout, out, node, out.free[node] - min(one.free[node], two.free[node]), 0)
        rack = layout.node_rack[node]
        for at in range(layout.racks[RACK_ZONES, rack], layout.racks[RACK_ZONES, rack + 1]):
            z = layout.rack_zone[at]
            out.zone_nw[z] = max(one.zone_nw[z], two.zone_nw[z])


@inner_kernel
def fits_hall(
    layout: Layout, limits: Limits, plants: PlantCurves, occ: Occupancy, hall: int, kind: int, added_nw: int
) -> bool:
    """Return whether more power in a hall keeps the hall cooled and the site within its budget."""
    hall_w, cooled = hall_facility(layout, plants, occ.pools[POOL_NW], hall, kind, added_nw)
    return cooled and site_w(occ) - occ.hall_w[hall] + hall_w <= limits.site_w[0] + 1e-6


@inlined_kernel
def rise_fits(
    layout: Layout, most_w: float, plants: PlantCurves, occ: Occupancy, hall: int, kind: int, added_nw: int
) -> bool:
    """Return whether the site's planned power with so much more in a hall stays within `most_w`."""
    if most_w == np.inf:
        return True
    hall_w, _ = hall_facility(layout, plants, occ.pools[POOL_NW], hall, kind, added_nw)
    return bool(site_w(occ) - occ.hall_w[hall] + hall_w <= most_w + 1e-6)


@kernel
def rooms_over(layout: Layout, limits: Limits, plants: PlantCurves, occ: Occupancy, over: Flags) -> bool:
    """Mark the zones [Z] over their budget and the halls whose plants do not take the heat; True where the site is."""
    for z in range(len(occ.zone_nw)):
        over[z] = occ.zone_nw[z] > limits.zone_nw[z]
    for hall in range(len(occ.hall_w)):
        _, cooled = hall_facility(layout, plants, occ.pools[POOL_NW], hall, -1, 0)
        over[layout.halls[HALL_ZONE, hall]] |= not cooled
    return bool(site_w(occ) > limits.site_w[0] + 1e-6)


@kernel
def refresh_all(layout: Layout, plants: PlantCurves, occ: Occupancy) -> None:
    """Compute the power of every hall anew, in another weather."""
    for hall in range(len(occ.hall_w)):
        refresh(layout, plants, occ, hall)


@kernel
def fits_beside(
    layout: Layout,
    limits: Limits,
    plants: PlantCurves,
    occ: Occupancy,
    found: Found,
    nodes: Ints,
    counts: Ints,
    gpu_nw: int,
) -> bool:
    """Return whether GPUs on these nodes of one hall are free and their planned power fits every limit above them."""
    hall, added_nw, fits = layout.racks[RACK_HALL, layout.node_rack[nodes[0]]], 0, True
    for i in range(len(nodes)):
        rack, nw = layout.node_rack[nodes[i]], counts[i] * gpu_nw
        fits = fits and occ.free[nodes[i]] >= counts[i]
        added_nw += nw
        for at in range(layout.racks[RACK_ZONES, rack], layout.racks[RACK_ZONES, rack + 1]):
            z = layout.rack_zone[at]
            found.taken_nw[z] += nw
            fits = fits and (nw == 0 or occ.zone_nw[z] + found.taken_nw[z] <= limits.zone_nw[z])
    for i in range(len(nodes)):
        rack = layout.node_rack[nodes[i]]
        for at in range(layout.racks[RACK_ZONES, rack], layout.racks[RACK_ZONES, rack + 1]):
            found.taken_nw[layout.rack_zone[at]] = 0
    if not fits:
        return False
    kind = layout.racks[RACK_TYPE, layout.node_rack[nodes[0]]]
    if not fits_hall(layout, limits, plants, occ, hall, kind, added_nw):
        return False
    return rise_fits(layout, limits.rise_w[0], plants, occ, hall, kind, added_nw)
