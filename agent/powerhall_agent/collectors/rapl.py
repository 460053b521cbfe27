"""CPU package and DRAM energy of the host from the kernel's powercap tree (Intel and AMD RAPL).

The kernel gives microjoules that wrap at `max_energy_range_uj`; reading them needs root or an ACL on the files, so an
unreadable tree is reported once as this collector's failure and never stops the others.
"""

import time
from collections.abc import Callable
from pathlib import Path

from powerhall_agent.base.encoder import Fields

__all__ = ["Rapl"]

POWERCAP = Path("/sys/class/powercap")


class _Domain:
    """One energy counter: a package or its DRAM."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "energy_uj"
        self._range_uj = int((folder / "max_energy_range_uj").read_text())
        self._last_uj: int | None = None
        self.total_uj = 0

    def step_uj(self) -> int:
        """Read the counter and return the energy since the last read; 0 at the first."""
        now_uj = int(self._file.read_text())
        last_uj, self._last_uj = self._last_uj, now_uj
        if last_uj is None:
            return 0
        step = now_uj - last_uj if now_uj >= last_uj else now_uj + self._range_uj - last_uj
        self.total_uj += step
        return step


class Rapl:
    """Collects `cpu_power_w`, `dram_power_w` and `cpu_energy_j` of `node`."""

    def __init__(self, root: Path = POWERCAP, monotonic: Callable[[], float] = time.monotonic) -> None:
        """Look for the packages lazily, at the first collect; a host without RAPL has no data."""
        self._root, self._monotonic = root, monotonic
        self._domains: dict[str, list[_Domain]] | None = None
        self._last_s: float | None = None

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
        if self._domains is None:
            self._domains = self._find()
        now_s = self._monotonic()
        elapsed_s = None if self._last_s is None else now_s - self._last_s
        self._last_s = now_s
        fields: dict[str, float] = {}
        for kind, domains in self._domains.items():
            if not domains:
                continue
            joules = sum(domain.step_uj() for domain in domains) / 1e6
            if elapsed_s:
                fields[f"{kind}_power_w"] = joules / elapsed_s
            if kind == "cpu":
                fields["cpu_energy_j"] = sum(domain.total_uj for domain in domains) / 1e6
        return fields
