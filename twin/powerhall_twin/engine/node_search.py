"""Kernels: where a job fits beside what is taken.

`find` looks for nodes as a site with limits per rack would: the halls with the most free GPUs first; a small job on the
fullest node that holds it; a large one on whole nodes of the smallest rack that holds it, else over as few racks as
their headroom allows.
"""

from powerhall_twin.engine.columns import (
    HALL_FIRST,
    HALL_RANK,
    HALL_ZONE,
    POOL_FREE,
    POOL_WHOLE,
    RACK_FIRST,
    RACK_TYPE,
    RACK_ZONES,
)
from powerhall_twin.engine.jit import inlined_kernel, inner_kernel
from powerhall_twin.engine.occupancy import Found, Limits, Occupancy, fits_hall, site_w
from powerhall_twin.engine.plant_curves import PlantCurves
from powerhall_twin.engine.site_arrays import Flags, Ints, Layout

__all__ = ["find"]

_NO_LIMIT = 2**62


@inlined_kernel
def _room(layout: Layout, limits: Limits, occ: Occupancy, found: Found, rack: int, each_nw: int, most: int) -> int:
    """Return how many portions of power the zones above a rack still carry, at most `most`."""
    if each_nw <= 0:
        return most
    for i in range(layout.racks[RACK_ZONES, rack], layout.racks[RACK_ZONES, rack + 1]):
        z = layout.rack_zone[i]
        if limits.zone_nw[z] < _NO_LIMIT:
            left = limits.zone_nw[z] - occ.zone_nw[z] - found.taken_nw[z]
            most = min(most, left // each_nw if left >= 0 else 0)
    return most


@inner_kernel
def _take(layout: Layout, occ: Occupancy, found: Found, rack: int, want: int, whole: int, gpus: int) -> None:
    """Add up to `want` nodes of a rack with at least so many free GPUs (exactly all, where `whole`)."""
    for node in range(layout.racks[RACK_FIRST, rack], layout.racks[RACK_FIRST, rack + 1]):
        if want == 0:
            return
        if occ.free[node] == gpus if whole else occ.free[node] >= gpus:
            found.nodes[found.place[0]] = node
            found.place[0] += 1
            want -= 1


@inner_kernel
def _find_small(
    layout: Layout, limits: Limits, occ: Occupancy, found: Found, hall: int, kind: int, gpus: int, gpu_nw: int
) -> bool:
    best, best_free = -1, 1 << 30
    for rack in range(layout.halls[HALL_FIRST, hall], layout.halls[HALL_FIRST, hall + 1]):
        if layout.racks[RACK_TYPE, rack] != kind:
            continue
        if _room(layout, limits, occ, found, rack, gpus * gpu_nw, 1) < 1:
            continue
        for node in range(layout.racks[RACK_FIRST, rack], layout.racks[RACK_FIRST, rack + 1]):
            if gpus <= occ.free[node] < best_free:
                best, best_free = node, occ.free[node]
        if best_free == gpus:
            break
    if best < 0:
        return False
    found.nodes[0] = best
    found.place[0] = 1
    found.place[3] = gpus
    return True


@inner_kernel
def _spread(
    layout: Layout,
    limits: Limits,
    occ: Occupancy,
    found: Found,
    hall: int,
    kind: int,
    need: int,
    each_nw: int,
    highest: int,
) -> bool:
    """Take whole nodes from the racks of a hall with room for the most nodes, `found.most`, first.

    A last node that is not full draws for its GPUs alone, and goes to any rack that carries them.
    """
    per_node = layout.type_gpus[kind]
    is_part = found.place[3] < per_node
    left = need - 1 if is_part else need
    first, last = layout.halls[HALL_FIRST, hall], layout.halls[HALL_FIRST, hall + 1]
    for most in range(highest, 0, -1):
        for rack in range(first, last):
            if left == 0:
                break
            if found.most[rack] == most:
                nodes = _room(layout, limits, occ, found, rack, each_nw, min(left, occ.rack_whole[rack]))
                for z in range(layout.racks[RACK_ZONES, rack], layout.racks[RACK_ZONES, rack + 1]):
                    found.taken_nw[layout.rack_zone[z]] += nodes * each_nw
                _take(layout, occ, found, rack, nodes, 1, per_node)
                found.most[rack] = -nodes
                left -= nodes
    if left == 0 and is_part:
        left = 0 if _add_part(layout, limits, occ, found, hall, kind, each_nw // per_node) else 1
    for rack in range(first, last):
        for z in range(layout.racks[RACK_ZONES, rack], layout.racks[RACK_ZONES, rack + 1]):
            found.taken_nw[layout.rack_zone[z]] = 0
    return bool(left == 0)


@inner_kernel
def _add_part(layout: Layout, limits: Limits, occ: Occupancy, found: Found, hall: int, kind: int, gpu_nw: int) -> bool:
    """Add the last, not full node beside those taken: in the first rack with a node and the power for it."""
    per_node = layout.type_gpus[kind]
    for rack in range(layout.halls[HALL_FIRST, hall], layout.halls[HALL_FIRST, hall + 1]):
        taken = max(0, -found.most[rack])
        if layout.racks[RACK_TYPE, rack] != kind or occ.rack_whole[rack] <= taken:
            continue
        if _room(layout, limits, occ, found, rack, found.place[3] * gpu_nw, 1) < 1:
            continue
        for node in range(layout.racks[RACK_FIRST, rack], layout.racks[RACK_FIRST, rack + 1]):
            if occ.free[node] == per_node:
                taken -= 1
                if taken < 0:
                    found.nodes[found.place[0]] = node
                    found.place[0] += 1
                    return True
    return False


@inner_kernel
def _find_large(
    layout: Layout, limits: Limits, occ: Occupancy, found: Found, hall: int, kind: int, gpus: int, gpu_nw: int
) -> bool:
    per_node = layout.type_gpus[kind]
    need = (gpus + per_node - 1) // per_node
    each_nw = per_node * gpu_nw
    first, last = layout.halls[HALL_FIRST, hall], layout.halls[HALL_FIRST, hall + 1]
    found.place[0] = 0
    found.place[3] = gpus - (need - 1) * per_node
    is_part = found.place[3] < per_node
    best, total, highest = -1, 0, 0
    for rack in range(first, last):
        found.most[rack] = 0
        if layout.racks[RACK_TYPE, rack] == kind and occ.rack_whole[rack] > 0:
            most = _room(layout, limits, occ, found, rack, each_nw, occ.rack_whole[rack])
            found.most[rack] = most
            total += most
            highest = max(highest, most)
            fits = most >= need
            if is_part and not fits and occ.rack_whole[rack] >= need:
                fits = _room(layout, limits, occ, found, rack, gpus * gpu_nw, 1) > 0
            if fits and (best < 0 or occ.rack_whole[rack] < occ.rack_whole[best]):
                best = rack
    if best >= 0:
        _take(layout, occ, found, best, need, 1, per_node)
        return True
    if total < (need - 1 if is_part else need):
        return False
    return _spread(layout, limits, occ, found, hall, kind, need, each_nw, highest)


@inner_kernel
def _hall_order(layout: Layout, occ: Occupancy, found: Found) -> None:
    """Write the halls into `found.halls`, those with the most free GPUs first, equal ones by name."""
    types = len(layout.type_gpus)
    halls = layout.halls.shape[1] - 1
    for hall in range(halls):
        free = 0
        for t in range(types):
            free += occ.pools[POOL_FREE, hall * types + t]
        at = hall
        while at > 0:
            other, other_free = found.halls[at - 1], 0
            for t in range(types):
                other_free += occ.pools[POOL_FREE, other * types + t]
            if other_free > free or (
                other_free == free and layout.halls[HALL_RANK, other] < layout.halls[HALL_RANK, hall]
            ):
                break
            found.halls[at] = other
            at -= 1
        found.halls[at] = hall


@inner_kernel
def find(
    layout: Layout,
    limits: Limits,
    plants: PlantCurves,
    occ: Occupancy,
    moments: tuple[Occupancy, Occupancy],
    two: bool,
    found: Found,
    may: tuple[Flags, Flags],
    only: int,
    gpus: int,
    gpu_nw: Ints,
) -> bool:
    """Find nodes for a job at a planned power per GPU and type; the result is in `found`.

    Nodes and zones are those of `occ`; halls and site must hold in the first of `moments`, or in `two`.
    `may` flags halls and types; `only` is the one hall to look at, -1 for all.
    """
    types = len(layout.type_gpus)
    now_w = site_w(moments[0])
    found.place[4] = 0
    _hall_order(layout, occ, found)
    for i in range(layout.halls.shape[1] - 1):
        hall = found.halls[i]
        if not may[0][hall] or only not in (-1, hall):
            continue
        for kind in range(types):
            pool, per_node, added_nw = hall * types + kind, layout.type_gpus[kind], gpus * gpu_nw[kind]
            if not may[1][kind] or occ.pools[POOL_FREE, pool] < gpus:
                continue
            zone = layout.halls[HALL_ZONE, hall]
            if occ.zone_nw[zone] + added_nw > limits.zone_nw[zone]:
                continue
            if gpus > per_node and occ.pools[POOL_WHOLE, pool] * per_node < gpus:
                continue
            if now_w + added_nw / 1e9 > limits.site_w[0]:
                found.place[4] = 1
                continue
            if not fits_hall(layout, limits, plants, moments[0], hall, kind, added_nw):
                found.place[4] = 1
                continue
            if two and not fits_hall(layout, limits, plants, moments[1], hall, kind, added_nw):
                continue
            if gpus <= per_node:
                is_found = _find_small(layout, limits, occ, found, hall, kind, gpus, gpu_nw[kind])
            else:
                is_found = _find_large(layout, limits, occ, found, hall, kind, gpus, gpu_nw[kind])
            if is_found:
                found.place[1], found.place[2] = hall, kind
                return True
    return False
