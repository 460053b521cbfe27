"""The GPU readings: one row per field, from which schema, collectors, simulator, C rig and dashboards follow.

To add a reading, add its row to the set that reads it and run `make reference`, which renews
docs/reference/schema.md. Rows stand in the order of the schema, which is the order of reading: field values, then
getters.
"""

from dataclasses import dataclass
from typing import Final, Literal

__all__ = ["ACTIVITY_FIELDS", "FAST_FIELDS", "FULL_FIELDS", "SLOW_FIELDS", "FieldValue", "Getter", "GpuField"]


@dataclass(frozen=True, slots=True)
class FieldValue:
    """A value of `nvmlDeviceGetFieldValues`.

    `constant` is its name in nvml.h without `NVML_FI_`; `per` how many of NVML's units make one of ours. `since` and
    `before` bound the driver versions in which the id has this meaning. `part` names a value that is one of several
    from which the field is made. `wrap_bits` is the width of a counter that wraps.

    `simulated` is the answer of a simulated GPU: a quantity of its physics (simulate/publish.py) or a constant; None
    means "not supported". `simulated_on` says on which models; `value_type` is the type in which NVML answers.
    """

    constant: str
    field_id: int
    scope_id: int = 0
    per: float = 1.0
    part: str = ""
    since: tuple[int, ...] = ()
    before: tuple[int, ...] = ()
    wrap_bits: int = 0
    value_type: Literal["u32", "u64", "i32"] = "u32"
    simulated: str | int | None = None
    simulated_on: Literal["every", "hbm_temp", "hbm_power", "nvlink", "blackwell"] = "every"

    def is_in(self, driver: tuple[int, ...]) -> bool:
        """Return whether the id has this meaning in a driver version, such as (580, 82)."""
        return self.since <= driver and not (self.before and driver >= self.before)


@dataclass(frozen=True, slots=True)
class Getter:
    """An NVML function whose last argument takes the value.

    `output` is a number (`u32`, `u64`) or a structure such as `nvmlMemory_v2`, whose `attribute` is read. `arguments`
    stand between handle and output; `preset` fills in members of the structure. `part` is as in `FieldValue`.
    `simulated` is the constant that a simulated GPU answers; it is used for a function of one number that the simulator
    has no answer of its own for (simulate/answers.py).
    """

    symbol: str
    output: str
    attribute: str = ""
    arguments: tuple[int, ...] = ()
    preset: tuple[tuple[str, int], ...] = ()
    part: str = ""
    simulated: int | None = None


@dataclass(frozen=True, slots=True)
class GpuField:
    """One stored field of a GPU.

    `sources` are where the value comes from, the best first; without any, sampler or collector compute it. `combine` is
    the rule for several: "first" takes the first that answers, "sum" adds the parts up, "own" leaves it to the
    collector. `aggregate` is what a panel shows of an interval; of a counter that is "spread", its rise.
    """

    name: str
    unit: str
    text: str
    kind: Literal["gauge", "counter", "state"] = "gauge"
    aggregate: Literal["mean", "min", "max", "last", "spread"] = "mean"
    sources: tuple[FieldValue | Getter, ...] = ()
    combine: Literal["first", "sum", "own"] = "first"


_ALL_LINKS: Final = 0xFFFFFFFF
_KIB: Final = 1 / 1024
_MOVED: Final = (580, 82)
"""Slowdown times have ids 251 to 253 in drivers 575 to 580.65, and 269 to 271 from 580.82 on, where the old ids mean
power smoothing (nvidia-ml-py 12.575.51, 13.580.65 and 13.580.82 show it). Older drivers have none."""


def _power(constant: str, field_id: int, simulated: str | None = None, *, scope: int = 0, part: str = "") -> FieldValue:
    """Return a power in mW of the GPU (scope 0), the module (1) or the memory (2)."""
    return FieldValue(
        f"DEV_POWER_{constant}", field_id, scope, 1e3, part,
        simulated=simulated, simulated_on="hbm_power" if scope == 2 else "every",
    )  # fmt: skip


def _slowdown(constant: str, number: int, simulated: str, part: str = "") -> tuple[FieldValue, FieldValue]:
    """Return a slowdown time in ns under its present and its former id."""
    name = f"DEV_CLOCKS_EVENT_REASON_{constant}"
    return (
        FieldValue(name, 269 + number, 0, 1e9, part, since=_MOVED, value_type="u64", simulated=simulated),
        FieldValue(
            name, 251 + number, 0, 1e9, part, since=(575,), before=_MOVED, value_type="u64", simulated=simulated
        ),
    )


def _count(constant: str, field_id: int, part: str = "", simulated: int | None = 0) -> FieldValue:
    return FieldValue(f"DEV_{constant}", field_id, part=part, simulated=simulated)


def _ecc(constant: str, field_id: int) -> FieldValue:
    return FieldValue(f"DEV_ECC_{constant}_AGG_TOTAL", field_id, value_type="u64", simulated=0)


def _nvlink(constant: str, field_id: int) -> FieldValue:
    name = f"DEV_NVLINK_THROUGHPUT_DATA_{constant}"
    simulated = f"nvlink_{constant.lower()}_kib"
    return FieldValue(name, field_id, _ALL_LINKS, _KIB, value_type="u64", simulated=simulated, simulated_on="nvlink")


def _pcie(constant: str, field_id: int) -> FieldValue:
    name = f"DEV_PCIE_COUNT_{constant}_BYTES"
    return FieldValue(name, field_id, wrap_bits=32, simulated=f"pcie_{constant.lower()}_bytes")


def _tlimit(constant: str, field_id: int, part: str) -> FieldValue:
    """Return a threshold in K below the maximum operating temperature."""
    return FieldValue(f"DEV_TEMPERATURE_{constant}_TLIMIT", field_id, part=part, value_type="i32", simulated=part)


_ENERGY: Final = (
    FieldValue("DEV_ENERGY", 191, 0, 1e3, value_type="u64", simulated="energy_mj"),
    FieldValue("DEV_TOTAL_ENERGY_CONSUMPTION", 83, 0, 1e3, "total_energy_j", value_type="u64", simulated="energy_mj"),
)
_POWER_CAP: Final = FieldValue(
    "DEV_CLOCKS_EVENT_REASON_SW_POWER_CAP", 74, 0, 1e9, value_type="u64", simulated="slow_power_cap_ns"
)
_TEMPERATURE: Final = (
    Getter("nvmlDeviceGetTemperatureV", "nvmlTemperature_v1", "temperature", preset=(("sensorType", 0),)),
    Getter("nvmlDeviceGetTemperature", "u32", arguments=(0,)),
)
_MARGIN: Final = (
    Getter("nvmlDeviceGetMarginTemperature", "nvmlMarginTemperature_v1", "marginTemperature"),
    Getter("nvmlDeviceGetTemperatureThreshold", "u32", arguments=(1,), part="slowdown_c"),
)
_REASONS: Final = (
    Getter("nvmlDeviceGetCurrentClocksEventReasons", "u64"),
    Getter("nvmlDeviceGetCurrentClocksThrottleReasons", "u64"),
)


def _clock(domain: int) -> tuple[Getter]:
    return (Getter("nvmlDeviceGetClockInfo", "u32", arguments=(domain,)),)


def _memory(attribute: str) -> tuple[Getter, Getter]:
    return (
        Getter("nvmlDeviceGetMemoryInfo_v2", "nvmlMemory_v2", attribute),
        Getter("nvmlDeviceGetMemoryInfo", "nvmlMemory", attribute),
    )


def _utilization(attribute: str) -> tuple[Getter]:
    return (Getter("nvmlDeviceGetUtilizationRates", "nvmlUtilization", attribute),)


_Row = GpuField
FAST_FIELDS: Final = (
    _Row("power_w", "W", "mean of instantaneous power over the interval", sources=(
        _power("INSTANT", 186, "power_mw"), _power("AVERAGE", 185, "average_mw", part="average_w"))),
    _Row("power_min_w", "W", "lowest instantaneous power in the interval", aggregate="min"),
    _Row("power_max_w", "W", "highest instantaneous power in the interval", aggregate="max"),
    _Row("energy_j", "J", "energy counter, made monotonic over driver reloads and restarts",
         "counter", "spread", _ENERGY),
    _Row("energy_integral_j", "J", "energy integrated from power samples", "counter", "spread"),
)  # fmt: skip
"""Fields of `gpu` that come from the fast set, which is read ten times a second."""

FULL_FIELDS: Final = (
    _Row("power_average_w", "W", "the driver's own one-second average", sources=(
        _power("AVERAGE", 185, "average_mw"),)),
    _Row("module_power_w", "W", "power of the whole module (superchips)", sources=(
        _power("INSTANT", 186, scope=1), _power("AVERAGE", 185, scope=1, part="module_average_w"))),
    _Row("hbm_power_w", "W", "power of the memory stacks", sources=(
        _power("AVERAGE", 185, "hbm_average_mw", scope=2),)),
    _Row("power_limit_w", "W", "limit that the GPU enforces now, whoever set it", "gauge", "min", (
        _power("CURRENT_LIMIT", 190, "limit_mw"),)),
    _Row("power_limit_requested_w", "W", "limit that was asked for in band", "gauge", "min", (
        _power("REQUESTED_LIMIT", 192, "requested_mw"),)),
    _Row("hbm_temp_c", "degC", "memory temperature", "gauge", "max", (
        FieldValue("DEV_MEMORY_TEMP", 82, simulated="hbm_temp_c", simulated_on="hbm_temp"),)),
    _Row("slow_power_cap_s", "s", "time held down by the software power cap", "counter", "spread", (_POWER_CAP,)),
    _Row("nvlink_tx_bytes", "B", "bytes sent over NVLink", "counter", "spread", (_nvlink("TX", 138),)),
    _Row("nvlink_rx_bytes", "B", "bytes received over NVLink", "counter", "spread", (_nvlink("RX", 139),)),
    _Row("pcie_tx_bytes", "B", "bytes sent over PCIe since the driver was loaded",
         "counter", "spread", (_pcie("TX", 197),)),
    _Row("pcie_rx_bytes", "B", "bytes received over PCIe since the driver was loaded",
         "counter", "spread", (_pcie("RX", 198),)),
    _Row("recovery_action", "", "what the driver asks for: 0 none, 1 GPU reset, 2 node reboot, 3 drain",
         "state", "last", (_count("GET_GPU_RECOVERY_ACTION", 230),)),
    _Row("slow_thermal_s", "s", "time held down by software or hardware thermal slowdown", "counter", "spread", (
        *_slowdown("SW_THERM_SLOWDOWN", 0, "slow_sw_thermal_ns", "sw_thermal_s"),
        *_slowdown("HW_THERM_SLOWDOWN", 1, "slow_hw_thermal_ns", "hw_thermal_s")), "sum"),
    _Row("slow_hw_power_brake_s", "s", "time held down by the power brake", "counter", "spread",
         _slowdown("HW_POWER_BRAKE_SLOWDOWN", 2, "slow_brake_ns")),
    _Row("pstate", "", "performance state, 0 is the fastest", "state", "last", (
        Getter("nvmlDeviceGetPerformanceState", "u32"),)),
    _Row("sm_clock_mhz", "MHz", "streaming multiprocessor clock", sources=_clock(1)),
    _Row("mem_clock_mhz", "MHz", "memory clock", sources=_clock(2)),
    _Row("temp_c", "degC", "GPU temperature", "gauge", "max", _TEMPERATURE),
    _Row("temp_margin_c", "K", "distance to the nearest slowdown threshold", "gauge", "min", _MARGIN, "own"),
    _Row("clocks_event_reasons", "", "bit mask of the reasons that hold clocks down now", "state", "last", _REASONS),
    _Row("mem_used_bytes", "B", "memory in use", "gauge", "max", _memory("used")),
    _Row("mem_total_bytes", "B", "memory present", "gauge", "max", _memory("total")),
    _Row("util_percent", "%", "share of time with a kernel running", sources=_utilization("gpu")),
    _Row("mem_util_percent", "%", "share of time with memory traffic", sources=_utilization("memory")),
)  # fmt: skip
"""Fields of `gpu` that are read once a second."""

SLOW_FIELDS: Final = (
    _Row("ecc_corrected", "", "corrected memory errors, lifetime", "counter", "spread", (_ecc("SBE", 5),)),
    _Row("ecc_uncorrected", "", "uncorrected memory errors, lifetime", "counter", "spread", (_ecc("DBE", 6),)),
    _Row("remapped_rows", "", "memory rows remapped", "counter", "spread", (
        _count("REMAPPED_COR", 142, "remapped_correctable"),
        _count("REMAPPED_UNC", 143, "remapped_uncorrectable")), "sum"),
    _Row("remap_pending", "", "1 while a remapping waits for a reset", "state", "last", (
        _count("REMAPPED_PENDING", 144),)),
    _Row("retired_pages", "", "retired memory pages", "counter", "spread", (
        _count("RETIRED_SBE", 29, "retired_single", None), _count("RETIRED_DBE", 30, "retired_double", None)), "sum"),
    _Row("power_limit_min_w", "W", "lowest power limit that the GPU accepts", sources=(
        _power("MIN_LIMIT", 187, "limit_min_mw"),)),
    _Row("power_limit_max_w", "W", "highest power limit that the GPU accepts", sources=(
        _power("MAX_LIMIT", 188, "limit_max_mw"),)),
    _Row("power_limit_default_w", "W", "power limit after a driver load", sources=(
        _power("DEFAULT_LIMIT", 189, "limit_default_mw"),)),
    _Row("temp_shutdown_c", "degC", "temperature at which the GPU turns itself off", sources=(
        _tlimit("SHUTDOWN", 193, "shutdown_tlimit_c"),), combine="own"),
    _Row("temp_slowdown_c", "degC", "temperature at which clocks are lowered", sources=(
        _tlimit("SLOWDOWN", 194, "slowdown_tlimit_c"),), combine="own"),
    _Row("temp_max_c", "degC", "hottest of the GPU's temperature sensors, where the driver tells it", "gauge", "max"),
    _Row("power_smoothing", "", "1 while the GPU smooths its power (Blackwell)", "state", "last", (
        FieldValue("PWR_SMOOTHING_ENABLED", 251, since=_MOVED, simulated=0, simulated_on="blackwell"),)),
    _Row("power_smoothing_profile", "", "number of the power smoothing preset in force", "state", "last", (
        FieldValue("PWR_SMOOTHING_ACTIVE_PRESET_PROFILE", 264, since=_MOVED, simulated=0, simulated_on="blackwell"),)),
    _Row("power_profiles", "", "bit mask of the workload power profiles 0 to 31 in force", "state", "last", (
        Getter("nvmlDeviceWorkloadPowerProfileGetCurrentProfiles", "nvmlWorkloadPowerProfileCurrentProfiles_v1",
               "enforcedProfilesMask"),)),
    _Row("power_smoothing_ceiling_w", "W", "highest floor that power smoothing may hold the GPU at", sources=(
        FieldValue("PWR_SMOOTHING_APPLIED_TMP_CEIL", 254, since=_MOVED, simulated=0, simulated_on="blackwell"),)),
    _Row("power_smoothing_floor_w", "W", "power below which smoothing does not let the GPU fall now", sources=(
        FieldValue("PWR_SMOOTHING_APPLIED_TMP_FLOOR", 255, since=_MOVED, simulated=0, simulated_on="blackwell"),)),
    _Row("power_ramp_up_w_per_s", "W/s", "fastest rise of power of the smoothing preset", sources=(
        FieldValue("PWR_SMOOTHING_PROFILE_RAMP_UP_RATE", 261, 0, 1e3, since=_MOVED,
                   simulated=0, simulated_on="blackwell"),)),
    _Row("power_ramp_down_w_per_s", "W/s", "fastest fall of power of the smoothing preset", sources=(
        FieldValue("PWR_SMOOTHING_PROFILE_RAMP_DOWN_RATE", 262, 0, 1e3, since=_MOVED,
                   simulated=0, simulated_on="blackwell"),)),
    _Row("edpp_percent", "%", "multiplier of the peak power limit (EDPp)", sources=(
        FieldValue("DEV_EDPP_MULTIPLIER", 274, since=_MOVED, simulated=0, simulated_on="blackwell"),)),
    _Row("power_floor_primary_w", "W", "primary floor of power smoothing now", sources=(
        FieldValue("PWR_SMOOTHING_PRIMARY_POWER_FLOOR", 275, since=_MOVED,
                   simulated=0, simulated_on="blackwell"),)),
    _Row("power_floor_secondary_w", "W", "secondary floor of power smoothing now", sources=(
        FieldValue("PWR_SMOOTHING_SECONDARY_POWER_FLOOR", 276, since=_MOVED,
                   simulated=0, simulated_on="blackwell"),)),
    _Row("power_smoothing_delayed", "", "1 where the GPU can delay its power smoothing", "state", "last", (
        FieldValue("PWR_SMOOTHING_DELAYED_PWR_SMOOTHING_SUPPORTED", 280, since=_MOVED,
                   simulated=0, simulated_on="blackwell"),)),
    _Row("c2c_links", "", "links between GPU and CPU of a superchip", "state", "last", (
        FieldValue("DEV_C2C_LINK_COUNT", 170, simulated=0, simulated_on="blackwell"),)),
    _Row("c2c_max_bytes_per_s", "B/s", "most that one of these links carries", sources=(
        FieldValue("DEV_C2C_LINK_GET_MAX_BW", 172, 0, 1e-6, simulated=0, simulated_on="blackwell"),)),
    _Row("processes", "", "processes that use the GPU", aggregate="max"),
    _Row("fabric_state", "", "NVLink fabric state as NVML numbers it", "state", "last"),
    _Row("mig_mode", "", "1 when partitioned into MIG instances", "state", "last"),
    _Row("energy_closure", "", "energy counter over integral, less one, over the last interval"),
)  # fmt: skip
"""Fields of `gpu_slow`: health counters and settings, every ten seconds."""

ACTIVITY_FIELDS: Final = (
    _Row("sm_active_percent", "%", "multiprocessors with at least one warp, mean (GPM, Hopper and later)"),
    _Row("sm_occupancy_percent", "%", "warps resident of those possible, mean (GPM)"),
    _Row("tensor_active_percent", "%", "time with any tensor core active, mean (GPM)"),
    _Row("tensor_dfma_percent", "%", "time with double-precision tensor operations (DFMA), mean (GPM)"),
    _Row("tensor_hmma_percent", "%", "time with half-precision tensor operations (HMMA), mean (GPM)"),
    _Row("tensor_dmma_percent", "%", "time with double-precision matrix operations (DMMA), mean (GPM)"),
    _Row("tensor_imma_percent", "%", "time with integer tensor operations (IMMA), mean (GPM)"),
    _Row("dram_active_percent", "%", "memory bandwidth in use, mean (GPM)"),
    _Row("pcie_tx_bytes_per_s", "B/s", "sent over PCIe, mean (GPM)"),
    _Row("pcie_rx_bytes_per_s", "B/s", "received over PCIe, mean (GPM)"),
    _Row("nvlink_rx_bytes_per_s", "B/s", "received over NVLink, mean (GPM)"),
    _Row("nvlink_tx_bytes_per_s", "B/s", "sent over NVLink, mean (GPM)"),
)
"""Fields of `gpu_activity`, from NVML's GPM, every ten seconds."""
