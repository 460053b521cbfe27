"""A host with jobs, of files: /proc, control groups, and the GPUs."""

from powerhall_agent.attribution.host import HostJobs
from powerhall_agent.base.gpu_snapshot import GpuSnapshot


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
