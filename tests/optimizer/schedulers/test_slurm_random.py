"""Random requests and kills of the optimizer, on a real cluster of two kinds of nodes: the budget holds.

POWERHALL_SBATCH_JOBS and POWERHALL_SBATCH_SEED set the number of random jobs and their seed (`make test-slurm-random`
runs 200), POWERHALL_KILLS the number of kills (`make test-slurm-kills`: 200).
"""

import multiprocessing
import os
import random
import re
import threading
import time

import pytest

from powerhall_optimizer import api
from powerhall_optimizer.schedulers.slurm.apply import read_records
from powerhall_optimizer.schedulers.slurm.commands import SlurmTool
from powerhall_optimizer.schedulers.slurm.writer import SlurmReader, SlurmWriter
from rigs.slurm_mixed import GPU_W, IDLE_W, POOL_W, SETTINGS, SITE, gpus_in_use, job_lines, plan_of

pytestmark = [pytest.mark.rig, pytest.mark.slow]

JOBS = int(os.environ.get("POWERHALL_SBATCH_JOBS", "10"))
KILLS = int(os.environ.get("POWERHALL_KILLS", "20"))
SEED = int(os.environ.get("POWERHALL_SBATCH_SEED", "1"))


@pytest.fixture
def slurm(mixed_slurm):
    return mixed_slurm


@pytest.fixture
def site(tmp_path):
    (tmp_path / "site.toml").write_text(SITE.format(limit=POOL_W + IDLE_W))
    return api.read_site(tmp_path / "site.toml")


@pytest.fixture
def dead(mixed):
    """A file; while it is there job_submit.lua runs its WITHDRAW."""
    return mixed[1]


def random_options(draw, earlier):
    """Return options of sbatch over all ways to ask for GPUs."""
    kind = draw.choice(["", "", "h200:", "h200:", "4090:"])
    each = draw.choice([1, 2, 4, 8])
    ways = [
        [f"--gres=gpu:{kind}{each}"],
        [f"--gpus-per-node={kind}{each}", f"-N{draw.randint(1, 3)}"],
        [f"--gpus={kind}{draw.choice([1, 4, 8, 12, 16])}"],
        ["-n", str(draw.choice([2, 4, 8])), f"--gpus-per-task={kind}1"],
        ["-n", str(draw.choice([16, 64, 192])), f"--gres=gpu:{kind}{each}"],
        ["-N", f"1-{draw.randint(2, 3)}", f"--gres=gpu:{kind}{each}"],
        ["--exclusive", f"--gres=gpu:{kind}1"],
        [f"--gres=shard:{draw.choice([1, 3, 4, 8])}"],
        ["-N1", "--sockets-per-node=2", f"--gpus-per-socket={draw.choice([1, 2])}"],
        ["-n", "4", "--ntasks-per-gpu=2"],
        ["-n", "4", "--spread-job", f"--gres=gpu:{kind}{each}"],
        ["-p", "whole", "--gres=gpu:1"],
    ]
    options = draw.choice(ways)
    more = [
        [], [], ["-C", "hall1"], ["-C", "ib|hall2"], ["-x", "gn[01-02]"], ["-p", "short"], ["-p", "right"],
        [f"--begin=now+{draw.randint(1, 6)}"], ["--deadline=now+20minutes"],
        ["-a", f"1-{draw.randint(2, 4)}%{draw.randint(1, 2)}"],
        [f"--dependency=afterany:{draw.choice(earlier)}"] if earlier else [],
    ]  # fmt: skip
    extra = draw.choice(more)
    return [*options, *extra] if "-p" not in options or "-p" not in extra else options


class Watch(threading.Thread):
    """Samples GPUs in use and reasons until it is stopped."""

    def __init__(self, slurm):
        super().__init__(daemon=True)
        self.slurm, self.done = slurm, threading.Event()
        self.most_w, self.samples, self.refused = 0, 0, []

    def run(self):
        while not self.done.wait(0.3):
            self.most_w = max(self.most_w, len(gpus_in_use(self.slurm)) * GPU_W)
            self.refused += [line for line in job_lines(self.slurm) if "Reason=BadConstraints" in line]
            self.samples += 1

    def refused_of(self, jobs):
        """Return the refusals of these jobs; a request that sbatch refused leaves a failed job of its own in Slurm."""
        found = (re.match(r"JobId=(\d+) (?:ArrayJobId=(\d+) )?", line) for line in self.refused)
        return [one.string[:300] for one in found if {one[1], one[2]} & set(jobs)]

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *error):
        self.done.set()
        self.join(10)


def submit_random(slurm, draw, count):
    jobs = []
    for _ in range(count):
        options = random_options(draw, jobs)
        try:
            jobs.append(slurm.submit(*options, "-t", "1", seconds=draw.choice([1, 2, 3])))
        except RuntimeError as error:
            if not re.search(r"node configuration is not available|license|Node count|nodes", str(error)):
                raise
    return jobs


@pytest.mark.parametrize("with_optimizer", [False, True], ids=["no optimizer", "optimizer"])
def test_random_requests_keep_the_budget_and_none_is_refused_its_nodes(slurm, site, with_optimizer):
    draw = random.Random(SEED)
    count = JOBS if not with_optimizer else max(JOBS // 2, 8)
    with Watch(slurm) as watch:
        jobs = submit_random(slurm, draw, count)
        assert len(jobs) > count / 2
        deadline = time.monotonic() + 20 + 1.5 * count
        while time.monotonic() < deadline and slurm.run("squeue", "-h", "-t", "PD,R", "-o", "%i"):
            if with_optimizer:
                queue = SlurmReader(site.site, SETTINGS).read()
                report = SlurmWriter(SETTINGS).apply(plan_of(site, queue, seconds=0.5, slot_s=10))
                assert not [c for c in report.failed if "reads back" in c.error and "nodes" in c.error]
            time.sleep(0.5)
    assert watch.samples > 5
    assert watch.refused_of(jobs) == []
    assert watch.most_w <= POOL_W
    left = slurm.run("squeue", "-h", "-t", "PD,R", "-o", "%i %r").splitlines()
    print(f"seed {SEED}: {len(jobs)} jobs, {watch.samples} samples, most {watch.most_w} W of {POOL_W} W, left {left}")


def write_plan(plan):
    SlurmWriter(SETTINGS).apply(plan)


def pinned(slurm):
    return [r for r in read_records(SlurmTool(10)).values() if r.state == "PENDING" and r.required_nodes]


@pytest.mark.skipif("POWERHALL_SLURM_BIN" in os.environ, reason="job_submit.lua calls Python inside the other tree")
def test_kills_leave_no_pin_that_slurm_refuses_and_what_the_dead_pinned_is_given_back(slurm, site, dead):
    draw = random.Random(SEED)
    asked = [["-p", "right"], ["-x", "gn[01-02]"], ["-C", "ib|hall2"], ["-p", "short"], ["-w", "gn03"], []]
    jobs = [
        slurm.submit(f"--gres=gpu:{draw.choice([4, 8])}", *draw.choice(asked), "-t", "1", seconds=draw.choice([2, 5]))
        for _ in range(24)
    ]
    jobs += [slurm.submit("--gres=gpu:4", *each, "-t", "5", "--begin=now+900") for each in asked[:4]]
    fork, cut, most, plan = multiprocessing.get_context("fork"), 0, 0, None
    with Watch(slurm) as watch:
        for number in range(KILLS):
            if number % 4 == 0:
                plan = plan_of(site, SlurmReader(site.site, SETTINGS).read(), seconds=0.2, slot_s=10)
            process = fork.Process(target=write_plan, args=(plan,))
            process.start()
            time.sleep(draw.uniform(0.0, 0.12))
            cut += process.is_alive()
            process.kill()
            process.join()
            most = max(most, len(pinned(slurm)))
        SlurmWriter(SETTINGS).apply(plan_of(site, SlurmReader(site.site, SETTINGS).read(), seconds=0.2, slot_s=10))
        assert most > 0
        assert pinned(slurm)
        dead.touch()
        time.sleep(4)  # the plan is two rounds old, and nobody makes another
        deadline = time.monotonic() + 20
        while left := [r for r in pinned(slurm) if r.required_nodes != "gn03"]:
            assert time.monotonic() < deadline, left
            jobs.append(slurm.submit("--gres=gpu:1", "-t", "1", seconds=1))
            time.sleep(1.5)
    assert cut >= KILLS / 2, "the kills came too late to test anything"
    assert watch.refused_of(jobs) == []
    assert watch.most_w <= POOL_W
    print(f"{KILLS} kills, {cut} of them while it wrote; at most {most} jobs waited with planned nodes")
