"""Power of what was done, by the model that plans are made with: idle nodes, and each job's GPUs at full speed."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from powerhall.physics.cooling import hall_load
from powerhall.plan.plan import Snapshot, gpu_power_w
from powerhall.site.topology import Hall, NodeType
from powerhall_optimizer.physics.plan_loads import weather_of
from powerhall_twin.hindsight.window import DoneJob

__all__ = ["JobPower", "facility_w", "job_power"]

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class JobPower:
    """IT power that jobs add to idle nodes, and that of idle nodes, per hall: to liquid and to air, means of slots."""

    jobs_w: dict[str, tuple[Floats, Floats]]
    idle_w: dict[str, tuple[float, float]]


def job_power(snapshot: Snapshot, jobs: Sequence[DoneJob]) -> JobPower:
    """Return the power of jobs as they ran; one whose nodes are not known is spread over the halls by their GPUs."""
    site = snapshot.site
    slots = snapshot.slots
    rooms = {hall.zone: _gpus_by_kind(site.node_types, hall) for hall in site.halls}
    every = sum(sum(room.values()) for room in rooms.values())
    spread = {zone: sum(room.values()) / every for zone, room in rooms.items()}
    added = {zone: (np.zeros(slots + 1), np.zeros(slots + 1)) for zone in rooms}
    for done in jobs:
        if done.start_s is None:
            continue
        begin = (done.start_s - snapshot.start_s) / snapshot.slot_s
        end = min(float(slots), begin + done.job.duration_s / snapshot.slot_s)
        for zone, share in (done.halls or spread).items():
            liquid_w, air_w = _gpu_w(snapshot, rooms[zone], done)
            for row, watts in zip(added[zone], (liquid_w, air_w), strict=True):
                _add(row, begin, end, watts * share * done.job.gpus)
    idle = {hall.zone: _idle_w(site.node_types, hall) for hall in site.halls}
    sums = {zone: (np.cumsum(liquid)[:-1], np.cumsum(air)[:-1]) for zone, (liquid, air) in added.items()}
    return JobPower(sums, idle)


def facility_w(snapshot: Snapshot, power: JobPower, factor: float = 1.0) -> Floats:
    """Return the site's power at the meter per slot in W, with `factor` times the power that jobs add."""
    total = np.zeros(snapshot.slots)
    for hall in snapshot.site.halls:
        (liquid_w, air_w), (idle_liquid_w, idle_air_w) = power.jobs_w[hall.zone], power.idle_w[hall.zone]
        rows = zip(liquid_w.tolist(), air_w.tolist(), weather_of(snapshot), strict=True)
        total += [
            hall_load(hall, idle_liquid_w + factor * liquid, idle_air_w + factor * air, moment).facility_power_w
            for liquid, air, moment in rows
        ]
    return total


def _add(row: Floats, begin: float, end: float, watts: float) -> None:
    """Add watts from slot `begin` to `end`, parts of slots by their share, as changes from slot to slot."""
    for at, sign in ((begin, 1.0), (end, -1.0)):
        slot = min(int(at), len(row) - 1)
        part = at - slot
        row[slot] += sign * watts * (1.0 - part)
        if slot + 1 < len(row):
            row[slot + 1] += sign * watts * part


def _gpu_w(snapshot: Snapshot, room: dict[str, int], done: DoneJob) -> tuple[float, float]:
    """Return the power in W above idle of a GPU of the job, to liquid and to air: the mean of its possible types."""
    kinds = {done.node_type: 1} if done.node_type in room else room
    count = sum(kinds.values())
    liquid_w = air_w = 0.0
    known = snapshot.site.job_classes.get(done.job.job_class)
    for name, gpus in kinds.items():
        kind = snapshot.site.node_types[name or ""]
        watts = max(0.0, gpu_power_w(kind, kind.modes[0], known) - kind.idle_gpu_power_w) * gpus / count
        liquid_w += watts * kind.liquid_fraction
        air_w += watts * (1.0 - kind.liquid_fraction)
    return liquid_w, air_w


def _gpus_by_kind(kinds: dict[str, NodeType], hall: Hall) -> dict[str, int]:
    found: dict[str, int] = {}
    for rack in hall.racks():
        found[rack.node_type] = found.get(rack.node_type, 0) + len(rack.nodes) * kinds[rack.node_type].gpus
    return found


def _idle_w(kinds: dict[str, NodeType], hall: Hall) -> tuple[float, float]:
    liquid_w = air_w = 0.0
    for rack in hall.racks():
        kind = kinds[rack.node_type]
        liquid_w += len(rack.nodes) * kind.idle_power_w * kind.liquid_fraction
        air_w += len(rack.nodes) * kind.idle_power_w * (1.0 - kind.liquid_fraction)
    return liquid_w, air_w
