"""The interface of a protocol: reader, result and pacing."""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from powerhall_agent.facility.device import Device
from powerhall_agent.facility.points import DeviceMap, MapFile

__all__ = ["DeviceProtocol", "Pacer", "ReadResult", "Reader", "by_object"]


@dataclass(slots=True)
class ReadResult:
    """Result of one read: raw values by point, and why other points have none."""

    values: dict[str, float] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)

    def repeat(self, twins: Mapping[str, str]) -> None:
        """Give each point the result of the one that stands for it (see `by_object`)."""
        for name, first in twins.items():
            if first in self.values:
                self.values[name] = self.values[first]
            elif first in self.problems:
                self.problems[name] = self.problems[first]


def by_object(points: Iterable[tuple[str, str]]) -> tuple[dict[str, str], dict[str, str]]:
    """Return the point of each object, and for each further point of an object the one that stands for it."""
    names: dict[str, str] = {}
    twins = {name: names[place] for place, name in points if names.setdefault(place, name) != name}
    return names, twins


class Reader(Protocol):
    """One device; used by one thread at a time."""

    def read(self) -> ReadResult:
        """Read every point once; raises Retryable when the device does not answer at all."""
        ...

    def close(self) -> None:
        """End the connection; the next read opens it again."""
        ...


class Pacer:
    """Keeps requests to one device at least `pause_s` apart."""

    def __init__(self, pause_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._pause_s, self._clock = pause_s, clock
        self._next_s = clock()

    def wait(self) -> None:
        """Wait until the next request may go out."""
        left_s = self._next_s - self._clock()
        if left_s > 0:
            time.sleep(left_s)
        self._next_s = self._clock() + self._pause_s


@dataclass(frozen=True, slots=True)
class DeviceProtocol:
    """A protocol: its name in settings and maps, its kinds of device and map, and how to open a reader."""

    name: str
    device: type[Device]
    map_file: type[MapFile[Any]]
    open: Callable[[Any, DeviceMap], Reader]
    """Takes a device of this protocol; nothing is sent yet. A library that is not installed raises ImportError."""
    extra: str = "facility"
    """The extra of the package that brings the library along."""
