"""Jobs that share a GPU: each has a row, and their energies sum up to the board's."""

import itertools
from types import SimpleNamespace

import pynvml
import pytest
from hypothesis import given
from hypothesis import strategies as st

from powerhall.store import Query, Select, open_store
from powerhall_agent.attribution import collect
from powerhall_agent.attribution.collect import Attribution
from powerhall_agent.attribution.energy_split import split
from powerhall_agent.attribution.host import HostJobs
from powerhall_agent.attribution.intervals import IntervalTracker
from powerhall_agent.base.gpu_snapshot import GpuSnapshot, Holder, MigSlice
from powerhall_agent.collectors.gpu_slow import GpuSlow

GIB = 1 << 30
MIGS = {
    "MIG-1": MigSlice(1, (11,), 40 * GIB, 90.0),
    "MIG-2": MigSlice(2, (12,), 20 * GIB, 0.0),
    "MIG-3": MigSlice(3, (), 20 * GIB, 50.0),
}


def gpu(energy_j=0.0, pids=(), slices=None, usage=None):
    slices = slices or {}
    return GpuSnapshot("GPU-x", "00000000:17:00.0", pids, energy_j, tuple(slices), slices, usage or {})


def test_three_pods_on_three_instances_are_three_rows_in_the_store(tmp_path, monkeypatch):
    for name in ("sock", "proc", "cgroup"):
        (tmp_path / name).mkdir()
    pods = {"MIG-1": "ml/train-a", "MIG-2": "ml/train-b", "MIG-3": "ml/serve-c"}
    monkeypatch.setattr(collect, "list_pods", lambda _: dict(pods))
    now = {0: gpu(slices=MIGS)}
    host = HostJobs(lambda _: "", proc=tmp_path / "proc", cgroup=tmp_path / "cgroup")
    attribution = Attribution({"node": "n", "site": "s"}, host, lambda: now, tmp_path / "sock")
    store = open_store(f"sqlite:///{tmp_path}/t.db")
    for time_s, energy_j in ((0, 0.0), (300, 90_000.0), (600, 180_000.0), (610, 180_000.0), (620, 180_000.0)):
        now[0] = gpu(energy_j, slices=MIGS)
        if time_s == 600:
            pods.clear()
        for record in attribution.observe(1_700_000_000.0 + time_s):
            store.write(record.line())
    columns = [Select(name) for name in ("job", "start_s", "end_s", "energy_j", "energy_split", "instances")]
    rows = store.query(Query("job_interval", tuple(columns)), 1_699_999_999.0, 1_700_001_000.0)
    store.close()
    found = {row.values["job"]: row.values for row in rows}
    assert set(found) == {"ml/train-a", "ml/train-b", "ml/serve-c"}
    assert {values["start_s"] for values in found.values()} == {1_700_000_000.0}
    assert {values["end_s"] for values in found.values()} == {1_700_000_620.0}
    assert sum(values["energy_j"] for values in found.values()) == pytest.approx(180_000.0, rel=1e-3)
    assert {values["energy_split"] for values in found.values()} == {"mig_activity"}
    assert found["ml/train-a"]["instances"] == "MIG-1"
    assert found["ml/train-a"]["energy_j"] > found["ml/serve-c"]["energy_j"] > found["ml/train-b"]["energy_j"] > 0


PODS = {"GPU-x::0": "ml/a", "GPU-x::1": "ml/b"}
UIDS = {"ml/a": "11111111-2222-3333-4444-555555555555", "ml/b": "66666666-7777-8888-9999-aaaaaaaaaaaa"}


@pytest.mark.parametrize("knows_uids", [True, False])
def test_pods_that_share_a_gpu_are_split_by_their_processes_where_the_kubelets_folders_name_them(
    tmp_path, monkeypatch, knows_uids
):
    for name in ("sock", "proc", "cgroup", "pods"):
        (tmp_path / name).mkdir()
    for pid, pod in ((7, "ml/a"), (8, "ml/b"), (9, "ml/b")):
        folder = tmp_path / "proc" / str(pid)
        folder.mkdir()
        (folder / "cgroup").write_text(
            f"0::/kubepods.slice/kubepods-pod{UIDS[pod].replace('-', '_')}.slice/cri-x.scope\n"
        )
        (folder / "comm").write_text("python\n")
    for pod, uid in UIDS.items() if knows_uids else ():
        (tmp_path / "pods" / f"{pod.replace('/', '_')}_{uid}").mkdir()
    (tmp_path / "pods" / "README").touch()
    monkeypatch.setattr(collect, "list_pods", lambda _: PODS)
    now = {}
    host = HostJobs(lambda _: "", proc=tmp_path / "proc", cgroup=tmp_path / "cgroup")
    attribution = Attribution({"node": "n"}, host, lambda: now, tmp_path / "sock", tmp_path / "pods")
    for time_s, energy_j in ((0.0, 0.0), (300.0, 1000.0)):
        now[0] = gpu(energy_j, pids=(7, 8, 9), usage={7: 10.0, 8: 20.0, 9: 10.0})
        records = attribution.observe(time_s)
    found = {record.fields["job"]: (record.fields["energy_j"], record.fields["energy_split"]) for record in records}
    by_use = {"ml/a": (250.0, "process_utilization"), "ml/b": (750.0, "process_utilization")}
    assert found == (by_use if knows_uids else {"ml/a": (500.0, "equal"), "ml/b": (500.0, "equal")})


def test_the_server_of_mps_is_no_job(tmp_path):
    for name in ("proc", "cgroup"):
        (tmp_path / name).mkdir()
    for pid, comm in ((7, "python"), (8, "nvidia-cuda-mps"), (9, "python")):  # the kernel keeps 15 characters
        folder = tmp_path / "proc" / str(pid)
        folder.mkdir()
        (folder / "cgroup").write_text("0::/user.slice\n")
        (folder / "comm").write_text(f"{comm}\n")
    host = HostJobs(lambda _: "", proc=tmp_path / "proc", cgroup=tmp_path / "cgroup")
    found = host.holders({0: gpu(pids=(7, 8, 9))})
    assert [holder.job for holder in found[0]] == ["process:python:7", "process:python:9"]


def test_mig_is_split_by_activity_and_memory():
    holders = [Holder("a", instances=frozenset({"MIG-1"})), Holder("b", instances=frozenset({"MIG-2", "MIG-3"}))]
    shares, how = split(gpu(slices=MIGS), holders)
    weights = 40 * (0.2 + 0.8 * 0.9), 20 * 0.2 + 20 * (0.2 + 0.8 * 0.5)
    assert how == "mig_activity"
    assert shares == pytest.approx([weights[0] / sum(weights), weights[1] / sum(weights)])


def test_mig_before_hopper_is_split_by_memory():
    slices = {uuid: MigSlice(one.number, one.pids, one.memory_bytes) for uuid, one in MIGS.items()}
    holders = [Holder("a", instances=frozenset({"MIG-1"})), Holder("b", instances=frozenset({"MIG-2"}))]
    assert split(gpu(slices=slices), holders) == (pytest.approx([2 / 3, 1 / 3]), "mig_memory")


def test_holders_of_one_instance_share_it_equally():
    one = frozenset({"MIG-1"})
    assert split(gpu(slices=MIGS), [Holder("a", instances=one), Holder("b", instances=one)]) == ([0.5, 0.5], "equal")


def test_processes_are_split_by_their_utilization():
    holders = [Holder("a", pids=frozenset({1, 2})), Holder("b", pids=frozenset({3})), Holder("c", pids=frozenset({4}))]
    shares, how = split(gpu(usage={1: 30.0, 2: 15.0, 3: 15.0}), holders)
    assert (shares, how) == (pytest.approx([0.75, 0.25, 0.0]), "process_utilization")
    assert split(gpu(), holders) == (pytest.approx([1 / 3] * 3), "equal")
    assert split(gpu(usage={3: 15.0}), holders[:1]) == ([1.0], "whole")


JOBS = st.lists(st.sets(st.integers(0, 4), max_size=5), min_size=2, max_size=12)


@given(JOBS, st.lists(st.floats(0.0, 1e5), min_size=12, max_size=12), st.randoms())
def test_the_energies_of_all_intervals_sum_up_to_the_boards(steps, used, rng):
    """Whoever comes and goes; time and energy move on at every step, the sum is taken from outside."""
    tracker, ended, energy_j, held_j = IntervalTracker(), {}, 1e6, 0.0
    is_held = False
    for number, (jobs, used_j) in enumerate(zip([*steps, set(), set(), set()], itertools.cycle(used), strict=False)):
        energy_j += used_j
        held_j += used_j if is_held else 0.0
        usage = {job: rng.uniform(0.0, 100.0) for job in jobs} if rng.random() < 0.7 else {}
        holders = [Holder(f"j{job}", pids=frozenset({job})) for job in sorted(jobs)]
        changed = tracker.observe(1000.0 + 5 * number, {0: gpu(energy_j, usage=usage)}, {0: holders})
        is_held = any(interval for interval in tracker._gpus[0].open)
        for interval in changed:
            ended[interval.time_ms] = interval
    assert not is_held
    assert sum(interval.energy_j for interval in ended.values()) == pytest.approx(held_j, rel=1e-9, abs=1e-6)
    assert all(interval.end_s > 0.0 for interval in ended.values())
    starts = [(interval.start_s, interval.time_ms) for interval in ended.values()]
    assert all(0 <= time_ms - 1000 * start_s < 5 for start_s, time_ms in starts)


def test_a_counter_that_goes_back_takes_no_energy_away():
    tracker = IntervalTracker()
    holders = {0: [Holder("a"), Holder("b")]}
    for time_s, energy_j in ((0, 1000.0), (5, 2000.0), (10, 0.0), (15, 500.0)):
        tracker.observe(time_s, {0: gpu(energy_j)}, holders)
    for time_s in (20, 25, 30):
        ended = tracker.observe(time_s, {0: gpu(500.0)}, {})
    assert [interval.energy_j for interval in ended] == [750.0, 750.0]


@pytest.mark.parametrize("answer", ["samples", "none"])
def test_the_drivers_utilization_of_processes_is_averaged(monkeypatch, answer):
    def get(handle, since_us):
        if answer == "none":
            raise pynvml.NVMLError(pynvml.NVML_SUCCESS)  # the library's word for no samples
        rows = [(7, 100, 30), (7, 200, 50), (8, 200, 10), (9, 50, 4294967295), (7, since_us, 99)]
        return [SimpleNamespace(pid=pid, timeStamp=time_us, smUtil=util) for pid, time_us, util in rows]

    monkeypatch.setattr(pynvml, "nvmlDeviceGetProcessUtilization", get)
    slow = GpuSlow.__new__(GpuSlow)
    slow._gpu, slow._usage_until_us = SimpleNamespace(handle=None), 0
    assert slow._usage_of_processes() == ({} if answer == "none" else {7: 40.0, 8: 10.0})
    assert slow._usage_until_us == (0 if answer == "none" else 200)
