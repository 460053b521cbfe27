"""Explanations in numbers: why a job waits or runs slower, shortages with place and time, and the alternatives.

Everything is derived from the plan: the model rebuilt from its snapshot, the usage of its jobs, and its prices. An
alternative is judged beside everything else as planned.
"""

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from powerhall.plan.plan import Plan, Snapshot
from powerhall_optimizer.physics.site_conditions import time_text
from powerhall_optimizer.planning import texts
from powerhall_optimizer.planning.plan_value import plan_dispatch, plan_stops, schedule_of
from powerhall_optimizer.planning.wait_reasons import Alternative, Shortage, Slowdown, WaitReason
from powerhall_optimizer.problem.arrays import Ints, PriceCertificate, Schedule
from powerhall_optimizer.problem.certificate import read_certificate, unit_prices
from powerhall_optimizer.problem.meter import BEYOND_W
from powerhall_optimizer.problem.site_problem import BuiltProblem, build_problem
from powerhall_optimizer.problem.usage import add_usage, meter_rise, usage_of
from powerhall_optimizer.storage.model import build_storage_model, with_dispatch

__all__ = ["Explainer", "explainer_of", "zone_prices"]

Floats = npt.NDArray[np.float64]
_PLENTY = 1 << 45


def zone_prices(snapshot: Snapshot, built: BuiltProblem, prices: PriceCertificate) -> dict[str, tuple[float, ...]]:
    """Return the value of one more MW for an hour per zone and slot, in USD; zones that never bind are left out."""
    per_hour = 3600 / snapshot.slot_s
    found: dict[str, tuple[float, ...]] = {}
    prices = unit_prices(built.problem, prices)
    for resource, row in zip(built.problem.resource_keys, prices.price, strict=True):
        if resource.is_zone_budget and row.any():
            usd = row / 2.0**prices.scale_bits * 1e6 * per_hour * built.unit_usd
            found[resource.zone] = tuple(np.round(usd, 6).tolist())
    return found


class Explainer:
    """Explains the jobs of one plan."""

    def __init__(
        self, snapshot: Snapshot, built: BuiltProblem, schedule: Schedule, prices: PriceCertificate | None
    ) -> None:
        self.snapshot = snapshot
        self.built = built
        self.problem = built.problem
        self.schedule = schedule
        self.prices = None if prices is None else unit_prices(built.problem, prices)
        self.usage = usage_of(built.problem, schedule)
        self.number = {job.job_id: number for number, job in enumerate(built.jobs)}
        self._windows: dict[tuple[int, int, bool], Ints] = {}

    def start_s(self, slot: int) -> int:
        """Return when a slot begins, in s since the epoch."""
        return self.snapshot.start_s + slot * self.snapshot.slot_s

    def when(self, slot: int) -> str:
        """Return a slot's time as text."""
        return time_text(self.start_s(slot))

    def _least_free(self, resource: int, duration: int) -> Ints:
        """Return the least that is free of a resource over `duration` slots from each start (cut to the horizon)."""
        key = resource, min(duration, self.problem.slots), False
        if key not in self._windows:
            self._windows[key] = _window_least(self._free(resource), key[1])
        return self._windows[key]

    def _free(self, resource: int) -> Ints:
        free: Ints = self.problem.capacity[resource] - self.usage[resource]
        return free

    def _starts(self, option: int) -> slice:
        return slice(int(self.problem.option_earliest[option]), int(self.problem.option_latest[option]) + 1)

    def shortage(self, option: int) -> Floats:
        """Return for each start the largest part of a resource that is missing for the option; 0 where it fits."""
        starts = self._starts(option)
        worst = np.zeros(starts.stop - starts.start)
        for resource, amount in self.problem.uses_of(option):
            least = self._least_free(resource, int(self.problem.option_duration[option]))[starts]
            size = max(1.0, float(self.problem.capacity[resource].mean()))
            np.maximum(worst, (amount - least) / size, out=worst)
        if (rise := meter_rise(self.problem, self.usage, option)) is not None:
            width = min(int(self.problem.option_duration[option]), self.problem.slots)
            least = _window_least(self._free(rise[0]) - rise[1], width)[starts]
            size = max(1.0, float(self.problem.capacity[rise[0]].mean()))
            np.maximum(worst, -least / size, out=worst)
        return worst

    def alternative(self, job: int, option: int, start: int) -> Alternative:
        """Return one option at one start with its shortages."""
        end = start + int(self.problem.option_duration[option])
        shortages: list[Shortage] = []
        uses: list[tuple[int, int | Ints]] = list(self.problem.uses_of(option))
        if (rise := meter_rise(self.problem, self.usage, option)) is not None:
            rise_w = rise[1][start : min(end, self.problem.slots)]
            # where a curve ends another limit of the hall is short, and the meter's power is not known
            uses.append((rise[0], np.where(rise_w < BEYOND_W // 2, rise_w, 0)))
        for resource, amount in uses:
            over = amount - self._free(resource)[start : min(end, self.problem.slots)]
            if (over > 0).any():
                slots = np.flatnonzero(over > 0)
                name = self.problem.resource_keys[resource]
                shortages.append(Shortage(name, int(over.max()), start + int(slots[0]), start + int(slots[-1])))
        value_usd = self.problem.value(job, option, start) * self.built.unit_usd
        return Alternative(self.built.choices[option], option, start, end, value_usd, tuple(shortages))

    def best(self, job_id: str) -> list[Alternative]:
        """Return the alternatives to show: the earliest that fits, the earliest of all, the least short."""
        job = self.number[job_id]
        fits: tuple[int, int] | None = None
        least: tuple[float, int, int] | None = None
        soonest: tuple[int, float, int] | None = None
        for option in self.problem.options_of(job):
            shortage = self.shortage(option)
            first = self._starts(option).start
            if (shortage <= 0).any():
                start = first + int(np.argmax(shortage <= 0))
                fits = min(fits or (start, option), (start, option))
            at = int(np.argmin(shortage))
            least = min(least or (np.inf, 0, 0), (float(shortage[at]), first + at, option))
            soonest = min(soonest or (first, np.inf, option), (first, float(shortage[0]), option))
        found: list[tuple[int, int]] = []
        if fits is not None:
            found.append((fits[1], fits[0]))
        if soonest is not None:
            found.append((soonest[2], soonest[0]))
        if least is not None:
            found.append((least[2], least[1]))
        return [self.alternative(job, option, start) for option, start in dict.fromkeys(found)]

    def weight_needed(self, job_id: str) -> float | None:
        """Return the weight from which the job pays the prices of its usage; None where prices are not known."""
        if self.prices is None:
            return None
        job = self.number[job_id]
        weight = self.built.jobs[job].weight
        needed = np.inf
        for option in self.problem.options_of(job):
            starts = np.arange(self._starts(option).start, self._starts(option).stop)
            stop = np.minimum(starts + self.problem.option_duration[option], self.problem.slots)
            value = self.problem.values(job, option).astype(float)
            energy = self._energy(option, starts, stop)
            gain = value + energy
            price = sum(
                (amount * (self._paid(resource)[stop] - self._paid(resource)[starts]))
                for resource, amount in self.problem.uses_of(option)
            )
            with np.errstate(divide="ignore", invalid="ignore"):
                factor = np.where(gain > 0, (price + energy) / gain, np.inf)
            needed = min(needed, float(factor.min()))
        return weight * needed if np.isfinite(needed) else None

    def _energy(self, option: int, starts: Ints, stop: Ints) -> Floats:
        row = int(self.problem.option_tariff[option])
        if row < 0:
            return np.zeros(len(starts))
        paid = np.concatenate(([0.0], np.cumsum(self.problem.tariff[row])))
        result: Floats = self.problem.option_energy[option] * (paid[stop] - paid[starts])
        return result

    def _paid(self, resource: int) -> Floats:
        assert self.prices is not None
        scaled = self.prices.price[resource] / 2.0**self.prices.scale_bits
        return np.concatenate(([0.0], np.cumsum(scaled)))

    def shortages_text(self, found: Alternative) -> str:
        """Write where and when an alternative falls short."""
        return texts.shortages_text(found.shortages, self.when)

    def waiting(self, job_id: str) -> WaitReason:
        """Return why a job does not start within the horizon."""
        found = self.best(job_id)
        fitting = next((a for a in found if not a.shortages), None)
        needed = self.weight_needed(job_id)
        own = self.built.jobs[self.number[job_id]].weight
        return WaitReason(
            None if fitting is None else fitting.start,
            tuple(a for a in found if a.shortages),
            own,
            needed if needed is not None and needed > own else None,
        )

    def slowdowns(self, job_id: str, option: int, start: int) -> tuple[Slowdown, ...]:
        """Return why a planned job does not run in its fastest mode or not at once; nothing when it does."""
        job = self.number[job_id]
        own = self.built.choices[option]
        rate = self.problem.option_duration
        same = [o for o in self.problem.options_of(job) if self.built.choices[o].hall == own.hall]
        fastest = min(same, key=lambda o: (int(rate[o]), o != option))
        found: list[Slowdown] = []
        if rate[fastest] < rate[option]:
            shortages = self._shortages_beside(job, option, fastest, start)
            found.append(Slowdown(own.mode, self.built.choices[fastest].mode, start, shortages))
        first = int(self.problem.option_earliest[option])
        if start > first:
            found.append(Slowdown(own.mode, None, first, self._shortages_beside(job, option, option, first)))
        return tuple(found)

    def _shortages_beside(self, job: int, own: int, other: int, start: int) -> tuple[Shortage, ...]:
        """Return the shortages of an alternative of a planned job, without the job's own usage."""
        begin, end = int(self.schedule.start[job]), int(self.schedule.start[job] + self.problem.option_duration[own])
        span = begin, min(end, self.problem.slots)
        add_usage(self.problem, self.usage, own, span, -1)
        found = self.alternative(job, other, start)
        add_usage(self.problem, self.usage, own, span)
        return found.shortages


def _window_least(row: Ints, width: int) -> Ints:
    """Return the least number of a row over `width` slots from each on; behind the end there is plenty."""
    padded = np.concatenate((row, np.full(width - 1, _PLENTY, np.int64)))
    result: Ints = sliding_window_view(padded, width).min(axis=1)
    return result


def explainer_of(plan: Plan) -> Explainer:
    """Return the explainer of a published plan, from the plan alone."""
    built = build_problem(plan.snapshot, stops=plan_stops(plan))
    model = build_storage_model(plan.snapshot, built)
    built = with_dispatch(built, model, plan_dispatch(plan, model))
    prices = None if plan.certificate is None else read_certificate(built.problem, plan.certificate)
    return Explainer(plan.snapshot, built, schedule_of((plan,), built), prices)
