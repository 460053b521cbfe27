"""Finds the holders of the GPUs every few seconds, and writes the intervals that began or ended."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from powerhall.runtime.settings import Secret
from powerhall_agent.attribution.device_ids import find_device
from powerhall_agent.attribution.host import HostJobs
from powerhall_agent.attribution.intervals import Interval, IntervalTracker
from powerhall_agent.attribution.kept_jobs import KeptJobs
from powerhall_agent.attribution.pod_resources import SOCKET, list_pods
from powerhall_agent.attribution.progress import Progress
from powerhall_agent.base.encoder import Record, Series
from powerhall_agent.base.gpu_snapshot import GpuSnapshot, Holder

__all__ = ["Attribution", "user_hasher"]

_POD_LOGS: Final = Path("/var/log/pods")


def user_hasher(salt_file: str) -> Callable[[int], str]:
    """Return a function from user id to salted hash; without a salt file it returns the empty text."""
    if not salt_file:
        return lambda _user: ""
    import hashlib

    salt = Secret(salt_file).read().encode()
    return lambda user: hashlib.blake2b(str(user).encode(), key=salt[:64], digest_size=8).hexdigest()


def _names_by_uid(pod_logs: Path) -> dict[str, str]:
    """Return `namespace/pod` by `pod:UID`, from the kubelet's folders `NAMESPACE_POD_UID`; empty without them.

    The pod-resources API has no UIDs, and control groups have nothing else: only so is it known whose a process is.
    """
    try:
        parts = [entry.name.split("_") for entry in pod_logs.iterdir()]
    except OSError:
        return {}
    return {f"pod:{part[2]}": f"{part[0]}/{part[1]}" for part in parts if len(part) == 3}


class Attribution:
    """Attributes GPUs to pods where the kubelet's socket exists, else to Slurm jobs, else to processes."""

    def __init__(
        self,
        tags: Mapping[str, str],
        host: HostJobs,
        gpus: Callable[[], dict[int, GpuSnapshot]],
        kubelet: Path = SOCKET,
        pod_logs: Path = _POD_LOGS,
        *,
        reports: Path | None = None,
        kept: KeptJobs | None = None,
    ) -> None:
        """`gpus` returns the present state of the node's GPUs; `pod_logs` is where the kubelet keeps logs of pods.

        `reports` is where jobs report their progress, `kept` what outlives the sampler.
        """
        self._tags, self._host, self._gpus, self._kubelet = tags, host, gpus, kubelet
        self._pod_logs = pod_logs
        self._intervals, self._kept = IntervalTracker(), kept
        if kept is not None:
            gpus_before, same_boot = kept.read()
            self._intervals.resume(gpus_before, same_boot=same_boot)
        self._progress = Progress(tags, reports) if reports is not None else None

    def observe(self, now_s: float) -> list[Record]:
        """Observe the holders at `now_s` (seconds since the epoch) and return the points to write."""
        gpus = self._gpus()
        holders = self._host.holders(gpus)
        if self._kubelet.exists():
            pods = self._pods(gpus)
            names = _names_by_uid(self._pod_logs) if any(len(found) > 1 for found in pods.values()) else {}
            for gpu, found in pods.items():
                pids: dict[str, frozenset[int]] = {}
                for holder in holders[gpu]:
                    name = names.get(holder.job, "")
                    pids[name] = pids.get(name, frozenset()) | holder.pids
                holders[gpu] = [
                    Holder(pod, pids=pids.get(pod, frozenset()), instances=frozenset(instances - {""}))
                    for pod, instances in sorted(found.items())
                ]
        records = [self._record(interval) for interval in self._intervals.observe(now_s, gpus, holders)]
        if records and self._kept is not None:
            self._kept.write(self._intervals.kept(now_s))
        if self._progress is not None:
            records += self._progress.observe(now_s, self._intervals.energies())
        return records

    def _pods(self, gpus: Mapping[int, GpuSnapshot]) -> dict[int, dict[str, set[str]]]:
        """Return the pods on each GPU, with the MIG instances that they were given."""
        found: dict[int, dict[str, set[str]]] = {}
        for device, pod in list_pods(self._kubelet).items():
            place = find_device(device, gpus, self._host.minor_of)
            if place is not None:
                found.setdefault(place[0], {}).setdefault(pod, set()).add(place[1])
        return found

    def _record(self, interval: Interval) -> Record:
        """Write an interval at its own time, so that its end replaces the same point."""
        fields: dict[str, float | str] = {"job": interval.holder.job, "uuid": interval.uuid}
        if interval.holder.user_hash:
            fields["user_hash"] = interval.holder.user_hash
        if interval.holder.instances:
            fields["instances"] = ",".join(sorted(interval.holder.instances))
        fields["energy_split"] = interval.split
        fields |= {"start_s": interval.start_s, "end_s": interval.end_s, "energy_j": round(interval.energy_j, 3)}
        series = Series("job_interval", {**self._tags, "gpu": str(interval.gpu)})
        return Record(series, fields, interval.time_ms)
