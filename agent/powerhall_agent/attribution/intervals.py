"""Turns repeated observations of GPU holders into intervals with a start, an end and an energy.

Any number of holders may share a GPU. The energy of a GPU between two observations is split among those that hold it
then (see energy_split.py), so that the intervals of a GPU sum up to its energy while somebody holds it.

Intervals of an earlier sampler are resumed where their job still holds the GPU, with what it has used meanwhile; the
others ended when they were kept last. While not all of them have been seen again, the GPU waits for a few observations.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from powerhall_agent.attribution.energy_split import SPLITS, split
from powerhall_agent.attribution.kept_jobs import KeptGpu, KeptInterval
from powerhall_agent.base.gpu_snapshot import GpuSnapshot, Holder

__all__ = ["Interval", "IntervalTracker"]

_GRACE: Final = 2
"""Observations that may miss a holder in a row before its interval ends: /proc can miss a starting process."""
_PATIENCE: Final = 12
"""Observations in which a GPU with kept intervals may not answer yet: a driver may take long to start."""
_REFRESH_S: Final = 300.0


@dataclass(slots=True)
class Interval:
    """One job on one GPU; `end_s` is 0 while it runs.

    `time_ms` is the time of its point: its start, or the next free millisecond of the GPU where several began at once.
    """

    gpu: int
    uuid: str
    holder: Holder
    start_s: float
    time_ms: int
    end_s: float = 0.0
    split_j: dict[str, float] = field(default_factory=dict)
    """Its share of the GPU's energy so far, by the method of the split."""
    missed: int = 0
    shown_s: float = -1.0
    """When it was last written, -1 before."""

    @property
    def energy_j(self) -> float:
        """Its share of the GPU's energy so far."""
        return sum(self.split_j.values())

    @property
    def split(self) -> str:
        """The method that gave most of its energy."""
        return max(SPLITS, key=lambda how: self.split_j.get(how, 0.0))


@dataclass(slots=True)
class _Gpu:
    """What is remembered of the GPU of a number: time of the newest point, UUID, energy, open intervals by job."""

    newest_ms: int = 0
    uuid: str = ""
    energy_j: float | None = None
    open: dict[str, Interval] = field(default_factory=dict)
    kept_s: float | None = None
    """When its intervals were kept by an earlier sampler; None once it is known which of them go on."""
    patience: int = 0
    """Observations that are still waited for them."""


class IntervalTracker:
    """Keeps the open intervals of a node."""

    def __init__(self) -> None:
        """Start without jobs."""
        self._gpus: defaultdict[int, _Gpu] = defaultdict(_Gpu)

    def resume(self, kept: Sequence[KeptGpu], *, same_boot: bool) -> None:
        """Go on with what an earlier sampler kept; none of it goes on after a reboot."""
        for one in kept:
            intervals = {entry.job: _interval(one, entry) for entry in one.open}
            uuid, patience = (one.uuid, _PATIENCE) if same_boot else ("", 0)
            self._gpus[one.gpu] = _Gpu(one.newest_ms, uuid, one.energy_j, intervals, one.at_s, patience)

    def kept(self, now_s: float) -> list[KeptGpu]:
        """Return what a later sampler needs to go on."""
        found = []
        for number, known in self._gpus.items():
            intervals = tuple(map(_kept, known.open.values()))
            at_s = now_s if known.kept_s is None else known.kept_s
            found.append(KeptGpu(number, known.uuid, at_s, known.newest_ms, known.energy_j, intervals))
        return found

    def observe(
        self, now_s: float, gpus: Mapping[int, GpuSnapshot], holders: Mapping[int, list[Holder]]
    ) -> list[Interval]:
        """Take an observation; return intervals that began, ended, or were last written five minutes ago."""
        changed: list[Interval] = []
        for number in sorted({*gpus, *self._gpus}):
            snapshot = gpus.get(number)
            present = {holder.job: holder for holder in holders.get(number, ())} if snapshot is not None else {}
            known = self._gpus[number]
            if known.kept_s is not None:
                if _is_waiting(known, snapshot, present):
                    continue
                changed += _ended_unseen(known, snapshot, present)
            if snapshot is not None:
                changed += _ended_by_another(known, snapshot, now_s)
                _add_energy(known, snapshot)
                changed += _begin(known, number, snapshot, present, now_s)
            changed += _go_on(known, present, now_s)
        for interval in changed:
            interval.shown_s = now_s
        return changed

    def energies(self) -> Iterator[tuple[Holder, float]]:
        """Yield the holder and the energy in J so far of each interval that is open."""
        for known in self._gpus.values():
            for interval in known.open.values():
                yield interval.holder, interval.energy_j


def _interval(gpu: KeptGpu, kept: KeptInterval) -> Interval:
    holder = Holder(kept.job, kept.user_hash, instances=frozenset(kept.instances))
    return Interval(gpu.gpu, gpu.uuid, holder, kept.start_s, kept.time_ms, split_j=dict(kept.split_j), shown_s=gpu.at_s)


def _kept(interval: Interval) -> KeptInterval:
    holder, instances = interval.holder, tuple(sorted(interval.holder.instances))
    return KeptInterval(
        holder.job, holder.user_hash, instances, interval.start_s, interval.time_ms, dict(interval.split_j)
    )


def _is_waiting(known: _Gpu, snapshot: GpuSnapshot | None, present: Mapping[str, Holder]) -> bool:
    """Return whether kept intervals may still turn up: a GPU's processes are not known from the first moment on."""
    if snapshot is not None:
        known.patience = min(known.patience, _GRACE + 1)
    known.patience -= 1
    is_another = snapshot is not None and snapshot.uuid != known.uuid
    return known.patience > 0 and not is_another and not known.open.keys() <= present.keys()


def _ended_unseen(known: _Gpu, snapshot: GpuSnapshot | None, present: Mapping[str, Holder]) -> list[Interval]:
    """End the kept intervals whose job does not hold the GPU any more, when they were kept."""
    at_s, known.kept_s = known.kept_s or 0.0, None
    is_same = snapshot is not None and snapshot.uuid == known.uuid
    ended = [interval for job, interval in known.open.items() if not is_same or job not in present]
    for interval in ended:
        interval.end_s = at_s
        del known.open[interval.holder.job]
    return ended


def _ended_by_another(known: _Gpu, snapshot: GpuSnapshot, now_s: float) -> list[Interval]:
    """End what was held of a GPU in whose place another one is; its energy is none of theirs."""
    if known.uuid == snapshot.uuid:
        return []
    ended = list(known.open.values())
    for interval in ended:
        interval.end_s = now_s
    known.uuid, known.energy_j = snapshot.uuid, None
    known.open.clear()
    return ended


def _add_energy(known: _Gpu, snapshot: GpuSnapshot) -> None:
    """Give the energy since the last observation to those that held the GPU; a counter that went back gives none."""
    before_j, known.energy_j = known.energy_j, snapshot.energy_j
    used_j = 0.0 if before_j is None else max(0.0, snapshot.energy_j - before_j)
    intervals = list(known.open.values())
    if not intervals:
        return
    shares, how = split(snapshot, [interval.holder for interval in intervals])
    for interval, share in zip(intervals, shares, strict=True):
        interval.split_j[how] = interval.split_j.get(how, 0.0) + share * used_j


def _begin(known: _Gpu, gpu: int, snapshot: GpuSnapshot, present: Mapping[str, Holder], now_s: float) -> list[Interval]:
    begun = []
    for job, holder in present.items():
        if job in known.open:
            known.open[job].holder = holder  # its processes and instances of now
        else:
            known.newest_ms = max(int(now_s * 1000), known.newest_ms + 1)
            known.open[job] = Interval(gpu, snapshot.uuid, holder, now_s, known.newest_ms)
            begun.append(known.open[job])
    return begun


def _go_on(known: _Gpu, present: Mapping[str, Holder], now_s: float) -> list[Interval]:
    changed = []
    for job, interval in list(known.open.items()):
        interval.missed = 0 if job in present else interval.missed + 1
        if interval.missed > _GRACE:
            interval.end_s = now_s
            del known.open[job]
            changed.append(interval)
        elif job in present and 0.0 <= interval.shown_s <= now_s - _REFRESH_S:
            changed.append(interval)
    return changed
