"""Turns repeated observations of GPU holders into intervals with a start, an end and an energy."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

__all__ = ["GpuSnapshot", "Holder", "Interval", "IntervalTracker"]

_GRACE: Final = 2
"""Observations that may miss a holder in a row before its interval ends: /proc can miss a starting process."""
_REFRESH_S: Final = 300.0


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a GPU: the scheduler's job id, and a hash of the user where that is configured."""

    job: str
    user_hash: str = ""


@dataclass(slots=True)
class Interval:
    """One job on one GPU; `end_s` is 0 while it runs, `energy_j` the energy of the GPU so far."""

    gpu: int
    uuid: str
    holder: Holder
    start_s: float
    start_energy_j: float
    end_s: float = 0.0
    energy_j: float = 0.0
    missed: int = 0
    shown_s: float = 0.0


@dataclass(frozen=True, slots=True)
class GpuSnapshot:
    """A GPU at one observation: its UUID, its processes, its energy so far and its MIG instances' UUIDs."""

    uuid: str
    bus_id: str
    pids: tuple[int, ...]
    energy_j: float
    instances: tuple[str, ...] = ()


class IntervalTracker:
    """Keeps the open intervals of a node."""

    def __init__(self) -> None:
        """Start without jobs."""
        self._open: dict[tuple[int, str], Interval] = {}

    def observe(
        self, now_s: float, gpus: Mapping[int, GpuSnapshot], holders: Mapping[int, list[Holder]]
    ) -> list[Interval]:
        """Take an observation; return intervals that began, ended, or were last written five minutes ago."""
        changed: list[Interval] = []
        seen = {(gpu, holder.job): holder for gpu, found in holders.items() for holder in found if gpu in gpus}
        for key, holder in seen.items():
            interval = self._open.get(key)
            if interval is None:
                now = gpus[key[0]]
                interval = self._open[key] = Interval(key[0], now.uuid, holder, now_s, now.energy_j)
                changed.append(interval)
            interval.missed = 0
        for key, interval in list(self._open.items()):
            present = gpus.get(key[0])
            if present is not None:
                interval.energy_j = max(interval.energy_j, present.energy_j - interval.start_energy_j)
            if key not in seen:
                interval.missed += 1
                if interval.missed > _GRACE:
                    interval.end_s = now_s
                    del self._open[key]
                    changed.append(interval)
            elif now_s - interval.shown_s >= _REFRESH_S and interval not in changed:
                changed.append(interval)
        for interval in changed:
            interval.shown_s = now_s
        return changed
