"""Turns the physics of a simulated GPU into NVML answers: getters and field values in the state file.

Return codes are set once by `describe` and changed only by faults, so that a field that a script made "not supported"
stays so; `publish` writes values alone.
"""

from typing import Final

from powerhall.runtime.decode.numbers_in import digits
from powerhall.store.gpu_fields import FAST_FIELDS, FULL_FIELDS, SLOW_FIELDS, FieldValue
from powerhall_agent.simulate import layout as at
from powerhall_agent.simulate.models import GpuModel
from powerhall_agent.simulate.physics import enforced_limit_w

__all__ = ["describe", "publish", "slowdown_ids", "support_driver_fields"]

_EVENT_TYPES: Final = 0xFF0B
"""Single- and double-bit ECC, XID, MIG change, storm, retirement, poison, unavailable, recovery action."""
_ULL, _UINT, _INT = at.VALUE_ULONG_LONG, at.VALUE_UINT, at.VALUE_SIGNED_INT
_TYPES: Final = {"u32": _UINT, "u64": _ULL, "i32": _INT}
_WRAP32: Final = 1 << 32
_NS: Final = 1e9
_BLACKWELL: Final = 10
"""The first architecture with power smoothing and workload power profiles."""

_UNREAD: Final = ((3, _ULL), (4, _ULL), (76, _ULL), (145, _UINT), (195, _INT), (196, _INT))
"""Fields that a real GPU supports and the agent does not read."""
_VALUES: Final = tuple(
    source for row in (*FAST_FIELDS, *FULL_FIELDS, *SLOW_FIELDS) for source in row.sources
    if isinstance(source, FieldValue) and source.simulated is not None
)  # fmt: skip
_QUANTITIES: Final = (
    "power_mw", "average_mw", "hbm_average_mw", "limit_mw", "requested_mw", "limit_min_mw", "limit_max_mw",
    "limit_default_mw", "energy_mj", "hbm_temp_c", "shutdown_tlimit_c", "slowdown_tlimit_c", "slow_power_cap_ns",
    "slow_sw_thermal_ns", "slow_hw_thermal_ns", "slow_brake_ns", "nvlink_tx_kib", "nvlink_rx_kib", "pcie_tx_bytes",
    "pcie_rx_bytes",
)  # fmt: skip
"""Quantities that `publish` computes for field values, in its order."""
_PLACES: Final = tuple(
    dict.fromkeys(
        (at.F_WORDS * (at.field_slot(value.field_id, value.scope_id) or 0), _QUANTITIES.index(value.simulated))
        for value in _VALUES
        if isinstance(value.simulated, str)
    )
)
"""Where each field value lies, counted from the value of field 0, and which quantity it shows."""
_GETTERS_ALWAYS: Final = tuple(
    name
    for name in at.GETTERS
    if not name.startswith(("THRESHOLD", "POWER_PROFILES")) and name not in at.FURTHER_GETTERS
)


def _support(ints: "memoryview[int]", base: int, value: FieldValue) -> None:
    slot = at.field_slot(value.field_id, value.scope_id)
    if slot is not None:
        word = base + at.F_BASE + at.F_WORDS * slot
        ints[word] = _TYPES[value.value_type] << 32
        if isinstance(value.simulated, int):
            ints[word + 1] = value.simulated


def slowdown_ids(driver: str) -> list[int]:
    """Return the ids of the slowdown times in a driver: software thermal, hardware thermal, power brake."""
    version = _version(driver)
    found = [value for value in _VALUES if value.since and value.simulated_on == "every"]
    return [value.field_id for value in found if value.is_in(version)]


def _version(driver: str) -> tuple[int, ...]:
    return tuple(number for part in driver.split(".")[:2] if (number := digits(part)) is not None)


def support_driver_fields(ints: "memoryview[int]", base: int, driver: str) -> None:
    """Support the fields whose ids depend on the driver."""
    version = _version(driver)
    blackwell = ints[base + at.getter_word("ARCHITECTURE") + 1] >= _BLACKWELL
    for value in _VALUES:
        if value.since and value.is_in(version) and (blackwell or value.simulated_on != "blackwell"):
            _support(ints, base, value)


def _model_supports(value: FieldValue, spec: GpuModel) -> bool:
    return {
        "every": True,
        "hbm_temp": spec.has_hbm_temp,
        "hbm_power": spec.hbm_share > 0,
        "nvlink": spec.nvlink_bytes_per_s > 0,
        "blackwell": spec.architecture >= _BLACKWELL,
    }[value.simulated_on]


def describe(ints: "memoryview[int]", d: "memoryview[float]", base: int, spec: GpuModel, inlet_c: float) -> None:
    """Write identity and supported readings of a GPU of this model, idle and settled at the inlet temperature."""
    for word, value in (
        (at.C_LIMIT_W, spec.limit_default_w), (at.C_INLET_C, inlet_c), (at.C_POWER_W, spec.idle_w),
        (at.C_AVERAGE_W, spec.idle_w), (at.C_IDLE_W, spec.idle_w), (at.C_PEAK_W, spec.peak_w),
        (at.C_LIMIT_MIN_W, spec.limit_min_w), (at.C_LIMIT_MAX_W, spec.limit_max_w),
        (at.C_LIMIT_DEFAULT_W, spec.limit_default_w), (at.C_CLOCK_MAX_MHZ, spec.clock_max_mhz),
        (at.C_CLOCK_MHZ, spec.clock_idle_mhz), (at.C_CLOCK_IDLE_MHZ, spec.clock_idle_mhz),
        (at.C_MEM_CLOCK_MHZ, spec.mem_clock_mhz), (at.C_MEM_TOTAL, float(spec.mem_total_bytes)),
        (at.C_MEM_RESERVED, float(spec.mem_reserved_bytes)), (at.C_RTH_K_PER_W, spec.rth_k_per_w),
        (at.C_TAU_S, spec.tau_s), (at.C_TEMP_MAX_C, spec.temp_max_c), (at.C_TEMP_SLOWDOWN_C, spec.temp_slowdown_c),
        (at.C_TEMP_SHUTDOWN_C, spec.temp_shutdown_c), (at.C_HBM_SHARE, spec.hbm_share), (at.C_NOISE, 0.01),
        (at.C_NVLINK_BYTES_PER_S, spec.nvlink_bytes_per_s),
        (at.C_TEMP_C, inlet_c + spec.rth_k_per_w * spec.idle_w),
        (at.C_HBM_TEMP_C, inlet_c + spec.rth_k_per_w * spec.idle_w + 6.0),
    ):  # fmt: skip
        d[base + word] = value
    ints[base + at.C_EVENT_TYPES] = _EVENT_TYPES
    for name, getter in at.FURTHER_GETTERS.items():
        if getter.simulated is not None:
            word = base + at.getter_word(name)
            ints[word], ints[word + 1] = 0, getter.simulated
    for field_id, value_type in _UNREAD:
        ints[base + at.F_BASE + at.F_WORDS * field_id] = value_type << 32
    for source in _VALUES:
        if not source.since and _model_supports(source, spec):
            _support(ints, base, source)
    if spec.architecture >= _BLACKWELL:
        ints[base + at.getter_word("POWER_PROFILES")] = 0
    for name in _GETTERS_ALWAYS:
        ints[base + at.getter_word(name)] = 0
    for name, temp_c in (
        ("THRESHOLD_SHUTDOWN", spec.temp_shutdown_c), ("THRESHOLD_SLOWDOWN", spec.temp_slowdown_c),
        ("THRESHOLD_GPU_MAX", spec.temp_max_c), ("ARCHITECTURE", spec.architecture), ("FABRIC", 3),
    ):  # fmt: skip
        word = base + at.getter_word(name)
        ints[word], ints[word + 1] = 0, int(temp_c)
    publish(ints, d, base, 0x1)


def _energy_mj(ints: "memoryview[int]", d: "memoryview[float]", base: int) -> int:
    energy_mj = int(d[base + at.C_ENERGY_MJ] - d[base + at.C_ENERGY_OFFSET_MJ])
    bits = ints[base + at.C_ENERGY_WRAP_BITS]
    return energy_mj % (1 << bits) if bits else energy_mj


def _noisy_w(ints: "memoryview[int]", d: "memoryview[float]", base: int) -> float:
    """Return the power with the sensor's noise: a linear congruential generator, so that a seed repeats a run."""
    state = (ints[base + at.C_RNG] * 1103515245 + 12345) & 0x7FFFFFFF
    ints[base + at.C_RNG] = state
    return d[base + at.C_POWER_W] * (1.0 + d[base + at.C_NOISE] * (state / 0x3FFFFFFF - 1.0))


def publish(ints: "memoryview[int]", d: "memoryview[float]", base: int, reasons: int) -> None:
    """Write the values of all getters and fields from the physics."""
    power_mw, average_mw = int(_noisy_w(ints, d, base) * 1000.0), int(d[base + at.C_AVERAGE_W] * 1000.0)
    limit_mw, requested_mw = int(enforced_limit_w(d, base) * 1000.0), int(d[base + at.C_LIMIT_W] * 1000.0)
    energy_mj = _energy_mj(ints, d, base)
    temp_c, max_c = round(d[base + at.C_TEMP_C]), round(d[base + at.C_TEMP_MAX_C])
    clock_mhz, mem_mhz = round(d[base + at.C_CLOCK_MHZ] / 15.0) * 15, round(d[base + at.C_MEM_CLOCK_MHZ])
    low_mw, high_mw = int(d[base + at.C_LIMIT_MIN_W] * 1000.0), int(d[base + at.C_LIMIT_MAX_W] * 1000.0)
    default_mw = int(d[base + at.C_LIMIT_DEFAULT_W] * 1000.0)
    util, mem_util = round(d[base + at.C_UTIL] * 100.0), round(d[base + at.C_MEM_UTIL] * 100.0)
    first = base + at.F_BASE + 1
    values = (
        power_mw, average_mw, int(average_mw * d[base + at.C_HBM_SHARE]), limit_mw, requested_mw, low_mw, high_mw,
        default_mw, energy_mj, round(d[base + at.C_HBM_TEMP_C]), max_c - round(d[base + at.C_TEMP_SHUTDOWN_C]),
        max_c - round(d[base + at.C_TEMP_SLOWDOWN_C]), int(d[base + at.C_SLOW_POWER_NS]),
        int(d[base + at.C_SLOW_SW_THERMAL_NS]), int(d[base + at.C_SLOW_HW_THERMAL_NS]),
        int(d[base + at.C_SLOW_BRAKE_NS]), int(d[base + at.C_NVLINK_TX]) >> 10, int(d[base + at.C_NVLINK_RX]) >> 10,
        int(d[base + at.C_PCIE_TX]) % _WRAP32, int(d[base + at.C_PCIE_RX]) % _WRAP32,
    )  # fmt: skip
    for place, number in _PLACES:
        ints[first + place] = values[number]
    for word, value, second in (
        (_POWER, average_mw, 0), (_ENERGY, energy_mj, 0), (_TEMP, temp_c, 0), (_MARGIN, max_c - temp_c, 0),
        (_UTIL, util, mem_util), (_MEMORY, int(d[base + at.C_MEM_TOTAL]), int(d[base + at.C_MEM_USED])),
        (_RESERVED, int(d[base + at.C_MEM_RESERVED]), 0), (_SM, clock_mhz, 0), (_GRAPHICS, clock_mhz, 0),
        (_MEM, mem_mhz, 0), (_REASONS, reasons, 0), (_LIMIT, limit_mw, 0), (_REQUESTED, requested_mw, 0),
        (_DEFAULT, default_mw, 0), (_RANGE, low_mw, high_mw),
    ):  # fmt: skip
        ints[base + word], ints[base + word + 1] = value, second


def _value(name: str) -> int:
    return at.getter_word(name) + 1


_POWER, _ENERGY, _TEMP, _MARGIN = _value("POWER_USAGE"), _value("TOTAL_ENERGY"), _value("TEMPERATURE"), _value("MARGIN")
_UTIL, _MEMORY, _RESERVED, _REASONS = (
    _value("UTILIZATION"),
    _value("MEMORY"),
    _value("MEMORY_RESERVED"),
    _value("REASONS"),
)
_SM, _MEM, _GRAPHICS = _value("CLOCK_SM"), _value("CLOCK_MEM"), _value("CLOCK_GRAPHICS")
_LIMIT, _REQUESTED, _DEFAULT = _value("ENFORCED_LIMIT"), _value("REQUESTED_LIMIT"), _value("DEFAULT_LIMIT")
_RANGE = _value("LIMIT_RANGE")
