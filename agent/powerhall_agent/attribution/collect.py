"""Finds the holders of the GPUs every few seconds, and writes the intervals that began or ended."""

from collections.abc import Callable, Mapping
from pathlib import Path

from powerhall.runtime.settings import Secret
from powerhall_agent.attribution.host import HostJobs
from powerhall_agent.attribution.intervals import GpuSnapshot, Holder, Interval, IntervalTracker
from powerhall_agent.attribution.pod_resources import SOCKET, list_pods
from powerhall_agent.base.encoder import Record, Series

__all__ = ["Attribution", "user_hasher"]


def user_hasher(salt_file: str) -> Callable[[int], str]:
    """Return a function from user id to salted hash; without a salt file it returns the empty text."""
    if not salt_file:
        return lambda _user: ""
    import hashlib

    salt = Secret(salt_file).read().encode()
    return lambda user: hashlib.blake2b(str(user).encode(), key=salt[:64], digest_size=8).hexdigest()


class Attribution:
    """Attributes GPUs to pods where the kubelet's socket exists, else to Slurm jobs, else to processes."""

    def __init__(
        self,
        tags: Mapping[str, str],
        host: HostJobs,
        gpus: Callable[[], dict[int, GpuSnapshot]],
        kubelet: Path = SOCKET,
    ) -> None:
        """`gpus` returns the present state of the node's GPUs."""
        self._tags, self._host, self._gpus, self._kubelet = tags, host, gpus, kubelet
        self._intervals = IntervalTracker()

    def observe(self, now_s: float) -> list[Record]:
        """Observe the holders at `now_s` (seconds since the epoch) and return the points to write."""
        gpus = self._gpus()
        holders = self._host.holders(gpus)
        if self._kubelet.exists():
            pods = list_pods(self._kubelet)
            for gpu, now in gpus.items():
                found = {pods[uuid] for uuid in (now.uuid, *now.instances) if uuid in pods}
                if found:
                    holders[gpu] = [Holder(pod) for pod in sorted(found)]
        return [self._record(interval) for interval in self._intervals.observe(now_s, gpus, holders)]

    def _record(self, interval: Interval) -> Record:
        """Write an interval at its start, so that its end replaces the same point."""
        fields: dict[str, float | str] = {"job": interval.holder.job, "uuid": interval.uuid}
        if interval.holder.user_hash:
            fields["user_hash"] = interval.holder.user_hash
        fields |= {"start_s": interval.start_s, "end_s": interval.end_s, "energy_j": round(interval.energy_j, 3)}
        series = Series("job_interval", {**self._tags, "gpu": str(interval.gpu)})
        return Record(series, fields, int(interval.start_s * 1000))
