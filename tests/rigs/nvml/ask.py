"""Asks everything that the agent asks of NVML, through unmodified pynvml, and prints the answers as JSON.

Usage: ask.py python|c STATE_FILE. With "c", libnvidia-ml.so.1 must be on the loader's path and NVMLSIM_STATE set.
"""

import ctypes
import json
import sys
from pathlib import Path

import pynvml

from powerhall_agent.simulate.layout import SCALAR_GETTERS

SCALARS = (
    *(symbol for symbol in SCALAR_GETTERS if hasattr(pynvml, symbol)),
    "nvmlDeviceGetPowerManagementLimitConstraints",
    "nvmlDeviceGetMarginTemperature", "nvmlDeviceGetMigMode", "nvmlDeviceGetUUID",
    "nvmlDeviceGetName", "nvmlDeviceGetSerial", "nvmlDeviceGetVbiosVersion", "nvmlDeviceGetIndex",
    "nvmlDeviceGetSupportedEventTypes", "nvmlDeviceGetMaxMigDeviceCount",
)  # fmt: skip
LIMITS = ("nvmlDeviceGetEnforcedPowerLimit", "nvmlDeviceGetPowerManagementLimit")
FIELDS = [*range(320), (185, 1), (185, 2), (186, 1), (186, 2), (190, 1), (191, 1), (138, 0xFFFFFFFF), (7, 9), 5000]


def attempt(call, *args):
    try:
        answer = call(*args)
    except pynvml.NVMLError as error:
        return {"error": error.value}
    return plain(answer)


def plain(answer):
    if isinstance(answer, list):
        return [plain(entry) for entry in answer]
    if isinstance(answer, ctypes.Structure):
        return {name: plain(getattr(answer, name)) for name, *_ in answer._fields_ if name != "device"}
    if isinstance(answer, ctypes.Array):
        return list(answer)
    if isinstance(answer, pynvml.nvmlFriendlyObject):
        return plain(dict(answer.__dict__))
    if isinstance(answer, dict):
        return {key: plain(value) for key, value in answer.items()}
    return answer.decode() if isinstance(answer, bytes) else answer


def fields(handle):
    values = pynvml.nvmlDeviceGetFieldValues(handle, FIELDS)
    return [(v.fieldId, v.scopeId, v.nvmlReturn, v.valueType, v.value.ullVal) for v in values]


def fabric(handle):
    info = pynvml.c_nvmlGpuFabricInfo_v2_t()
    pynvml.nvmlDeviceGetGpuFabricInfoV(handle, ctypes.byref(info))
    return [info.state, info.status, info.healthMask]


def instances(handle):
    found = []
    for number in range(8):
        try:
            child = pynvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, number)
        except pynvml.NVMLError as error:
            found.append({"error": error.value})
            continue
        found.append(
            [
                attempt(pynvml.nvmlDeviceGetGpuInstanceId, child),
                attempt(pynvml.nvmlDeviceGetUUID, child),
                attempt(lambda c=child: pynvml.nvmlDeviceGetMemoryInfo(c, version=pynvml.nvmlMemory_v2)),
                attempt(pynvml.nvmlDeviceGetPowerUsage, child),
                attempt(pynvml.nvmlDeviceGetUtilizationRates, child),
            ]
        )
    return found


def ask_gpu(number):
    try:
        handle = pynvml.nvmlDeviceGetHandleByIndex(number)
    except pynvml.NVMLError as error:
        return {"error": error.value}
    answers = {name: attempt(getattr(pynvml, name), handle) for name in SCALARS}
    answers |= {
        "temperature": attempt(pynvml.nvmlDeviceGetTemperatureV, handle, 0),
        "temperature_other": attempt(pynvml.nvmlDeviceGetTemperatureV, handle, 3),
        "temperature_old": attempt(pynvml.nvmlDeviceGetTemperature, handle, 0),
        "clocks": [attempt(pynvml.nvmlDeviceGetClockInfo, handle, kind) for kind in range(5)],
        "thresholds": [attempt(pynvml.nvmlDeviceGetTemperatureThreshold, handle, kind) for kind in range(8)],
        "memory": attempt(pynvml.nvmlDeviceGetMemoryInfo, handle),
        "memory_v2": attempt(lambda: pynvml.nvmlDeviceGetMemoryInfo(handle, version=pynvml.nvmlMemory_v2)),
        "utilization": attempt(pynvml.nvmlDeviceGetUtilizationRates, handle),
        "pci": attempt(pynvml.nvmlDeviceGetPciInfo, handle),
        "processes": attempt(pynvml.nvmlDeviceGetComputeRunningProcesses_v3, handle),
        "fields": attempt(fields, handle),
        "fabric": attempt(fabric, handle),
        "instances": instances(handle),
        "set_low": attempt(pynvml.nvmlDeviceSetPowerManagementLimit, handle, 50_000),
        "set": attempt(pynvml.nvmlDeviceSetPowerManagementLimit, handle, 450_000),
        "after": [attempt(getattr(pynvml, name), handle) for name in LIMITS],
        "by_bus": attempt(
            lambda: pynvml.nvmlDeviceGetIndex(
                pynvml.nvmlDeviceGetHandleByPciBusId(pynvml.nvmlDeviceGetPciInfo(handle).busId)
            )
        ),
    }
    return answers


def ask_all():
    return {
        "driver": attempt(pynvml.nvmlSystemGetDriverVersion),
        "count": attempt(pynvml.nvmlDeviceGetCount),
        "beyond": attempt(pynvml.nvmlDeviceGetHandleByIndex, 99),
        "gpus": [ask_gpu(number) for number in range(8)],
    }


def main() -> None:
    kind, path = sys.argv[1], Path(sys.argv[2])
    if kind == "python":
        from powerhall_agent.simulate.install import install
        from powerhall_agent.simulate.state import StateFile

        install([StateFile.open(path)])
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        print(json.dumps({"init": error.value}))
        return
    answers = ask_all()
    pynvml.nvmlShutdown()
    answers["after_shutdown"] = attempt(pynvml.nvmlDeviceGetCount)
    print(json.dumps(answers))


if __name__ == "__main__":
    main()
