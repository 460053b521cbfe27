"""Leak detectors of a Redfish service: the worst state of those that tell one.

Places: `LeakDetection` of a chassis' ThermalSubsystem and of a cooling unit (DMTF DSP0268, LeakDetection and
LeakDetector). Its `LeakDetectorGroups` have the states of all detectors in one resource; without them each detector of
`LeakDetectors` is read.
"""

import functools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from powerhall_agent.redfish.client import RedfishClient
from powerhall_agent.redfish.values import Document, items, link, members, text

__all__ = ["Leaks", "node_leaks", "unit_leaks"]

_STATES: Final = {"ok": 0.0, "warning": 1.0, "critical": 2.0}
_SEARCH_S: Final = 3600.0
_RETRY_S: Final = 600.0


@dataclass(slots=True)
class Leaks:
    """The leak detectors of some resources: looked for once an hour, every ten minutes where there are none."""

    client: RedfishClient
    owners: Callable[[], Iterable[str]]
    """Paths of the chassis and cooling units that may have detectors."""
    clock: Callable[[], float] = time.monotonic
    _found: Sequence[str] = field(default=(), init=False)
    _search_s: float | None = field(default=None, init=False)

    def read(self) -> float | None:
        """Return 0 without a leak, 1 for a warning, 2 for a leak; None where no detector tells its state."""
        if self._search_s is None or self.clock() >= self._search_s:
            self._found = [path for owner in self.owners() for path in self._detections(owner)]
            self._search_s = self.clock() + (_SEARCH_S if self._found else _RETRY_S)
        states = (_STATES.get(state.lower()) for path in self._found for state in self._states(path))
        return max((state for state in states if state is not None), default=None)

    def _detections(self, owner: str) -> Iterator[str]:
        document = self._get(owner)
        subsystem = link(document, "ThermalSubsystem")
        for holder in (document, self._get(subsystem) if subsystem else None):
            if path := link(holder, "LeakDetection"):
                yield path

    def _states(self, path: str) -> Iterator[str]:
        detection = self._get(path)
        grouped = [entry for group in items(detection, "LeakDetectorGroups") for entry in items(group, "Detectors")]
        if any(text(entry, "DetectorState") for entry in grouped):
            yield from (text(entry, "DetectorState") for entry in grouped)
            return
        for member in members(self._get, link(detection, "LeakDetectors")):
            yield text(self._get(member), "DetectorState")

    def _get(self, path: str) -> Document | None:
        return _read(self.client, path)


def _read(client: RedfishClient, path: str) -> Document | None:
    document = client.get(path).document
    return document if isinstance(document, dict) else None


def node_leaks(client: RedfishClient, root: str) -> Leaks:
    """Return the detectors of every chassis of a service: a tray's are often at a chassis of their own."""

    return Leaks(client, lambda: members(functools.partial(_read, client), f"{root}/Chassis"))


def unit_leaks(client: RedfishClient, root: str, member: str) -> Leaks:
    """Return the detectors of a cooling unit, or of a chassis, by its id."""
    return Leaks(client, lambda: (f"{root}/ThermalEquipment/CDUs/{member}", f"{root}/Chassis/{member}"))
