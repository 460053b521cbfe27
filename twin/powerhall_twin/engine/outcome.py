"""Totals of a simulation."""

import math
from dataclasses import dataclass, field

import numpy as np

from powerhall_twin.engine.columns import (
    DONE,
    ENDED,
    GPUS,
    HALL,
    KIND,
    LEFT,
    LOST,
    MODE,
    SPEED,
    STARTED,
    STATUS,
    STOPS,
    UPDATED,
    WORKED,
)
from powerhall_twin.engine.meter import MEDIA, Gauges
from powerhall_twin.engine.samples import Samples
from powerhall_twin.engine.sim_state import SimState, ready_s
from powerhall_twin.site.breach import Breach, LimitKind

__all__ = ["JobOutcome", "SimulationOutcome", "close_outcome"]


@dataclass(frozen=True, slots=True)
class JobOutcome:
    """One job: its first start and its end in s since the epoch, None where that did not happen."""

    job_id: str
    gpus: int
    submit_s: float
    start_s: float | None
    end_s: float | None
    hall: str
    mode: str
    stops: int
    weight: float = 1.0
    deadline_s: float | None = None


@dataclass(slots=True)
class SimulationOutcome:
    """Totals. Work is in GPU seconds at full speed; `weighted_work` is work times the job's weight.

    Work that stops and failures lost is no work; it is in `lost_gpu_s` and `lost_weighted`. `interrupted` counts runs
    that `failures` or `trips` of halls ended, `throttled_s` seconds of halls. `delivered_j` is what stores delivered,
    `stored_j` what they hold at the end. `curtailed_s` are seconds in which the site's budget was below its highest, of
    which in `curtailed_over_s` a limit did not hold.
    `wait_s` and `wait_p95_s` are waits from when a job may start until its first start, or until the end.
    `deadlines_missed` counts jobs whose deadline lies in the simulated time and that were not done by then, of
    `deadlines`. `fast_rises` and `fast_falls` count how often power at the meter changed faster than the site's ramp
    limits within five minutes; the steepest changes are means of such a window.
    `breaches` holds for each limit that was exceeded its first moment and its highest value, `worst_at_s` when its
    headroom was the least.
    """

    policy: str
    energy_j: float = 0.0
    it_energy_j: float = 0.0
    work_gpu_s: float = 0.0
    weighted_work: float = 0.0
    cost: float = 0.0
    jobs: int = 0
    jobs_done: int = 0
    stops: int = 0
    wait_s: float = 0.0
    wait_p95_s: float = 0.0
    deadlines: int = 0
    deadlines_missed: int = 0
    over_budget_s: float = 0.0
    peak_w: float = 0.0
    lost_gpu_s: float = 0.0
    lost_weighted: float = 0.0
    failures: int = 0
    interrupted: int = 0
    trips: int = 0
    throttled_s: float = 0.0
    fast_rises: int = 0
    fast_falls: int = 0
    steepest_rise_w_per_s: float = 0.0
    steepest_fall_w_per_s: float = 0.0
    delivered_j: dict[str, float] = field(default_factory=dict)
    stored_j: dict[str, float] = field(default_factory=dict)
    co2_kg: float = 0.0
    water_l: float = 0.0
    curtailed_s: float = 0.0
    curtailed_over_s: float = 0.0
    samples: Samples = field(default_factory=Samples)
    breaches: list[Breach] = field(default_factory=list)
    worst_headroom: dict[str, float] = field(default_factory=dict)
    worst_at_s: dict[str, float] = field(default_factory=dict)
    hall_excess_k: dict[str, float] = field(default_factory=dict)
    times_s: list[float] = field(default_factory=list)
    facility_w: list[float] = field(default_factory=list)
    job_outcomes: list[JobOutcome] = field(default_factory=list)


def close_outcome(outcome: SimulationOutcome, state: SimState, gauges: Gauges) -> None:
    """Count work, jobs, waits, deadlines and limits at the end of a simulation."""
    jobs, end_s = state.world.jobs, state.now_s
    submit_s = np.array([ready_s(job) for job in state.jobs])
    seen = submit_s <= end_s
    running = state.running
    left = jobs.floats[LEFT].copy()
    left[running] = np.maximum(
        0.0, jobs.floats[LEFT, running] - (end_s - jobs.floats[UPDATED, running]) * jobs.floats[SPEED, running]
    )
    lost, weights = jobs.ints[GPUS] * jobs.floats[LOST], np.array([job.weight for job in state.jobs])
    work = jobs.ints[GPUS] * (jobs.floats[WORKED] + (jobs.floats[LEFT] - left)) - lost
    outcome.work_gpu_s, outcome.lost_gpu_s = math.fsum(work), math.fsum(lost)
    outcome.weighted_work, outcome.lost_weighted = math.fsum(work * weights), math.fsum(lost * weights)
    outcome.jobs, outcome.jobs_done = int(seen.sum()), int((seen & (jobs.ints[STATUS] == DONE)).sum())
    outcome.stops = int(jobs.ints[STOPS, seen].sum())
    waits = np.where(np.isnan(jobs.floats[STARTED]), end_s, jobs.floats[STARTED])[seen] - submit_s[seen]
    if len(waits):
        outcome.wait_s, outcome.wait_p95_s = float(waits.mean()), float(np.quantile(waits, 0.95))
    due = np.array([math.inf if job.deadline_s is None else job.deadline_s for job in state.jobs])
    late = ~(jobs.floats[ENDED] <= due)
    outcome.deadlines = int((seen & (due <= end_s)).sum())
    outcome.deadlines_missed = int((seen & (due <= end_s) & late).sum())
    _limits(outcome, state, gauges)
    _jobs(outcome, state)


def _limits(outcome: SimulationOutcome, state: SimState, gauges: Gauges) -> None:
    arrays = state.arrays
    names = [(zone, LimitKind.POWER) for zone in (arrays.site.name, *arrays.zones)]
    for hall in arrays.site.halls:
        suffix = {"all": "", "liquid": " (liquid)", "air": " (air)"}
        names += [(f"{hall.zone} cooling{suffix[medium]}", LimitKind.COOLING) for medium in MEDIA]
    for number, (name, kind) in enumerate(names):
        if gauges.worst[number] < math.inf:
            outcome.worst_headroom[name] = float(gauges.worst[number])
            outcome.worst_at_s[name] = float(gauges.worst_at[number])
        if gauges.over_s[number] > 0 or not math.isnan(gauges.first_over[number]):
            first, most, limit = gauges.first_over[number], gauges.most_w[number], gauges.most_limit_w[number]
            outcome.breaches.append(Breach(float(first), name, kind, float(most), float(limit)))
    outcome.hall_excess_k = {
        hall.zone: float(gauges.excess_most_k[number]) for number, hall in enumerate(arrays.site.halls)
    }


def _jobs(outcome: SimulationOutcome, state: SimState) -> None:
    jobs, arrays = state.world.jobs, state.arrays
    for j, job in enumerate(state.jobs):
        if ready_s(job) > state.now_s:
            break
        began = None if np.isnan(jobs.floats[STARTED, j]) else float(jobs.floats[STARTED, j])
        ended = None if np.isnan(jobs.floats[ENDED, j]) else float(jobs.floats[ENDED, j])
        hall = "" if began is None else arrays.site.halls[jobs.ints[HALL, j]].zone
        mode = "" if began is None else arrays.types[jobs.ints[KIND, j]].modes[jobs.ints[MODE, j]].name
        outcome.job_outcomes.append(
            JobOutcome(
                job.job_id,
                job.gpus,
                job.submit_s,
                began,
                ended,
                hall,
                mode,
                int(jobs.ints[STOPS, j]),
                job.weight,
                job.deadline_s,
            )
        )
