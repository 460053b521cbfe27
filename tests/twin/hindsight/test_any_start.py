"""The bound of hindsight holds for every schedule within the budgets, to the second, which the plan's own does not."""

import random

import msgspec
import pytest

from powerhall.jobs.model import Job
from powerhall.plan.plan import Objective, Snapshot
from powerhall.runtime.log import Log
from powerhall_optimizer.inputs.round_settings import RoundSettings
from powerhall_optimizer.inputs.snapshot import SiteInputs
from powerhall_optimizer.planning.planner import make_plan
from powerhall_optimizer.verify.any_start import AnyStart, option_at
from rigs.sacct_history import START_S

GPUS, LIMIT_W, IDLE_W = 32, 27_000.0, 4 * 1800.0
MODES = {"p700": (970.0 - 225.0, 1.0), "p400": (601.0 - 225.0, 0.8)}
"""W that a GPU adds to its idle node, and its speed: of the site file, by hand."""


def snapshot(site, jobs, slots, price=None, objective=None):
    tariff = tuple(price or ())
    return Snapshot(
        START_S,
        START_S,
        300,
        slots,
        SiteInputs.read(site).site,
        jobs,
        price_per_mwh=tariff,
        objective=objective or Objective(),
    )


def planned(s):
    settings = RoundSettings(keep_s=0.0, move_gain=0.0, workers=1, work_rate=0.005)  # counted work, not cut short
    return make_plan(s, settings, 30.0, created_s=START_S, log=Log(quiet=True))


def facility_w(runs, at_s):
    """The site's power at a moment: chillers of 60 kW and COP 5 at part load, on all of the heat."""
    it_w = IDLE_W + sum(job.gpus * MODES[mode][0] for job, mode, start, end in runs if start <= at_s < end)
    load = it_w / 60_000
    return it_w + 60_000 / 5 * (load + load**2) / 2


def fits(runs):
    moments = sorted({start for _, _, start, _ in runs})
    busy = [sum(job.gpus for job, _, start, end in runs if start <= at < end) for at in moments]
    return max(busy, default=0) <= GPUS and all(facility_w(runs, at) <= LIMIT_W for at in moments)


def packed(draw, jobs, end_s):
    """A random schedule to the second that holds every limit: each job begins as early as it fits, or never."""
    runs = []
    for job in draw.sample(jobs, len(jobs)):
        mode = draw.choice(list(MODES))
        length_s = job.duration_s / MODES[mode][1]
        ready_s = max(0.0, job.submit_s - START_S)
        for start_s in sorted({ready_s, *(end for *_, end in runs if end >= ready_s)}):
            run = (job, mode, start_s, start_s + length_s)
            if start_s < end_s and fits([*runs, run]):
                runs.append(run)
                break
    return runs


def worth(runs, s):
    """What the runs earn by the objective, computed here from its text."""
    end_s, total = s.slots * s.slot_s, 0.0
    tariff = s.price_per_mwh or (0.0,) * s.slots
    for job, mode, start_s, stop_s in runs:
        watts, speed = MODES[mode]
        all_usd = job.gpus * job.duration_s / 3600 * s.objective.usd_per_gpu_h
        inside_s = min(stop_s, end_s) - start_s
        slow = 1 - s.objective.slow_share * (1 / speed - 1)
        total += all_usd * slow * inside_s / (stop_s - start_s)
        late_s = start_s - (job.submit_s - START_S) + min(stop_s - start_s, end_s) - min(job.duration_s, end_s)
        total -= all_usd * min(1.0, end_s / job.duration_s) * s.objective.delay_share * late_s / end_s
        for slot, price in enumerate(tariff):
            shared_s = max(0.0, min(stop_s, 300 * (slot + 1)) - max(start_s, 300 * slot))
            total -= job.gpus * watts * 1.2 * shared_s / 3.6e9 * price
    return total


def test_a_schedule_that_no_slots_hold_stays_within_the_bound(site):
    # 36 jobs of 400 s one after the other fill 4 h; on slots of 300 s each takes two, so that 24 fit.
    jobs = tuple(Job(f"j{i}", 22, 400.0, submit_s=float(START_S)) for i in range(36))
    s = snapshot(site, jobs, 48, objective=Objective(delay_share=0.0))
    plan = planned(s)
    done = [(job, "p700", 400.0 * i, 400.0 * (i + 1)) for i, job in enumerate(jobs)]
    assert fits(done)
    unit = 1e-6
    bound_usd = AnyStart(s).bound_usd(plan.certificate)
    assert plan.bound * unit < worth(done, s) <= bound_usd < 1.1 * worth(done, s)


@pytest.mark.parametrize("seed", range(2))
def test_no_random_schedule_exceeds_the_bound_and_the_plan_is_near_it(site, seed):
    draw = random.Random(seed)
    slots = draw.choice([12, 24])
    price = [draw.uniform(-50, 400) for _ in range(slots)] if seed % 2 else None
    jobs = tuple(
        Job(f"j{i}", draw.choice([1, 3, 8, 12, 20]), float(draw.randint(60, 9000)), START_S + draw.uniform(0, 2400))
        for i in range(14)
    )
    s = snapshot(site, jobs, slots, price)
    plan, values = planned(s), AnyStart(s)
    bound_usd = values.bound_usd(plan.certificate)
    found = [packed(draw, jobs, slots * 300) for _ in range(60)]
    best = max(worth(runs, s) for runs in found)
    assert best <= bound_usd
    assert best > 0.6 * bound_usd, "the bound is of use"
    runs = found[0]
    told = sum(
        values.value(job, option_at(values.options.of(job), None, None, mode), START_S + start).usd
        for job, mode, start, _ in runs
    )
    assert told == pytest.approx(worth(runs, s), rel=1e-3, abs=0.05)  # energy counts in coarse whole units


def test_prices_prove_a_bound_whatever_they_are(site):
    draw = random.Random(7)
    jobs = tuple(Job(f"j{i}", 8, float(draw.randint(600, 4000)), START_S + draw.uniform(0, 600)) for i in range(12))
    s = snapshot(site, jobs, 12)
    values, plan = AnyStart(s), planned(s)
    best = max(worth(packed(draw, jobs, 3600), s) for _ in range(50))
    for factor in (0, 1, 3):
        prices = {name: tuple(p * factor // 2 for p in row) for name, row in plan.certificate.prices.items()}
        assert best <= values.bound_usd(msgspec.structs.replace(plan.certificate, prices=prices))


def test_the_judge_of_this_file_sees_broken_limits(site):
    job = Job("a", 24, 600.0, float(START_S))
    assert not fits([(job, "p700", 0.0, 600.0)])
    assert fits([(job, "p400", 0.0, 600.0)])
