"""Options of a job with their usage and value, in whole numbers, from the snapshot alone.

An option is a node type in a hall in a power mode. Usage is rounded down, because it serves the bound: the job's GPUs
(of whole nodes where it starts and is larger than a node: it has them alone), and per resource
`floor(GPUs * W per GPU above idle * units per W)`. Value is counted in units of `unit_usd`, a power of ten such that
all totals stay below 2**52; every term of it is rounded to a whole unit once, so that sums are
exact. The formulas are those of "From a snapshot to whole numbers" in docs/optimizer-model.md.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from powerhall.hostlist import expand
from powerhall.jobs import Job
from powerhall.plan.plan import Planned, Snapshot, gpu_power_w, gpu_speed
from powerhall.site.topology import Mode
from powerhall_optimizer.verify.capacities import Capacities, Pool
from powerhall_optimizer.verify.gpu_shares import counted_gpus, has_parts, parts_of, share
from powerhall_optimizer.verify.loads import gpus_of

__all__ = ["JobTerms", "Option", "SiteOptions", "energy_usd_per_mwh", "job_terms", "run_terms", "unit_usd"]

Floats = npt.NDArray[np.float64]
_NO_STOP = 1000
"""Stopping a job that may not be stopped costs this many times its value."""
_NEVER = 1 << 40
"""A deadline that every run ends before."""


@dataclass(frozen=True, slots=True)
class Option:
    """Where and how a job may run; `uses` is units per slot, `energy` multiplies the tariff of every slot.

    `part` is the resource of which less than one unit is used, and how much.
    """

    hall: str
    node_type: str
    mode: str
    speed: float
    uses: Mapping[str, int]
    energy: int
    part: tuple[str, Fraction] | None = None


@dataclass(frozen=True, slots=True)
class JobTerms:
    """Terms of a job's value at any place, in units of value and slots; it may start in slots first .. last.

    A run that ends after slot `deadline` is not allowed. `wait` is the value of not running it, `delay` is lost per
    slot of its completion, `shift` per slot of distance from `planned`, where the last plan had its start (-1:
    nowhere), and `moved` when hall or mode are not those of that plan (or, running, of now).
    """

    worth: int
    wait: int
    delay: int
    deadline: int
    planned: int
    shift: int
    moved: float
    first: int
    last: int
    stops: int | None
    """Slots after which a running job is stopped for want of power; None where it is not."""


def value_usd(snapshot: Snapshot, job: Job) -> float:
    """Return the value of all of a job's work in USD."""
    return job.weight * counted_gpus(job) * job.duration_s / 3600 * snapshot.objective.usd_per_gpu_h


def unit_usd(snapshot: Snapshot) -> float:
    """Return the unit of value in USD: the power of ten, at least 1e-6, at which the whole queue stays below 2**50."""
    total = sum(value_usd(snapshot, job) for job in snapshot.jobs) * (_NO_STOP + 10)
    return float(10.0 ** max(-6, math.ceil(math.log10(max(total, 1e-9) / 2.0**50))))


def job_terms(s: Snapshot, job: Job, unit: float, planned: Planned | None, stops: int | None) -> JobTerms:
    """Return the terms of a job's value; `stops` is the slots after which the plan sheds it, None where it does not."""
    worth = max(1, round(value_usd(s, job) / unit))
    within = worth * min(1.0, s.slots * s.slot_s / job.duration_s)  # value that it can have within the horizon
    moved = within * s.objective.move_share
    at, shift = -1, 0
    if planned is not None:
        at, shift = (planned.start_s - s.start_s) // s.slot_s, round(within * s.objective.shift_share / s.slots)
    if job.state == "running":
        kept = not job.preemptible and stops != 0
        lost = round(moved + worth * min(1.0, job.checkpoint_cost_s / job.duration_s))
        return JobTerms(worth, -_NO_STOP * worth if kept else -lost, 0, _NEVER, at, shift, moved, 0, 0, stops)
    delay = round(within * s.objective.delay_share / s.slots)
    deadline = _NEVER
    if job.deadline_s is not None:
        deadline = math.floor((job.deadline_s - s.start_s) / s.slot_s)
    first = max(0, math.ceil((max(job.submit_s, job.earliest_s or 0.0) - s.start_s) / s.slot_s))
    return JobTerms(worth, 0, delay, deadline, at, shift, moved, first, s.slots - 1, stops)


def run_terms(s: Snapshot, job: Job, terms: JobTerms, speed: float, moved: bool) -> tuple[int, int, int]:
    """Return (slots that the run takes, value per slot, constant value) at this speed.

    Delay is charged on the whole completion time; the constant gives back the slots that the job takes at full speed
    and those behind the horizon.
    """
    length = max(1, math.ceil(job.duration_s / speed / s.slot_s - 1e-9))
    rate = max(1, round(terms.worth * (1 - s.objective.slow_share * (1 / speed - 1)) / length))
    least = max(1, math.ceil(job.duration_s / s.slot_s - 1e-9))
    free = length if least >= s.slots else least + max(0, length - s.slots)
    constant = (round(-terms.moved) if moved else 0) + free * terms.delay
    return length if terms.stops is None else min(length, terms.stops), rate, constant


def energy_usd_per_mwh(s: Snapshot) -> Floats:
    """Return the cost of energy per slot, emissions included; 0 where nothing is known."""
    total = np.zeros(s.slots)
    if s.price_per_mwh:
        total = total + np.array(s.price_per_mwh)
    if s.carbon_g_per_kwh:
        total = total + np.array(s.carbon_g_per_kwh) / 1e3 * s.objective.carbon_usd_per_t
    return total


class SiteOptions:
    """The options of jobs at one site, and its tariff: value per slot and unit of `Option.energy`."""

    def __init__(self, snapshot: Snapshot, capacities: Capacities, unit: float) -> None:
        self.snapshot = snapshot
        self.capacities = capacities
        self.tariff = [0] * snapshot.slots
        self.energy_w = 1.0
        """W that one unit of energy counts: a power of ten that leaves a price at least two digits."""
        per_w = energy_usd_per_mwh(snapshot) / 1e6 * snapshot.slot_s / 3600 / unit
        if per_w.any():
            dearest = max(1e-12, float(np.max(np.abs(per_w))))
            self.energy_w = float(10.0 ** max(0, math.ceil(math.log10(50 / dearest))))
            self.tariff = [round(price) for price in (per_w * self.energy_w).tolist()]

        self._known: dict[tuple[object, ...], tuple[Option, ...]] = {}

    def key(self, job: Job) -> tuple[object, ...]:
        """Jobs with the same key have the same options."""
        if job.state == "waiting":
            size = job.gpus, job.gpu_share, job.within, job.block_nodes
            return job.halls, job.node_types, job.sites, job.job_class, *size
        at = job.site, job.hall, self._running_type(job), job.mode
        counted = [self._gpus_outside(job, nodes) for nodes in (self.capacities.fixed, self.capacities.closed)]
        return at, job.sites, job.job_class, job.gpus, job.gpu_share, *counted

    def of(self, job: Job) -> tuple[Option, ...]:
        """Return the options of the job at this site."""
        key = self.key(job)
        if key not in self._known:
            self._known[key] = self._options(job)
        return self._known[key]

    def _options(self, job: Job) -> tuple[Option, ...]:
        """Nothing where the job runs elsewhere or its data may not be here."""
        site = self.snapshot.site.name
        if job.state == "waiting" and self.snapshot.starts_held:
            return ()
        if (job.sites and site not in job.sites) or (job.state == "running" and job.site not in (None, site)):
            return ()
        return tuple(self._option(job, pool, mode) for pool in self._pools(job) for mode in self._modes(job, pool))

    def is_moved(self, job: Job, option: Option, planned: Planned | None) -> bool:
        """Whether the option is another hall or mode than in the last plan, or another mode than it runs in."""
        if job.state == "running":
            return option.mode != job.mode
        if planned is None:
            return False
        here = planned.site in (None, self.snapshot.site.name)
        return not here or (option.hall, option.mode) != (planned.hall, planned.mode)

    def _pools(self, job: Job) -> Iterator[Pool]:
        for pool in self.capacities.pools.values():
            if job.state == "running":
                if (pool.hall, pool.kind.name) == (job.hall, self._running_type(job)):
                    yield pool
            elif not (
                (job.halls and pool.hall not in job.halls)
                or (job.node_types and pool.kind.name not in job.node_types)
                or not has_parts(job, pool.kind)
                or _taken(job.gpus, pool.kind.gpus) > pool.gpus
                or not self.capacities.blocks[pool.hall, pool.kind.name].holds(job)
            ):
                yield pool

    def _modes(self, job: Job, pool: Pool) -> Iterator[Mode]:
        """Yield every mode; while nothing may be raised, of a running job none with more power than its own."""
        most_w = math.inf
        if job.state == "running" and not self.snapshot.allow_raises:
            most_w = next((mode.gpu_power_w for mode in pool.kind.modes if mode.name == job.mode), math.inf)
        yield from (mode for mode in pool.kind.modes if mode.gpu_power_w <= most_w)

    def _option(self, job: Job, pool: Pool, mode: Mode) -> Option:
        job_class = self.snapshot.site.job_classes.get(job.job_class)
        above_idle_w = max(0.0, gpu_power_w(pool.kind, mode, job_class) - pool.kind.idle_gpu_power_w)
        running = job.state == "running"
        if job.gpu_share is not None:
            return self._shared_option(job, pool, mode, above_idle_w)
        gpus = self._gpus_outside(job, self.capacities.fixed) if running else job.gpus
        whole = self._gpus_outside(job, self.capacities.closed) if running else _taken(gpus, pool.kind.gpus)
        uses = {pool.gpu_resource: whole}
        uses |= {name: math.floor(above_idle_w * per_w * gpus + 1e-6) for name, per_w in pool.per_w.items()}
        if job.state == "waiting" and job.within is not None:
            uses |= self.capacities.blocks[pool.hall, pool.kind.name].uses(job)
        energy = round(above_idle_w * pool.meter_w_per_w * job.gpus / self.energy_w)
        uses = {name: amount for name, amount in uses.items() if amount > 0}
        return Option(pool.hall, pool.kind.name, mode.name, gpu_speed(mode, job_class), uses, energy)

    def _shared_option(self, job: Job, pool: Pool, mode: Mode, above_idle_w: float) -> Option:
        """Return the option of a part of a GPU: at least that share of the GPU's count and power is used for it."""
        on = set(expand(job.nodes)) if job.state == "running" and job.nodes else set()
        part = min(Fraction(1), Fraction(parts_of(share(job) or Fraction(1), pool.kind), pool.kind.gpu_parts))
        drawn = Fraction(0) if on & self.capacities.fixed else part
        uses = {name: math.floor(above_idle_w * per_w * drawn + 1e-6) for name, per_w in pool.per_w.items()}
        uses = {name: amount for name, amount in uses.items() if amount > 0}
        energy = round(above_idle_w * pool.meter_w_per_w * counted_gpus(job) / self.energy_w)
        speed = gpu_speed(mode, self.snapshot.site.job_classes.get(job.job_class))
        of_gpu = None if on & self.capacities.closed else (pool.gpu_resource, part)
        return Option(pool.hall, pool.kind.name, mode.name, speed, uses, energy, of_gpu)

    @staticmethod
    def _gpus_outside(job: Job, nodes: set[str]) -> int:
        """GPUs of a running job that are not on some nodes."""
        return job.gpus if job.nodes is None or not nodes else gpus_of(job, set(expand(job.nodes)) - nodes)

    def _running_type(self, job: Job) -> str | None:
        """Return the node type that a job runs on: its own field, else that of the rack of its first node."""
        if job.node_type is not None:
            return job.node_type
        first = expand(job.nodes)[0] if job.nodes else None
        racks = (rack for hall in self.snapshot.site.halls if hall.zone == job.hall for rack in hall.racks())
        return next((rack.node_type for rack in racks if first is None or first in rack.nodes), None)


def _taken(gpus: int, per_node: int) -> int:
    """Return the GPUs that a job takes away: a job larger than a node takes whole nodes."""
    return gpus if gpus <= per_node else -(-gpus // per_node) * per_node
