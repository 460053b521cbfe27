"""Job intervals from control groups, environments and plain processes."""

import os
import pathlib
import time

import pytest

from powerhall_agent.attribution.collect import Attribution, user_hasher
from powerhall_agent.attribution.device_ids import find_device
from powerhall_agent.attribution.intervals import IntervalTracker
from powerhall_agent.base.gpu_snapshot import GpuSnapshot, Holder, MigSlice
from rigs.job_host import gpus

STATIC = "0123456789abcdef0123456789abcdef"
POD = "11111111-2222-3333-4444-555555555555"


def names(found):
    return {gpu: [holder.job for holder in holders] for gpu, holders in found.items() if holders}


@pytest.mark.parametrize(
    ("cgroup", "job"),
    [
        ("0::/system.slice/slurmstepd.scope/job_4711/step_0/user/task_0", "4711"),
        ("5:devices:/slurm/uid_1000/job_42/step_batch", "42"),
        (f"0::/kubepods.slice/kubepods-pod{POD.replace('-', '_')}.slice/cri-abc.scope", f"pod:{POD}"),
        (f"0::/kubepods/burstable/pod{POD}/abc", f"pod:{POD}"),
        (f"0::/../../pod{POD}/abc", f"pod:{POD}"),  # seen from a control group namespace of the agent's own
        ("0::/kubepods.slice/kubepods-pod0123456789abcdef0123456789abcdef.slice/crio-1.scope", f"pod:{STATIC}"),
        (f"0::/user.slice/user-1000.slice/user@1000.service/kubepods/pod{POD}/x", "process:python:7"),
        (f"0::/kubepods.slice/kubepods-pod{POD.replace('-', '_')}.slice/cri-1.scope/slurm/job_1", f"pod:{POD}"),
        ("0::/machine.slice/libpod-0123456789abcdef.scope/container", "process:python:7"),
        ("0::/user.slice/session-1.scope", "process:python:7"),
    ],
)
def test_process_leads_to_its_job(host, cgroup, job):
    host.process(7, cgroup)
    assert names(host.jobs().holders(gpus(pids=(7,)))) == {0: [job]}


def test_environment_names_the_slurm_job_where_the_control_group_does_not(host):
    host.process(7, environ={"SLURM_JOB_ID": "99"})
    assert names(host.jobs().holders(gpus(pids=(7,)))) == {0: ["99"]}


@pytest.mark.parametrize("written", ["../../x\ny", "", "pod:x", "99,98"])
def test_an_environment_without_a_job_id_names_no_job(host, written):
    host.process(7, environ={"SLURM_JOB_ID": written})
    assert names(host.jobs().holders(gpus(pids=(7,)))) == {0: ["process:python:7"]}


SLUID = "s3VZG2A7KQ0M4T"


@pytest.mark.parametrize(
    ("cgroup", "job"),
    [
        ("0::/system.slice/gn01_slurmstepd.scope/job_12/step_batch/user/task_0", "12"),  # Debian: several slurmds
        ("0::/slurm.slice/gx10-ac12_slurmstepd.scope/job_13/step_0/user/task_0", "13"),
        ("7:devices:/slurm_gn01/uid_1000/job_14/step_0/task_0", "14"),
        ("4:memory:/slurm_gn-01.example/uid_0/job_15/step_batch", "15"),
        (f"0::/system.slice/slurmstepd.scope/{SLUID}/step_0/user/task_0", "16"),  # 26.05
        (f"0::/system.slice/gn01_slurmstepd.scope/{SLUID}/step_batch/user/task_special", "16"),
        ("12:pids:/user.slice/job_17\n0::/system.slice/slurmstepd.scope/job_18/step_0/user/task_0", "18"),
        ("0::/user.slice/user-1000.slice/my_slurm_tests/job_19", "process:python:7"),
        (
            "0::/system.slice/slurmstepd.scope/job_20/step_0/user/task_0/slurmstepd.scope/job_1/x",
            "20",
        ),  # made by the job
    ],
)
def test_every_layout_of_slurms_control_groups_leads_to_the_job(host, cgroup, job):
    host.process(7, cgroup, environ={"SLURM_JOB_ID": "16"} if SLUID in cgroup else None)
    assert names(host.jobs().holders(gpus(pids=(7,)))) == {0: [job]}


def test_a_sluid_is_told_by_the_title_of_its_stepd_where_environments_are_closed(host):
    scope = f"system.slice/gn01_slurmstepd.scope/{SLUID}"
    host.slurm(scope, pids=(70,))
    host.process(7, f"0::/{scope}/step_0/user/task_0")
    host.process(70, f"0::/{scope}/step_0/slurm", comm="slurmstepd")
    (host.proc / "70/cmdline").write_bytes(b"slurmstepd: [4711.0]\0")
    jobs = host.jobs()
    assert names(jobs.holders(gpus(pids=(7,)))) == {0: ["4711"]}
    (host.proc / "70/cmdline").unlink()  # its step has ended: the id is remembered
    assert names(jobs.holders(gpus(pids=(7,)))) == {0: ["4711"]}


def test_a_sluid_that_nobody_explains_is_the_job(host):
    host.process(7, f"0::/system.slice/slurmstepd.scope/{SLUID}/step_0/user/task_0")
    assert names(host.jobs().holders(gpus(pids=(7,)))) == {0: [SLUID]}


@pytest.mark.parametrize(
    "path",
    [
        "devices/slurm_gn01/uid_1000/job_5",
        "slurm_gn01/uid_1000/job_5",
        "system.slice/gn01_slurmstepd.scope/job_5",
        "slurm.slice/slurmstepd.scope/job_5",
        "machine.slice/slurm-a.slice/gn01_slurmstepd.scope/job_5",
        f"system.slice/gn01_slurmstepd.scope/{SLUID}",
    ],
)
def test_an_idle_job_is_found_in_every_layout(host, path):
    host.slurm(path, pids=(70,))
    host.process(70, environ={"SLURM_JOB_ID": "5", "SLURM_JOB_GPUS": "1,MIG-7"})
    present = gpus()
    present[3] = GpuSnapshot("GPU-3", "00000000:03:00.0", (), 0.0, ("MIG-7",))
    found = host.jobs().holders(present)
    assert names(found) == {1: ["5"], 3: ["5"]}
    assert found[3][0].instances == {"MIG-7"}


def test_an_idle_job_is_its_users_and_not_slurmstepds(host):
    scope = "system.slice/slurmstepd.scope/job_5"
    for pid, group in ((70, "slurm"), (71, "user/task_0")):
        folder = host.cgroup / scope / "step_0" / group
        folder.mkdir(parents=True)
        (folder / "cgroup.procs").write_text(f"{pid}\n")
    host.process(70, comm="slurmstepd")
    host.process(71, environ={"SLURM_JOB_ID": "5", "SLURM_JOB_GPUS": "1"})
    try:
        os.chown(host.proc / "71", 1234, -1)
    except PermissionError:
        pytest.skip("only root gives files away")
    assert host.jobs(str).holders(gpus())[1][0].user == 1234


def test_control_groups_that_end_while_they_are_listed_cost_themselves_alone(host, monkeypatch):
    host.slurm("system.slice/slurmstepd.scope/job_5", pids=(70,))
    host.process(70, environ={"SLURM_JOB_ID": "5", "SLURM_JOB_GPUS": "1"})
    host.process(7)
    plain = pathlib.Path.glob

    def ends_meanwhile(path, pattern):
        yield from plain(path, pattern)
        raise FileNotFoundError(pattern)

    monkeypatch.setattr(pathlib.Path, "glob", ends_meanwhile)
    assert names(host.jobs().holders(gpus(pids=(7,)))) == {0: ["process:python:7"], 1: ["5"]}


def test_two_slurmds_on_a_host_have_jobs_of_their_own(host):
    for number, node in ((5, "gn01"), (6, "gn02")):
        host.slurm(f"system.slice/{node}_slurmstepd.scope/job_{number}", pids=(60 + number,))
        host.process(60 + number, environ={"SLURM_JOB_ID": str(number), "SLURM_JOB_GPUS": str(number - 5)})
    assert names(host.jobs().holders(gpus())) == {0: ["5"], 1: ["6"]}


UUID = "be6e8706-1ee7-9ce9-7c5e-80ebf0f66714"


@pytest.mark.parametrize(
    ("device", "place"),
    [
        (f"GPU-{UUID}", (0, "")),
        (f"GPU-{UUID}::0", (0, "")),
        (f"GPU-{UUID}::11", (0, "")),
        (f"GPU-{UUID}-3", (0, "")),
        ("MIG-7", (1, "MIG-7")),
        ("MIG-7::2", (1, "MIG-7")),
        ("nvidia0", (0, "")),
        ("nvidia1", (1, "")),
        ("nvidia0/vgpu1", (0, "")),
        ("nvidia1/gi5", (1, "MIG-7")),
        ("nvidia1/gi5/vgpu0", (1, "MIG-7")),
        ("nvidia1/gi6", (1, "")),
        ("gpu-1", (1, "")),
        (f"MIG-GPU-{UUID}/5/0", (0, "")),
        ("gpu-1-mig-19-0-1", (1, "")),
        ("nvidia2", None),
        ("nvidia", None),
        ("GPU-other", None),
        ("nvidia01x", None),
        ("", None),
        ("::0", None),
    ],
)
def test_device_ids_of_every_plugin_are_found(host, device, place):
    present = {
        0: GpuSnapshot(f"GPU-{UUID}", "00000000:17:00.0", (), 0.0),
        1: GpuSnapshot("GPU-b", "00000000:2A:00.0", (), 0.0, ("MIG-7",), {"MIG-7": MigSlice(5)}),
    }
    assert find_device(device, present, host.jobs().minor_of) == place


def test_idle_job_holds_the_gpus_that_its_control_group_may_open(host):
    host.slurm("devices/slurm/uid_1000/job_5", devices="c 195:1 rw\nc 195:3 rw\nc 195:255 rw\nc 1:3 rwm\n")
    assert names(host.jobs().holders(gpus())) == {1: ["5"], 3: ["5"]}


def test_device_minor_is_looked_up_where_it_differs_from_the_index(host):
    folder = host.proc / "driver/nvidia/gpus/0000:02:00.0"
    folder.mkdir(parents=True)
    (folder / "information").write_text("Model: X\nDevice Minor: \t 7\n")
    host.slurm("devices/slurm/uid_0/job_5", devices="c 195:7 rw\n")
    assert names(host.jobs().holders(gpus())) == {2: ["5"]}


def test_idle_job_of_version_two_is_found_by_its_environment(host):
    host.slurm("system.slice/slurmstepd.scope/job_6", pids=(70,))
    host.process(70, environ={"SLURM_JOB_ID": "6", "SLURM_JOB_GPUS": "0,2-3"})
    assert names(host.jobs().holders(gpus())) == {0: ["6"], 2: ["6"], 3: ["6"]}


@pytest.mark.parametrize("written", ["0-999999999999999999", "0-9999999,2", "²,0-x,-1,2-,5-2", "9" * 5000 + ",2", ","])
def test_whatever_a_job_writes_into_its_environment_costs_no_time(host, written):
    """The variables of a process are its owner's."""
    host.slurm("system.slice/slurmstepd.scope/job_6", pids=(70,))
    host.process(70, environ={"SLURM_JOB_ID": "6", "SLURM_JOB_GPUS": written})
    began_s = time.monotonic()
    host.jobs().holders(gpus())
    assert time.monotonic() - began_s < 1.0


def test_unreadable_process_is_no_job(host):
    assert names(host.jobs().holders(gpus(pids=(12345,)))) == {}


def test_users_are_stored_as_salted_hashes_only(host, tmp_path):
    salt = tmp_path / "salt"
    salt.write_text("pepper\n")
    host.slurm("devices/slurm/uid_1000/job_5", devices="c 195:1 rw\n")
    (holder,) = host.jobs(user_hasher(str(salt))).holders(gpus())[1]
    assert len(holder.user_hash) == 16
    assert holder.user_hash == user_hasher(str(salt))(1000)
    salt.write_text("other\n")
    assert holder.user_hash != user_hasher(str(salt))(1000)
    assert user_hasher("")(1000) == ""


def test_interval_has_start_end_and_energy():
    intervals = IntervalTracker()
    holder = {0: [Holder("1")]}
    (begun,) = intervals.observe(100, gpus(energy_j=1000), holder)
    assert (begun.start_s, begun.end_s, begun.uuid) == (100, 0, "GPU-0")
    assert intervals.observe(110, gpus(energy_j=3000), holder) == []
    assert intervals.observe(120, gpus(energy_j=4000), {}) == []
    assert intervals.observe(130, gpus(energy_j=4000), {}) == []
    (ended,) = intervals.observe(140, gpus(energy_j=4500), {})
    assert (ended.start_s, ended.end_s, ended.energy_j) == (100, 140, 3500)


def test_a_job_gets_no_energy_of_another_gpu_in_the_place_of_its_own():
    tracker, held = IntervalTracker(), {0: [Holder("7")]}
    first, other = ({0: GpuSnapshot(f"GPU-{n}", "0", (), joules)} for n, joules in ((1, 100.0), (2, 5e9)))
    tracker.observe(10.0, first, held)
    ended, begun = tracker.observe(15.0, other, held)
    assert (ended.uuid, ended.end_s, ended.energy_j) == ("GPU-1", 15.0, 0.0)
    assert (begun.uuid, begun.start_s) == ("GPU-2", 15.0)
    assert begun.time_ms > ended.time_ms
    tracker.observe(20.0, {0: GpuSnapshot("GPU-2", "0", (), 5e9 + 40.0)}, held)
    assert begun.energy_j == 40.0


def test_interval_continues_after_one_missed_observation():
    intervals = IntervalTracker()
    intervals.observe(100, gpus(), {0: [Holder("1")]})
    assert intervals.observe(105, gpus(), {}) == []
    assert intervals.observe(110, gpus(), {0: [Holder("1")]}) == []


def test_running_interval_is_shown_again_every_five_minutes():
    intervals = IntervalTracker()
    shown = [bool(intervals.observe(now, gpus(), {0: [Holder("1")]})) for now in range(0, 700, 100)]
    assert shown == [True, False, False, True, False, False, True]


def test_point_of_an_interval_is_replaced_by_its_end(host):
    host.process(7, "0::/system.slice/slurmstepd.scope/job_9/step_0")
    present = {"pids": (7,)}
    attribution = Attribution({"node": "n"}, host.jobs(), lambda: gpus(**present), kubelet=host.proc / "none")
    (begun,) = attribution.observe(1000.0)
    present["pids"] = ()
    ended = [record for now in (1005, 1010, 1015) for record in attribution.observe(now)]
    assert (begun.time_ms, begun.fields["end_s"]) == (1_000_000, 0.0)
    assert [(record.time_ms, record.fields["end_s"]) for record in ended] == [(1_000_000, 1015)]
    assert begun.series.tags == {"node": "n", "gpu": "0"}
    assert b'job="9"' in begun.line()
