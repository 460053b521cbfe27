"""The planner's check of a schedule and a bound against the problem's arrays, without any solver.

`check_schedule` walks one function per constraint. `exact_value` and `exact_bound` follow the formulas in
`powerhall_optimizer.problem.arrays` and share no code with the stages that produced the schedule (the curves of halls
at a meter are `problem.meter`, as everywhere). All sums are exact:
int64 where a magnitude check allows it, Python integers elsewhere. Plans are checked by `powerhall_optimizer.verify`,
which shares no code with this module.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from powerhall_optimizer.problem.arrays import Ints, PriceCertificate, Problem, Schedule
from powerhall_optimizer.problem.usage import count_at_meter

__all__ = ["BrokenLimit", "Report", "check_schedule", "exact_bound", "exact_value", "verify_schedule"]

CELLS = 2_000_000  # (column, start) pairs handled at once
EXACT = 1 << 61  # int64 sums below this cannot overflow


@dataclass(frozen=True, slots=True)
class BrokenLimit:
    """One broken limit: which constraint, where, and by how much."""

    constraint: str  # shape, option, window, capacity
    where: str
    excess: int

    def __str__(self) -> str:
        """The line shown to operators."""
        return f"{self.constraint}: {self.where}"


@dataclass(frozen=True, slots=True)
class Report:
    """Result of a check: every violation, the exact value, and the proven bound where a certificate is given."""

    violations: tuple[BrokenLimit, ...]
    value: int
    bound: int | None

    @property
    def ok(self) -> bool:
        """No limit is broken and the bound, if any, is not below the value."""
        return not self.violations and (self.bound is None or self.bound >= self.value)

    @property
    def gap(self) -> float | None:
        """(bound - value) / |value|, None without a bound."""
        return None if self.bound is None else (self.bound - self.value) / max(1, abs(self.value))


def verify_schedule(problem: Problem, schedule: Schedule, certificate: PriceCertificate | None = None) -> Report:
    """Check a schedule, and the bound when a certificate is given."""
    violations = tuple(check_schedule(problem, schedule))
    known = not any(v.constraint in ("shape", "option", "window") for v in violations)
    value = exact_value(problem, schedule) if known else 0
    return Report(violations, value, None if certificate is None else exact_bound(problem, certificate))


def check_schedule(problem: Problem, schedule: Schedule) -> Iterator[BrokenLimit]:
    """Every violation; limits that need valid decisions are only checked when the decisions are."""
    first = list(_shape(problem, schedule))
    if not first:
        first = [*_options(problem, schedule), *_windows(problem, schedule)]
    yield from first
    if not first:
        yield from _capacities(problem, schedule)


def _shape(problem: Problem, schedule: Schedule) -> Iterator[BrokenLimit]:
    for name, numbers in (("option", schedule.option), ("start", schedule.start)):
        if numbers.shape != (problem.jobs,) or numbers.dtype != np.int64:
            yield BrokenLimit("shape", f"{name} has shape {numbers.shape}, dtype {numbers.dtype}", 1)


def _options(problem: Problem, schedule: Schedule) -> Iterator[BrokenLimit]:
    """A job takes none or one of its own options."""
    own = (schedule.option >= problem.job_options[:-1]) & (schedule.option < problem.job_options[1:])
    for job in np.flatnonzero(~own & (schedule.option != -1)).tolist():
        yield BrokenLimit("option", f"{problem.job_names[job]} has option {schedule.option[job]} of another job", 1)


def _windows(problem: Problem, schedule: Schedule) -> Iterator[BrokenLimit]:
    """A chosen option starts within [earliest, latest]."""
    for job in np.flatnonzero((schedule.option >= 0) & (schedule.option < problem.options)).tolist():
        option, start = int(schedule.option[job]), int(schedule.start[job])
        low, high = int(problem.option_earliest[option]), int(problem.option_latest[option])
        if not low <= start <= high:
            excess = max(low - start, start - high)
            yield BrokenLimit(
                "window", f"{problem.job_names[job]} starts at {start}, allowed is {low} .. {high}", excess
            )


def _capacities(problem: Problem, schedule: Schedule) -> Iterator[BrokenLimit]:
    """The usage of every resource stays within its capacity in every slot."""
    usage = np.zeros((problem.resources, problem.slots), np.int64)
    for job in np.flatnonzero(schedule.option >= 0).tolist():
        option, start = int(schedule.option[job]), int(schedule.start[job])
        stop = min(problem.slots, start + int(problem.option_duration[option]))
        for entry in range(int(problem.option_uses[option]), int(problem.option_uses[option + 1])):
            usage[problem.use_resource[entry], start:stop] += problem.use_amount[entry]
    count_at_meter(problem, usage)
    for resource, slot in np.argwhere(usage > problem.capacity).tolist():
        used, cap = int(usage[resource, slot]), int(problem.capacity[resource, slot])
        name = problem.resource_names[resource]
        yield BrokenLimit("capacity", f"{name} in slot {slot} uses {used} of {cap}", used - cap)


def exact_value(problem: Problem, schedule: Schedule) -> int:
    """Value of a schedule whose options and starts are valid, decision by decision in Python integers."""
    paid = [[0, *np.cumsum(row.astype(object))] for row in problem.tariff]
    total = 0
    for job, option in enumerate(schedule.option.tolist()):
        if option < 0:
            total += int(problem.job_wait_value[job])
            continue
        start, duration = int(schedule.start[job]), int(problem.option_duration[option])
        end, stop = start + duration, min(problem.slots, start + duration)
        total += int(problem.option_bonus[option]) + int(problem.option_rate[option]) * (stop - start)
        total -= int(problem.job_delay_cost[job]) * end
        if end > problem.job_deadline[job]:
            late = end - int(problem.job_deadline[job])
            total -= int(problem.job_late_cost[job]) * late + int(problem.job_late_fine[job])
        if problem.job_planned_start[job] >= 0:
            total -= int(problem.job_shift_cost[job]) * abs(start - int(problem.job_planned_start[job]))
        row = int(problem.option_tariff[option])
        if row >= 0:
            total -= int(problem.option_energy[option]) * int(paid[row][stop] - paid[row][start])
    return total


def exact_bound(problem: Problem, certificate: PriceCertificate) -> int:
    """floor(L(lambda)): an upper bound of the value of every schedule. Raises ValueError when a price is negative."""
    price, cuts = certificate.price, certificate.cuts
    if len(problem.curves.meter_row):
        raise ValueError("the bound of a problem with curves at a meter is proven from the site (verify.value)")
    if price.shape != problem.capacity.shape or (price < 0).any():
        raise ValueError("certificate: prices must be >= 0, one per resource and slot")
    if len(certificate.cut_price) != len(cuts) or (certificate.cut_price < 0).any():
        raise ValueError("certificate: cut prices must be >= 0, one row per cut")
    total = _priced_capacity(problem.capacity, price)
    for cut, row in zip(cuts, certificate.cut_price, strict=True):
        total += _priced_capacity(problem.capacity[cut.resource] // cut.divisor, row)
    scale = 1 << certificate.scale_bits
    best = [int(wait) * scale for wait in problem.job_wait_value.tolist()]
    for job, gain in _column_gains(problem, certificate):
        for j, g in zip(job.tolist(), gain.tolist(), strict=True):
            best[j] = max(best[j], g)
    return (total + sum(best)) // scale


def _priced_capacity(capacity: Ints, price: Ints) -> int:
    """sum(capacity * price) as a Python integer; rows whose products might leave int64 are summed one by one."""
    total = 0
    for cap, row in zip(np.atleast_2d(capacity), np.atleast_2d(price), strict=True):
        fits = float((cap.astype(float) * row).sum()) < EXACT
        total += int((cap * row).sum()) if fits else sum(int(c) * int(p) for c, p in zip(cap, row, strict=True))
    return total


def _patterns(problem: Problem, certificate: PriceCertificate) -> tuple[Ints, Ints, list[tuple[Ints, int, int]]]:
    """Per option: its pattern and multiple; per pattern: prefix sums of its unit price, tariff row, unit energy.

    Options that are multiples of one usage share a pattern; patterns with equal unit prices are one.
    """
    kind = np.int64 if _size_bound(problem, certificate) < EXACT else object
    priced = [np.concatenate(([0], np.cumsum(row.astype(kind)))) for row in certificate.price]
    cut_of: dict[int, list[tuple[int, Ints]]] = {}
    for cut, row in zip(certificate.cuts, certificate.cut_price, strict=True):
        cut_of.setdefault(cut.resource, []).append((cut.divisor, np.concatenate(([0], np.cumsum(row.astype(kind))))))
    pointers, resources, amounts = problem.option_uses.tolist(), problem.use_resource.tolist(), problem.use_amount
    counts = np.diff(problem.option_uses)
    plain = np.where(problem.option_tariff >= 0, problem.option_energy, 0)
    multiple = np.maximum(1, _divisors(problem, plain)) if not cut_of else np.ones(problem.options, np.int64)
    units = (amounts // np.repeat(multiple, counts)).tolist()
    energies, rows = (plain // multiple).tolist(), problem.option_tariff.tolist()
    known: dict[tuple[tuple[int, ...], tuple[int, ...], int, int], int] = {}
    same: dict[tuple[object, int, int], int] = {}
    series: list[tuple[Ints, int, int]] = []
    pattern = np.zeros(problem.options, np.int64)
    for option in range(problem.options):
        lo, hi = pointers[option], pointers[option + 1]
        energy = energies[option]
        key = (tuple(resources[lo:hi]), tuple(units[lo:hi]), rows[option] if energy else -1, energy)
        if key not in known:
            total = np.zeros(problem.slots + 1, kind)
            for resource, unit in zip(key[0], key[1], strict=True):
                total = total + unit * priced[resource]
                for divisor, row in cut_of.get(resource, []):
                    total = total + (unit // divisor) * row
            known[key] = same.setdefault((_content(total), key[2], key[3]), len(series))
            if known[key] == len(series):
                series.append((total, key[2], key[3]))
        pattern[option] = known[key]
    return pattern, multiple, series


def _content(numbers: Ints) -> object:
    return tuple(numbers) if numbers.dtype == object else numbers.tobytes()


def _divisors(problem: Problem, energy: Ints) -> Ints:
    """Greatest common divisor of the amounts and the energy of each option."""
    result = energy.copy()
    filled = np.flatnonzero(np.diff(problem.option_uses) > 0)
    if len(filled):
        parts = np.gcd.reduceat(problem.use_amount, problem.option_uses[filled])
        result[filled] = np.gcd(result[filled], parts)
    return result


def _column_gains(problem: Problem, certificate: PriceCertificate) -> Iterator[tuple[Ints, Ints]]:
    """Pairs (job, best scaled value less price) for all different options, in blocks of about CELLS cells."""
    pattern, multiple, series = _patterns(problem, certificate)
    if not series:
        return
    scale = 1 << certificate.scale_bits
    prefix = np.stack(
        [total + _paid(problem, row).astype(total.dtype) * energy * scale for total, row, energy in series]
    )
    job = np.repeat(np.arange(problem.jobs, dtype=np.int64), np.diff(problem.job_options))
    p = problem
    numbers = (p.option_bonus, p.option_rate, p.option_latest, p.option_earliest, p.option_duration, multiple, pattern)
    order = np.lexsort((*numbers, job))
    changes = np.zeros(p.options, bool)
    changes[0] = True
    for column in (*numbers, job):
        changes[1:] |= np.diff(column[order]) != 0
    columns = order[changes]
    columns = columns[np.argsort((p.option_latest - p.option_earliest)[columns], kind="stable")]
    width = int((p.option_latest - p.option_earliest).max()) + 1
    step = max(1, CELLS // width)
    for lo in range(0, len(columns), step):
        block = columns[lo : lo + step]
        yield job[block], _best_gains(problem, block, job[block], prefix, pattern, multiple, scale)


def _paid(problem: Problem, row: int) -> Ints:
    total = np.zeros(problem.slots + 1, np.int64)
    if row >= 0:
        total[1:] = np.cumsum(problem.tariff[row])
    return total


def _size_bound(problem: Problem, certificate: PriceCertificate) -> float:
    """Upper bound in float64 of any |number| met while the best decisions are computed."""
    p = problem
    amount = np.zeros(p.resources)
    np.maximum.at(amount, p.use_resource, p.use_amount.astype(float))
    priced = float((amount * certificate.price.astype(float).sum(axis=1)).sum())
    for cut, row in zip(certificate.cuts, certificate.cut_price, strict=True):
        priced += float(amount[cut.resource] * row.astype(float).sum())
    energy = np.abs(p.option_energy).max(initial=0) * float(np.abs(p.tariff.astype(float)).sum())
    end = float(p.slots + p.option_duration.max(initial=0))
    value = np.abs(p.option_bonus).max(initial=0) + np.abs(p.option_rate).max(initial=0) * float(p.slots)
    delay = np.abs(p.job_delay_cost).max(initial=0) * end + np.abs(p.job_late_fine).max(initial=0)
    late = np.abs(p.job_late_cost).max(initial=0) * end
    shift = np.abs(p.job_shift_cost).max(initial=0) * (end + float(np.abs(p.job_planned_start).max(initial=0)))
    return float((value + delay + late + shift + energy) * 2.0**certificate.scale_bits + priced)


def _best_gains(  # noqa: PLR0917
    problem: Problem, block: Ints, job: Ints, prefix: Ints, pattern: Ints, multiple: Ints, scale: int
) -> Ints:
    """Best scaled (value less price) of each option of a block over all its starts."""
    p = problem
    first, last = p.option_earliest[block, None], p.option_latest[block, None]
    start = np.minimum(first + np.arange(int((last - first).max()) + 1), last)
    end = start + p.option_duration[block, None]
    stop = np.minimum(end, p.slots)
    value = p.option_bonus[block, None] + p.option_rate[block, None] * (stop - start)
    value -= p.job_delay_cost[job, None] * end
    if p.job_late_cost.any() or p.job_late_fine.any():
        late = np.maximum(0, end - p.job_deadline[job, None])
        value -= p.job_late_cost[job, None] * late + p.job_late_fine[job, None] * (late > 0)
    if (p.job_planned_start >= 0).any():
        planned = p.job_planned_start[job, None]
        value -= np.where(planned >= 0, p.job_shift_cost[job, None] * np.abs(start - planned), 0)
    row = pattern[block, None]
    price = multiple[block, None] * (prefix[row, stop] - prefix[row, start])
    result: Ints = (value.astype(prefix.dtype) * scale - price).max(axis=1)
    return result
