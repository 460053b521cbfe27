"""Plans written into a real Slurm cluster: order, idempotence, read-back, fields that users changed."""

import time

import msgspec
import pytest

from powerhall.hostlist import expand
from powerhall.runtime.errors import Rejected
from powerhall_optimizer.schedulers.slurm.apply import read_records
from powerhall_optimizer.schedulers.slurm.commands import SlurmTool
from powerhall_optimizer.schedulers.slurm.ownership_mark import parse_mark
from powerhall_optimizer.schedulers.slurm.records import parse_nodes
from powerhall_optimizer.schedulers.slurm.reservations import Curtailment
from powerhall_optimizer.schedulers.slurm.slurm_settings import SlurmSettings
from powerhall_optimizer.schedulers.slurm.writer import SlurmReader, SlurmWriter
from rigs.plans import greedy_plan, small_site

pytestmark = pytest.mark.rig

SETTINGS = SlurmSettings()


@pytest.fixture
def site(slurm):
    return small_site(slurm.nodes)


def read(site, settings=SETTINGS):
    return SlurmReader(site, settings).read()


def plan_of(site, queue, budget_kw=60, slots=60, **kwargs):
    budget = [budget_kw * 1000] * slots if isinstance(budget_kw, int) else [kw * 1000 for kw in budget_kw]
    kwargs.setdefault("start_s", int(time.time()))
    return greedy_plan(site, queue.jobs, slot_s=kwargs.pop("slot_s", 60), budget_w=budget, **kwargs)


def record(job):
    return read_records(SlurmTool(10))[job]


def test_the_queue_is_read_with_gpus_limits_begin_times_and_who_cannot_be_planned(slurm, site):
    running = slurm.submit("-N2", "--gpus-per-node=8", "-t", "10", "--comment=mine")
    waits = slurm.submit("--gpus=16", "-t", "30", "--begin=now+3600")
    array = slurm.submit("--array=1-3%2", "--gres=gpu:4", "-t", "10", "--begin=now+3600")
    held = slurm.submit("--hold", "--gres=gpu:1", "-t", "10")
    after = slurm.submit(f"--dependency=afterok:{running}", "--gres=gpu:1", "-t", "10")
    no_gpu = slurm.submit("-n1", "-t", "10", "--begin=now+3600")
    slurm.wait(running, "RUNNING")
    queue = read(site)
    jobs = {job.job_id: job for job in queue.jobs}
    assert set(jobs) == {running, waits, *(f"{array}_{n}" for n in (1, 2, 3))}
    assert (jobs[running].state, jobs[running].gpus, jobs[running].hall, jobs[running].mode) == (
        "running",
        16,
        "hall1",
        "fast",
    )
    assert (jobs[waits].gpus, jobs[waits].duration_s) == (16, 1800.0)
    assert jobs[waits].earliest_s == pytest.approx(time.time() + 3600, abs=30)
    assert jobs[f"{array}_2"].gpus == 4
    assert queue.left_out[held] == "held by its user"
    assert queue.left_out[after] == "waits for another job"
    assert queue.left_out[no_gpu] == "asks for no GPU"
    assert queue.down_nodes == ()


def test_a_plan_is_written_read_back_and_a_second_round_issues_no_command(slurm, site):
    block = slurm.submit("-N6", "--gpus-per-node=8", "-t", "10")  # all 60 kW
    slurm.wait(block, "RUNNING")
    first = slurm.submit("-N2", "--gpus-per-node=8", "-t", "10")
    second = slurm.submit("-N5", "--gpus-per-node=8", "-t", "10", "--comment=my own words")
    third = slurm.submit("-N6", "--gpus-per-node=8", "-t", "50", "-L", "cool_kw:7")
    plan = plan_of(site, read(site), slots=90)
    starts = {job.job_id: job for job in plan.assignments}
    assert set(starts) == {block, first, second, third}
    writer = SlurmWriter(SETTINGS)
    dry = writer.apply(plan, dry_run=True)
    assert dry.commands
    assert not record(first).admin_comment
    done = writer.apply(plan)
    assert done.failed == []
    assert {c.text for c in dry.commands} <= {c.text for c in done.commands}
    again = writer.apply(plan)
    assert (again.commands, again.unchanged) == ([], 4)
    now = record(first)
    assert now.begin_s == starts[first].start_s
    assert now.required_nodes == starts[first].placements[0].nodes
    assert now.comment == "powerhall: fits in hall1 (fast)"
    assert record(second).comment == "my own words"
    assert record(third).licences == {"cool_kw": 7, "kw": 60}
    assert record(first).priority > record(third).priority
    assert not any(record(job).is_held for job in starts)


def test_jobs_that_must_wait_get_a_start_time_that_expires(slurm, site):
    block = slurm.submit("-N6", "--gpus-per-node=8", "-t", "10")
    slurm.wait(block, "RUNNING")
    waits = slurm.submit("-N1", "--gpus-per-node=8", "-t", "10")
    plan = plan_of(site, read(site), slots=5)
    assert [w.job_id for w in plan.waiting] == [waits]
    settings = SlurmSettings(lease_s=120)
    writer = SlurmWriter(settings)
    assert writer.apply(plan).failed == []
    assert not record(waits).is_held
    assert time.time() + 60 < record(waits).begin_s <= time.time() + 200
    assert record(waits).comment == "powerhall: waits for 10 kW in plant"
    assert writer.apply(plan).commands == []
    later = SlurmWriter(settings, clock=lambda: time.time() + 130)  # more than half of it is over: renewed
    before = record(waits).begin_s
    assert later.apply(plan).failed == []
    assert record(waits).begin_s > before


def test_changes_by_users_and_administrators_are_kept(slurm, site):
    block = slurm.submit("-N6", "--gpus-per-node=8", "-t", "10")
    slurm.wait(block, "RUNNING")
    names = ("start", "prio", "nodes", "lic", "hold", "gone", "cleared")
    jobs = {name: slurm.submit("-N1", "--gpus-per-node=8", "-t", "10") for name in names}
    plan = plan_of(site, read(site), slots=30)
    writer = SlurmWriter(SETTINGS)
    assert writer.apply(plan).failed == []
    slurm.run("scontrol", "update", f"jobid={jobs['start']}", "StartTime=now+7200")
    slurm.run("scontrol", "update", f"jobid={jobs['prio']}", "Priority=77")
    slurm.run("scontrol", "update", f"jobid={jobs['nodes']}", "ReqNodeList=gn12")
    slurm.run("scontrol", "update", f"jobid={jobs['lic']}", "Licenses=kw:11")
    slurm.run("scontrol", "uhold", jobs["hold"])
    slurm.run("scancel", jobs["gone"])
    slurm.run("scontrol", "update", f"jobid={jobs['cleared']}", "StartTime=now+7200", "AdminComment=")
    done = writer.apply(plan)
    assert {c.subject for c in done.commands} == {f"job {jobs['cleared']}"}
    reasons = {skipped.subject: skipped.reason for skipped in done.skipped}
    for name in ("start", "prio", "nodes", "lic"):
        assert reasons[f"job {jobs[name]}"].startswith(f"{name} was changed by somebody else")
    assert reasons[f"job {jobs['hold']}"] == "held by its user"
    assert record(jobs["prio"]).priority == 77
    assert record(jobs["nodes"]).required_nodes == "gn12"
    assert record(jobs["lic"]).licences == {"kw": 11}
    assert record(jobs["cleared"]).begin_s > time.time() + 7000  # now it is the user's own begin time
    assert writer.apply(plan).commands == []


def test_a_users_own_begin_time_and_node_list_hold(slurm, site):
    begin = int(time.time()) + 3600
    late = slurm.submit("-N1", "--gpus-per-node=8", "-t", "10", "--begin=now+3600")
    pinned = slurm.submit("-N1", "--gpus-per-node=8", "-t", "10", "--begin=now+600", "-w", "gn12")
    queue = read(site)
    jobs = tuple(msgspec.structs.replace(job, earliest_s=None) for job in queue.jobs)
    plan = plan_of(site, msgspec.structs.replace(queue, jobs=jobs))
    done = SlurmWriter(SETTINGS).apply(plan)
    assert done.failed == []
    assert record(late).begin_s == pytest.approx(begin, abs=10)
    assert record(pinned).required_nodes == "gn12"
    assert any("asks for gn12 by itself" in skipped.reason for skipped in done.skipped)


def test_a_refused_write_is_reported_with_slurms_message_and_the_others_go_on(slurm, site):
    block = slurm.submit("-N6", "--gpus-per-node=8", "-t", "10")
    slurm.wait(block, "RUNNING")
    bad = slurm.submit("-N1", "--gpus-per-node=8", "-t", "10")
    good = slurm.submit("-N1", "--gpus-per-node=8", "-t", "10")
    plan = plan_of(site, read(site), slots=30)
    wrong = [
        msgspec.structs.replace(job, gpu_power_w=99_000.0) if job.job_id == bad else job for job in plan.assignments
    ]
    done = SlurmWriter(SETTINGS).apply(msgspec.structs.replace(plan, assignments=tuple(wrong)))
    assert {c.subject for c in done.failed} == {f"job {bad}"}
    assert "Invalid license specification" in done.failed[0].error
    assert record(good).required_nodes
    mark = parse_mark(record(bad).admin_comment)
    assert mark is None or mark.pending  # never a mark that claims what was not written
    assert SlurmWriter(SETTINGS).apply(plan).failed == []  # and the next, right plan heals it
    assert record(bad).licences == {"kw": 10}


def test_a_requeued_job_is_planned_afresh_and_a_running_one_keeps_its_mode(slurm, site):
    job = slurm.submit("-N1", "--gpus-per-node=8", "-t", "10", "--requeue")
    slurm.wait(job, "RUNNING")
    settings = SlurmSettings(preempt=True, fields=msgspec.structs.replace(SETTINGS.fields, preemptible=("gpu",)))
    queue = read(site, settings)
    assert queue.jobs[0].preemptible
    eco = msgspec.structs.replace(queue, jobs=(msgspec.structs.replace(queue.jobs[0], mode="eco"),))
    writer = SlurmWriter(settings)
    assert writer.apply(plan_of(site, eco)).failed == []
    assert slurm.licences_used() == 8  # eco: 8 GPUs at 1 kW
    assert read(site, settings).jobs[0].mode == "eco"
    stopped = plan_of(site, read(site, settings), stopped=[job])
    assert writer.apply(stopped).failed == []
    slurm.wait(job, "PENDING")
    assert slurm.licences_used() == 0
    plan = plan_of(site, read(site, settings))
    assert writer.apply(plan).failed == []
    assert writer.apply(plan).commands == []


def test_release_gives_every_job_back_as_it_was_submitted(slurm, site):
    block = slurm.submit("-N6", "--gpus-per-node=8", "-t", "10")
    slurm.wait(block, "RUNNING")
    job = slurm.submit("-N1", "--gpus-per-node=8", "-t", "10")
    late = slurm.submit("-N1", "--gpus-per-node=8", "-t", "10", "--begin=now+7200")
    plan = plan_of(site, read(site), [60] * 10 + [30] * 10)
    slow = tuple(msgspec.structs.replace(one, gpu_power_w=750.0) for one in plan.assignments if not one.running)
    plan = msgspec.structs.replace(plan, assignments=tuple(one for one in plan.assignments if one.running) + slow)
    writer = SlurmWriter(SlurmSettings(hold="hold"))
    assert writer.apply(plan).failed == []
    assert {record(one.job_id).licences["kw"] for one in slow} == {6}
    assert "powerhall_kw" in slurm.run("scontrol", "-o", "show", "reservation")
    assert writer.release_all().failed == []
    for one in (job, late):
        now = record(one)
        assert (now.admin_comment, now.required_nodes, now.comment, now.is_held) == ("", "", "", False)
        assert now.licences == {"kw": 10}
    assert record(job).begin_s <= time.time()
    assert record(late).begin_s > time.time() + 7000
    assert "powerhall_kw" not in slurm.run("scontrol", "-o", "show", "reservation")
    assert writer.release_all().commands == []


def test_a_curtailment_ahead_keeps_jobs_from_starting_that_would_still_run_then(slurm, site):
    large = slurm.submit("-N4", "--gpus-per-node=8", "-t", "10", "--begin=now+5")
    small = slurm.submit("-N2", "--gpus-per-node=8", "-t", "10", "--begin=now+5")
    plan = plan_of(site, msgspec.structs.replace(read(site), jobs=()), [60] * 2 + [30] * 20)
    writer = SlurmWriter(SETTINGS)
    done = writer.apply(plan)
    assert done.failed == []
    assert [c.subject for c in done.commands] == ["budget"]
    assert writer.apply(plan).commands == []
    slurm.wait(small, "RUNNING")
    time.sleep(3)
    assert slurm.states()[large] == "PENDING"  # 40 kW fit now, but not in two minutes
    assert writer.apply(plan_of(site, read(site), stopped=[large])).failed == []  # the curtailment is called off
    left = slurm.run("scontrol", "-o", "show", "reservation")
    assert "powerhall_kw" not in left
    older = plan_of(site, read(site), [30] * 22, start_s=int(time.time()) - 120)
    with pytest.raises(Rejected, match="must not be older"):
        writer.apply(older)
    assert left.startswith("ReservationName=powerhall_newest_kw_at")
    assert writer.release_all().failed == []
    assert slurm.run("scontrol", "-o", "show", "reservation") == "No reservations in the system"


def test_a_reservation_that_has_just_ended_by_itself_is_no_failure(slurm, monkeypatch):
    gone = Curtailment(0, int(time.time()) + 60, 5, "powerhall_kw_1")
    monkeypatch.setattr(SlurmWriter, "_reserved", lambda self, settings: [gone])
    done = SlurmWriter(SETTINGS).release_all()
    assert [(c.text, c.error) for c in done.commands] == [("scontrol delete ReservationName=powerhall_kw_1", "")]


def test_a_job_gets_its_power_level_in_its_environment(slurm, site):
    folder = slurm.folder / "levels"
    writer = SlurmWriter(SlurmSettings(level_dir=str(folder)))
    out = slurm.folder / "log" / "level"
    wrap = f"echo $POWERHALL_MODE $POWERHALL_GPU_POWER_W >{out}.part; mv {out}.part {out}"
    job = slurm.run(
        *("sbatch", "--parsable", "-D", "/", "-o", "/dev/null", "-N1", "--gpus-per-node=8", "-t", "5"),
        *("--begin=now+6", "--wrap", wrap),  # the level is written before
    )
    plan = plan_of(site, read(site), mode="eco", slot_s=1, slots=600)
    assert writer.apply(plan).failed == []
    assert writer.apply(plan).commands == []
    assert (folder / job).read_text() == "POWERHALL_MODE=eco\nPOWERHALL_GPU_POWER_W=1000\n"
    slurm.wait(job, "COMPLETED")
    assert out.read_text() == "eco 1000\n"
    empty = plan_of(site, read(site))
    assert any(c.text.startswith("remove ") for c in writer.apply(empty).commands)
    assert not (folder / job).exists()


def test_nodes_that_the_plan_leaves_idle_are_powered_down_and_come_up_for_their_job(slurm, site):
    settings = SlurmSettings(power_save_s=1800, resume_lead_s=600)
    keep = slurm.submit("-N11", "--gpus-per-node=1", "-t", "10")
    slurm.wait(keep, "RUNNING")
    idle = (set(slurm.nodes) - {n for job in read(site).jobs for n in expand(job.nodes)}).pop()
    try:
        done = SlurmWriter(settings).apply(plan_of(site, read(site)))
        assert [c.text for c in done.commands if "nodename" in c.text] == [
            f"scontrol update nodename={idle} state=power_down"
        ]
        assert done.failed == []
        wait_for(lambda: f"suspend {idle}" in power_log(slurm))
        wait_for(lambda: "POWERED_DOWN" in states_of(slurm)[idle], 30)
        assert idle not in read(site).down_nodes  # it can be powered up
        job = slurm.submit("-N1", "--gpus-per-node=8", "-t", "10", "--begin=now+300")
        plan = plan_of(site, read(site), slot_s=10, slots=180)
        assert {a.job_id: a.placements[0].nodes for a in plan.assignments}[job] == idle
        done = SlurmWriter(settings).apply(plan)
        assert f"scontrol update nodename={idle} state=power_up" in [c.text for c in done.commands]
        assert done.failed == []
        wait_for(lambda: f"resume {idle}" in power_log(slurm), 40)
    finally:
        slurm.run("scontrol", "update", f"nodename={idle}", "state=power_up", check=False)
        wait_for(
            lambda: states_of(slurm)[idle] & {"IDLE", "PLANNED"} and "POWERING_UP" not in states_of(slurm)[idle], 60
        )


def states_of(slurm):
    return {node.name: node.states for node in parse_nodes(slurm.run("sinfo", "--json"))}


def power_log(slurm):
    log = slurm.folder / "log" / "power"
    return log.read_text() if log.exists() else ""


def wait_for(is_so, seconds=20):
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.2)
