"""Storage in a plan, checked from the plan alone: powers, contents, end, temperatures, no export; exact, no solver.

One function per kind of limit. Budgets with the power of storage are checked with all others (`loads`).
"""

from collections.abc import Callable, Iterator

import numpy as np

from powerhall.plan.plan import Plan, StoragePlan
from powerhall.site.storage import Storage, trajectory
from powerhall_optimizer.verify.loads import Loads
from powerhall_optimizer.verify.times import time_text

__all__ = ["Broken", "storage_checks"]

Broken = tuple[str, str, str]
"""Kind, where, text."""
_WATT = 0.5
_KELVIN = 1e-3


class _Case:
    """One storage unit with its entry in the plan."""

    def __init__(self, plan: Plan, storage: Storage, entry: StoragePlan) -> None:
        self.plan = plan
        self.storage = storage
        self.entry = entry
        s = plan.snapshot
        start_j = s.stored_j.get(storage.name, storage.start_j)
        self.start_j = min(max(int(start_j), 0), int(storage.capacity_j))
        self.held = trajectory(storage, self.start_j, entry.power_w, s.slot_s)
        self.idle = trajectory(storage, self.start_j, (0,) * s.slots, s.slot_s)

    def when(self, slot: int) -> str:
        return time_text(self.plan.snapshot.start_s + slot * self.plan.snapshot.slot_s)


def _power(case: _Case, _loads: Loads) -> Iterator[Broken]:
    """Power lies within the limits of charging and discharging."""
    for slot, watts in enumerate(case.entry.power_w):
        if not -case.storage.charge_w <= watts <= case.storage.discharge_w:
            limits = f"-{case.storage.charge_w:.0f} to {case.storage.discharge_w:.0f} W"
            yield "storage_power", case.storage.name, f"{watts} W at {case.when(slot)}; the limits are {limits}"
            return


def _content(case: _Case, _loads: Loads) -> Iterator[Broken]:
    """The content never exceeds the capacity, nor falls below the least (or the content of an idle unit)."""
    for slot, (held, idle) in enumerate(zip(case.held, case.idle, strict=True)):
        low = min(int(case.storage.min_j), int(idle))
        if not low <= held <= int(case.storage.capacity_j):
            text = f"{float(held):.0f} J at {case.when(slot)}; the limits are {low} to {int(case.storage.capacity_j)} J"
            yield "storage_content", case.storage.name, text
            return


def _end(case: _Case, _loads: Loads) -> Iterator[Broken]:
    """At the end it holds the wanted content, or at least as much as an idle unit would."""
    due = min(int(case.storage.end_j), int(case.idle[-1]))
    if case.held[-1] < due:
        yield "storage_end", case.storage.name, f"ends with {float(case.held[-1]):.0f} J; must hold {due} J"


def _temperature(case: _Case, loads: Loads) -> Iterator[Broken]:
    """A loop's supply and return stay within their limits; the return is warmer by the rated rise, in proportion."""
    s = case.storage
    if s.kind != "loop":
        return
    overview = loads.halls[s.zone]
    plants = [p for p in case.plan.snapshot.site.hall(s.zone).plants if p.serves == s.medium]
    rise_k = max(p.return_rise_k for p in plants) / max(sum(p.capacity_w for p in plants), 1.0)
    heat_w = overview.heat_w[s.medium] + overview.stored_w[s.medium]
    for slot, held in enumerate(case.held):
        supply_c = s.temp_c(float(held))
        back_c = supply_c + rise_k * float(max(heat_w[max(0, slot - 1) : slot + 1]))
        if supply_c > s.max_supply_c + _KELVIN:
            text = f"supply of {supply_c:.2f} degC at {case.when(slot)}; the limit is {s.max_supply_c:.2f} degC"
        elif s.max_return_c is not None and back_c > s.max_return_c + _KELVIN:
            text = f"return of {back_c:.2f} degC at {case.when(slot)}; the limit is {s.max_return_c:.2f} degC"
        else:
            continue
        yield "storage_temperature", s.name, text
        return


def _state(case: _Case, _loads: Loads) -> Iterator[Broken]:
    """The contents in the plan follow from its powers."""
    said = case.entry.stored_j
    if len(said) != len(case.held) or any(abs(a - b) > 1 for a, b in zip(said, case.held, strict=True)):
        yield "storage_state", case.storage.name, "stored_j does not follow from its powers"
    if case.storage.kind == "loop":
        temps = [case.storage.temp_c(float(held)) for held in case.held]
        told = case.entry.temp_c
        if len(told) != len(temps) or any(abs(a - b) > _KELVIN for a, b in zip(told, temps, strict=True)):
            yield "storage_state", case.storage.name, "temp_c does not follow from its powers"


_EACH: tuple[Callable[[_Case, Loads], Iterator[Broken]], ...] = (_power, _content, _end, _temperature, _state)


def _known(plan: Plan) -> Iterator[Broken]:
    """Every storage unit of the site is planned once, with one power per slot, and no other unit."""
    names = [entry.name for entry in plan.storages]
    site = {storage.name for storage in plan.snapshot.site.storages}
    for name in sorted(site.symmetric_difference(names)):
        yield (
            "storage",
            name,
            "is a storage unit of the site that is not planned" if name in site else "is no storage unit of the site",
        )
    if len(set(names)) != len(names):
        yield "storage", "storages", "a storage unit is planned twice"
    for entry in plan.storages:
        if len(entry.power_w) != plan.snapshot.slots:
            yield "storage", entry.name, f"has {len(entry.power_w)} powers; must be {plan.snapshot.slots}"


def _export(plan: Plan, loads: Loads) -> Iterator[Broken]:
    """Batteries feed nothing back into the grid, and tanks and loops deliver no more than the heat."""
    s = plan.snapshot
    lows = [(s.site.name, "feeds power back into the grid", loads.zone_w[s.site.name])]
    for zone, overview in loads.halls.items():
        lows += [(f"{zone} ({m})", "is cooled beyond its heat", heat_w) for m, heat_w in overview.heat_w.items()]
    for where, what, values in lows:
        slot = int(np.argmin(values))
        if values[slot] < -_WATT:
            yield "storage_export", where, f"{what}: {-values[slot]:.0f} W at {time_text(s.start_s + slot * s.slot_s)}"


def _ramp(plan: Plan) -> Iterator[Broken]:
    """From slot to slot, batteries together change the power at the meter no faster than the site's ramp limits."""
    s = plan.snapshot
    batteries = {storage.name for storage in s.site.storages if storage.kind == "battery"}
    total = np.zeros(s.slots)
    for entry in plan.storages:
        if entry.name in batteries:
            total += np.array(entry.power_w, float)
    rise = -np.diff(total)
    for way, limit, steps in (("up", s.site.ramp_up_w_per_s, rise), ("down", s.site.ramp_down_w_per_s, -rise)):
        if limit is not None and len(steps) and steps.max() > limit * s.slot_s + _WATT:
            slot = int(np.argmax(steps)) + 1
            when = time_text(s.start_s + slot * s.slot_s)
            text = f"batteries bring the meter {way} by {steps.max():.0f} W at {when}"
            yield "storage_ramp", s.site.name, f"{text}; the limit is {limit * s.slot_s:.0f} W a slot"


def storage_checks(plan: Plan, loads: Loads | None) -> list[Broken]:
    """Return all violations of a plan's storage; without loads only whether all units are planned."""
    if not plan.snapshot.site.storages and not plan.storages:
        return []
    found = list(_known(plan))
    if found or loads is None:
        return found
    entries = {entry.name: entry for entry in plan.storages}
    for storage in plan.snapshot.site.storages:
        case = _Case(plan, storage, entries[storage.name])
        for check in _EACH:
            found += check(case, loads)
    return [*found, *_export(plan, loads), *_ramp(plan)]
