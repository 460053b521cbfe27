"""Build a `Problem`: `make_problem` takes tables of jobs and options and checks every invariant.

`ProblemBuilder` fills the tables one resource, job and option at a time. Callers that compute whole columns (a site's
queue, several sites, synthetic families) fill them at once.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from powerhall_optimizer.problem.arrays import NO_DEADLINE, Ints, Problem
from powerhall_optimizer.problem.meter import MeterCurves, no_curves
from powerhall_optimizer.problem.resources import Resource

__all__ = ["CapacityTable", "JobTable", "OptionTable", "ProblemBuilder", "make_problem", "pointers"]


@dataclass(frozen=True, slots=True)
class CapacityTable:
    """Resources with their capacity per slot, and the cost of energy per slot."""

    resources: tuple[Resource, ...]  # R
    capacity: Ints  # [R, T] GPUs, nodes or W
    tariff: Ints  # [K, T] value units per unit of energy
    curves: MeterCurves | None = None  # of halls whose site has a limit at the meter


@dataclass(frozen=True, slots=True)
class JobTable:
    """One row per job (J); values are in value units, times in slots."""

    names: tuple[str, ...]  # J
    option_counts: Ints  # [J] options of each job, in the order of the option table
    wait_value: Ints  # [J] value of leaving the job out
    delay_cost: Ints  # [J] value per slot of completion time
    deadline: Ints  # [J] last end slot that is in time, NO_DEADLINE for none
    late_cost: Ints  # [J] value per slot of lateness
    late_fine: Ints  # [J] value lost once when late
    planned_start: Ints  # [J] start slot in the previous plan, -1 for none
    shift_cost: Ints  # [J] value per slot of moving away from planned_start


@dataclass(frozen=True, slots=True)
class OptionTable:
    """One row per option (O), those of the first job first; values are in value units, times in slots."""

    labels: tuple[tuple[str, str], ...]  # names of (hall, mode) pairs
    label: Ints  # [O] index into labels
    duration: Ints  # [O] slots, >= 1
    earliest: Ints  # [O] first allowed start slot
    latest: Ints  # [O] last allowed start slot
    rate: Ints  # [O] value per slot inside the horizon
    bonus: Ints  # [O] constant value
    tariff: Ints  # [O] row of the tariff, -1 for free energy
    energy: Ints  # [O] energy per slot in units of the tariff
    use_counts: Ints  # [O] resources that each option uses
    use_resource: Ints  # [sum of use_counts] resource number
    use_amount: Ints  # [sum of use_counts] amount per slot, >= 1


def make_problem(slots: int, slot_s: int, capacities: CapacityTable, jobs: JobTable, options: OptionTable) -> Problem:
    """Return the problem of these tables; `Rejected` names the first field and index that breaks an invariant."""
    problem = Problem(
        slots=slots,
        slot_s=slot_s,
        resource_keys=capacities.resources,
        capacity=capacities.capacity,
        tariff=capacities.tariff,
        job_names=jobs.names,
        job_options=pointers(jobs.option_counts),
        job_wait_value=jobs.wait_value,
        job_delay_cost=jobs.delay_cost,
        job_deadline=jobs.deadline,
        job_late_cost=jobs.late_cost,
        job_late_fine=jobs.late_fine,
        job_planned_start=jobs.planned_start,
        job_shift_cost=jobs.shift_cost,
        option_labels=options.labels,
        option_label=options.label,
        option_duration=options.duration,
        option_earliest=options.earliest,
        option_latest=options.latest,
        option_rate=options.rate,
        option_bonus=options.bonus,
        option_tariff=options.tariff,
        option_energy=options.energy,
        option_uses=pointers(options.use_counts),
        use_resource=options.use_resource,
        use_amount=options.use_amount,
        curves=capacities.curves or no_curves(len(capacities.resources), slots),
    )
    problem.check()
    return problem


class ProblemBuilder:
    """Collects resources, tariffs, jobs and options one by one and builds a checked `Problem`.

    >>> builder = ProblemBuilder(slots=4)
    >>> nodes = builder.resource(Resource("hall1", ResourceKind.NODES), 8)
    >>> job = builder.job("train")
    >>> builder.option(job, ("hall1", "full"), duration=2, uses={nodes: 8}, rate=10)
    0
    >>> builder.build().jobs
    1
    """

    def __init__(self, slots: int, slot_s: int = 300) -> None:
        self.slots = slots
        self.slot_s = slot_s
        self._resources: list[tuple[Resource, Ints]] = []
        self._tariffs: list[Ints] = []
        self._curves: MeterCurves | None = None
        self._jobs: list[tuple[str, tuple[int, ...]]] = []
        self._labels: dict[tuple[str, str], int] = {}
        self._options: list[list[tuple[tuple[int, ...], Mapping[int, int]]]] = []

    def resource(self, resource: Resource | str, capacity: int | Sequence[int] | npt.NDArray[np.int64]) -> int:
        """Add a resource with one capacity or one per slot, and return its number; a text names a plain limit."""
        key = Resource(resource) if isinstance(resource, str) else resource
        self._resources.append((key, np.broadcast_to(np.asarray(capacity, np.int64), (self.slots,))))
        return len(self._resources) - 1

    def set_meter(self, meter: int, free_w: Ints, curves: MeterCurves) -> None:
        """Set the curves of the halls, and what the idle halls leave at the meter in W; no resource may follow."""
        self._resources[meter] = self._resources[meter][0], free_w
        self._curves = curves

    def tariff(self, price: int | Sequence[int] | npt.NDArray[np.int64]) -> int:
        """Add a tariff (value units per unit of energy and slot) and return its row."""
        self._tariffs.append(np.broadcast_to(np.asarray(price, np.int64), (self.slots,)))
        return len(self._tariffs) - 1

    def job(
        self,
        name: str,
        *,
        wait_value: int = 0,
        delay_cost: int = 0,
        deadline: int = NO_DEADLINE,
        late_cost: int = 0,
        late_fine: int = 0,
        planned_start: int = -1,
        shift_cost: int = 0,
    ) -> int:
        """Add a job and return its number; a job without options always waits."""
        self._jobs.append((name, (wait_value, delay_cost, deadline, late_cost, late_fine, planned_start, shift_cost)))
        self._options.append([])
        return len(self._jobs) - 1

    def option(
        self,
        job: int,
        label: tuple[str, str],
        *,
        duration: int,
        uses: Mapping[int, int],
        rate: int = 0,
        bonus: int = 0,
        earliest: int = 0,
        latest: int | None = None,
        tariff: int = -1,
        energy: int = 0,
    ) -> int:
        """Add an option of `job` and return its number within the job; `latest` defaults to ending in the horizon."""
        last = self.slots - duration if latest is None else latest
        index = self._labels.setdefault(label, len(self._labels))
        numbers = (index, duration, earliest, last, rate, bonus, tariff, energy)
        self._options[job].append((numbers, {r: a for r, a in uses.items() if a}))
        return len(self._options[job]) - 1

    def capacities(self) -> CapacityTable:
        """Return the resources and tariffs added so far."""
        return CapacityTable(
            tuple(resource for resource, _ in self._resources),
            _rows([capacity for _, capacity in self._resources], self.slots),
            _rows(self._tariffs, self.slots),
            self._curves,
        )

    def build(self) -> Problem:
        """Build the problem and check every invariant."""
        flat = [option for options in self._options for option in options]
        jobs = JobTable(
            tuple(name for name, _ in self._jobs),
            np.array([len(options) for options in self._options], np.int64),
            *columns([numbers for _, numbers in self._jobs], 7),
        )
        label, duration, earliest, latest, rate, bonus, tariff, energy = columns([numbers for numbers, _ in flat], 8)
        options = OptionTable(
            tuple(self._labels),
            label,
            duration,
            earliest,
            latest,
            rate,
            bonus,
            tariff,
            energy,
            use_counts=np.array([len(uses) for _, uses in flat], np.int64),
            use_resource=np.array([r for _, uses in flat for r in uses], np.int64),
            use_amount=np.array([a for _, uses in flat for a in uses.values()], np.int64),
        )
        return make_problem(self.slots, self.slot_s, self.capacities(), jobs, options)


def columns(rows: Sequence[tuple[int, ...]], width: int) -> list[Ints]:
    """Return the columns of rows of `width` numbers."""
    table = np.array(rows, np.int64).reshape(len(rows), width)
    return [np.ascontiguousarray(column) for column in table.T]


def _rows(rows: Sequence[Ints], slots: int) -> Ints:
    table: Ints = np.array(rows, np.int64).reshape(len(rows), slots)
    return table


def pointers(counts: Ints) -> Ints:
    """Return where each of consecutive groups of these sizes begins, and where the last one ends."""
    result: Ints = np.concatenate(([0], np.cumsum(counts))).astype(np.int64)
    return result
