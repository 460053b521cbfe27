"""The fixed layout of the shared state file of simulated GPUs (version 1).

One file is one node. It is memory-mapped by every reader (the stand-in library in Python, the C library of the tests)
and by the one process that moves the physics. Everything is a native 8-byte word; texts are NUL-padded.

    words 0..255        header: H_* below, the ring of events at H_EVENTS
    then per GPU        GPU_WORDS words: C_* control and physics (doubles unless said), T_* texts,
                        G_* getters (return code, value, second value), F_* field values (code | type << 32, bits),
                        M_* MIG instances, P_* processes

A word is written in one store, so a reader never sees half a value; two words may be of two moments.
"""

from typing import Final

from powerhall.store.gpu_fields import FAST_FIELDS, FULL_FIELDS, SLOW_FIELDS, Getter

MAGIC: Final = 0x31304D4953484850  # "PHHSIM01", little endian
VERSION: Final = 1
HEADER_WORDS: Final = 256
GPU_WORDS: Final = 1024

# Header (integers).
H_MAGIC, H_VERSION, H_GPUS, H_GPU_WORDS, H_STEPS = 0, 1, 2, 3, 4
H_DRIVER_RETURN: Final = 5
"""Return code of every call, 0 while the driver works (9 driver not loaded, 18 version mismatch)."""
H_GENERATION: Final = 6
"""Counts driver loads; a reader of an earlier generation gets 1 (uninitialized) until it initialises again."""
H_LATENCY_NS: Final = 7
"""Every device call takes this long."""
H_WORLD_PID: Final = 8
"""Process that moves the physics; 0: the reader moves it by the wall clock."""
H_MISSING_SYMBOLS: Final = 9
"""Bit mask over OPTIONAL_SYMBOLS: these functions do not exist in this driver."""
H_SET_RETURN: Final = 10
"""Return code of every setter, 0 or 4 (no permission)."""
H_SIM_TIME_NS, H_STEPPED_NS = 11, 12
H_EVENT_HEAD: Final = 13
"""Events written since the file was made; event n lies in slot n % EVENT_SLOTS."""
H_CALLS: Final = 14
"""Device calls answered; kept by the C library only."""
H_SEED: Final = 15
H_DRIVER_VERSION, DRIVER_VERSION_WORDS = 16, 10
H_VALUES: Final = 26
"""Values given in these calls (a field value, a member of a structure); kept by the C library only."""
H_EVENTS, EVENT_SLOTS, EVENT_WORDS = 64, 32, 4
"""Per event: GPU index (-1: a system event), type, data, MIG instance id."""
OPERATIONAL_EVENT: Final = 1 << 62
"""Type of an operational event: data is its code, severity << 32 and XID << 40 (0 without one)."""

# Control and physics of one GPU (doubles, except where marked integer).
C_UTIL, C_MEM_UTIL, C_LIMIT_W, C_BMC_LIMIT_W, C_LOCK_MHZ, C_INLET_C, C_MEM_USED = 0, 1, 2, 3, 4, 5, 6
C_POWER_W, C_AVERAGE_W, C_TEMP_C, C_HBM_TEMP_C, C_CLOCK_MHZ, C_ENERGY_MJ = 7, 8, 9, 10, 11, 12
C_SLOW_POWER_NS, C_SLOW_SW_THERMAL_NS, C_SLOW_HW_THERMAL_NS, C_SLOW_BRAKE_NS = 13, 14, 15, 16
C_PCIE_TX, C_PCIE_RX, C_NVLINK_TX, C_NVLINK_RX = 17, 18, 19, 20
C_BRAKE: Final = 21
"""1 while the power brake is asserted."""
C_IDLE_W, C_PEAK_W, C_LIMIT_MIN_W, C_LIMIT_MAX_W, C_LIMIT_DEFAULT_W = 22, 23, 24, 25, 26
C_CLOCK_MAX_MHZ, C_CLOCK_IDLE_MHZ, C_MEM_CLOCK_MHZ, C_MEM_TOTAL, C_MEM_RESERVED = 27, 28, 29, 30, 31
C_RTH_K_PER_W, C_TAU_S, C_TEMP_MAX_C, C_TEMP_SLOWDOWN_C, C_TEMP_SHUTDOWN_C = 32, 33, 34, 35, 36
C_HBM_SHARE, C_NOISE, C_NVLINK_BYTES_PER_S, C_STATIC = 37, 38, 39, 40
"""C_STATIC 1: the GPU shows a capture or a replay and has no physics."""
C_FORCE_RETURN: Final = 48
"""Integer: return code of every call on this GPU (15 lost, 16 reset required, 999 unknown), 0 while the GPU works."""
C_HANG_UNTIL_NS: Final = 49
"""Integer: calls on this GPU block until this instant of CLOCK_MONOTONIC."""
C_LATENCY_NS: Final = 50
"""Integer: every call on this GPU takes this long."""
C_ENERGY_WRAP_BITS: Final = 51
"""Integer: the energy counter wraps at 2**bits mJ; 0 never."""
C_EVENT_TYPES: Final = 52
"""Integer: mask of supported event types."""
C_RNG: Final = 53
C_ENERGY_OFFSET_MJ: Final = 54
"""Double: the counter's value at its last reset; the counter shows C_ENERGY_MJ less this."""

# Texts: first word and length in words.
T_UUID, T_NAME, T_SERIAL, T_BUS_ID, T_VBIOS = (64, 12), (76, 12), (88, 4), (92, 4), (96, 4)

# Getters: three words each: return code, value, second value.
G_BASE, G_WORDS = 104, 3
_GETTERS: Final = (
    "POWER_USAGE", "TOTAL_ENERGY", "TEMPERATURE", "MARGIN", "UTILIZATION", "MEMORY", "MEMORY_RESERVED", "PSTATE",
    "CLOCK_SM", "CLOCK_MEM", "CLOCK_GRAPHICS", "REASONS", "ENFORCED_LIMIT", "REQUESTED_LIMIT", "DEFAULT_LIMIT",
    "LIMIT_RANGE", "THRESHOLD_SHUTDOWN", "THRESHOLD_SLOWDOWN", "THRESHOLD_MEM_MAX", "THRESHOLD_GPU_MAX", "MIG_MODE",
    "FABRIC", "ARCHITECTURE", "SERIAL", "PROCESSES", "VBIOS",
    "POWER_PROFILES",
)  # fmt: skip
_SCALARS: Final = {
    "nvmlDeviceGetPowerUsage": ("POWER_USAGE", "u32"),
    "nvmlDeviceGetTotalEnergyConsumption": ("TOTAL_ENERGY", "u64"),
    "nvmlDeviceGetPerformanceState": ("PSTATE", "u32"),
    "nvmlDeviceGetCurrentClocksEventReasons": ("REASONS", "u64"),
    "nvmlDeviceGetCurrentClocksThrottleReasons": ("REASONS", "u64"),
    "nvmlDeviceGetEnforcedPowerLimit": ("ENFORCED_LIMIT", "u32"),
    "nvmlDeviceGetPowerManagementLimit": ("REQUESTED_LIMIT", "u32"),
    "nvmlDeviceGetPowerManagementDefaultLimit": ("DEFAULT_LIMIT", "u32"),
    "nvmlDeviceGetArchitecture": ("ARCHITECTURE", "u32"),
}
FURTHER_GETTERS: Final = {
    source.symbol.removeprefix("nvmlDeviceGet").upper(): source
    for row in (*FAST_FIELDS, *FULL_FIELDS, *SLOW_FIELDS)
    for source in row.sources
    if isinstance(source, Getter) and source.output in {"u32", "u64"} and not source.arguments
    if source.symbol not in _SCALARS
}
"""Getters of one number that the field table has and this page does not name."""
GETTERS: Final = (*_GETTERS, *FURTHER_GETTERS)
"""Value and second value. UTILIZATION: gpu, memory. MEMORY: total, used. LIMIT_RANGE: min, max.

MIG_MODE: current, pending. FABRIC: state, status. POWER_PROFILES: bit mask of those in force. All others: one value.
"""
SCALAR_GETTERS: Final = {
    **_SCALARS, **{source.symbol: (name, source.output) for name, source in FURTHER_GETTERS.items()}
}  # fmt: skip
"""NVML functions that take nothing but a handle and return one number: their getter and its type."""

# Field values: two words each: code | type << 32, then the bits of the value.
F_BASE, F_WORDS, FIELD_IDS, FIELD_SLOTS = 192, 2, 320, 336
POWER_FIELDS = range(185, 193)
"""Power fields have scopes 0 GPU, 1 module, 2 memory; scopes 1 and 2 lie in the slots from FIELD_IDS on."""

# MIG instances: count, then per instance GPU instance id, total bytes, used bytes, activity (double, 0..1),
# and the integral of activity over simulated time in nanoseconds (double).
M_COUNT, M_BASE, M_WORDS, M_MAX = 864, 866, 6, 8
# Processes: count, then pid and bytes.
P_COUNT, P_BASE, P_WORDS, P_MAX = 920, 922, 2, 16

OPTIONAL_SYMBOLS: Final = (
    "nvmlDeviceGetTemperatureV", "nvmlDeviceGetMarginTemperature", "nvmlDeviceGetCurrentClocksEventReasons",
    "nvmlDeviceGetMemoryInfo_v2", "nvmlEventSetWait_v2", "nvmlSystemEventSetCreate", "nvmlSystemRegisterEvents",
    "nvmlSystemEventSetWait", "nvmlSystemEventSetFree", "nvmlDeviceGetGpuFabricInfoV", "nvmlGpmSampleAlloc",
    "nvmlGpmSampleFree", "nvmlGpmMigSampleGet", "nvmlGpmMetricsGet", "nvmlDeviceGetFieldValues",
    "nvmlEventSetWait_v3",
)  # fmt: skip

VALUE_DOUBLE, VALUE_UINT, VALUE_ULONG_LONG, VALUE_SIGNED_INT = 0, 1, 3, 5
NOT_SUPPORTED: Final = 3


def getter_word(name: str) -> int:
    """Return the first word, within a GPU, of the getter of this name."""
    return G_BASE + G_WORDS * GETTERS.index(name)


def field_slot(field_id: int, scope_id: int = 0) -> int | None:
    """Return the slot of a field in a scope, or None where the file has none.

    The NVLink totals use scope 0xFFFFFFFF ("all links"), which is slot `field_id` as well.
    """
    if not 0 <= field_id < FIELD_IDS:
        return None
    if scope_id in {0, 0xFFFFFFFF}:
        return field_id
    if scope_id in {1, 2} and field_id in POWER_FIELDS:
        return FIELD_IDS + (scope_id - 1) * len(POWER_FIELDS) + field_id - POWER_FIELDS.start
    return None


def file_bytes(gpus: int) -> int:
    """Return the size of the state file of a node with this many GPUs."""
    return 8 * (HEADER_WORDS + GPU_WORDS * gpus)
