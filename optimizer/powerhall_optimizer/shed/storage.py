"""Storage of a shed plan: batteries and tanks deliver no more than the slowed site still takes.

The plan in force lets storage deliver what its jobs need. With fewer jobs a battery would feed the grid, and a tank
would cool below the heat. What is not delivered stays in the storage, which then charges less later.
"""

from fractions import Fraction

import msgspec
import numpy as np
import numpy.typing as npt

from powerhall.plan.plan import Plan, StoragePlan
from powerhall.site.storage import Storage, keep_factor, stored_after, trajectory
from powerhall_optimizer.physics.plan_loads import loads_of
from powerhall_optimizer.verify.plan import verify_plan

__all__ = ["with_useful_storage"]

Floats = npt.NDArray[np.float64]


def with_useful_storage(plan: Plan) -> Plan:
    """Return the plan with storage that delivers no more than the site takes; idle where that breaks a limit."""
    if not plan.storages or not _broken(plan):
        return plan
    trimmed = _with_powers(plan, _trimmed(plan))
    if not _broken(trimmed):
        return trimmed
    slots = plan.snapshot.slots
    return _with_powers(plan, {entry.name: (0,) * slots for entry in plan.storages})


def _broken(plan: Plan) -> bool:
    """Return whether the plan breaks a limit of its storage; its other figures are not looked at."""
    return any(violation.kind.startswith("storage") for violation in verify_plan(plan))


def _trimmed(plan: Plan) -> dict[str, tuple[int, ...]]:
    """Return new powers: cooling first, because it changes what the plants draw at the meter."""
    s = plan.snapshot
    planned = {entry.name: entry.power_w for entry in plan.storages}
    found: dict[str, tuple[int, ...]] = {}
    left: dict[tuple[str, str], Floats] = {}
    bare = loads_of(s, plan.assignments)
    for storage in s.site.storages:
        if storage.kind != "battery":
            key = storage.zone, storage.medium
            room = left.setdefault(key, np.array(bare.halls[storage.zone].heat_w[storage.medium], float))
            found[storage.name] = _within(plan, storage, planned[storage.name], room)
            left[key] = room - np.array(found[storage.name], float)
    cooled = tuple(StoragePlan(name, powers, ()) for name, powers in found.items())
    room = np.array(loads_of(s, plan.assignments, cooled).zone_w[s.site.name], float)
    for storage in s.site.storages:
        if storage.kind == "battery":
            found[storage.name] = _within(plan, storage, planned[storage.name], room)
            room = room - np.array(found[storage.name], float)
    return found


def _within(plan: Plan, storage: Storage, planned_w: tuple[int, ...], room_w: Floats) -> tuple[int, ...]:
    """Deliver at most `room_w` per slot, and charge at most what the storage still takes."""
    s, keep = plan.snapshot, keep_factor(storage, plan.snapshot.slot_s)
    held, powers = Fraction(_start_j(plan, storage)), []
    for wanted_w, most_w in zip(planned_w, room_w.tolist(), strict=True):
        power_w = min(wanted_w, max(0, int(most_w))) if wanted_w > 0 else wanted_w
        while (after := stored_after(storage, keep, held, power_w, s.slot_s)) > int(storage.capacity_j) and power_w < 0:
            over_w = int(float(after - int(storage.capacity_j)) / s.slot_s)
            power_w = min(0, power_w + max(1, over_w))
        held = after
        powers.append(power_w)
    return tuple(powers)


def _start_j(plan: Plan, storage: Storage) -> int:
    start_j = plan.snapshot.stored_j.get(storage.name, storage.start_j)
    return min(max(int(start_j), 0), int(storage.capacity_j))


def _with_powers(plan: Plan, powers: dict[str, tuple[int, ...]]) -> Plan:
    """Return the plan with these powers and the contents that follow from them."""
    site, entries = {storage.name: storage for storage in plan.snapshot.site.storages}, []
    for entry in plan.storages:
        storage = site[entry.name]
        held = trajectory(storage, _start_j(plan, storage), powers[entry.name], plan.snapshot.slot_s)
        temps = tuple(storage.temp_c(float(value)) for value in held) if storage.kind == "loop" else ()
        entries.append(StoragePlan(entry.name, powers[entry.name], tuple(int(value) for value in held), temps))
    return msgspec.structs.replace(plan, storages=tuple(entries))
