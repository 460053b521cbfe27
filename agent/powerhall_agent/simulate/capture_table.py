"""Paths of a capture by NVML field or getter; the first path that a capture has is taken."""

from collections.abc import Mapping
from typing import Final

__all__ = ["EVENT_REASONS", "FIELDS", "GETTERS", "SLOWDOWN_TIMES", "TEXTS", "pick"]

Paths = tuple[str, ...]
_GPU, _MEM, _MODULE = "GPU Power Readings", "GPU Memory Power Readings", "Module Power Readings"
_UINT, _ULL, _INT = 1, 3, 5
_ABSENT: Final = ("N/A", "REDACTED", "Requested functionality has been deprecated", "Unknown Error", "")


def pick(texts: Mapping[str, str], paths: Paths) -> str | None:
    """Return the first text that is present and not a placeholder such as N/A."""
    for path in paths:
        text = texts.get(path)
        if text is not None and text.strip("[]") not in _ABSENT:
            return text
    return None


def _power(group: str, section: str, name: str, tag: str) -> Paths:
    """Paths of a power reading: text, XML, and the older XML without scopes."""
    older = (f"power_readings/{tag}", f"Power Readings/{name}") if section == _GPU else ()
    return (f"{section}/{name}", f"{group}/{tag}", *older)


_AVERAGE = {
    scope: _power(group, section, "Average Power Draw", "average_power_draw")
    for scope, group, section in (
        (0, "gpu_power_readings", _GPU), (1, "module_power_readings", _MODULE), (2, "gpu_memory_power_readings", _MEM)
    )
}  # fmt: skip
_INSTANT = _power("gpu_power_readings", _GPU, "Instantaneous Power Draw", "instant_power_draw")
_MODULE_INSTANT = _power("module_power_readings", _MODULE, "Instantaneous Power Draw", "instant_power_draw")
_DRAW = _power("gpu_power_readings", _GPU, "Power Draw", "power_draw")
_ENFORCED = (
    *_power("gpu_power_readings", _GPU, "Current Power Limit", "current_power_limit"),
    "power_readings/enforced_power_limit",
)
_REQUESTED = (
    *_power("gpu_power_readings", _GPU, "Requested Power Limit", "requested_power_limit"),
    "power_readings/power_limit",
)
_DEFAULT = _power("gpu_power_readings", _GPU, "Default Power Limit", "default_power_limit")
_LOW = _power("gpu_power_readings", _GPU, "Min Power Limit", "min_power_limit")
_HIGH = _power("gpu_power_readings", _GPU, "Max Power Limit", "max_power_limit")


def _ecc(*names: tuple[str, str]) -> tuple[Paths, ...]:
    return tuple((f"ECC Errors/Aggregate/{text}", f"ecc_errors/aggregate/{tag}") for text, tag in names)


FIELDS: Final[tuple[tuple[str, int, float, tuple[Paths, ...]], ...]] = (
    ("185", _UINT, 1000, (_AVERAGE[0],)),
    ("185:1", _UINT, 1000, (_AVERAGE[1],)),
    ("185:2", _UINT, 1000, (_AVERAGE[2],)),
    ("186", _UINT, 1000, (_INSTANT,)),
    ("186:1", _UINT, 1000, (_MODULE_INSTANT,)),
    ("187", _UINT, 1000, (_LOW,)),
    ("188", _UINT, 1000, (_HIGH,)),
    ("189", _UINT, 1000, (_DEFAULT,)),
    ("190", _UINT, 1000, (_ENFORCED,)),
    ("192", _UINT, 1000, (_REQUESTED,)),
    ("82", _UINT, 1, (("Temperature/Memory Current Temp", "temperature/memory_temp"),)),
    ("193", _INT, 1, (("Temperature/GPU Shutdown T.Limit Temp", "temperature/gpu_temp_max_tlimit_threshold"),)),
    ("194", _INT, 1, (("Temperature/GPU Slowdown T.Limit Temp", "temperature/gpu_temp_slow_tlimit_threshold"),)),
    ("74", _ULL, 1000, (("Clocks Event Reasons Counters/SW Power Capping",
                         "clocks_event_reasons_counters/clocks_event_reasons_counters_sw_power_cap"),)),
    ("5", _ULL, 1, _ecc(("SRAM Correctable", "sram_correctable"), ("DRAM Correctable", "dram_correctable"))),
    ("6", _ULL, 1, _ecc(("SRAM Uncorrectable", "sram_uncorrectable"), ("DRAM Uncorrectable", "dram_uncorrectable"))),
    ("6", _ULL, 1, _ecc(
        ("SRAM Uncorrectable Parity", "sram_uncorrectable_parity"),
        ("SRAM Uncorrectable SEC-DED", "sram_uncorrectable_secded"), ("DRAM Uncorrectable", "dram_uncorrectable"))),
    ("142", _UINT, 1, (("Remapped Rows/Correctable Error", "remapped_rows/remapped_row_corr"),)),
    ("143", _UINT, 1, (("Remapped Rows/Uncorrectable Error", "remapped_rows/remapped_row_unc"),)),
    ("144", _UINT, 1, (("Remapped Rows/Pending", "remapped_rows/remapped_row_pending"),)),
    ("29", _UINT, 1, (("Retired Pages/Single Bit ECC",
                       "retired_pages/multiple_single_bit_retirement/retired_count"),)),
    ("30", _UINT, 1, (("Retired Pages/Double Bit ECC", "retired_pages/double_bit_retirement/retired_count"),)),
    ("230", _UINT, 1, (("GPU Recovery Action", "gpu_recovery_action"),)),
)  # fmt: skip
"""Field key, NVML value type, factor, and the paths whose values are added up. Slowdown times have moving ids."""

_COUNTERS = "clocks_event_reasons_counters/clocks_event_reasons_counters_"
SLOWDOWN_TIMES: Final[tuple[Paths, ...]] = (
    ("Clocks Event Reasons Counters/SW Thermal Slowdown", f"{_COUNTERS}sw_therm_slowdown"),
    ("Clocks Event Reasons Counters/HW Thermal Slowdown", f"{_COUNTERS}hw_therm_slowdown"),
    ("Clocks Event Reasons Counters/HW Power Braking", f"{_COUNTERS}hw_power_brake"),
)
"""Software thermal, hardware thermal, power brake; in microseconds."""

_MIB: Final = 1 << 20
GETTERS: Final[tuple[tuple[str, float, tuple[Paths, ...]], ...]] = (
    ("POWER_USAGE", 1000, ((*_AVERAGE[0], *_DRAW, *_INSTANT),)),
    ("TEMPERATURE", 1, (("Temperature/GPU Current Temp", "temperature/gpu_temp"),)),
    ("MARGIN", 1, (("Temperature/GPU T.Limit Temp", "temperature/gpu_temp_tlimit"),)),
    ("UTILIZATION", 1, (("Utilization/GPU", "Utilization/Gpu", "utilization/gpu_util"),
                        ("Utilization/Memory", "utilization/memory_util"))),
    ("MEMORY", _MIB, (("FB Memory Usage/Total", "fb_memory_usage/total"),
                      ("FB Memory Usage/Used", "fb_memory_usage/used"))),
    ("MEMORY_RESERVED", _MIB, (("FB Memory Usage/Reserved", "fb_memory_usage/reserved"),)),
    ("PSTATE", 1, (("Performance State", "performance_state"),)),
    ("CLOCK_GRAPHICS", 1, (("Clocks/Graphics", "clocks/graphics_clock"),)),
    ("CLOCK_SM", 1, (("Clocks/SM", "clocks/sm_clock"),)),
    ("CLOCK_MEM", 1, (("Clocks/Memory", "clocks/mem_clock"),)),
    ("ENFORCED_LIMIT", 1000, (_ENFORCED,)),
    ("REQUESTED_LIMIT", 1000, (_REQUESTED,)),
    ("DEFAULT_LIMIT", 1000, (_DEFAULT,)),
    ("LIMIT_RANGE", 1000, (_LOW, _HIGH)),
    ("THRESHOLD_SHUTDOWN", 1, (("Temperature/GPU Shutdown Temp", "temperature/gpu_temp_max_threshold"),)),
    ("THRESHOLD_SLOWDOWN", 1, (("Temperature/GPU Slowdown Temp", "temperature/gpu_temp_slow_threshold"),)),
    ("THRESHOLD_GPU_MAX", 1, (("Temperature/GPU Max Operating Temp", "temperature/gpu_temp_max_gpu_threshold"),)),
    ("MIG_MODE", 1, (("MIG Mode/Current", "mig_mode/current_mig"), ("MIG Mode/Pending", "mig_mode/pending_mig"))),
    ("FABRIC", 1, (("Fabric/State", "fabric/state"), ("Fabric/Status", "fabric/status"))),
    ("ARCHITECTURE", 1, (("Product Architecture", "product_architecture"),)),
)  # fmt: skip
"""Getter, factor, and the paths of its first and second value."""

_REASONS = ("clocks_event_reasons/clocks_event_reason_", "clocks_throttle_reasons/clocks_throttle_reason_")


def _reason(tag: str, *names: str) -> Paths:
    sections = ("Clocks Event Reasons", "Clocks Throttle Reasons")
    return (
        *(f"{section}/{name}" for section in sections for name in names),
        *(f"{prefix}{tag}" for prefix in _REASONS),
    )


EVENT_REASONS: Final[dict[int, Paths]] = {
    0x1: _reason("gpu_idle", "Idle"),
    0x2: _reason("applications_clocks_setting", "Applications Clocks Setting"),
    0x4: _reason("sw_power_cap", "SW Power Cap"),
    0x8: _reason("hw_slowdown", "HW Slowdown"),
    0x10: _reason("sync_boost", "Sync Boost"),
    0x20: _reason("sw_thermal_slowdown", "SW Thermal Slowdown"),
    0x40: _reason("hw_thermal_slowdown", "HW Slowdown/HW Thermal Slowdown", "HW Thermal Slowdown"),
    0x80: _reason("hw_power_brake_slowdown", "HW Slowdown/HW Power Brake Slowdown", "HW Power Brake Slowdown"),
    0x100: _reason("display_clocks_setting", "Display Clock Setting"),
}
TEXTS: Final[dict[str, Paths]] = {
    "name": ("Product Name", "product_name"),
    "uuid": ("GPU UUID", "uuid"),
    "serial": ("Serial Number", "serial"),
    "vbios": ("VBIOS Version", "vbios_version"),
}
