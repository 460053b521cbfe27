"""Operational events of newer drivers: what the GPU's own firmware reports, beside XIDs; by NVML's third event wait.

A driver that has them gives both kinds of events by `nvmlEventSetWait_v3`, which names a GPU by its UUID.
"""

import ctypes
from typing import Any, Final

import pynvml

from powerhall_agent.nvml.driver import Driver, Gpu

__all__ = ["OPERATIONAL", "Waited", "described", "register", "text_of", "wait"]

Waited = Any
"""NVML's `nvmlEventSetWait_v3_t`, which is made by ctypes."""
OPERATIONAL: Final = "operational"
_IS_OPERATIONAL: Final = 1
_LEAST_LEVEL: Final = 30
"""Notices, warnings and errors; below are the firmware's telemetry and diagnostics, many a second."""
_SEVERITIES: Final = {10: ("informational", 0), 20: ("corrected", 0), 30: ("recoverable", 1), 40: ("fatal", 2)}
_ATTRIBUTES: Final = {
    1 << 0: "uncontained",
    1 << 1: "latent",
    1 << 2: "propagated",
    1 << 3: "component reset",
    1 << 4: "threshold exceeded",
    1 << 5: "primary",
    1 << 6: "events lost",
}
_GROUP_ATTRIBUTES: Final = {1 << 0: "recovered", 1 << 1: "after an earlier error", 1 << 2: "simulated"}
_NO_ERROR: Final = 0


def register(driver: Driver, event_set: Any, gpu: Gpu) -> bool:  # noqa: ANN401
    """Ask for the operational events of a GPU; False where the driver or the GPU has none."""
    symbols = ("nvmlEventSetWait_v3", "nvmlEventSetRegisterGpuOperationalEvents_v1")
    if not all(driver.has(symbol) for symbol in symbols):
        return False
    config = pynvml.c_nvmlGpuOperationalEventConfig_v1_t(gpu.uuid, _LEAST_LEVEL)
    code: int = pynvml.nvmlLib.nvmlEventSetRegisterGpuOperationalEvents_v1(event_set, ctypes.byref(config))
    return code == _NO_ERROR


def wait(event_set: Any, timeout_ms: int) -> tuple[int, Waited]:  # noqa: ANN401
    """Wait for an event of either kind by the bare library call; return NVML's code and what it filled in."""
    found = pynvml.c_nvmlEventSetWait_v3_t()
    found.timeoutMs = timeout_ms
    return pynvml.nvmlLib.nvmlEventSetWait_v3(event_set, ctypes.byref(found)), found


def described(event_set: Any, found: Waited) -> tuple[int, str, int] | None:  # noqa: ANN401
    """Return code, plain words and severity of an operational event; None for an event as of older drivers."""
    if found.dataType != _IS_OPERATIONAL:
        return None
    severity, rank = _SEVERITIES.get(found.severity, (f"severity {found.severity}", 1))
    module = text_of(found, "sourceModule") or "GPU"
    words = [f"{module} event {found.moduleEventCode}: {severity}", f"category {found.categoryId}"]
    words += _named(found.attributes, _ATTRIBUTES) + _named(found.groupAttributes, _GROUP_ATTRIBUTES)
    if found.groupSize > 1:
        words.append(f"{found.groupIndex + 1} of {found.groupSize}")
    xid = _xid(event_set)
    words += [f"XID {xid}"] if xid is not None else []
    return int(found.moduleEventCode), ", ".join(words), rank


def text_of(found: Waited, name: str) -> str:
    """Return a text of the structure; pynvml's own attribute raises for one that is not UTF-8."""
    raw: bytes = getattr(type(found), name).__get__(found)
    return raw.decode("ascii", "backslashreplace")


def _named(mask: int, names: dict[int, str]) -> list[str]:
    return [name for bit, name in names.items() if mask & bit]


def _xid(event_set: Any) -> int | None:  # noqa: ANN401
    """Return the XID that the event just waited for comes with; None where it has none."""
    call = getattr(pynvml.nvmlLib, "nvmlEventSetGetGpuOperationalEventContextLegacyXid_v1", None)
    if call is None:
        return None
    context = pynvml.c_nvmlEventSetGetGpuOperationalEventContextLegacyXid_v1_t()
    return int(context.xidCode) if call(event_set, ctypes.byref(context)) == _NO_ERROR else None
