"""What a scheduler earned, what a verified plan that knows all jobs could have, and what no policy could exceed.

Three figures of one formula, the objective of the rounds: `done` for the runs as they were, `possible` for the plan,
`bound` by the plan's prices for every schedule of the same jobs that begins each at any second after it was ready
(`powerhall_optimizer.verify.any_start`). All hold the same budgets, plants and GPUs.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
import numpy.typing as npt

from powerhall.jobs.readers.sacct_runs import Runs
from powerhall.plan.plan import Plan, Snapshot, gpu_power_w
from powerhall.runtime.errors import PowerhallError
from powerhall.runtime.log import Log
from powerhall.site.topology import JobClass, Site
from powerhall.timeseries import Series
from powerhall_optimizer.inputs.round_settings import RoundSettings
from powerhall_optimizer.inputs.snapshot import SiteInputs, site_snapshot
from powerhall_optimizer.physics.plan_loads import budget_w, plan_loads
from powerhall_optimizer.planning.planner import make_plan
from powerhall_optimizer.verify.any_start import AnyStart, RunValue, option_at
from powerhall_twin.hindsight.meter import Calibration, Meter, calibrate
from powerhall_twin.hindsight.modelled import facility_w, job_power
from powerhall_twin.hindsight.window import DoneJob, Window

__all__ = ["Hindsight", "HindsightCase", "Totals", "hindsight"]

Floats = npt.NDArray[np.float64]
_MOST_POINTS = 2000


class Totals(msgspec.Struct, frozen=True):
    """What happened in the window, or could have: USD, work in GPU hours at full speed, energy at the meter."""

    value_usd: float
    work_usd: float
    delay_usd: float
    job_energy_usd: float
    """Cost of the energy, and of its emissions where they have a price, that the jobs add; a part of the site's."""
    work_gpu_h: float
    energy_j: float
    energy_usd: float
    co2_kg: float | None
    peak_w: float
    over_budget_h: float
    jobs_begun: int
    jobs_done: int
    mean_wait_s: float


class Hindsight(msgspec.Struct, frozen=True):
    """The result; `lost_least` and `lost_most` are shares of what the best policy could have earned."""

    version: int
    site: str
    start_s: int
    end_s: int
    slot_s: int
    jobs: int
    bound_usd: float
    possible_usd: float
    done_usd: float
    lost_least: float
    lost_most: float
    done: Totals
    possible: Totals
    metered_j: float | None
    """Energy of the meter, where it covers the window but for half a percent."""
    calibration: Calibration | None
    plan_id: str
    gap: float
    notes: tuple[str, ...]
    times_s: tuple[float, ...]
    done_w: tuple[float, ...]
    possible_w: tuple[float, ...]
    metered_w: tuple[float | None, ...]
    budget_w: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class HindsightCase:
    """The inputs: site with its files, what ran, the window of it, the meter if there is one."""

    inputs: SiteInputs
    runs: Runs
    window: Window
    meter: Meter | None = None
    calibrated: bool = True


def hindsight(
    case: HindsightCase,
    settings: RoundSettings,
    seconds: float,
    *,
    stop: Callable[[], bool] = lambda: False,
    log: Log | None = None,
) -> tuple[Hindsight, Plan]:
    """Return the result, and the plan that shows what was possible. Plans for `seconds`."""
    horizon = case.window.horizon
    settings = msgspec.structs.replace(settings, slot_s=horizon.slot_s, keep_s=0.0, move_gain=0.0)
    snapshot = _snapshot(case, settings)
    found = _calibration(case, snapshot)
    if found is not None and found.applied and case.calibrated:
        snapshot = msgspec.structs.replace(snapshot, site=_scaled(snapshot, found.factor))
    plan = make_plan(snapshot, settings, seconds, created_s=int(time.time()), stop=stop, log=log or Log(quiet=True))
    values = AnyStart(_roomiest(snapshot))
    done = _done_totals(snapshot, values, case.window.jobs)
    possible = _plan_totals(plan, values)
    bound_usd = values.bound_usd(plan.certificate)
    if possible.value_usd > bound_usd + 1e-9 * abs(bound_usd):
        raise PowerhallError(f"hindsight: the plan is worth {possible.value_usd} USD, above its bound {bound_usd}")
    notes = (*case.runs.notes, *case.window.notes, *(() if case.meter is None else case.meter.notes))
    result = _result(case, plan, (done, possible, bound_usd), found, notes)
    return result, plan


def _snapshot(case: HindsightCase, settings: RoundSettings) -> Snapshot:
    jobs = tuple(done.job for done in case.window.jobs)
    inputs = case.inputs
    return site_snapshot(inputs.site, inputs.planning, jobs, case.window.horizon, settings.objective)


def _calibration(case: HindsightCase, snapshot: Snapshot) -> Calibration | None:
    if case.meter is None:
        return None
    power = job_power(snapshot, case.window.jobs)
    return calibrate(case.meter, lambda factor: facility_w(snapshot, power, factor), snapshot.slot_s)


def _scaled(snapshot: Snapshot, factor: float) -> Site:
    """Return the site with classes that draw `factor` times as much above idle, no mode more than its figure.

    A limit holds back only a job that would draw more: below that, slower modes draw what the fastest does.
    """
    site = snapshot.site
    kinds = list(site.node_types.values())
    classes = dict(site.job_classes)
    for name in {job.job_class for job in snapshot.jobs}:
        known = classes.get(name, JobClass(name))
        draw = dict(known.draw)
        for mode in {mode.name for kind in kinds for mode in kind.modes}:
            shares = [
                _share_of_full(snapshot, name, kind.name, mode) for kind in kinds if kind.find_mode(mode) is not None
            ]
            own = known.draw.get(mode, 1.0)
            draw[mode] = factor * own if factor >= 1 else own * min(1.0, factor * max(shares))
        classes[name] = JobClass(name, draw, known.speed)
    return msgspec.structs.replace(site, job_classes=classes)


def _share_of_full(snapshot: Snapshot, job_class: str, node_type: str, mode: str) -> float:
    """Return what the fastest mode adds to idle over what this mode adds."""
    kind = snapshot.site.node_types[node_type]
    known = snapshot.site.job_classes.get(job_class)
    idle_w = kind.idle_gpu_power_w
    full_w, own_w = (gpu_power_w(kind, m, known) - idle_w for m in (kind.modes[0], kind.mode(mode)))
    return max(1.0, full_w / own_w) if own_w > 0 else 1.0


def _roomiest(snapshot: Snapshot) -> Snapshot:
    """Return the snapshot with the highest value of each budget within a slot: a plan takes the lowest."""
    grid = snapshot.start_s, snapshot.slot_s, snapshot.slots
    times = tuple(float(snapshot.start_s + i * snapshot.slot_s) for i in range(snapshot.slots))
    budgets = {zone: Series(times, series.slots(*grid, "max")) for zone, series in snapshot.site.budgets.items()}
    return msgspec.structs.replace(snapshot, site=msgspec.structs.replace(snapshot.site, budgets=budgets))


def _done_totals(snapshot: Snapshot, values: AnyStart, jobs: Sequence[DoneJob]) -> Totals:
    begun = [done for done in jobs if done.start_s is not None]
    earned = [_done_value(values, done) for done in begun]
    end_s = snapshot.start_s + snapshot.slots * snapshot.slot_s
    work_s = [done.job.gpus * (min(_end_s(done), end_s) - (done.start_s or 0.0)) for done in begun]
    power_w = facility_w(snapshot, job_power(snapshot, jobs))
    waits = [(done.start_s or 0.0) - done.job.submit_s for done in begun]
    ended = sum(_end_s(done) <= end_s for done in begun)
    return _totals(snapshot, earned, sum(work_s) / 3600, power_w, (ended, waits))


def _end_s(done: DoneJob) -> float:
    return (done.start_s or 0.0) + done.job.duration_s


def _done_value(values: AnyStart, done: DoneJob) -> RunValue:
    """Return the value of a job as it ran, at full speed, in the hall where most of it ran."""
    hall = max(done.halls, key=lambda zone: done.halls[zone], default=None)
    options = values.options.of(done.job)
    option = option_at(options, hall, done.node_type, None) or option_at(options, None, None, None)
    assert option is not None, "the window has only jobs that fit"
    return values.value(done.job, option, done.start_s or 0.0)


def _plan_totals(plan: Plan, values: AnyStart) -> Totals:
    s = plan.snapshot
    end_s = s.start_s + s.slots * s.slot_s
    jobs = {job.job_id: job for job in s.jobs}
    earned, waits, work, ended = [], [], 0.0, 0
    for entry in plan.assignments:
        job = jobs[entry.job_id]
        option = option_at(values.options.of(job), entry.hall, entry.node_type, entry.mode)
        assert option is not None, "a verified plan has only options"
        earned.append(values.value(job, option, float(entry.start_s)))
        stop_s = entry.start_s + job.duration_s / option.speed
        work += job.gpus * option.speed * (min(stop_s, end_s) - entry.start_s)
        ended += stop_s <= end_s
        waits.append(entry.start_s - job.submit_s)
    power_w = plan_loads(plan).zone_w[s.site.name]
    return _totals(s, earned, work / 3600, power_w, (ended, waits))


def _totals(
    s: Snapshot,
    earned: Sequence[RunValue],
    work_gpu_h: float,
    power_w: Floats,
    begun: tuple[int, Sequence[float]],
) -> Totals:
    """Return totals; `begun` has how many jobs ended, and the wait of each that began in s."""
    ended, waits = begun
    joules = power_w * s.slot_s
    price = np.array(s.price_per_mwh or (0.0,) * s.slots)
    limit_w = budget_w(s, s.site.name)
    over = 0.0 if limit_w is None else float((power_w > limit_w + 0.5).sum()) * s.slot_s / 3600
    return Totals(
        sum(one.usd for one in earned),
        sum(one.work_usd for one in earned),
        sum(one.delay_usd for one in earned),
        sum(one.energy_usd for one in earned),
        work_gpu_h,
        float(joules.sum()),
        float((joules / 3.6e9 * price).sum()),
        float((joules / 3.6e6 * np.array(s.carbon_g_per_kwh)).sum() / 1e3) if s.carbon_g_per_kwh else None,
        float(power_w.max()),
        over,
        len(waits),
        ended,
        statistics.fmean(waits) if waits else 0.0,
    )


def _result(
    case: HindsightCase,
    plan: Plan,
    figures: tuple[Totals, Totals, float],
    found: Calibration | None,
    notes: tuple[str, ...],
) -> Hindsight:
    done, possible, bound_usd = figures
    s = plan.snapshot
    least, most = (_lost(of_usd, done.value_usd) for of_usd in (possible.value_usd, bound_usd))
    limit_w = budget_w(s, s.site.name)
    done_w = facility_w(s, job_power(s, case.window.jobs))
    meter, step = case.meter, -(-s.slots // _MOST_POINTS)
    metered = () if meter is None else tuple(None if np.isnan(w) else w for w in meter.power_w[::step])
    full = meter is not None and meter.covered >= 0.995 and not np.isnan(meter.values).any()
    return Hindsight(
        1,
        s.site.name,
        s.start_s,
        s.start_s + s.slots * s.slot_s,
        s.slot_s,
        len(s.jobs),
        bound_usd,
        possible.value_usd,
        done.value_usd,
        least,
        most,
        done,
        possible,
        float(meter.values.sum()) * s.slot_s if meter is not None and full else None,
        found,
        plan.plan_id,
        (bound_usd - possible.value_usd) / bound_usd if bound_usd > 0 else 0.0,
        (*notes, *_told(s, done, bound_usd, found, case)),
        tuple(float(s.start_s + i * s.slot_s) for i in range(0, s.slots, step)),
        tuple(done_w[::step].tolist()),
        tuple(plan_loads(plan).zone_w[s.site.name][::step].tolist()),
        metered,
        () if limit_w is None else tuple(limit_w[::step].tolist()),
    )


def _lost(of_usd: float, done_usd: float) -> float:
    return max(0.0, (of_usd - done_usd) / of_usd) if of_usd > 0 else 0.0


def _told(s: Snapshot, done: Totals, bound_usd: float, found: Calibration | None, case: HindsightCase) -> list[str]:
    """Return lines on what weakens the comparison."""
    lines = list(s.stale_forecasts)
    if done.over_budget_h > 0:
        lines.append(f"what was done stood above the site's budget for {done.over_budget_h:,.1f} h, by the model")
    if done.value_usd > bound_usd:
        lines.append("what was done earned more than any policy within the budgets could: it broke one of them")
    if found is not None and not found.applied:
        lines.append(
            f"the meter asks for {found.factor:.2f} times the jobs' modelled power: not believed, and not applied; "
            "check the meter's unit and the site file"
        )
    if case.meter is None:
        lines.append("no meter: the jobs' power is the model's, unchecked")
    if not s.price_per_mwh:
        lines.append("no prices: energy costs nothing here")
    if not s.carbon_g_per_kwh:
        lines.append("no carbon intensity: no emissions")
    return lines
