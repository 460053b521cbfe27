"""Requests as users write them, on a real cluster of two kinds of nodes: what is charged, counted, left alone."""

import re
import subprocess
import time

import pytest

from powerhall.hostlist import expand
from powerhall_optimizer import api
from powerhall_optimizer.schedulers.slurm.slurm_settings import SlurmSettings
from powerhall_optimizer.schedulers.slurm.writer import SlurmReader, SlurmWriter
from rigs.slurm_mixed import GPU_W, IDLE_W, POOL_W, SETTINGS, SITE, gpus_in_use, job_lines, plan_of

pytestmark = [pytest.mark.rig, pytest.mark.slow]


@pytest.fixture
def slurm(mixed_slurm):
    return mixed_slurm


@pytest.fixture
def site(tmp_path):
    (tmp_path / "site.toml").write_text(SITE.format(limit=POOL_W + IDLE_W))
    return api.read_site(tmp_path / "site.toml")


def charged(slurm, job):
    found = re.search(r"Licenses=kw:(\d+)", slurm.run("scontrol", "-o", "show", "job", job))
    return int(found[1]) if found else 0


@pytest.mark.parametrize(
    ("options", "kw"),
    [
        (("--gres=gpu:h200:8",), 10),
        (("--exclusive", "--gres=gpu:h200:1"), 10),
        (("-N2", "--exclusive", "--gres=gpu:h200:1"), 20),
        (("-p", "whole", "--gres=gpu:h200:1"), 10),
        (("-p", "inherits", "--gres=gpu:h200:1"), 10),
        (("-p", "half", "-n", "64", "--gres=gpu:h200:1"), 3),
        (("-n", "192", "--gres=gpu:4090:8"), 30),
        (("-n", "64", "--mem-per-cpu=30000", "--gres=gpu:8"), 20),
        (("-n", "16", "--ntasks-per-socket=2", "--gres=gpu:2"), 10),
        (("-N", "2-4", "--gres=gpu:4"), 20),
        (("-w", "gn[05-07]", "--gres=gpu:2"), 8),
        (("-N2", "--gpus=12"), 15),
        (("-n8", "--gpus-per-task=2"), 20),
        (("-n8", "--ntasks-per-gpu=2"), 5),
        (("-N1", "--gpus-per-socket=2", "--sockets-per-node=2"), 5),
        (("-n8", "--gpus-per-socket=2", "--sockets-per-node=1"), 5),
        (("-w", "gn08", "--gres=shard:4"), 2),
        (("-w", "gn08", "--gres=shard:1"), 2),
        (("-w", "gn08", "--gres=shard:9"), 4),
        (("--gres=gpu:4090:8",), 10),
        (("-p", "mig", "--gres=gpu:3g.40gb:1"), 2),
        (("-p", "mig", "--gres=gpu:3g.40gb:4"), 3),
        (("-p", "mig", "--exclusive", "--gres=gpu:3g.40gb:1"), 10),
    ],
)
def test_a_request_is_charged_the_power_of_all_that_it_may_get(slurm, options, kw):
    job = slurm.submit(*options, "-t", "5", "--begin=now+900")
    assert charged(slurm, job) == kw


def test_a_partition_that_gives_whole_nodes_since_slurm_started_charges_them(slurm):
    slurm.run("scontrol", "update", "partition=short", "OverSubscribe=EXCLUSIVE")
    try:
        assert charged(slurm, slurm.submit("-p", "short", "--gres=gpu:h200:1", "-t", "5", "--begin=now+900")) == 10
    finally:
        slurm.run("scontrol", "update", "partition=short", "OverSubscribe=NO")


def test_what_runs_never_draws_more_than_the_licences_whatever_way_it_was_asked_for(slurm):
    for _ in range(7):
        slurm.submit("--exclusive", "--gres=gpu:h200:1", "-t", "5")
    slurm.submit("-n", "192", "--gres=gpu:4090:8", "-t", "5")
    for _ in range(8):
        slurm.submit("-w", "gn08", "--gres=shard:4", "-t", "5")
    deadline = time.monotonic() + 6
    most = 0
    while time.monotonic() < deadline:
        most = max(most, len(gpus_in_use(slurm)) * GPU_W)
        time.sleep(0.3)
    assert 40_000 <= most <= POOL_W


@pytest.mark.parametrize(
    "options",
    [
        ("-n", "4", "--spread-job", "--gres=gpu:8"),
        ("-n", "6", "--spread-job", "--gpus-per-node=2"),
        ("-n", "96", "--gpus-per-socket=1", "--sockets-per-node=2"),
        ("-n", "16", "--ntasks-per-node=4", "--gres=gpu:2"),
        ("--gpus=8", "--gpus-per-node=4"),
        ("--exclusive=user", "--gres=gpu:1"),
    ],
)
def test_spread_tasks_get_no_more_than_they_are_charged(slurm, options):
    job = slurm.submit(*options, "-t", "5")
    slurm.wait(job, "RUNNING")
    assert len(gpus_in_use(slurm)) * GPU_W <= charged(slurm, job) * 1000


def test_full_cpus_spread_no_job_over_more_gpus_than_it_pays_for(slurm):
    for number in range(1, 13):
        slurm.submit("-n", "63", "-w", f"gn{number:02d}", "-t", "5")
    job = slurm.submit("-n", "4", "--gres=gpu:8", "-t", "5")
    time.sleep(2)
    assert len(gpus_in_use(slurm)) * GPU_W <= charged(slurm, job) * 1000


def test_a_user_cannot_lower_the_charge_of_whole_nodes(slurm):
    job = slurm.submit("--exclusive", "-N2", "-n8", "--gres=gpu:1", "-t", "5", "--begin=now+900", user="nobody")
    slurm.run("scontrol", "update", f"jobid={job}", "Licenses=kw:1", user="nobody")
    assert charged(slurm, job) == 20
    slurm.run("scontrol", "update", f"jobid={job}", "NumNodes=3-3", user="nobody")
    assert charged(slurm, job) == 30


def test_every_task_of_a_sparse_array_is_listed(slurm, site):
    """Shortened by Slurm, it would be one job, whose planned nodes are asked for by all tasks."""
    tasks = [number * number for number in range(1, 32)]
    job = slurm.submit("--array", ",".join(map(str, tasks)), "--gres=gpu:h200:1", "-t", "5", "--begin=now+900")
    queue = SlurmReader(site.site, SETTINGS).read()
    assert [one.job_id for one in queue.jobs] == [f"{job}_{task}" for task in tasks]


def test_pins_lie_in_the_partition_and_not_on_nodes_that_are_excluded_or_reserved(slurm, site):
    slurm.run("scontrol", "create", "reservation", "ReservationName=maint", "StartTime=now+600", "Duration=60",
              "Nodes=gn08", "Users=root", "Flags=MAINT")  # fmt: skip
    right = slurm.submit("-p", "right", "--gres=gpu:h200:8", "-t", "5", "--begin=now+4")
    excluded = slurm.submit("-x", "gn[01-06,08]", "--gres=gpu:h200:8", "-t", "5", "--begin=now+4")
    long = slurm.submit("-p", "right", "--gres=gpu:h200:4", "-t", "60", "--begin=now+4")
    featured = slurm.submit("-C", "ib", "--gres=gpu:8", "-t", "5", "--begin=now+4")
    queue = SlurmReader(site.site, SETTINGS).read()
    jobs = {job.job_id: job for job in queue.jobs}
    assert jobs[right].allowed_nodes == "gn[07-08]"
    assert (jobs[excluded].allowed_nodes, jobs[long].allowed_nodes) == ("gn07", "gn07")  # long: into the reservation
    assert jobs[featured].allowed_nodes == "gn[01-04]"
    plan = plan_of(site, queue, slot_s=10)
    assert SlurmWriter(SETTINGS).apply(plan).failed == []
    for entry in plan.assignments:
        nodes = {node for placement in entry.placements for node in expand(placement.nodes)}
        assert nodes <= set(expand(jobs[entry.job_id].allowed_nodes))
    deadline = time.monotonic() + 75
    while time.monotonic() < deadline:
        lines = job_lines(slurm)
        assert not [line for line in lines if "Reason=BadConstraints" in line]
        if sum("JobState=RUNNING" in line for line in lines) >= 2:
            break
        time.sleep(0.5)
    assert sum("JobState=RUNNING" in line for line in job_lines(slurm)) >= 2


def test_nodes_that_slurm_refuses_are_withdrawn_at_once_and_not_asked_for_again(slurm, site):
    job = slurm.submit("-p", "right", "--gres=gpu:h200:8", "-t", "5")
    slurm.run("scontrol", "update", f"jobid={job}", "StartTime=now+900")
    begin_s = int(time.time()) // 10 * 10  # as of a plan with slots of 10 s: those of later tests are no older
    mark = f"powerhall:hold=0;nodes=gn01;at={begin_s};site=plant"
    slurm.run("scontrol", "update", f"jobid={job}", "ReqNodeList=gn01", f"AdminComment={mark}", "StartTime=now")
    deadline = time.monotonic() + 10
    while "Reason=BadConstraints" not in slurm.run("scontrol", "-o", "show", "job", job):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    report = SlurmWriter(SlurmSettings(round_s=600)).withdraw_pins()  # the plan is young: the refusal counts
    assert report.failed == []
    slurm.wait(job, "RUNNING")
    assert "NodeList=gn07" in slurm.run("scontrol", "-o", "show", "job", job)


def test_nodes_of_an_old_plan_are_withdrawn_without_an_optimizer(slurm, site):
    block = slurm.submit("-w", "gn07", "--gres=gpu:h200:8", "-t", "5")
    slurm.wait(block, "RUNNING")
    job = slurm.submit("--gres=gpu:h200:8", "-t", "5", "--begin=now+900")
    mark = f"powerhall:hold=0;nodes=gn07;start=0;at={int(time.time()) - 60};site=plant"
    slurm.run("scontrol", "update", f"jobid={job}", "ReqNodeList=gn07", f"AdminComment={mark}", "StartTime=now")
    assert SlurmWriter(SlurmSettings(round_s=600)).withdraw_pins().commands == []
    assert SlurmWriter(SETTINGS).withdraw_pins().failed == []
    slurm.wait(job, "RUNNING")


def test_a_deadline_is_kept(slurm, site):
    for _ in range(5):
        slurm.submit("--gres=gpu:h200:8", "-t", "60", "--begin=now+2")
    due = slurm.submit("--deadline=now+5minutes", "-t", "1", "--gres=gpu:h200:8", "--begin=now+2")
    queue = SlurmReader(site.site, SETTINGS).read()
    plan = plan_of(site, queue)
    entry = next(entry for entry in plan.assignments if entry.job_id == due)
    assert entry.end_s <= time.time() + 300


def test_shards_are_planned_together_run_on_the_gpus_that_slurm_gives_and_are_known_again(slurm, site, tmp_path):
    text = SITE.format(limit=12 * 800 + GPU_W - 100 + 50).replace(
        'gpu = "H200"', 'gpu = "H200"\ngpu_parts = 4\ngpu_fill = true'
    )
    (tmp_path / "parts.toml").write_text(text)
    place = api.read_site(tmp_path / "parts.toml")
    shards = [slurm.submit("--gres=shard:1", "-t", "5", "--begin=now+3") for _ in range(4)]
    queue = SlurmReader(place.site, SETTINGS).read()
    assert {(one.job_id, one.gpu_share) for one in queue.jobs} == {(job, "1/4") for job in shards}
    plan = plan_of(place, queue, slot_s=10)
    assert sorted(entry.gpus for entry in plan.assignments) == [0, 0, 0, 1]  # the budget has one busy GPU
    by_nodes = SlurmSettings(round_s=5, licence="", fields=SETTINGS.fields)  # the whole pool of licences is open
    assert SlurmWriter(by_nodes).apply(plan).failed == []
    for job in shards:
        slurm.wait(job, "RUNNING", 75)
    assert len(gpus_in_use(slurm)) == 1
    again = SlurmReader(place.site, SETTINGS).read()
    assert {one.gpu_number for one in again.jobs} == {next(number for _, number in gpus_in_use(slurm))}
    kept = plan_of(place, again, slot_s=10)
    assert (len(kept.assignments), sum(entry.gpus for entry in kept.assignments)) == (4, 1)
    assert next(zone for zone in kept.zones if zone.zone == "plant").planned_w[0] == 12 * 800 + GPU_W - 100


def test_names_in_latin_1_and_drained_nodes_stop_nothing_and_count(slurm, site):
    options = ["sbatch", "--parsable", "-D", "/", "-o", "/dev/null", "--gres=gpu:h200:4", "-w", "gn05", "-t", "5"]
    command = [*map(str.encode, options), b"-J", b"caf\xe9", b"--wrap", b"sleep 60"]
    job = subprocess.run(command, env=slurm.env, capture_output=True, check=True).stdout.decode().strip()
    gang = slurm.submit("-N2", "--gpus=12", "-t", "5", "-w", "gn[01-02]")
    across = slurm.submit("-N2", "--gres=gpu:4", "-t", "5", "-w", "gn[08-09]")
    for name in (job, gang, across):
        slurm.wait(name, "RUNNING")
    slurm.run("scontrol", "update", "nodename=gn[05-06]", "state=drain", "reason=test")
    try:
        queue = SlurmReader(site.site, SETTINGS).read()
        jobs = {one.job_id: one for one in queue.jobs}
        assert queue.down_nodes == ("gn05", "gn06")
        assert (jobs[job].gpus, jobs[job].nodes, jobs[job].hall) == (4, "gn05", "hall1")
        assert sorted(jobs[gang].gpus_on_nodes) == [4, 8]
        assert (jobs[across].hall, jobs[across].gpus_on_nodes) == (None, (4, 4))
        plan = plan_of(site, queue)
        due_w = 12 * 800 + (4 + 12 + 8) * (GPU_W - 100)
        zone = next(zone for zone in plan.zones if zone.zone == "plant")
        assert zone.planned_w[0] == pytest.approx(due_w, abs=2)
    finally:
        slurm.run("scontrol", "update", "nodename=gn[05-06]", "state=resume")


# last, because its marks of a later plan would make the next tests' plans old
def test_an_older_plan_another_site_and_a_job_that_was_enlarged_are_not_written(slurm, site, tmp_path):
    from powerhall.runtime.errors import Rejected

    job = slurm.submit("-N1", "--gpus-per-node=8", "-t", "5", "--begin=now+900")
    queue = SlurmReader(site.site, SETTINGS).read()
    old = plan_of(site, queue)
    new = plan_of(site, queue, in_s=60)
    writer = SlurmWriter(SETTINGS)
    assert writer.apply(new).failed == []
    with pytest.raises(Rejected, match="must not be older than the newest plan"):
        writer.apply(old)
    (tmp_path / "other.toml").write_text(SITE.format(limit=90_000).replace('"gn[', '"xx[').replace("plant", "other"))
    with pytest.raises(Rejected, match="must be a site whose nodes this Slurm cluster has"):
        writer.apply(plan_of(api.read_site(tmp_path / "other.toml"), type(queue)(0, ())))
    slurm.run("scontrol", "update", f"jobid={job}", "NumNodes=2-2")
    report = writer.apply(new)
    assert report.commands == []
    assert any("asks for 16 GPUs now, the plan has 8" in skipped.reason for skipped in report.skipped)
