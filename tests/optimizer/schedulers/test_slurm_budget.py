"""The power budget on a real cluster: a hundred jobs with a curtailment, kills at any point, and no optimizer at all.

Time is scaled: jobs that stand for hours run for seconds. Slurm's own time limits stay at one minute, its shortest.
"""

import math
import multiprocessing
import os
import random
import signal
import threading
import time
from dataclasses import dataclass

import msgspec
import pytest

from powerhall_optimizer.schedulers.slurm.apply import read_records
from powerhall_optimizer.schedulers.slurm.commands import SlurmTool
from powerhall_optimizer.schedulers.slurm.slurm_settings import SlurmSettings
from powerhall_optimizer.schedulers.slurm.writer import SlurmReader, SlurmWriter
from rigs.plans import greedy_plan, small_site

pytestmark = [pytest.mark.rig, pytest.mark.slow]

KW_PER_GPU = 1.25
BUDGET_KW = 60
CURTAILED_KW = 30
PAUSE_S = 1.5
"""Between two rounds."""
CYCLE_S = 2
"""Slurm's scheduler runs once a second here; a job may start this much after its time."""


@dataclass(frozen=True)
class Sample:
    """Power by GPUs was read between `begin_s` and `middle_s`, licences until `end_s`, both in kW."""

    begin_s: float
    middle_s: float
    end_s: float
    power_kw: float
    licences_kw: int

    @property
    def used_kw(self):
        return max(self.power_kw, self.licences_kw)

    def is_within(self, low_kw, high_kw, from_s, to_s):
        """Whether both readings kept `low_kw` when they lay wholly in the time of the low budget, else `high_kw`."""
        power = low_kw if from_s <= self.begin_s and self.middle_s < to_s else high_kw
        licences = low_kw if from_s <= self.middle_s and self.end_s < to_s else high_kw
        return self.power_kw <= power and self.licences_kw <= licences


class PowerMeter(threading.Thread):
    """Samples once a second the power of running jobs: licences as Slurm counts them, and power by their GPUs."""

    def __init__(self, slurm, interval_s=1.0):
        super().__init__(daemon=True)
        self.slurm, self.interval_s = slurm, interval_s
        self.samples = []
        self.error = ""
        self.done = threading.Event()

    def run(self):
        """Sample at fixed moments; an answer that does not come ends the samples, and the test with them."""
        due_s = time.monotonic()
        try:
            while not self.done.wait(max(0.0, due_s - time.monotonic())):
                due_s += self.interval_s
                begin_s = time.time()
                gpus = sum(job.gpus for job in read_records(SlurmTool(20)).values() if job.state == "RUNNING")
                middle_s = time.time()
                licences = self.slurm.licences_used()
                self.samples.append(Sample(begin_s, middle_s, time.time(), gpus * KW_PER_GPU, licences))
        except Exception as error:
            self.error = repr(error)
            raise

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *error):
        self.done.set()
        self.join(10)


@dataclass(frozen=True)
class Written:
    """When a plan was written into Slurm, and the start of every job that it lets wait."""

    begun_s: float
    done_s: float
    starts: dict[str, int]


def in_force(at_s, plans):
    """Plans that Slurm may have held in the second that begins at `at_s` (its own times are whole seconds).

    A plan counts from when its writing began until the next one is wholly written.
    """
    ends = [plan.done_s for plan in plans[1:]] + [float("inf")]
    return [plan for plan, end_s in zip(plans, ends, strict=True) if plan.begun_s < at_s + 1 and end_s > at_s]


def may_start(job, at_s, plans):
    """Whether a plan in force at that second let the job start; what no plan names may not."""
    return any(plan.starts.get(job, float("inf")) <= at_s for plan in in_force(at_s, plans))


def overtakes(job, at_s, plans, started):
    """Yield the jobs that start later although every plan in force put them earlier by more than a cycle."""
    current = [plan for plan in in_force(at_s, plans) if job in plan.starts]
    for other, other_s in started.items():
        before = [plan.starts.get(other, float("inf")) + CYCLE_S < plan.starts[job] for plan in current]
        if other_s > at_s and before and all(before):
            yield other, job


def runtimes(duration_s, jobs):
    """The planner's durations are the scaled ones, not Slurm's minute."""
    return tuple(msgspec.structs.replace(job, duration_s=duration_s) for job in jobs)


def longest_run_s(slurm, jobs):
    """How long one of these jobs took at most, in s, of those that have ended; 0 before."""
    rows = [row.split() for row in slurm.run("squeue", "-h", "-t", "CD", "-o", "%A %M").splitlines()]
    times = [time_used.split(":") for job, time_used in rows if job in jobs]
    return max((60 * int(minutes) + int(seconds) for minutes, seconds in times), default=0)


@dataclass(frozen=True)
class Cut:
    """A curtailment: announced eight seconds ahead, or earlier on a machine on which the jobs in hand take longer.

    What runs when it is announced, and what starts until the next round is written, must have ended by then: a plan
    stops nothing here.
    """

    start_s: int
    end_s: int

    @classmethod
    def announced(cls, round_s, run_s, sample_s):
        """One for a machine where a round, a job and a sample take so long."""
        start_s = math.ceil(time.time() + max(8.0, 1.5 * (2 * round_s + PAUSE_S + run_s)))
        return cls(start_s, start_s + max(12, math.ceil(6 * sample_s)))


def test_a_hundred_jobs_run_in_plan_order_within_a_budget_that_is_curtailed_midway(slurm):
    site = small_site(slurm.nodes)
    settings = SlurmSettings(pin="none")
    reader, writer = SlurmReader(site, settings), SlurmWriter(settings)
    rng = random.Random(7)
    sizes = [rng.choice((4, 8, 8, 16)) for _ in range(100)]
    mine = set()
    for gpus in sizes:
        size = ("-N1", "--gpus-per-node=4") if gpus == 4 else (f"-N{gpus // 8}", "--gpus-per-node=8")
        mine.add(slurm.submit(*size, "-t", "1", "--begin=now+900", seconds=2))
    begun = time.monotonic()
    plan = greedy_plan(site, reader.read().jobs, start_s=int(time.time()), slot_s=1, budget_w=[BUDGET_KW * 1000] * 90)
    writer.apply(plan, dry_run=True)
    begin_s = max(12, math.ceil(6 * (time.monotonic() - begun)))  # none before the first plan is written
    SlurmTool(60).batch([f"update jobid={job} StartTime=now+{begin_s}" for job in sorted(mine)])
    with PowerMeter(slurm) as meter:
        cut, plans, started, rounds_s = None, [], {}, []
        deadline = time.monotonic() + 150 + 2 * begin_s
        while time.monotonic() < deadline:
            begun = time.monotonic()
            queue = reader.read()
            if not queue.jobs:
                break
            run_s = longest_run_s(slurm, mine)
            if cut is None and run_s:
                cut = Cut.announced(
                    max(rounds_s), run_s, max((one.end_s - one.begin_s for one in meter.samples), default=1.0)
                )
            start_s = int(time.time())
            slots_s = range(start_s, start_s + 90)
            kw = [CURTAILED_KW if cut and cut.start_s <= at_s < cut.end_s else BUDGET_KW for at_s in slots_s]
            jobs = runtimes(max(3.0, run_s + 1.0), queue.jobs)
            plan = greedy_plan(site, jobs, start_s=start_s, slot_s=1, budget_w=[1000 * each for each in kw])
            begun_write_s = time.time()
            assert writer.apply(plan).failed == []
            starts = {job.job_id: job.start_s for job in plan.assignments if not job.running}
            plans.append(Written(begun_write_s, time.time(), starts))
            rounds_s.append(time.monotonic() - begun)
            if len(plans) == 2:
                assert writer.apply(plan).commands == []
            time.sleep(PAUSE_S)
            for job in read_records(SlurmTool(10)).values():
                if job.job_id in mine and job.state != "PENDING" and job.start_s:
                    started.setdefault(job.job_id, job.start_s)
    samples = meter.samples
    assert len(samples) > 5
    states = slurm.states()
    assert [states.get(job) for job in mine] == ["COMPLETED"] * 100
    assert cut is not None
    over = [one for one in samples if not one.is_within(CURTAILED_KW, BUDGET_KW, cut.start_s, cut.end_s)]
    assert over == []
    inside = [one for one in samples if cut.start_s <= one.begin_s and one.end_s < cut.end_s]
    assert len(inside) >= 3, "the curtailment was seen"
    assert max(one.power_kw for one in samples) > CURTAILED_KW  # the budget is used
    assert any(0 < one.power_kw <= CURTAILED_KW for one in inside)
    early = [(job, at_s) for job, at_s in started.items() if not may_start(job, at_s, plans)]
    assert early == [], "nothing starts before its time in the plan in force"
    overtaken = {pair for job, at_s in started.items() for pair in overtakes(job, at_s, plans, started)}
    assert overtaken == set(), "nothing starts while a job planned before it waits"
    busy = [one.power_kw for one in samples if one.power_kw]
    print(
        f"{len(samples)} samples over {samples[-1].end_s - samples[0].begin_s:.0f} s, {len(inside)} of them in the "
        f"curtailment of {cut.end_s - cut.start_s} s; {len(plans)} rounds, the slowest {max(rounds_s):.1f} s; "
        f"mean {sum(busy) / len(busy):.1f} kW, max {max(busy):.1f} kW"
    )


def test_the_checks_of_the_order_see_what_starts_early_or_overtakes():
    plans = [Written(100.1, 100.4, {"a": 105, "b": 110}), Written(102.8, 103.2, {"a": 120, "b": 110})]
    assert in_force(101, plans) == plans[:1]
    assert in_force(102, plans) == in_force(103, plans) == plans  # the second was being written in these seconds
    assert in_force(104, plans) == plans[1:]
    assert may_start("b", 110, plans)
    assert not may_start("b", 109, plans)
    assert not may_start("a", 105, plans), "it was put off two seconds before its old time"
    assert not may_start("c", 130, plans)
    assert list(overtakes("b", 112, plans, {"b": 112, "a": 121})) == []
    assert list(overtakes("a", 120, plans, {"a": 120, "b": 121})) == [("b", "a")]


def _apply(settings, plan):
    SlurmWriter(settings).apply(plan)


@pytest.mark.parametrize("hold", ["lease", "hold"])
def test_kills_at_random_points_leave_no_orphaned_hold_and_the_next_round_heals(slurm, hold):
    site = small_site(slurm.nodes)
    settings = SlurmSettings(hold=hold)
    for _ in range(24):
        slurm.submit("-N1", "--gpus-per-node=8", "-t", "10", "--begin=now+600")
    rng = random.Random(11)
    queue = SlurmReader(site, settings).read()
    writer = SlurmWriter(settings)
    fork = multiprocessing.get_context("fork")
    cut = 0
    for number in range(20):
        jobs = list(queue.jobs)
        rng.shuffle(jobs)
        jobs = tuple(msgspec.structs.replace(job, submit_s=float(i), earliest_s=None) for i, job in enumerate(jobs))
        start_s = int(time.time())
        plan = greedy_plan(site, jobs, start_s=start_s, slot_s=600, budget_w=[BUDGET_KW * 1000] * 2)
        assert len(plan.waiting) == 12  # two slots of six
        process = fork.Process(target=_apply, args=(settings, plan))
        process.start()
        time.sleep(rng.uniform(0.0, 0.12))
        alive = process.is_alive()
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        process.close()
        cut += alive
        time.sleep(0.15)  # a scontrol that was started runs to its end without its parent
        if number % 2:
            assert writer.apply(plan).failed == []
            check_consistent(plan, hold)
            assert writer.apply(plan).commands == []
    assert cut >= 10, "the kills came too late to test anything"
    assert writer.apply(plan).failed == []
    check_consistent(plan, hold)
    assert writer.release_all().failed == []
    left = [r for r in read_records(SlurmTool(10)).values() if r.state == "PENDING"]
    assert len(left) == 24
    assert not [r for r in left if r.is_held or r.admin_comment]


def check_consistent(plan, hold):
    waiting = {job.job_id for job in plan.waiting}
    starts = {job.job_id: job.start_s for job in plan.assignments}
    for record in read_records(SlurmTool(10)).values():
        assert record.is_held == (hold == "hold" and record.job_id in waiting), record
        if record.job_id in starts and not record.is_held and record.state == "PENDING":
            assert abs(record.begin_s - starts[record.job_id]) < 605  # the plan's, or the user's own where it is later


def test_the_budget_holds_with_no_optimizer_while_users_go_on_submitting(slurm):
    """Nobody plans: twenty seconds, or $POWERHALL_DEAD_S (`make test-slurm-hour`); jobs take longer in a longer run."""
    span_s = float(os.environ.get("POWERHALL_DEAD_S", "20"))
    pause_s, runtimes_s = (0.15, (1, 4)) if span_s < 120 else (3.5, (5, 40))
    with PowerMeter(slurm, 0.5 if span_s < 120 else 1.0) as meter:
        rng = random.Random(3)
        kinds = [
            ("-N2", "--gpus-per-node=8"),
            ("-N1", "--gpus-per-node=h200:8"),
            ("--gpus=12",),
            ("--gres=gpu:4", "-N3"),
            ("-n4", "--gpus-per-task=2"),
            ("--gpus=2", "-L", "kw:2"),
            ("--gpus=8", "-L", "kw:1,cool_kw:3"),
        ]
        submitted = []
        end = time.monotonic() + span_s
        while time.monotonic() < end:
            kind = rng.choice(kinds)
            user = rng.choice(("", "nobody"))
            submitted.append(slurm.submit(*kind, "-t", "1", seconds=rng.randint(*runtimes_s), user=user))
            time.sleep(pause_s)
    samples = meter.samples
    assert len(samples) > span_s / 4, meter.error
    assert not meter.error
    assert len(submitted) > 40
    used = [one.used_kw for one in samples]
    print(
        f"{len(submitted)} jobs over {samples[-1].end_s - samples[0].begin_s:.0f} s, {len(samples)} samples; "
        f"mean {sum(used) / len(used):.1f} kW, max {max(used):g} kW of {BUDGET_KW} kW"
    )
    assert max(used) <= BUDGET_KW
    assert max(used) >= 0.8 * BUDGET_KW
    for job in read_records(SlurmTool(10)).values():
        assert job.licences["kw"] >= job.gpus * KW_PER_GPU


def test_users_cannot_lower_the_charge_and_too_large_jobs_get_a_reason(slurm):
    block = slurm.submit("-N6", "--gpus-per-node=8", "-t", "10")
    slurm.wait(block, "RUNNING")
    job = slurm.submit("-N2", "--gpus-per-node=8", "-t", "10", "-L", "kw:1", user="nobody")
    tool = SlurmTool(10)
    assert read_records(tool)[job].licences == {"kw": 20}
    as_user = ("scontrol", "update", f"jobid={job}")
    slurm.run(*as_user, "Licenses=kw:1", user="nobody")
    assert read_records(tool)[job].licences == {"kw": 20}
    slurm.run(*as_user, "Licenses=cool_kw:2", user="nobody")
    assert read_records(tool)[job].licences["kw"] == 20
    slurm.run(*as_user, "NumNodes=3-3", user="nobody")
    assert read_records(tool)[job].licences["kw"] == 30
    slurm.run("scontrol", "update", f"jobid={job}", "Licenses=kw:16")  # the optimizer may: a lower power level
    assert read_records(tool)[job].licences["kw"] == 16
    slurm.run(*as_user, "Comment=hello", user="nobody")
    assert read_records(tool)[job].licences["kw"] == 16
    with pytest.raises(RuntimeError, match="needs 80 kw, the budget is 60 kw"):
        slurm.submit("-N8", "--gpus-per-node=8", "-t", "10", user="nobody")
