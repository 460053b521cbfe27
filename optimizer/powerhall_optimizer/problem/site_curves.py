"""The curves of a site's halls at the meter, in the numbers of its problem's resources."""

import math
from collections.abc import Mapping

import numpy as np

from powerhall_optimizer.physics.hall_tables import PARTS, hall_tables, points_needed
from powerhall_optimizer.physics.site_conditions import SiteConditions
from powerhall_optimizer.problem.meter import PART_BITS, SHARE_BITS, Ints, MeterCurves, curve_power_w

__all__ = ["site_curves"]


def site_curves(
    conditions: SiteConditions, meter: int, rows: Mapping[tuple[str, str], int], resources: int
) -> MeterCurves:
    """Return the curves of all halls; `rows` has the resource that counts the IT power of each hall and node type."""
    assert 1 << PART_BITS == PARTS
    weather = tuple(dict.fromkeys(conditions.weather))
    number = {moment: row for row, moment in enumerate(weather)}
    halls = conditions.site.halls
    tables = [hall_tables(conditions, hall, weather, points_needed()) for hall in halls]
    curve = {hall.zone: c for c, hall in enumerate(halls)}
    shares = [conditions.site.node_types[kind].liquid_fraction * 2.0**SHARE_BITS for _, kind in rows]
    row_pool = np.full(resources, -1, np.int64)
    row_pool[list(rows.values())] = np.arange(len(rows))
    most = [
        math.ceil(sum(conditions.most_added_w(rack) for rack in halls[curve[hall]].racks() if rack.node_type == kind))
        + 1
        for hall, kind in rows
    ]
    slots = np.array([number[moment] for moment in conditions.weather], np.int64)
    found = MeterCurves(
        meter_row=np.full(len(halls), meter, np.int64),
        first=np.searchsorted([curve[hall] for hall, _ in rows], np.arange(len(halls) + 1)).astype(np.int64),
        pool_row=np.array(list(rows.values()), np.int64),
        pool_most=np.array(most, np.int64),
        pool_share=_whole([[math.ceil(share), math.floor(share)] for share in shares], 2),
        pool_curve=np.array([curve[hall] for hall, _ in rows], np.int64),
        row_pool=row_pool,
        idle=_whole([t.idle for t in tables], 3),
        media=np.array([t.media for t in tables], np.int64),
        weather=np.tile(slots, (len(halls), 1)),
        shift=_whole([t.shift for t in tables], 3),
        table=np.stack([t.table for t in tables]),
        idle_w=np.zeros((len(halls), len(slots)), np.int64),
        steepest=np.array([t.steepest for t in tables]),
    )
    nothing = np.zeros(len(slots), np.int64)
    for c in range(len(halls)):
        found.idle_w[c] = curve_power_w(found, c, [nothing] * int(found.first[c + 1] - found.first[c]))
    return found


def _whole(rows: list[list[int]] | list[tuple[int, int, int]], width: int) -> Ints:
    return np.array(rows, np.int64).reshape(len(rows), width)
