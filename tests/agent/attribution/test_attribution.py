"""Job intervals from control groups, environments, the kubelet and plain processes."""

import socket
import struct
import threading

import pytest

from powerhall.runtime.errors import Retryable
from powerhall_agent.attribution.collect import Attribution, user_hasher
from powerhall_agent.attribution.host import HostJobs
from powerhall_agent.attribution.intervals import GpuSnapshot, Holder, IntervalTracker
from powerhall_agent.attribution.pod_resources import list_pods, parse_pods

POD = "11111111-2222-3333-4444-555555555555"


def gpus(count=4, pids=(), energy_j=0.0):
    return {
        gpu: GpuSnapshot(f"GPU-{gpu}", f"00000000:{gpu:02X}:00.0", pids if gpu == 0 else (), energy_j)
        for gpu in range(count)
    }


class Host:
    """A /proc and a /sys/fs/cgroup of files."""

    def __init__(self, root):
        self.proc, self.cgroup = root / "proc", root / "cgroup"
        self.proc.mkdir()
        self.cgroup.mkdir()

    def process(self, pid, cgroup="0::/", comm="python", environ=None):
        folder = self.proc / str(pid)
        folder.mkdir()
        (folder / "cgroup").write_text(cgroup + "\n")
        (folder / "comm").write_text(comm + "\n")
        if environ is not None:
            (folder / "environ").write_bytes(b"\0".join(f"{k}={v}".encode() for k, v in environ.items()) + b"\0")

    def slurm(self, path, pids=(), devices=None):
        folder = self.cgroup / path
        (folder / "step_0").mkdir(parents=True)
        (folder / "cgroup.procs").write_text("")
        (folder / "step_0" / "cgroup.procs").write_text("".join(f"{pid}\n" for pid in pids))
        if devices is not None:
            (folder / "devices.list").write_text(devices)

    def jobs(self, user_hash=lambda _: ""):
        return HostJobs(user_hash, self.proc, self.cgroup)


@pytest.fixture
def host(tmp_path):
    return Host(tmp_path)


def names(found):
    return {gpu: [holder.job for holder in holders] for gpu, holders in found.items() if holders}


@pytest.mark.parametrize(
    ("cgroup", "job"),
    [
        ("0::/system.slice/slurmstepd.scope/job_4711/step_0/user/task_0", "4711"),
        ("5:devices:/slurm/uid_1000/job_42/step_batch", "42"),
        (f"0::/kubepods.slice/kubepods-pod{POD.replace('-', '_')}.slice/cri-abc.scope", f"pod:{POD}"),
        (f"0::/kubepods/burstable/pod{POD}/abc", f"pod:{POD}"),
        ("0::/user.slice/session-1.scope", "process:python:7"),
    ],
)
def test_process_leads_to_its_job(host, cgroup, job):
    host.process(7, cgroup)
    assert names(host.jobs().holders(gpus(pids=(7,)))) == {0: [job]}


def test_environment_names_the_slurm_job_where_the_control_group_does_not(host):
    host.process(7, environ={"SLURM_JOB_ID": "99"})
    assert names(host.jobs().holders(gpus(pids=(7,)))) == {0: ["99"]}


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


def field(number, value):
    data = value.encode() if isinstance(value, str) else value
    length = len(data)
    prefix = bytes([number << 3 | 2])
    while length > 127:
        prefix += bytes([length & 127 | 128])
        length >>= 7
    return prefix + bytes([length]) + data


def response(pods):
    return b"".join(
        field(1, field(1, pod) + field(2, space) + field(3, field(1, "main") + field(
            2, field(1, resource) + b"".join(field(2, device) for device in devices))))
        for space, pod, resource, devices in pods
    )  # fmt: skip


PODS = response(
    [("ml", "train-0", "nvidia.com/gpu", ["GPU-0", "GPU-1"]), ("ml", "serve", "nvidia.com/mig-1g.10gb", ["MIG-7"]),
     ("sys", "fpga", "intel.com/fpga", ["F-0"])]
)  # fmt: skip


def test_kubelet_answer_is_read_by_device():
    assert parse_pods(PODS) == {"GPU-0": "ml/train-0", "GPU-1": "ml/train-0", "MIG-7": "ml/serve"}


def test_kubelet_answer_that_is_cut_off_is_refused():
    with pytest.raises(ValueError, match="cut off"):
        parse_pods(PODS[:-3])


@pytest.fixture
def kubelet(tmp_path):
    """An HTTP/2 server of one gRPC answer; the answer is split over frames and between settings and pings."""
    path = tmp_path / "kubelet.sock"
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(path))
    server.listen()
    box = {"frames": None, "asked": b""}

    def frame(kind, flags, stream, payload=b""):
        return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload

    def serve():
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            with connection:
                box["asked"] = connection.recv(65536)
                message = bytes(1) + struct.pack(">I", len(PODS)) + PODS
                good = (
                    frame(4, 0, 0) + frame(6, 0, 0, b"12345678") + frame(1, 4, 1, b"\x88")
                    + frame(0, 0, 1, message[:20]) + frame(0, 8, 1, b"\x03" + message[20:] + b"pad")
                    + frame(1, 5, 1, b"\x00\x0bgrpc-status\x010")
                )  # fmt: skip
                connection.sendall(box["frames"] or good)
                connection.settimeout(0.2)
                try:
                    while connection.recv(65536):
                        pass
                except OSError:
                    pass

    threading.Thread(target=serve, daemon=True).start()
    yield path, box, frame
    server.close()


def test_kubelet_is_asked_by_grpc_over_its_socket(kubelet):
    path, box, _ = kubelet
    assert list_pods(path)["GPU-1"] == "ml/train-0"
    assert box["asked"].startswith(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
    assert b"/v1.PodResourcesLister/List" in box["asked"]


def test_pods_replace_the_jobs_found_on_the_host(host, kubelet):
    host.process(7, f"0::/kubepods/pod{POD}/x")
    attribution = Attribution({"node": "n"}, host.jobs(), lambda: gpus(pids=(7,)), kubelet=kubelet[0])
    assert {record.fields["job"] for record in attribution.observe(5.0)} == {"ml/train-0"}


def test_pods_on_mig_instances_share_their_gpu(host, kubelet):
    shared = {0: GpuSnapshot("GPU-9", "00000000:01:00.0", (), 0.0, ("MIG-7", "GPU-0"))}
    attribution = Attribution({"node": "n"}, host.jobs(), lambda: shared, kubelet=kubelet[0])
    assert {record.fields["job"] for record in attribution.observe(5.0)} == {"ml/serve", "ml/train-0"}


def test_kubelet_that_refuses_or_answers_garbage_is_retryable(kubelet, tmp_path):
    path, box, frame = kubelet
    for frames in (frame(3, 0, 1, bytes(4)), frame(7, 0, 0, bytes(8)), b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\0"):
        box["frames"] = frames
        with pytest.raises(Retryable, match="pod resources cannot be read"):
            list_pods(path, timeout_s=1.0)
    with pytest.raises(Retryable):
        list_pods(tmp_path / "none.sock")
