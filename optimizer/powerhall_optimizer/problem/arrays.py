"""The planning problem as integers, read by every solver stage and by `schedule_check`.

Invariants (checked by `Problem.check`):

* Time is `slots` equal slots of `slot_s` seconds. An option that starts in slot s with duration d occupies the
  slots s .. s+d-1; slots behind the horizon (slot >= slots) use nothing and earn nothing.
* A resource is anything with a capacity per slot: nodes of a hall, watts of IT in a zone, watts of heat on a cooling
  plant, watts at the grid connection. The sum over running options of their usage never exceeds it; where a site has a
  limit at the meter, its usage is no sum but follows from that of other resources by `curves` (`problem.meter`).
* A job takes at most one of its options (hall x mode, a fixed start for a job that already runs, a resume after a
  stop), with one start slot in [earliest, latest] of the option, or none: then its value is `wait_value`.
* All numbers are int64. The largest possible total |value| stays below 2**52: float64 in solvers is exact on sums.

The value of option o of job j started in slot s, with d = duration and inside = min(d, slots - s), is

    bonus[o] + rate[o] * inside                                  work delivered inside the horizon; constants
    - delay_cost[j] * (s + d)                                    falls with completion time
    - late_cost[j] * max(0, s + d - deadline[j]) - late_fine[j] * (s + d > deadline[j])
    - shift_cost[j] * |s - planned_start[j]|                     churn against the previous plan (planned_start >= 0)
    - energy[o] * sum(tariff[tariff_row[o], s : s + inside])     energy (and carbon) cost

Value is in integer units of the caller's choice; a unit of about 1e-8 of the total expected value is a good one.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, fields

import numpy as np
import numpy.typing as npt

from powerhall.runtime.errors import Rejected
from powerhall_optimizer.problem.meter import MeterCurves
from powerhall_optimizer.problem.resources import Resource

Ints = npt.NDArray[np.int64]

NO_DEADLINE = 1 << 40  # any end slot is before it
MUST_RUN = -(1 << 36)  # wait_value of a job that stops only when nothing else keeps the budgets (sum < VALUE_LIMIT)
VALUE_LIMIT = 1 << 52  # float64 holds every integer below 2**53


@dataclass(frozen=True, slots=True)
class Problem:
    """Resources, jobs and options as flat arrays (J jobs, O options, R resources, T slots, K tariffs)."""

    slots: int
    slot_s: int
    resource_keys: tuple[Resource, ...]  # R
    capacity: Ints  # [R, T] in the resource's own unit (nodes, W)
    tariff: Ints  # [K, T] value units per unit of `option_energy` and slot; K may be 0
    job_names: tuple[str, ...]  # J
    job_options: Ints  # [J + 1]: job j owns the options job_options[j] .. job_options[j + 1] - 1
    job_wait_value: Ints  # [J] value of leaving the job out; very negative for a job that must run
    job_delay_cost: Ints  # [J] value per slot of completion time
    job_deadline: Ints  # [J] last end slot that is in time, NO_DEADLINE when there is none
    job_late_cost: Ints  # [J] value per slot of lateness
    job_late_fine: Ints  # [J] value lost once when late
    job_planned_start: Ints  # [J] start slot in the previous plan, -1 when there is none
    job_shift_cost: Ints  # [J] value per slot of moving away from planned_start
    option_labels: tuple[tuple[str, str], ...]  # names of (hall, mode) pairs
    option_label: Ints  # [O] index into option_labels
    option_duration: Ints  # [O] slots, >= 1
    option_earliest: Ints  # [O] first allowed start slot
    option_latest: Ints  # [O] last allowed start slot, < slots
    option_rate: Ints  # [O] value per slot inside the horizon
    option_bonus: Ints  # [O] constant value (checkpoint cost and churn of hall or mode are negative)
    option_tariff: Ints  # [O] row of `tariff`, -1 when energy is free
    option_energy: Ints  # [O] energy per slot in units of the tariff (for example W at the meter)
    option_uses: Ints  # [O + 1]: option o uses the entries option_uses[o] .. option_uses[o + 1] - 1 of the two below
    use_resource: Ints  # resource index, each at most once per option
    use_amount: Ints  # amount per slot while the job runs, >= 1
    curves: MeterCurves  # how the usage of a limit at the meter follows from that of other resources; often none

    @property
    def jobs(self) -> int:
        """Number of jobs."""
        return len(self.job_names)

    @property
    def options(self) -> int:
        """Number of options of all jobs."""
        return len(self.option_duration)

    @property
    def resources(self) -> int:
        """Number of resources."""
        return len(self.resource_keys)

    @property
    def resource_names(self) -> tuple[str, ...]:
        """Names of the resources, as certificates have them."""
        return tuple(map(str, self.resource_keys))

    def options_of(self, job: int) -> range:
        """The option indices of one job."""
        return range(int(self.job_options[job]), int(self.job_options[job + 1]))

    def uses_of(self, option: int) -> list[tuple[int, int]]:
        """Pairs (resource, amount per slot) of one option."""
        lo, hi = int(self.option_uses[option]), int(self.option_uses[option + 1])
        return [(int(self.use_resource[i]), int(self.use_amount[i])) for i in range(lo, hi)]

    def value(self, job: int, option: int, start: int) -> int:
        """Value of one decision by the formula in the module's docstring; `option` -1 means waiting."""
        if option < 0:
            return int(self.job_wait_value[job])
        return int(self.values(job, option)[start - int(self.option_earliest[option])])

    def values(self, job: int, option: int) -> Ints:
        """Values of one option for each of its start slots earliest .. latest."""
        start = np.arange(self.option_earliest[option], self.option_latest[option] + 1, dtype=np.int64)
        end = start + self.option_duration[option]
        stop = np.minimum(end, self.slots)
        late = np.maximum(0, end - self.job_deadline[job])
        value = self.option_bonus[option] + self.option_rate[option] * (stop - start)
        value = value - self.job_delay_cost[job] * end
        value = value - self.job_late_cost[job] * late - self.job_late_fine[job] * (late > 0)
        if self.job_planned_start[job] >= 0:
            value = value - self.job_shift_cost[job] * np.abs(start - self.job_planned_start[job])
        row = int(self.option_tariff[option])
        if row >= 0:
            total = np.concatenate(([0], np.cumsum(self.tariff[row])))
            value = value - self.option_energy[option] * (total[stop] - total[start])
        result: Ints = value
        return result

    def digest(self) -> str:
        """SHA-256 over every field: the identity of the inputs of a plan."""
        sha = hashlib.sha256()
        for item in fields(self):
            content = getattr(self, item.name)
            sha.update(item.name.encode())
            for part in content if isinstance(content, MeterCurves) else (content,):
                sha.update(part.tobytes() if isinstance(part, np.ndarray) else repr(part).encode())
        return sha.hexdigest()

    def check(self) -> None:
        """Raises `Rejected` naming the first field and index that breaks an invariant of this module."""
        _check_shapes(self)
        _check_ranges(self)
        _check_magnitude(self)


@dataclass(frozen=True, slots=True)
class Schedule:
    """One decision per job: `option` (-1 = waiting) and `start` slot (-1 when waiting), both [J]."""

    option: Ints
    start: Ints

    @staticmethod
    def empty(jobs: int) -> Schedule:
        """Every job waits."""
        return Schedule(np.full(jobs, -1, np.int64), np.full(jobs, -1, np.int64))

    def value(self, problem: Problem) -> int:
        """Total value; `schedule_check` recomputes it term by term."""
        pairs = zip(self.option.tolist(), self.start.tolist(), strict=True)
        return sum(problem.value(job, option, start) for job, (option, start) in enumerate(pairs))


@dataclass(frozen=True, slots=True)
class Cut:
    """A derived resource: `resource` counted in whole multiples of `divisor`.

    Whatever integers fit into a capacity also fit when every usage and the capacity are divided by `divisor` and
    rounded down (a dual-feasible function, Fekete and Schepers 2001). It tightens the bound for large gangs.
    """

    resource: int
    divisor: int


@dataclass(frozen=True, slots=True)
class PriceCertificate:
    """Prices that prove the bound: value units per unit of resource and slot, times 2**scale_bits, all >= 0.

    With lambda = price / 2**scale_bits the bound is

        L(lambda) = sum(lambda * capacity) + sum over jobs of max(wait_value, max over option, start of
                    value - sum over slots and resources of lambda * usage)

    and no schedule has a higher value, for any lambda >= 0. `cut_price` prices the derived resources in `cuts`. With
    limits at meters (`Problem.curves`) sum(lambda * capacity) is without them and the pools that they count; in its
    place is what jobs pay there at most, by lines below the true curves that touch them at `it_w`.
    """

    price: Ints  # [R, T]
    scale_bits: int
    cuts: tuple[Cut, ...] = ()
    cut_price: Ints = field(default_factory=lambda: np.zeros((0, 0), np.int64))  # [len(cuts), T]
    it_w: Ints | None = None  # [K, T] IT power of the pools at a meter at which lines touch the halls' curves


def _refuse(bad: npt.NDArray[np.bool_], name: str, allowed: str) -> None:
    if bad.any():
        raise Rejected(f"problem: {name}[{', '.join(str(i) for i in np.argwhere(bad)[0])}]: allowed is {allowed}")


def _check_shapes(p: Problem) -> None:
    jobs, options = p.jobs, p.options
    expected = {"capacity": (p.resources, p.slots), "tariff": (len(p.tariff), p.slots), "job_options": (jobs + 1,)}
    expected["option_uses"] = (options + 1,)
    for item in fields(p):
        content = getattr(p, item.name)
        if not isinstance(content, np.ndarray):
            continue
        if content.dtype != np.int64:
            raise Rejected(f"problem: {item.name}: dtype {content.dtype}, allowed is int64")
        size = len(p.use_amount) if item.name.startswith("use_") else jobs if item.name.startswith("job_") else options
        shape = expected.get(item.name, (size,))
        if content.shape != shape:
            raise Rejected(f"problem: {item.name}: shape {content.shape}, allowed is {shape}")
    for name, end in (("job_options", options), ("option_uses", len(p.use_amount))):
        pointers = getattr(p, name)
        if pointers[0] != 0 or pointers[-1] != end or (np.diff(pointers) < 0).any():
            raise Rejected(f"problem: {name}: allowed is a rising list from 0 to {end}")


def _check_ranges(p: Problem) -> None:
    if p.slots < 1 or p.slot_s < 1:
        raise Rejected(f"problem: slots {p.slots}, slot_s {p.slot_s}: allowed is >= 1")
    _refuse(p.capacity < 0, "capacity", ">= 0")
    _refuse(p.option_duration < 1, "option_duration", ">= 1")
    _refuse(p.option_earliest < 0, "option_earliest", ">= 0")
    _refuse(p.option_latest < p.option_earliest, "option_latest", ">= option_earliest")
    _refuse(p.option_latest >= p.slots, "option_latest", f"< {p.slots}")
    _refuse((p.option_tariff < -1) | (p.option_tariff >= len(p.tariff)), "option_tariff", f"-1 .. {len(p.tariff) - 1}")
    _refuse((p.option_label < 0) | (p.option_label >= len(p.option_labels)), "option_label", "a known label")
    _refuse((p.use_resource < 0) | (p.use_resource >= p.resources), "use_resource", f"0 .. {p.resources - 1}")
    _refuse(p.use_amount < 1, "use_amount", ">= 1")
    owner = np.repeat(np.arange(p.options, dtype=np.int64), np.diff(p.option_uses))
    keys = np.sort(owner * max(1, p.resources) + p.use_resource)
    _refuse(np.diff(keys) == 0, "use_resource", "each resource once per option")


def _check_magnitude(p: Problem) -> None:
    """Largest |value| summed over jobs, in float64, against VALUE_LIMIT; usage and capacity below 2**46."""
    _refuse(p.capacity >= 1 << 46, "capacity", "< 2**46")
    _refuse(p.use_amount >= 1 << 46, "use_amount", "< 2**46")
    job = np.repeat(np.arange(p.jobs), np.diff(p.job_options))
    length = np.abs(p.option_duration).astype(float)
    end = p.option_latest + length
    tariff = np.concatenate((np.abs(p.tariff.astype(float)).sum(axis=1), [0.0]))
    size = np.abs(p.option_bonus.astype(float)) + np.abs(p.option_rate) * np.minimum(length, p.slots)
    size += np.abs(p.job_delay_cost[job]) * end + np.abs(p.job_late_fine[job])
    size += np.abs(p.job_late_cost[job]) * np.maximum(0, end - p.job_deadline[job])
    size += np.abs(p.job_shift_cost[job].astype(float)) * np.maximum(p.slots, p.job_planned_start[job])
    size += np.abs(p.option_energy) * tariff[p.option_tariff]
    largest = np.abs(p.job_wait_value.astype(float))
    np.maximum.at(largest, job, size)
    if largest.sum() >= VALUE_LIMIT:
        raise Rejected(
            f"problem: sum of largest values {largest.sum():.3g}: allowed is < 2**52; use a larger value unit"
        )
