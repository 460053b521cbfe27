"""CPU package and DRAM energy of the host from the kernel's powercap tree (Intel and AMD RAPL).

The kernel gives microjoules that wrap at `max_energy_range_uj`; reading them needs root or an ACL on the files, so an
unreadable tree is reported once as this collector's failure and never stops the others. A reading that the domain's
highest power limit does not allow is dropped; so is a domain that cannot be read, or whose counter stands still. A
power is left out until all domains of its kind are sane again, and is then the mean since their last sane readings.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from powerhall_agent.base.encoder import Fields
from powerhall_agent.base.sensor_log import SensorLog
from powerhall_agent.base.trusted_counter import TrustedCounter, Verdict

__all__ = ["Rapl"]

POWERCAP = Path("/sys/class/powercap")
_MOST_W: Final = 1500.0
"""Of a domain that tells no limit: three times the largest package of today."""
_OVERSHOOT: Final = 3.0
"""Over the highest limit that the domain tells: a limit holds for a mean, and may be lowered by hand."""
_SLACK_UJ: Final = 20_000_000


class _Domain:
    """One energy counter: a package or its DRAM."""

    def __init__(self, folder: Path) -> None:
        self.name = f"{folder.name} ({(folder / 'name').read_text().strip()})"
        self._file = folder / "energy_uj"
        range_uj = int((folder / "max_energy_range_uj").read_text())
        self._counter = TrustedCounter(int(1e6 * _most_w(folder)), _SLACK_UJ, range_uj)
        self._power_uw = 0.0
        self._last_ns: int | None = None

    @property
    def total_uj(self) -> int:
        return self._counter.total

    def power_w(self, now_ns: int, sensors: SensorLog) -> float | None:
        """Read the counter; return the mean power since its last sane reading, None where there is none."""
        first = self._counter.raw is None
        estimate_uj = 0 if self._last_ns is None else int(self._power_uw * (now_ns - self._last_ns) / 1e9)
        self._last_ns = now_ns
        try:
            verdict = self._counter.take(now_ns, int(self._file.read_text()), estimate_uj)
        except PermissionError:
            raise
        except (OSError, ValueError) as error:
            self._counter.skip(estimate_uj)
            self._counter.reason, verdict = str(error), Verdict.DROPPED
        if verdict is Verdict.DROPPED:
            sensors.drop(self.name, self._counter.reason)
            return None
        if first or verdict is Verdict.RESTARTED or self._counter.over_ns <= 0:
            return None
        if not self._counter.rise:
            if self._counter.raw:  # one that is always 0 belongs to a domain that this host does not have
                sensors.drop(self.name, f"the counter stands still at {self._counter.raw}")
            return None
        sensors.believe(self.name)
        self._power_uw = self._counter.rise * 1e9 / self._counter.over_ns
        return self._power_uw / 1e6


def _most_w(folder: Path) -> float:
    """Return the highest power that is believed of a domain, in W."""
    found = [0]
    for path in (*folder.glob("constraint_*_max_power_uw"), *folder.glob("constraint_*_power_limit_uw")):
        try:
            found.append(int(path.read_text()))
        except (OSError, ValueError):
            continue
    return _OVERSHOOT * max(found) / 1e6 if 1e6 < max(found) < 1e6 * _MOST_W else _MOST_W


class Rapl:
    """Collects `cpu_power_w`, `dram_power_w` and `cpu_energy_j` of `node`."""

    def __init__(
        self,
        root: Path = POWERCAP,
        monotonic: Callable[[], float] = time.monotonic,
        sensors: SensorLog | None = None,
    ) -> None:
        """Look for the packages lazily, at the first collect; a host without RAPL has no data."""
        self._root, self._monotonic = root, monotonic
        self._sensors = sensors or SensorLog()
        self._domains: dict[str, list[_Domain]] | None = None

    def _find(self) -> dict[str, list[_Domain]]:
        found: dict[str, list[_Domain]] = {"cpu": [], "dram": []}
        for folder in sorted(self._root.glob("*-rapl:*")):
            name = (folder / "name").read_text().strip()
            kind = "cpu" if name.startswith("package") else name
            if kind in found:
                found[kind].append(_Domain(folder))
        return found

    def collect(self) -> Fields:
        """Read all counters; powers are means since the last collect."""
        if not self._domains or not any(self._domains.values()):  # the kernel's module may come later
            self._domains = self._find()
        now_ns = int(self._monotonic() * 1e9)
        fields: dict[str, float] = {}
        for kind, domains in self._domains.items():
            if not domains:
                continue
            powers_w = [domain.power_w(now_ns, self._sensors) for domain in domains]
            known_w = [power_w for power_w in powers_w if power_w is not None]
            if len(known_w) == len(domains):
                fields[f"{kind}_power_w"] = sum(known_w)
            if kind == "cpu":
                fields["cpu_energy_j"] = sum(domain.total_uj for domain in domains) / 1e6
        return fields
