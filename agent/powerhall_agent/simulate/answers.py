"""Answers of the simulated driver to calls on one device: one function per NVML call.

Every function gets the state file, the GPU's first word, the MIG instance's row (-1: the GPU itself) and the caller's
arguments as pynvml passes them, and returns an NVML return code.
"""

from collections.abc import Callable
from typing import Any, Final

from powerhall_agent.simulate import layout as at
from powerhall_agent.simulate.handles import target
from powerhall_agent.simulate.publish import publish
from powerhall_agent.simulate.state import StateFile

__all__ = ["DEVICE_CALLS"]

_INVALID, _NOT_SUPPORTED, _INSUFFICIENT_SIZE = 2, 3, 7
_MIG_PARENT_ONLY: Final = _NOT_SUPPORTED
_MAX_INSTANCES: Final = 7

Out = Any
"""A structure of the caller, by `byref` or itself; ctypes has no type for the former."""
Answer = Callable[..., int]


def _scalar(name: str) -> Answer:
    word = at.getter_word(name)

    def answer(state: StateFile, base: int, instance: int, out: Out) -> int:
        if instance >= 0:
            return _MIG_PARENT_ONLY
        code = state.ints[base + word]
        if not code:
            target(out).value = state.ints[base + word + 1]
        return code

    return answer


def _choice(names: tuple[str | None, ...]) -> Answer:
    """Build an answer whose first argument chooses the getter: a clock, a sensor, a threshold."""
    words = [None if name is None else at.getter_word(name) for name in names]

    def answer(state: StateFile, base: int, instance: int, choice: Out, out: Out) -> int:
        number = int(choice.value)
        word = words[number] if 0 <= number < len(words) else None
        if word is None or instance >= 0:
            return _NOT_SUPPORTED
        code = state.ints[base + word]
        if not code:
            target(out).value = state.ints[base + word + 1]
        return code

    return answer


def _text(place: tuple[int, int], getter: str | None = None) -> Answer:
    def answer(state: StateFile, base: int, instance: int, buffer: Out, _length: Out) -> int:
        if getter is not None and state.ints[base + at.getter_word(getter)]:
            return state.ints[base + at.getter_word(getter)]
        value = state.text((base - at.HEADER_WORDS) // at.GPU_WORDS, place)
        if instance >= 0 and place == at.T_UUID:
            value = f"MIG-{value[4:]}-{state.ints[base + at.M_BASE + at.M_WORDS * instance]}"
        buffer.value = value.encode()
        return 0

    return answer


def _pair(name: str) -> Answer:
    word = at.getter_word(name)

    def answer(state: StateFile, base: int, instance: int, first: Out, second: Out) -> int:
        if instance >= 0:
            return _MIG_PARENT_ONLY
        code = state.ints[base + word]
        if not code:
            target(first).value, target(second).value = state.ints[base + word + 1], state.ints[base + word + 2]
        return code

    return answer


def _utilization(state: StateFile, base: int, instance: int, out: Out) -> int:
    word = base + at.getter_word("UTILIZATION")
    code = state.ints[word] or (_NOT_SUPPORTED if instance >= 0 else 0)
    if not code:
        rates = target(out)
        rates.gpu, rates.memory = state.ints[word + 1], state.ints[word + 2]
    return code


def _memory(state: StateFile, base: int, instance: int, out: Out) -> int:
    """Serve both versions: the second one keeps the driver's own reservation apart."""
    word = base + at.getter_word("MEMORY")
    code = state.ints[word]
    if code:
        return code
    memory = target(out)
    total, used = state.ints[word + 1], state.ints[word + 2]
    reserved = state.ints[base + at.getter_word("MEMORY_RESERVED") + 1]
    if instance >= 0:
        row = base + at.M_BASE + at.M_WORDS * instance
        total, used, reserved = state.ints[row + 1], state.ints[row + 2], 0
    if hasattr(memory, "reserved"):
        memory.reserved = reserved
        memory.total, memory.used, memory.free = total, used, total - used - reserved
    else:
        memory.total, memory.used, memory.free = total, used + reserved, total - used - reserved
    return 0


def _temperature(state: StateFile, base: int, instance: int, out: Out) -> int:
    request = target(out)
    word = base + at.getter_word("TEMPERATURE")
    code = state.ints[word] or (_NOT_SUPPORTED if instance >= 0 or request.sensorType != 0 else 0)
    if not code:
        request.temperature = state.ints[word + 1]
    return code


def _margin(state: StateFile, base: int, instance: int, out: Out) -> int:
    word = base + at.getter_word("MARGIN")
    code = state.ints[word] or (_MIG_PARENT_ONLY if instance >= 0 else 0)
    if not code:
        target(out).marginTemperature = state.ints[word + 1]
    return code


def _field_values(state: StateFile, base: int, instance: int, count: Out, out: Out) -> int:
    """Fill an array of field values; succeeds when any value was filled."""
    number = int(count.value)
    words = memoryview(target(out)).cast("B").cast("q")
    ints, stamp_us = state.ints, state.ints[at.H_SIM_TIME_NS] // 1000
    first_code = 0
    filled = False
    for row in range(0, 5 * number, 5):
        key = words[row]
        slot = at.field_slot(key & 0xFFFFFFFF, (key >> 32) & 0xFFFFFFFF)
        if slot is None or instance >= 0:
            code, value, kind = _NOT_SUPPORTED if slot is not None else _INVALID, 0, 0
        else:
            word = base + at.F_BASE + at.F_WORDS * slot
            code, kind, value = ints[word] & 0xFFFFFFFF, ints[word] >> 32, ints[word + 1]
        words[row + 1], words[row + 2] = stamp_us, 1
        words[row + 3] = kind | code << 32
        words[row + 4] = 0 if code else value
        filled = filled or not code
        first_code = first_code or code
    return 0 if filled or not number else first_code


def _processes(state: StateFile, base: int, instance: int, count: Out, out: Out) -> int:
    if instance >= 0:
        target(count).value = 0
        return 0
    code = state.ints[base + at.getter_word("PROCESSES")]
    if code:
        return code
    present, room = state.ints[base + at.P_COUNT], target(count).value
    target(count).value = present
    if present == 0:
        return 0
    if out is None or room < present:
        return _INSUFFICIENT_SIZE
    for row in range(present):
        word = base + at.P_BASE + at.P_WORDS * row
        process = out[row]
        process.pid, process.usedGpuMemory = state.ints[word], state.ints[word + 1]
        process.gpuInstanceId = process.computeInstanceId = 0xFFFFFFFF
    return 0


def _pci(state: StateFile, base: int, _instance: int, out: Out) -> int:
    info = target(out)
    text = state.text((base - at.HEADER_WORDS) // at.GPU_WORDS, at.T_BUS_ID)
    info.busId = text.encode()
    info.busIdLegacy = text[4:].encode()
    domain, bus, device = text.split(":")
    info.domain, info.bus, info.device = int(domain, 16), int(bus, 16), int(device.split(".")[0], 16)
    return 0


def _fabric(state: StateFile, base: int, _instance: int, out: Out) -> int:
    word = base + at.getter_word("FABRIC")
    code = state.ints[word]
    if not code:
        info = target(out)
        info.state, info.status = state.ints[word + 1], state.ints[word + 2]
        info.healthMask, info.cliqueId = 0, 0
    return code


def _power_profiles(state: StateFile, base: int, instance: int, out: Out) -> int:
    word = base + at.getter_word("POWER_PROFILES")
    code = state.ints[word] or (_MIG_PARENT_ONLY if instance >= 0 else 0)
    if not code:
        target(out).enforcedProfilesMask.mask[0] = state.ints[word + 1]
    return code


def _event_types(state: StateFile, base: int, _instance: int, out: Out) -> int:
    target(out).value = state.ints[base + at.C_EVENT_TYPES]
    return 0


def _set_limit(state: StateFile, base: int, _instance: int, limit: Out) -> int:
    """Set the power limit; refused outside the GPU's range, effective at once."""
    code = state.ints[at.H_SET_RETURN] or state.ints[base + at.getter_word("REQUESTED_LIMIT")]
    if code:
        return code
    limit_w = limit.value / 1000.0
    if not state.doubles[base + at.C_LIMIT_MIN_W] <= limit_w <= state.doubles[base + at.C_LIMIT_MAX_W]:
        return _INVALID
    state.doubles[base + at.C_LIMIT_W] = limit_w
    return _refresh(state, base)


def _lock_clocks(state: StateFile, base: int, _instance: int, _low: Out, high: Out) -> int:
    code = state.ints[at.H_SET_RETURN]
    if not code:
        state.doubles[base + at.C_LOCK_MHZ] = float(high.value)
    return code


def _reset_clocks(state: StateFile, base: int, _instance: int) -> int:
    code = state.ints[at.H_SET_RETURN]
    if not code:
        state.doubles[base + at.C_LOCK_MHZ] = 0.0
    return code


def _refresh(state: StateFile, base: int) -> int:
    if state.doubles[base + at.C_STATIC] == 0:
        publish(state.ints, state.doubles, base, state.ints[base + at.getter_word("REASONS") + 1])
    return 0


def _instance_id(state: StateFile, base: int, instance: int, out: Out) -> int:
    if instance < 0:
        return _INVALID
    target(out).value = state.ints[base + at.M_BASE + at.M_WORDS * instance]
    return 0


def _max_instances(_state: StateFile, _base: int, _instance: int, out: Out) -> int:
    target(out).value = _MAX_INSTANCES
    return 0


DEVICE_CALLS: Final[dict[str, Answer]] = {
    **{symbol: _scalar(name) for symbol, (name, _) in at.SCALAR_GETTERS.items()},
    "nvmlDeviceGetTemperature": _choice(("TEMPERATURE",)),
    "nvmlDeviceGetTemperatureV": _temperature,
    "nvmlDeviceGetMarginTemperature": _margin,
    "nvmlDeviceGetUtilizationRates": _utilization,
    "nvmlDeviceGetMemoryInfo": _memory,
    "nvmlDeviceGetMemoryInfo_v2": _memory,
    "nvmlDeviceGetClockInfo": _choice(("CLOCK_GRAPHICS", "CLOCK_SM", "CLOCK_MEM")),
    "nvmlDeviceGetPowerManagementLimitConstraints": _pair("LIMIT_RANGE"),
    "nvmlDeviceGetTemperatureThreshold": _choice(
        ("THRESHOLD_SHUTDOWN", "THRESHOLD_SLOWDOWN", "THRESHOLD_MEM_MAX", "THRESHOLD_GPU_MAX")
    ),
    "nvmlDeviceGetMigMode": _pair("MIG_MODE"),
    "nvmlDeviceGetUUID": _text(at.T_UUID),
    "nvmlDeviceGetName": _text(at.T_NAME),
    "nvmlDeviceGetSerial": _text(at.T_SERIAL, "SERIAL"),
    "nvmlDeviceGetVbiosVersion": _text(at.T_VBIOS, "VBIOS"),
    "nvmlDeviceGetPciInfo_v3": _pci,
    "nvmlDeviceGetFieldValues": _field_values,
    "nvmlDeviceGetComputeRunningProcesses_v3": _processes,
    "nvmlDeviceGetGpuFabricInfoV": _fabric,
    "nvmlDeviceWorkloadPowerProfileGetCurrentProfiles": _power_profiles,
    "nvmlDeviceGetSupportedEventTypes": _event_types,
    "nvmlDeviceSetPowerManagementLimit": _set_limit,
    "nvmlDeviceSetGpuLockedClocks": _lock_clocks,
    "nvmlDeviceResetGpuLockedClocks": _reset_clocks,
    "nvmlDeviceGetGpuInstanceId": _instance_id,
    "nvmlDeviceGetMaxMigDeviceCount": _max_instances,
}
