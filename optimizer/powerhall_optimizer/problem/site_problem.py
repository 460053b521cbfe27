"""Build the integer problem from a snapshot: the options of each job, their usage and value.

The problem is conservative: usage is rounded up and capacity down (`pool_resources`). Jobs that may choose from the
same halls, node types and modes share their options' arrays.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from powerhall.jobs import Job
from powerhall.plan.gpu_parts import gpus_counted, offers
from powerhall.plan.plan import Snapshot, gpu_power_w, gpu_speed
from powerhall.site.topology import Mode, NodeType
from powerhall_optimizer.physics.site_conditions import SiteConditions
from powerhall_optimizer.problem.arrays import NO_DEADLINE, Ints, Problem
from powerhall_optimizer.problem.builder import JobTable, OptionTable, ProblemBuilder, columns, make_problem
from powerhall_optimizer.problem.eligibility import may_run_at, may_run_on, running_type, whole_gpus
from powerhall_optimizer.problem.gang_blocks import block_uses, parts_of
from powerhall_optimizer.problem.no_option import NoOption, NoOptionCause
from powerhall_optimizer.problem.period_budgets import barred_jobs
from powerhall_optimizer.problem.pool_resources import NodePool, PoolResources

__all__ = ["BuiltProblem", "Choice", "build_problem", "energy_usd_per_mwh"]

Floats = npt.NDArray[np.float64]
_VALUE_ROOM = 2.0**50
_STOP_FACTOR = 1000
"""Stopping a job that may not be stopped costs this many times its value: it never pays."""


@dataclass(frozen=True, slots=True)
class Choice:
    """Job, place and mode of an option; `running`: the job continues where it is."""

    job: Job
    hall: str
    node_type: str
    mode: str
    gpu_power_w: float
    running: bool = False
    site: str = ""


@dataclass(frozen=True, slots=True)
class BuiltProblem:
    """The problem, the choices behind its options, and the reasons of jobs without an option."""

    problem: Problem
    choices: tuple[Choice, ...]
    jobs: tuple[Job, ...]
    no_options: Mapping[str, NoOption]
    unit_usd: float
    """Value of one unit of the objective."""


def energy_usd_per_mwh(snapshot: Snapshot) -> Floats:
    """Return the cost of energy per slot, emissions included; 0 where it is not known."""
    total = np.zeros(snapshot.slots)
    if snapshot.price_per_mwh:
        total += np.array(snapshot.price_per_mwh)
    if snapshot.carbon_g_per_kwh:
        total += np.array(snapshot.carbon_g_per_kwh) / 1e3 * snapshot.objective.carbon_usd_per_t
    return total


@dataclass(frozen=True, slots=True)
class _OptionSet:
    """The pools and modes that jobs of one kind may choose from, as arrays; `use_w` is per GPU, `use_fixed` per job."""

    pairs: list[tuple[NodePool, Mode]]
    power_w: list[float]
    label: Ints
    speed: Floats
    meter_w: Floats
    per_node: Ints
    gpu_resource: Ints
    use_counts: Ints
    use_resource: Ints
    use_w: Floats
    use_fixed: Ints

    @property
    def first_uses(self) -> Ints:
        """Position of each option's first use."""
        result: Ints = np.cumsum(self.use_counts) - self.use_counts
        return result


class _OptionTables:
    """Collects jobs and their options."""

    def __init__(
        self,
        snapshot: Snapshot,
        conditions: SiteConditions,
        builder: ProblemBuilder,
        pools: tuple[NodePool, ...],
        stops: Mapping[str, int],
    ) -> None:
        self.stops = stops
        self.snapshot = snapshot
        self.conditions = conditions
        self.builder = builder
        self.pools = {(pool.hall, pool.kind.name): pool for pool in pools}
        self.choices: list[Choice] = []
        self.option_sets: dict[tuple[object, ...], _OptionSet | None] = {}
        self.labels: dict[tuple[str, str], int] = {}
        self.job_rows: list[tuple[int, ...]] = []
        self.counts: list[int] = []
        self.columns: list[Ints] = []
        self.resources: list[Ints] = []
        self.amounts: list[Ints] = []
        self.use_counts: list[Ints] = []
        self.no_options: dict[str, NoOption] = {}
        self.planned = {entry.job_id: entry for entry in snapshot.planned}
        self.unit_usd = self._unit()
        self.energy_unit_w, self.tariff = self._tariff()
        self.barred = barred_jobs(snapshot, self._option_set)

    def _value_usd(self, job: Job) -> float:
        return job.weight * gpus_counted(job) * job.duration_s / 3600 * self.snapshot.objective.usd_per_gpu_h

    def _unit(self) -> float:
        total = sum(self._value_usd(job) for job in self.snapshot.jobs) * (_STOP_FACTOR + 10)
        return float(10.0 ** max(-6, math.ceil(math.log10(max(total, 1e-9) / _VALUE_ROOM))))

    def _tariff(self) -> tuple[float, int]:
        """Add the price of energy per slot; return the unit in which options count power, and the tariff's row."""
        s = self.snapshot
        usd_per_mwh = energy_usd_per_mwh(s)
        if not usd_per_mwh.any():
            return 1.0, -1
        per_w = usd_per_mwh / 1e6 * s.slot_s / 3600 / self.unit_usd
        unit_w = float(10.0 ** max(0, math.ceil(math.log10(50 / max(1e-12, float(np.max(np.abs(per_w))))))))
        return unit_w, self.builder.tariff(np.rint(per_w * unit_w).astype(np.int64))

    def add(self, job: Job) -> None:
        s = self.snapshot
        value = max(1, round(self._value_usd(job) / self.unit_usd))
        in_horizon = self._value_within_horizon(job, value)
        running = job.state == "running"
        planned = self.planned.get(job.job_id)
        keep = running and not job.preemptible and self.stops.get(job.job_id) != 0
        stop = round(in_horizon * s.objective.move_share + value * min(1.0, job.checkpoint_cost_s / job.duration_s))
        wait = -_STOP_FACTOR * value if keep else -stop if running else 0
        delay = self._delay(job, value)
        at = -1 if planned is None else (planned.start_s - s.start_s) // s.slot_s
        shift = 0 if planned is None else round(in_horizon * s.objective.shift_share / s.slots)
        self.job_rows.append((wait, delay, NO_DEADLINE, 0, 0, at, shift))
        first = 0 if running else max(0, math.ceil((max(job.submit_s, job.earliest_s or 0.0) - s.start_s) / s.slot_s))
        option_set = None
        if self.stops.get(job.job_id) != 0 and first < s.slots and job.job_id not in self.barred:
            option_set = self._option_set(job)
        count = 0 if option_set is None else self._options(job, option_set, value, first)
        self.counts.append(count)
        if count == 0:
            self.no_options[job.job_id] = self.no_option(job)

    def _value_within_horizon(self, job: Job, value: int) -> float:
        """Return the value that a job can have within the horizon."""
        return value * min(1.0, self.snapshot.slots * self.snapshot.slot_s / job.duration_s)

    def _delay(self, job: Job, value: int) -> int:
        """Return the cost of one slot of delay."""
        share = 0.0 if job.state == "running" else self.snapshot.objective.delay_share
        return round(self._value_within_horizon(job, value) * share / self.snapshot.slots)

    def _latest(self, job: Job, length: Ints) -> Ints:
        """Return the last start of options of these lengths: one that ends after the job's deadline is none."""
        if job.state == "running":
            return np.zeros(len(length), np.int64)
        slots = self.snapshot.slots
        if job.deadline_s is None:
            return np.full(len(length), slots - 1, np.int64)
        end = math.floor((job.deadline_s - self.snapshot.start_s) / self.snapshot.slot_s)
        return np.minimum(slots - 1, end - length)

    def _option_set(self, job: Job) -> _OptionSet | None:
        """Return the options of a job's kind; equal jobs share them."""
        running = job.state == "running"
        if not may_run_at(job, self.snapshot.site.name) or (self.snapshot.starts_held and not running):
            return None
        key: tuple[object, ...]
        if running:
            key = True, job.hall, running_type(self.snapshot.site, job), job.mode, job.job_class
        else:
            parts = None if job.within is None else (job.within, job.block_nodes, job.gpus)
            key = False, job.halls, job.node_types, self._too_small(job), job.job_class, parts, job.gpu_share
        if key not in self.option_sets:
            self.option_sets[key] = self._new_option_set(job)
        return self.option_sets[key]

    def _pools_of(self, job: Job) -> Iterator[NodePool]:
        for (hall, kind), pool in self.pools.items():
            if job.state == "running":
                if hall == job.hall and kind == running_type(self.snapshot.site, job):
                    yield pool
            elif may_run_on(job, hall, kind) and self._holds(pool, job):
                yield pool

    @staticmethod
    def _holds(pool: NodePool, job: Job) -> bool:
        """Whether a pool is large enough for a job, and its blocks and the parts of its GPUs too."""
        return offers(pool.kind, job) and whole_gpus(job.gpus, pool.kind.gpus) <= pool.gpus and pool.blocks.fits(job)

    def _modes_of(self, job: Job, kind: NodeType) -> Iterator[Mode]:
        now = math.inf if (mode := kind.find_mode(job.mode)) is None else mode.gpu_power_w
        for mode in kind.modes:
            if job.state == "waiting" or self.snapshot.allow_raises or mode.gpu_power_w <= now:
                yield mode

    def _too_small(self, job: Job) -> tuple[tuple[str, str], ...]:
        return tuple(key for key, pool in self.pools.items() if not self._holds(pool, job))

    def _new_option_set(self, job: Job) -> _OptionSet | None:
        pairs = [(pool, mode) for pool in self._pools_of(job) for mode in self._modes_of(job, pool.kind)]
        if not pairs:
            return None
        job_class = self.snapshot.site.job_classes.get(job.job_class)
        power_w = [gpu_power_w(pool.kind, mode, job_class) for pool, mode in pairs]
        added_w = [max(0.0, p - pool.kind.idle_gpu_power_w) for p, (pool, _) in zip(power_w, pairs, strict=True)]
        uses = [self._uses(job, pool, w) for w, (pool, _) in zip(added_w, pairs, strict=True)]
        flat = [use for of_pair in uses for use in of_pair]
        for pool, mode in pairs:
            self.labels.setdefault((pool.hall, f"{pool.kind.name}:{mode.name}"), len(self.labels))
        return _OptionSet(
            pairs,
            power_w,
            np.array([self.labels[pool.hall, f"{pool.kind.name}:{mode.name}"] for pool, mode in pairs], np.int64),
            np.array([gpu_speed(mode, job_class) for _, mode in pairs]),
            np.array([w * pool.meter for w, (pool, _) in zip(added_w, pairs, strict=True)]),
            np.array([pool.kind.gpus for pool, _ in pairs], np.int64),
            np.array([pool.gpu_resource for pool, _ in pairs], np.int64),
            np.array([len(of_pair) for of_pair in uses], np.int64),
            np.array([r for r, _, _ in flat], np.int64),
            np.array([w for _, w, _ in flat]),
            np.array([fixed for _, _, fixed in flat], np.int64),
        )

    @staticmethod
    def _uses(job: Job, pool: NodePool, added_w: float) -> list[tuple[int, float, int]]:
        """Return (resource, W per GPU, fixed amount) of a job in a pool, the GPUs apart."""
        found = [(resource, added_w * slope, 0) for resource, slope in pool.per_watt]
        parts = None if job.within is None or job.state == "running" else parts_of(job, pool.kind.gpus)
        if parts is not None:
            counts = block_uses(parts, job.within or "", pool.block_resources)
            found += [(resource, 0.0, amount) for resource, amount in counts.items()]
        return found

    def _options(self, job: Job, option_set: _OptionSet, value: int, first: int) -> int:
        s = self.snapshot
        running = job.state == "running"
        size = len(option_set.pairs)
        drawing = self.conditions.drawing_gpus(job) if running else job.gpus
        taken = self.conditions.pool_gpus(job) if running else job.gpus
        length = np.maximum(1, np.ceil(job.duration_s / option_set.speed / s.slot_s - 1e-9)).astype(np.int64)
        rate = np.maximum(1, np.rint(value * (1 - s.objective.slow_share * (1 / option_set.speed - 1)) / length))
        bonus = np.rint(self._churn(job, option_set, self._value_within_horizon(job, value))).astype(np.int64)
        bonus = bonus + self._free_delay_slots(job, length) * self._delay(job, value)
        per_node = option_set.per_node
        whole = np.where(running | (taken <= per_node), taken, -(-taken // per_node) * per_node)
        others = np.ceil(option_set.use_w * drawing - 1e-6).astype(np.int64) + option_set.use_fixed
        amounts = np.insert(others, option_set.first_uses, whole)
        resources = np.insert(option_set.use_resource, option_set.first_uses, option_set.gpu_resource)
        last = self._latest(job, length)
        in_time = last >= first
        if not in_time.any():
            return 0
        used = (amounts > 0) & np.repeat(in_time, option_set.use_counts + 1)
        self.amounts.append(amounts[used])
        self.resources.append(resources[used])
        self.use_counts.append(np.add.reduceat(used, option_set.first_uses + np.arange(size))[in_time])
        stop = np.minimum(length, self.stops.get(job.job_id, s.slots + int(length.max())))
        energy = np.rint(option_set.meter_w * gpus_counted(job) / self.energy_unit_w)
        tariff = np.full(size, self.tariff, np.int64)
        start = np.full(size, first, np.int64)
        self.columns.append(
            np.stack(
                (option_set.label, stop, start, last, rate.astype(np.int64), bonus, tariff, energy.astype(np.int64))
            )[:, in_time]
        )
        self.choices += [
            Choice(job, pool.hall, pool.kind.name, mode.name, power_w, running, s.site.name)
            for (pool, mode), power_w, kept in zip(option_set.pairs, option_set.power_w, in_time, strict=True)
            if kept
        ]
        return int(in_time.sum())

    def _churn(self, job: Job, option_set: _OptionSet, in_horizon: float) -> Floats:
        """Return the cost of another hall or mode than in the last plan, or than the job runs in."""
        planned = self.planned.get(job.job_id)
        lost = -in_horizon * self.snapshot.objective.move_share
        if job.state == "running":
            return np.array([0.0 if mode.name == job.mode else lost for _, mode in option_set.pairs])
        if planned is None:
            return np.zeros(len(option_set.pairs))
        here = planned.site in (None, self.snapshot.site.name)
        same = [here and (pool.hall, mode.name) == (planned.hall, planned.mode) for pool, mode in option_set.pairs]
        return np.where(same, 0.0, lost)

    def _free_delay_slots(self, job: Job, length: Ints) -> Ints:
        """Return the slots of the completion time that are free of delay cost.

        The problem charges delay on the whole completion time. Free are the duration in the fastest mode, and all slots
        beyond the horizon.
        """
        s = self.snapshot
        least = max(1, math.ceil(job.duration_s / s.slot_s - 1e-9))
        return length if least >= s.slots else least + np.maximum(0, length - s.slots)

    def problem(self) -> Problem:
        """Return the problem with all jobs and options."""
        rows = np.concatenate([np.zeros((8, 0), np.int64), *self.columns], axis=1)
        none = np.zeros(0, np.int64)
        jobs = JobTable(
            tuple(job.job_id for job in self.snapshot.jobs),
            np.array(self.counts, np.int64),
            *columns(self.job_rows, 7),
        )
        label, duration, earliest, latest, rate, bonus, tariff, energy = map(np.ascontiguousarray, rows)
        options = OptionTable(
            tuple(self.labels),
            label,
            duration,
            earliest,
            latest,
            rate,
            bonus,
            tariff,
            energy,
            use_counts=np.concatenate([none, *self.use_counts]),
            use_resource=np.concatenate([none, *self.resources]),
            use_amount=np.concatenate([none, *self.amounts]),
        )
        return make_problem(self.snapshot.slots, self.snapshot.slot_s, self.builder.capacities(), jobs, options)

    def no_option(self, job: Job) -> NoOption:  # noqa: PLR0911
        """Return why a job can run nowhere within the horizon."""
        s = self.snapshot
        if job.state == "running" and job.site not in (None, s.site.name):
            return NoOption(NoOptionCause.RUNS_ELSEWHERE, s.site.name, (str(job.site),))
        if job.sites and s.site.name not in job.sites:
            return NoOption(NoOptionCause.NOT_RESIDENT, s.site.name, job.sites)
        if job.state == "waiting" and s.starts_held:
            return NoOption(NoOptionCause.HELD, why=s.starts_held)
        if job.job_id in self.barred:
            return NoOption(NoOptionCause.BUDGET, why=self.barred[job.job_id])
        fits = [pool for (hall, kind), pool in self.pools.items() if may_run_on(job, hall, kind)]
        if not fits:
            return NoOption(NoOptionCause.NO_NODE_TYPE)
        if not any(offers(pool.kind, job) for pool in fits):
            return NoOption(NoOptionCause.NO_PARTS, share=job.gpu_share or "1")
        if all(whole_gpus(job.gpus, pool.kind.gpus) > pool.gpus for pool in fits):
            return NoOption(NoOptionCause.TOO_LARGE, gpus=job.gpus, most_gpus=max(pool.gpus for pool in fits))
        if (unfit := self._no_block(job, fits)) is not None:
            return unfit
        if max(job.submit_s, job.earliest_s or 0.0) >= s.start_s + s.slots * s.slot_s:
            return NoOption(NoOptionCause.AFTER_HORIZON)
        if job.state == "waiting" and job.deadline_s is not None:
            return NoOption(NoOptionCause.LATE, time_s=job.deadline_s)
        return NoOption(NoOptionCause.NO_NODES_IN_HALL, hall=str(job.hall))

    @staticmethod
    def _no_block(job: Job, pools: Sequence[NodePool]) -> NoOption | None:
        """Return why no block holds a job that waits, even when nothing else runs; None where some does."""
        if job.within is None or job.state == "running" or any(pool.blocks.fits(job) for pool in pools):
            return None
        largest = max((n for pool in pools for n in pool.blocks.sizes(job.within).values()), default=0)
        nodes = min(-(-job.gpus // pool.kind.gpus) for pool in pools)
        return NoOption(
            NoOptionCause.NO_BLOCK, level=job.within, nodes=nodes, part_nodes=job.block_nodes or 0, most_nodes=largest
        )


def build_problem(
    snapshot: Snapshot, conditions: SiteConditions | None = None, stops: Mapping[str, int] | None = None
) -> BuiltProblem:
    """Return the problem of a snapshot; the same inputs give the same problem. A budget below idle raises Rejected.

    `stops` has, per running job that must be shed, the slots that it still runs (0: it stops now).
    """
    conditions = conditions or SiteConditions(snapshot)
    builder = ProblemBuilder(snapshot.slots, snapshot.slot_s)
    pools = PoolResources(conditions, builder).pools()
    jobs = _OptionTables(snapshot, conditions, builder, pools, stops or {})
    for job in snapshot.jobs:
        jobs.add(job)
    return BuiltProblem(jobs.problem(), tuple(jobs.choices), snapshot.jobs, jobs.no_options, jobs.unit_usd)
