"""Finds the chassis that is the host itself, and reads its power and intake temperature.

A part is never taken for the host (`powerhall_agent.redfish.chassis` ranks them). Among equals it is the chassis that
draws the most, since a part never draws more than the whole.
"""

import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from powerhall.runtime.errors import Retryable
from powerhall_agent.redfish.chassis import PART_WORDS, identifier, rank
from powerhall_agent.redfish.client import RedfishClient
from powerhall_agent.redfish.power import Source, intake_sources, power_sources, report_sources
from powerhall_agent.redfish.values import Document, link, links, members, text, word_list

__all__ = ["HOST_POWER_W", "Found", "HostReadings", "NoReading"]

HOST_POWER_W: Final = (0.0, 50e3)
"""What a host draws is above the first and at most the second: a host that is read draws something."""
_INTAKE_C: Final = (-40.0, 100.0)
_ROOT: Final = "/redfish/v1"
_ABSENT: Final = (400, 404, 405, 410, 501)
_RETRY_S: Final = 60.0
_USUAL: Final = ("EnvironmentMetrics", "Power", "Thermal", "ThermalSubsystem")
"""Resources of a chassis by their usual paths, where the chassis itself cannot be read."""
_MISSES: Final = 3
"""Reads without a number after which the host is looked for again."""


class NoReading(Retryable):
    """The service answers, but shows no power of its host."""


@dataclass(frozen=True, slots=True)
class Found:
    """The chassis that was taken for the host, why, and the sources of its readings."""

    chassis: str
    why: str
    power: Source
    intake: Source | None


@dataclass(slots=True)
class HostReadings:
    """Readings of the host of a service; `chassis` names the chassis where the operator knows better."""

    client: RedfishClient
    chassis: str = ""
    root: str = _ROOT
    max_power_w: float = HOST_POWER_W[1]
    clock: Callable[[], float] = time.monotonic
    _found: Found | None = field(default=None, init=False)
    _misses: int = field(default=0, init=False)
    _search_from_s: float = field(default=0.0, init=False)
    _why_not: str = field(default="", init=False)
    _failure: str = field(default="", init=False)
    _cache: dict[str, Document | None] = field(default_factory=dict, init=False)

    def read(self) -> tuple[float, float | None]:
        """Return power in W and intake temperature in degC; Retryable when there is no plausible power."""
        found = self.find()
        power_w = self._plausible_w(found.power)
        if power_w is None:
            self._misses += 1
            if self._misses >= _MISSES:
                self._found = None
            raise self._error(f"{found.chassis}: {found.power.name} shows no plausible power")
        self._misses = 0
        return power_w, self._plausible_c(found.intake)

    def find(self) -> Found:
        """Return the host's chassis and sources, looked for once; Retryable where there are none."""
        if self._found is None:
            if self._why_not and self.clock() < self._search_from_s:
                raise NoReading(self._why_not)
            self._cache.clear()
            self._why_not = self._failure = ""
            self._found, self._misses = self._search(), 0
        self._cache.clear()
        return self._found

    def _search(self) -> Found:
        root = self._get(self.root) or {}
        members = self._members(root, "Chassis")
        if not members and self.chassis:
            members = [f"{self.root}/Chassis/{self.chassis}"]
        if not members and self._failure:
            raise Retryable(str(self._error("no chassis")))
        if not members:
            raise self._none("no chassis")
        ids = ", ".join(map(identifier, members))
        if self.chassis and self.chassis not in map(identifier, members):
            raise self._none(f"no chassis {self.chassis!r} among {ids}")
        for candidates in self._candidates(root, members):
            found = self._strongest(candidates)
            if found is not None:
                return found
        for source in report_sources(self._get, root) if not self.chassis else ():
            if self._plausible_w(source) is not None:
                return Found(f"{self.root}/TelemetryService", "no chassis shows it", source, None)
        raise self._none(f"no power of the host among the chassis {ids}; a part's is not taken: chassis = names one")

    def _candidates(self, root: Document, members: list[str]) -> list[list[tuple[str, str]]]:
        """Return the chassis that may be the host with the reason, likeliest first; equals are in one list."""
        if self.chassis:
            named = next(path for path in members if identifier(path) == self.chassis)
            return [[(named, "named in the settings")]]
        hosts = self._host_systems(root)
        if len(hosts) > 1:
            raise self._none(f"several hosts: {', '.join(map(identifier, hosts))}; chassis = names the one to read")
        linked = [path for system in hosts for path in links(self._get(system), "Links", "Chassis")]
        chassis = {path: self._get(path) or {} for path in members if not set(word_list(identifier(path))) & PART_WORDS}
        if not chassis and len(members) == 1 and members[0] in linked:
            chassis = {members[0]: self._get(members[0]) or {}}
        return rank(chassis, linked, hosts)

    def _strongest(self, candidates: list[tuple[str, str]]) -> Found | None:
        """Return the candidate that draws the most by its first source with a plausible number."""
        best, most_w = None, 0.0
        for path, why in candidates:
            chassis = self._get(path) or {name: f"{path}/{name}" for name in _USUAL}
            for source in power_sources(self._get, path, chassis):
                power_w = self._plausible_w(source)
                if power_w is not None:
                    if power_w > most_w:
                        intakes = intake_sources(self._get, chassis)
                        intake = next((entry for entry in intakes if self._plausible_c(entry) is not None), None)
                        best, most_w = Found(path, why, source, intake), power_w
                    break
        return best

    def _host_systems(self, root: Document) -> list[str]:
        """Return the computer systems that are hosts: a GPU baseboard is listed as one, too, and so are DPUs.

        Of several, the one that has this machine's name.
        """
        paths = self._members(root, "Systems")
        named = {path: self._get(path) or {} for path in paths if not set(word_list(identifier(path))) & PART_WORDS}
        hosts = {path: found for path, found in named.items() if text(found, "SystemType") in {"", "Physical", "OS"}}
        own = [path for path, found in hosts.items() if text(found, "HostName").partition(".")[0] == _short_name()]
        return own if len(own) == 1 else list(hosts)

    def _members(self, root: Document, name: str) -> list[str]:
        """Return the members of a collection of the service."""
        return members(self._get, link(root, name) or f"{self.root}/{name}")

    def _get(self, path: str) -> Document | None:
        """Read a resource, once per read or search; one that the service does not give is None."""
        if path not in self._cache:
            reply = self.client.get(path)
            self._cache[path] = reply.document if isinstance(reply.document, dict) else None
            if self._cache[path] is None and reply.status not in _ABSENT:
                self._failure = reply.problem or f"GET {path}: HTTP {reply.status}"
        return self._cache[path]

    def _plausible_w(self, source: Source) -> float | None:
        power_w = source.read()
        return power_w if power_w is not None and HOST_POWER_W[0] < power_w <= self.max_power_w else None

    def _plausible_c(self, source: Source | None) -> float | None:
        temp_c = None if source is None else source.read()
        return temp_c if temp_c is not None and _INTAKE_C[0] <= temp_c <= _INTAKE_C[1] else None

    def _error(self, why: str) -> NoReading:
        """Return the error, with the last answer of the service that was none."""
        failure, self._failure = self._failure, ""
        return NoReading(f"{self.client.address}: {why}" + (f" ({failure})" if failure else ""))

    def _none(self, why: str) -> NoReading:
        """Remember that there is nothing to find, so that a slow service is not searched at every read."""
        error = self._error(why)
        self._why_not, self._search_from_s = str(error), self.clock() + _RETRY_S
        return error


def _short_name() -> str:
    return platform.node().partition(".")[0]
