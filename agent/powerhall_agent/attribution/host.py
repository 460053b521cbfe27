"""Finds jobs on the host: by control groups of Slurm and Kubernetes, and by the environment of processes.

A GPU's processes lead to their job by /proc/PID/cgroup, which every user may read. A job that holds a GPU without
using it is found by the devices that its control group may open (version 1), or by SLURM_JOB_GPUS in the environment
of one of its processes, where the agent may read that.

Slurm's control groups, of one slurmd or of several on a host (Debian's packages are built for several):

* version 1: `CONTROLLER/slurm/uid_1000/job_42`, `CONTROLLER/slurm_NODE/...`;
* version 2: `system.slice/slurmstepd.scope/job_42`, `system.slice/NODE_slurmstepd.scope/job_42`, or another slice;
* from 26.05 on, version 2: the job's SLUID (`s` and 13 characters) in the place of `job_42`, unless the site asks for
  job ids. The id then stands in the title of the job's slurmstepd, or in the environment of its processes.
"""

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from powerhall.runtime.decode.bytes_in import read_file
from powerhall.runtime.decode.numbers_in import digits, whole
from powerhall.runtime.errors import Rejected
from powerhall_agent.base.gpu_snapshot import GpuSnapshot, Holder

__all__ = ["HostJobs"]

_MOST_BYTES: Final = 4 << 20
"""Of a file of /proc or of a control group; an environment has 2 MiB at most."""
_SLUID: Final = "s[0-9A-HJKMNP-TV-Z]{13}"
_SLURM: Final = re.compile(
    r":/(?!user\.slice/)(?P<scope>(?:[^\s:]+?/)??(?:slurm(?:_[^/\s]+)?|[^/\s:]*slurmstepd\.scope)(?:/uid_\d+)?)"
    rf"/(?:job_(?P<job>\d+)|(?P<sluid>{_SLUID}))(?:/|$)",
    re.MULTILINE,
)
"""A user can make groups of any name below user.slice, and below the group of a job or pod: the outermost counts."""
_STEPD: Final = re.compile(r"slurmstepd: \[(\d+)\.")
_POD: Final = re.compile(
    r":/(?!user\.slice/)(?:[^\s:]*?[/-])??pod"
    r"(?P<pod>[0-9a-f]{8}[-_][0-9a-f]{4}[-_][0-9a-f]{4}[-_][0-9a-f]{4}[-_][0-9a-f]{12}|[0-9a-f]{32})(?=[/.:\s]|$)",
    re.MULTILINE | re.IGNORECASE,
)
"""Pods of the kubelet's own files have 32 digits. A path may begin at the agent's own group: `/../../podUID`."""
_SLURM_ROOTS: Final = (
    "devices/slurm",
    "devices/slurm_*",
    "slurm",
    "slurm_*",
    "*.slice/*slurmstepd.scope",
    "*.slice/*.slice/*slurmstepd.scope",
)
_JOB_FOLDER: Final = re.compile(rf"job_(\d+)|{_SLUID}")
_MPS: Final = "nvidia-cuda-mps"
"""The kernel's name of the MPS server and its control daemon, which hold GPUs for their clients and are no jobs."""
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
        self._by_sluid: dict[str, str] = {}

    def holders(self, gpus: Mapping[int, GpuSnapshot]) -> dict[int, list[Holder]]:
        """Return who holds each GPU."""
        found: dict[int, dict[str, Holder]] = {gpu: {} for gpu in gpus}
        for gpu, now in gpus.items():
            for pid in now.pids:
                _add(found[gpu], self._of_process(pid, now))
        for job, folder in self._slurm_jobs():
            user = _owner(folder, self._proc)
            holder = Holder(job, self._user_hash(user), user=user)
            for gpu, instances in self._gpus_of(folder, gpus).items():
                _add(found[gpu], replace(holder, instances=instances))
        return {gpu: list(known.values()) for gpu, known in found.items()}

    def _of_process(self, pid: int, now: GpuSnapshot) -> Holder | None:
        """Return the job of a process; a process of no scheduler is its own job."""
        folder = self._proc / str(pid)
        try:
            groups = _text(folder / "cgroup")
            user = folder.stat().st_uid
            name = _text(folder / "comm").strip()
        except (OSError, Rejected):
            return None
        if name.startswith(_MPS):
            return None
        instances = frozenset(uuid for uuid, part in now.slices.items() if pid in part.pids)
        job = self._of_groups(groups, pid)
        if not job:
            own = self._environment(pid).get("SLURM_JOB_ID", "")
            job = own if digits(own) is not None else f"process:{name}:{pid}"
        return Holder(job, self._user_hash(user), frozenset({pid}), instances, user)

    def _of_groups(self, groups: str, pid: int) -> str:
        """Return the job that the control groups of a process name; "" where they name none."""
        found = [match for line in groups.splitlines() for kind in (_SLURM, _POD) if (match := kind.search(line))]
        if not found:
            return ""
        names = min(found, key=re.Match.end).groupdict()
        if "pod" in names:
            return f"pod:{names['pod'].replace('_', '-')}"
        return names["job"] or self._job_of(names["sluid"], self._cgroup / names["scope"] / names["sluid"], [pid])

    def _job_of(self, sluid: str, folder: Path, pids: Sequence[int] = ()) -> str:
        """Return the job id of a SLUID: from its slurmstepd's title, else from a process; else the SLUID itself."""
        known = self._by_sluid.get(sluid)
        if known is not None:
            return known
        for pid in (*pids, *_processes(folder)):
            title = _STEPD.match(self._title(pid))
            job = title[1] if title else self._environment(pid).get("SLURM_JOB_ID", "")
            if digits(job) is not None:
                self._by_sluid[sluid] = job
                return job
        return sluid

    def _title(self, pid: int) -> str:
        """Return a process's command line, which every user may read; "" where it has ended."""
        try:
            return _text(self._proc / str(pid) / "cmdline")
        except Rejected:
            return ""

    def _environment(self, pid: int) -> dict[str, str]:
        """Return a process's environment; empty where the agent may not read it."""
        try:
            text = _text(self._proc / str(pid) / "environ")
        except Rejected:
            return {}
        pairs = (entry.partition("=") for entry in text.split("\0"))
        return {name: value for name, _, value in pairs}

    def _slurm_jobs(self) -> Iterator[tuple[str, Path]]:
        for root in (folder for pattern in _SLURM_ROOTS for folder in _found(self._cgroup, pattern)):
            for folder in (*_found(root, "*"), *_found(root, "uid_*/*")):
                found = _JOB_FOLDER.fullmatch(folder.name)
                if found is not None:
                    yield found[1] or self._job_of(folder.name, folder), folder

    def _gpus_of(self, folder: Path, gpus: Mapping[int, GpuSnapshot]) -> dict[int, frozenset[str]]:
        """Return the GPUs that a Slurm job was given, with its MIG instances."""
        minors = _device_minors(folder)
        if minors is not None:
            by_minor = {self.minor_of(now, gpu): gpu for gpu, now in gpus.items()}
            return {by_minor[minor]: frozenset() for minor in minors if minor in by_minor}
        for pid in _processes(folder):
            environment = self._environment(pid)
            if "SLURM_JOB_ID" in environment:
                return _listed(environment.get("SLURM_JOB_GPUS") or environment.get("SLURM_STEP_GPUS", ""), gpus)
        return {}

    def minor_of(self, now: GpuSnapshot, gpu: int) -> int:
        """Return the device's minor number; its index where the driver's /proc tree is absent."""
        name = now.bus_id.lower()[4:]
        try:
            text = _text(self._proc / "driver/nvidia/gpus" / name / "information")
        except Rejected:
            return gpu
        found = re.search(r"Device Minor:\s*(\d+)", text)
        return int(found[1]) if found else gpu


def _text(path: Path) -> str:
    """Read a file of the kernel, part of which the jobs write; bytes that are no UTF-8 are replaced."""
    return read_file(path, _MOST_BYTES).decode("utf-8", "replace")


def _add(holders: dict[str, Holder], holder: Holder | None) -> None:
    """Add a holder; what is known of one job is put together."""
    if holder is None:
        return
    known = holders.get(holder.job, holder)
    holders[holder.job] = replace(known, pids=known.pids | holder.pids, instances=known.instances | holder.instances)


def _owner(folder: Path, proc: Path) -> int:
    """Return the user id of a Slurm job's control group: that of its processes, among which slurmstepd is root's."""
    name = folder.parent.name
    if name.startswith("uid_") and (user := digits(name[4:])) is not None:
        return user
    for pid in _processes(folder):
        try:
            user = (proc / str(pid)).stat().st_uid
        except OSError:
            continue
        if user:
            return user
    return 0


def _device_minors(folder: Path) -> list[int] | None:
    """Return the minors of the NVIDIA devices that a version 1 control group may open; None without such a list."""
    try:
        lines = _text(folder / "devices.list").splitlines()
    except Rejected:
        return None
    found = [re.fullmatch(rf"c {_NVIDIA_MAJOR}:(\d+) \w+", line) for line in lines]
    return [int(match[1]) for match in found if match and int(match[1]) < 128]


def _found(folder: Path, pattern: str) -> list[Path]:
    """Return what matches, sorted; control groups come and go while they are listed, and those that stay are found."""
    found: list[Path] = []
    with contextlib.suppress(OSError):
        found.extend(folder.glob(pattern))
    return sorted(found)


def _processes(folder: Path) -> list[int]:
    pids: list[int] = []
    for file in _found(folder, "**/cgroup.procs"):
        try:
            pids += [whole(text) for text in _text(file).split()]
        except (Rejected, ValueError):
            continue
    return pids


def _listed(text: str, gpus: Mapping[int, GpuSnapshot]) -> dict[int, frozenset[str]]:
    """Read a list of GPUs such as `0,2-3` or UUIDs, of MIG instances too; the job may have written anything there."""
    found: dict[int, frozenset[str]] = {}
    for part in text.split(","):
        first, _, last = part.partition("-")
        low, high = digits(first), digits(last or first)
        for gpu, now in gpus.items():
            if part == now.uuid or (low is not None and high is not None and low <= gpu <= high):
                found.setdefault(gpu, frozenset())
            elif part in now.instances:
                found[gpu] = found.get(gpu, frozenset()) | {part}
    return found
