"""Intervals of jobs over restarts of the sampler: gone on with, none lost, none with energy that is not its own."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from powerhall_agent.attribution.collect import Attribution
from powerhall_agent.attribution.intervals import IntervalTracker
from powerhall_agent.attribution.kept_jobs import KeptGpu, KeptJobs
from powerhall_agent.base.gpu_snapshot import GpuSnapshot, Holder
from rigs.job_host import gpus

NOW_S = 1_700_000_000.0


def snapshot(energy_j, uuid="GPU-0"):
    return {0: GpuSnapshot(uuid, "00000000:01:00.0", (), energy_j)}


class Node:
    """A node whose sampler can be started again; `rows` is what the store has, by the time of the point."""

    def __init__(self):
        self.tracker, self.file, self.rows = IntervalTracker(), [], {}

    def restart(self, *, same_boot=True):
        self.tracker = IntervalTracker()
        self.tracker.resume(self.file, same_boot=same_boot)

    def observe(self, now_s, jobs, energy_j, uuid="GPU-0"):
        holders = {0: [Holder(job) for job in jobs]}
        changed = self.tracker.observe(now_s, snapshot(energy_j, uuid) if energy_j is not None else {}, holders)
        self.rows |= {one.time_ms: (one.holder.job, one.start_s, one.end_s, one.energy_j) for one in changed}
        if changed:
            self.file = self.tracker.kept(now_s)

    def row(self, job):
        (found,) = [row for row in self.rows.values() if row[0] == job]
        return found


@given(st.sets(st.integers(1, 150)), st.integers(0, 4))
def test_a_job_that_holds_its_gpu_over_restarts_has_one_interval_with_all_of_its_energy(restarts, blind):
    node = Node()
    for step in range(160):
        if step in restarts:
            node.restart()
            for early in range(blind):  # the driver, then the processes, are not seen at once
                node.observe(5.0 * step + early, [], 3500.0 * step if early > 1 else None)
        node.observe(5.0 * step + 4.9, ["1"], 3500.0 * step)
    for step in range(160, 163):
        node.observe(5.0 * step, [], 3500.0 * 160)
    job, start_s, end_s, energy_j = node.row("1")
    assert (job, start_s, end_s) == ("1", 4.9, 5.0 * 162)
    assert energy_j == pytest.approx(3500.0 * 160)


@given(
    st.lists(st.tuples(st.sets(st.sampled_from("abc")), st.integers(0, 5000), st.booleans()), min_size=1, max_size=60)
)
def test_intervals_never_sum_up_to_more_than_their_gpu_used(steps):
    node, energy_j = Node(), 1e6
    for number, (jobs, rise_j, restarts) in enumerate(steps):
        if restarts:
            node.restart()
        energy_j += rise_j
        node.observe(5.0 * number, sorted(jobs), energy_j)
    shown_j = sum(row[3] for row in node.rows.values())
    assert shown_j <= energy_j - 1e6 + 1e-6
    assert all(row[2] == 0.0 or row[2] >= row[1] for row in node.rows.values())


def test_what_ended_while_no_sampler_ran_ends_when_it_was_kept_and_gets_nothing_of_what_came_after():
    node = Node()
    for step in range(70):
        node.observe(5.0 * step, ["1", "2"], 1000.0 * step)
    node.restart()
    for step in range(100, 104):
        node.observe(5.0 * step, ["2", "3"], 1000.0 * step)
    kept_s = 300.0  # the last time that they were written
    assert node.row("1")[1:3] == (0.0, kept_s)
    assert node.row("1")[3] == pytest.approx(30_000.0)
    node.observe(1000.0, ["2", "3"], 200_000.0)
    assert node.row("2")[2] == 0.0
    assert node.row("2")[3] == pytest.approx(30_000.0 + (102 - 60) * 1000.0 + 98_000.0 / 2)
    assert node.row("3")[1] == 510.0


@pytest.mark.parametrize("uuid", ["GPU-0", "GPU-another"])
def test_after_a_reboot_and_on_another_gpu_all_have_ended(uuid):
    node = Node()
    node.observe(0.0, ["1"], 100.0)
    node.observe(300.0, ["1"], 5000.0)
    node.restart(same_boot=uuid != "GPU-0")
    node.observe(400.0, ["1"], 9000.0, uuid)
    rows = sorted(node.rows.values(), key=lambda row: row[1])
    assert rows == [("1", 0.0, 300.0, 4900.0), ("1", 400.0, 0.0, 0.0)]


def test_a_gpu_that_never_answers_again_ends_its_intervals():
    node = Node()
    node.observe(10.0, ["1"], 100.0)
    node.restart()
    for step in range(3, 15):
        node.observe(5.0 * step, [], None)
    assert node.row("1")[1:] == (10.0, 10.0, 0.0)
    assert not list(node.tracker.energies())


def attribution(host, folder, now, boot=1):
    kept = KeptJobs(folder, "gn/01", boot)
    return Attribution({"node": "n"}, host.jobs(), lambda: now[0], kubelet=Path("/nowhere"), kept=kept)


def test_the_file_carries_a_slurm_job_over_a_killed_sampler(host, tmp_path):
    host.process(7, "0::/system.slice/slurmstepd.scope/job_9/step_0")
    now = [gpus(pids=(7,), energy_j=100.0)]
    (begun,) = attribution(host, tmp_path, now).observe(NOW_S)
    now[0] = gpus(pids=(7,), energy_j=50_100.0)
    second = attribution(host, tmp_path, now)
    assert second.observe(NOW_S + 60.0) == [], "it goes on"
    now[0] = gpus(energy_j=50_100.0)
    (ended,) = [record for step in range(1, 4) for record in second.observe(NOW_S + 60.0 + 5.0 * step)]
    assert (ended.time_ms, ended.fields["energy_j"]) == (begun.time_ms, 50_000.0)
    assert attribution(host, tmp_path, now, boot=2).observe(NOW_S + 90.0) == []


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"boot": 1}', b"\xff" * 9, None])
def test_a_damaged_file_and_a_folder_that_cannot_be_written_cost_nothing_else(host, tmp_path, damage, capsys):
    (tmp_path / "file").touch()
    folder = tmp_path if damage is not None else tmp_path / "file"
    if damage is not None:
        (tmp_path / "gn_01.jobs.json").write_bytes(damage)
    host.process(7, "0::/system.slice/slurmstepd.scope/job_9/step_0")
    now = [gpus(pids=(7,), energy_j=100.0)]
    assert len(attribution(host, folder, now).observe(NOW_S)) == 1
    said = capsys.readouterr().err
    assert said.count("jobs_not_resumed" if damage is not None else "jobs_not_kept") == 1
    if damage is not None:
        kept, same_boot = KeptJobs(tmp_path, "gn/01", 1).read()
        assert same_boot
        assert [type(one) for one in kept] == [KeptGpu] * 4
