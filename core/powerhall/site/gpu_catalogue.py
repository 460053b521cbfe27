"""Published power figures of GPU servers, from which `init` writes a first site file.

Rated powers and the most that a server draws are what makers or operators publish; where no figure of a server is
published, its entry says what was assumed. No idle power is published for most: 18 % of the most that the server draws
is an estimate, as are the least limits, the speeds at lower power and the shares of liquid. Replace them by readings.
"""

from dataclasses import dataclass
from itertools import pairwise

__all__ = ["CATALOGUE", "IDLE_SHARE", "GpuServer", "speed_at"]

IDLE_SHARE = 0.18
"""Idle power of a server of its most, where none is published."""


@dataclass(frozen=True, slots=True)
class GpuServer:
    """A server: rated power of a GPU, least power limit that it takes, most and idle power of the server, all in W."""

    gpu: str
    server: str
    gpus: int
    gpu_power_w: float
    least_limit_w: float
    max_power_w: float
    source: str
    idle_power_w: float = 0.0
    liquid_fraction: float = 0.0

    @property
    def idle_w(self) -> float:
        """Idle power of the server: as published, else a share of its most."""
        return self.idle_power_w or round(IDLE_SHARE * self.max_power_w, -1)


_DGX = "https://docs.nvidia.com/dgx/"
CATALOGUE: dict[str, GpuServer] = {
    entry.gpu: entry
    for entry in (
        GpuServer("H100", "DGX H100", 8, 700, 200, 10_200, f"{_DGX}dgxh100-user-guide/ (10.2 kW max.)"),
        GpuServer("H200", "DGX H200", 8, 700, 200, 10_200, f"{_DGX}dgxh100-user-guide/ (10.2 kW max.)"),
        GpuServer("B200", "DGX B200", 8, 1000, 200, 14_300, f"{_DGX}dgxb200-user-guide/ (14.3 kW max.)"),
        GpuServer("B300", "DGX B300", 8, 1100, 200, 14_500, f"{_DGX}dgxb300-user-guide/ (14.5 kW max.)"),
        GpuServer(
            *("GB200", "compute tray of a GB200 NVL72", 4, 1200, 200, 6667),
            "https://docs.nvidia.com/datacenter/dps/ (device DGX_GB200: 1000 to 6667 W, GPU 200 to 1200 W; "
            "the rack's switches come on top)",
            1000,
            0.85,
        ),
        GpuServer(
            *("GB300", "compute tray of a GB300 NVL72", 4, 1400, 200, 7070),
            "GPU 1400 W and module up to 2900 W as published; tray: two modules, and the rest of a GB200 tray "
            "(no figure of a tray is published)",
            1000,
            0.85,
        ),
        GpuServer(
            *("MI300X", "8-GPU platform", 8, 750, 200, 10_500),
            "https://www.amd.com/en/products/accelerators/instinct/mi300/mi300x.html (750 W per GPU); server: GPUs and "
            "4.5 kW for the rest, as of a DGX H100 (no figure of a server by AMD)",
        ),
        GpuServer(
            *("MI355X", "8-GPU platform", 8, 1400, 200, 16_000),
            "https://www.amd.com/en/products/accelerators/instinct/mi350/mi355x.html (1400 W per GPU); server: GPUs "
            "and 4.8 kW for the rest (no figure of a server by AMD)",
            0,
            0.8,
        ),
    )
}
"""By the name of the GPU."""

_SPEEDS = ((1.0, 1.0), (0.8, 0.93), (0.6, 0.81), (0.5, 0.73))
"""Share of the rated power to relative speed."""


def speed_at(share: float) -> float:
    """Return the relative speed at a share of the rated power, interpolated; the last one below the table."""
    for (high, fast), (low, slow) in pairwise(_SPEEDS):
        if share >= low:
            return round(slow + (fast - slow) * (share - low) / (high - low), 2)
    return _SPEEDS[-1][1]
