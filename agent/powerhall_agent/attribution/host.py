"""Finds jobs on the host: by control groups of Slurm and Kubernetes, and by the environment of processes.

A GPU's processes lead to their job by /proc/PID/cgroup, which every user may read. A job that holds a GPU without
using it is found by the devices that its control group may open (version 1), or by SLURM_JOB_GPUS in the environment
of one of its processes, where the agent may read that.
"""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from powerhall_agent.attribution.intervals import GpuSnapshot, Holder

__all__ = ["HostJobs"]

_SLURM: Final = re.compile(r"(?:slurm|slurmstepd\.scope).*?/job_(\d+)")
_POD: Final = re.compile(r"kubepods.*?pod([0-9a-f]{8}[-_][0-9a-f]{4}[-_][0-9a-f]{4}[-_][0-9a-f]{4}[-_][0-9a-f]{12})")
_SLURM_ROOTS: Final = ("devices/slurm", "system.slice/slurmstepd.scope", "slurm")
_NVIDIA_MAJOR: Final = "195"


class HostJobs:
    """Finds the holders of GPUs on this host; the roots are passed in for tests."""

    def __init__(
        self,
        user_hash: Callable[[int], str],
        proc: Path = Path("/proc"),
        cgroup: Path = Path("/sys/fs/cgroup"),
    ) -> None:
        """`user_hash` turns a user id into the stored text, which may be empty."""
        self._user_hash, self._proc, self._cgroup = user_hash, proc, cgroup

    def holders(self, gpus: dict[int, GpuSnapshot]) -> dict[int, list[Holder]]:
        """Return who holds each GPU."""
        found: dict[int, list[Holder]] = {gpu: [] for gpu in gpus}
        for gpu, now in gpus.items():
            for pid in now.pids:
                _add(found[gpu], self._of_process(pid))
        for job, folder in self._slurm_jobs():
            holder = Holder(job, self._user_hash(_owner(folder, self._proc)))
            for gpu in self._gpus_of(folder, gpus):
                _add(found[gpu], holder)
        return found

    def _of_process(self, pid: int) -> Holder | None:
        """Return the job of a process; a process of no scheduler is its own job."""
        folder = self._proc / str(pid)
        try:
            groups = (folder / "cgroup").read_text(encoding="utf-8", errors="replace")
            user = folder.stat().st_uid
            name = (folder / "comm").read_text(encoding="utf-8", errors="replace").strip()
        except OSError:
            return None
        slurm, pod = _SLURM.search(groups), _POD.search(groups)
        if slurm is not None:
            return Holder(slurm[1], self._user_hash(user))
        if pod is not None:
            return Holder(f"pod:{pod[1].replace('_', '-')}", self._user_hash(user))
        job = self._environment(pid).get("SLURM_JOB_ID")
        return Holder(job or f"process:{name}:{pid}", self._user_hash(user))

    def _environment(self, pid: int) -> dict[str, str]:
        """Return a process's environment; empty where the agent may not read it."""
        try:
            data = (self._proc / str(pid) / "environ").read_bytes()
        except OSError:
            return {}
        pairs = (entry.partition("=") for entry in data.decode("utf-8", "replace").split("\0"))
        return {name: value for name, _, value in pairs}

    def _slurm_jobs(self) -> Iterator[tuple[str, Path]]:
        for root in _SLURM_ROOTS:
            for pattern in ("job_*", "uid_*/job_*"):
                for folder in sorted((self._cgroup / root).glob(pattern)):
                    yield folder.name.removeprefix("job_"), folder

    def _gpus_of(self, folder: Path, gpus: dict[int, GpuSnapshot]) -> list[int]:
        """Return the GPUs that a Slurm job was given."""
        minors = _device_minors(folder)
        if minors is not None:
            by_minor = {self._minor(now, gpu): gpu for gpu, now in gpus.items()}
            return [by_minor[minor] for minor in minors if minor in by_minor]
        for pid in _processes(folder):
            environment = self._environment(pid)
            if "SLURM_JOB_ID" in environment:
                return _listed(environment.get("SLURM_JOB_GPUS") or environment.get("SLURM_STEP_GPUS", ""), gpus)
        return []

    def _minor(self, now: GpuSnapshot, gpu: int) -> int:
        """Return the device's minor number; its index where the driver's /proc tree is absent."""
        name = now.bus_id.lower()[4:]
        try:
            text = (self._proc / "driver/nvidia/gpus" / name / "information").read_text(encoding="utf-8")
        except OSError:
            return gpu
        found = re.search(r"Device Minor:\s*(\d+)", text)
        return int(found[1]) if found else gpu


def _add(holders: list[Holder], holder: Holder | None) -> None:
    if holder is not None and all(known.job != holder.job for known in holders):
        holders.append(holder)


def _owner(folder: Path, proc: Path) -> int:
    """Return the user id of a Slurm job's control group."""
    name = folder.parent.name
    if name.startswith("uid_") and name[4:].isdigit():
        return int(name[4:])
    for pid in _processes(folder):
        try:
            return (proc / str(pid)).stat().st_uid
        except OSError:
            continue
    return 0


def _device_minors(folder: Path) -> list[int] | None:
    """Return the minors of the NVIDIA devices that a version 1 control group may open; None without such a list."""
    try:
        lines = (folder / "devices.list").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return None
    found = [re.fullmatch(rf"c {_NVIDIA_MAJOR}:(\d+) \w+", line) for line in lines]
    return [int(match[1]) for match in found if match and int(match[1]) < 128]


def _processes(folder: Path) -> list[int]:
    pids: list[int] = []
    for file in sorted(folder.rglob("cgroup.procs")):
        try:
            pids += [int(text) for text in file.read_text(encoding="ascii").split()]
        except (OSError, ValueError):
            continue
    return pids


def _listed(text: str, gpus: dict[int, GpuSnapshot]) -> list[int]:
    """Read a list of GPUs such as `0,2-3` or UUIDs."""
    found: list[int] = []
    for part in text.split(","):
        low, _, high = part.partition("-")
        if part.startswith("GPU-"):
            found += [gpu for gpu, now in gpus.items() if now.uuid == part]
        elif low.isdigit():
            found += [gpu for gpu in range(int(low), int(high or low) + 1) if gpu in gpus]
    return found
