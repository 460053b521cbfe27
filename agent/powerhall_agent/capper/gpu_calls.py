"""NVML calls of the capper on one GPU. Needs the standard library and pynvml only: `powerhall-safecaps` uses it too.

pynvml's `nvmlDeviceSetPowerManagementLimit_v2` drops the return code (seen in nvidia-ml-py 13.615), so the first
version of the setter is used, and every write is read back. NVML takes milliwatts. Any call may block for as long as
the driver likes: call these functions in a thread that nobody waits for without a limit.
"""

from dataclasses import dataclass
from typing import Any, Final

import pynvml

__all__ = [
    "TOLERANCE_W",
    "GpuLook",
    "LimitNotHeld",
    "Range",
    "is_plausible",
    "look",
    "open_gpu",
    "safe_limit_w",
    "set_caps",
]

TOLERANCE_W: Final = 1.0
"""A limit that reads this close to what was set is held, in W."""

_MOST_W: Final = 100_000.0
"""No GPU accepts more. A range beyond it, or an empty one, is not believed: the driver refuses what is too much."""


class LimitNotHeld(Exception):  # noqa: N818 - says what happened
    """A power limit reads above or below what was just set: `held_w`, in W."""

    def __init__(self, limit_w: float, held_w: float) -> None:
        super().__init__(f"power limit reads {held_w:.0f} W after {limit_w:.0f} W was set")
        self.held_w = held_w


@dataclass(frozen=True, slots=True)
class Range:
    """The power limits that a GPU accepts, in W, the GPU's UUID ("" where it has none), and its default limit."""

    min_w: float
    max_w: float
    uuid: str = ""
    default_w: float | None = None


@dataclass(frozen=True, slots=True)
class GpuLook:
    """What a GPU answers: its range, the requested power limit in W, and the SM clock in MHz where it was asked for."""

    span: Range
    limit_w: float
    clock_mhz: float | None = None


def open_gpu(index: int) -> Any:  # noqa: ANN401 - an opaque handle of pynvml
    """Return the handle of a GPU; raises NVMLError while it does not answer."""
    return pynvml.nvmlDeviceGetHandleByIndex(index)


def look(handle: Any, *, with_clock: bool = False) -> GpuLook:  # noqa: ANN401
    """Ask a GPU for its range and limit; raises NVMLError when it does not answer."""
    uuid = pynvml.nvmlDeviceGetUUID(handle)
    low, high = pynvml.nvmlDeviceGetPowerManagementLimitConstraints(handle)
    limit_w = pynvml.nvmlDeviceGetPowerManagementLimit(handle) / 1000
    try:
        default_w = pynvml.nvmlDeviceGetPowerManagementDefaultLimit(handle) / 1000
    except pynvml.NVMLError_NotSupported:
        default_w = None
    clock_mhz = float(pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_SM)) if with_clock else None
    low_w, high_w = (low / 1000, high / 1000) if 0 < low <= high <= _MOST_W * 1000 else (1.0, _MOST_W)
    return GpuLook(Range(low_w, high_w, str(uuid), default_w), limit_w, clock_mhz)


def set_caps(handle: Any, limit_w: float | None, clock_mhz: float | None) -> float:  # noqa: ANN401
    """Set a power limit (W) and a lock of the SM clock (MHz), each where given; return the limit read back.

    The limit comes first: a lock that cannot be lifted must not keep a limit from being lowered. Raises NVMLError,
    and LimitNotHeld when the limit reads differently; where it reads lower, the clock has been set all the same.
    """
    if limit_w is not None:
        pynvml.nvmlDeviceSetPowerManagementLimit(handle, round(limit_w * 1000))
    held_w = float(pynvml.nvmlDeviceGetPowerManagementLimit(handle)) / 1000
    if limit_w is not None and held_w > limit_w + TOLERANCE_W:
        raise LimitNotHeld(limit_w, held_w)
    if clock_mhz is None:
        _unlock(handle)
    else:
        pynvml.nvmlDeviceSetGpuLockedClocks(handle, int(clock_mhz), int(clock_mhz))
    if limit_w is not None and held_w < limit_w - TOLERANCE_W:
        raise LimitNotHeld(limit_w, held_w)
    return held_w


def safe_limit_w(limit_w: float, span: Range) -> float:
    """Return the safe limit of a GPU: `limit_w` brought into the range that the GPU accepts."""
    return min(max(limit_w, span.min_w), span.max_w)


def is_plausible(limit_w: float, span: Range) -> bool:
    """Return whether a GPU of this range can have this limit; none has one of 0 W, whatever its range is."""
    return limit_w > 0.0 and span.min_w - TOLERANCE_W <= limit_w <= span.max_w + TOLERANCE_W


def _unlock(handle: Any) -> None:  # noqa: ANN401
    try:
        pynvml.nvmlDeviceResetGpuLockedClocks(handle)
    except (pynvml.NVMLError_NotSupported, pynvml.NVMLError_FunctionNotFound):
        return
