"""The full set of one GPU, once a second.

Each reading has fallbacks for older drivers; whole-GPU readings that MIG takes away (utilization) are left out.
"""

from collections.abc import Collection
from ctypes import c_uint, c_ulonglong

import pynvml

from powerhall_agent.base.counters import CounterUnwrapper
from powerhall_agent.base.encoder import Fields
from powerhall_agent.nvml.driver import Driver, Gpu
from powerhall_agent.nvml.fields import FieldSpec
from powerhall_agent.nvml.getters import GetterCall
from powerhall_agent.nvml.probe import Probe

__all__ = ["GpuFull"]

_ALL_LINKS = 0xFFFFFFFF
_KIB = 1 / 1024
_SPECS = (
    FieldSpec("power_average_w", 185, 0, 1e3),
    FieldSpec("module_power_w", 186, 1, 1e3),
    FieldSpec("module_average_w", 185, 1, 1e3),
    FieldSpec("hbm_power_w", 185, 2, 1e3),
    FieldSpec("power_limit_w", 190, 0, 1e3),
    FieldSpec("power_limit_requested_w", 192, 0, 1e3),
    FieldSpec("hbm_temp_c", 82),
    FieldSpec("slow_power_cap_s", 74, 0, 1e9),
    FieldSpec("nvlink_tx_bytes", 138, _ALL_LINKS, _KIB),
    FieldSpec("nvlink_rx_bytes", 139, _ALL_LINKS, _KIB),
    FieldSpec("pcie_tx_bytes", 197),
    FieldSpec("pcie_rx_bytes", 198),
    FieldSpec("recovery_action", 230),
)
_SLOWDOWN_TIMES = ("sw_thermal_s", "hw_thermal_s", "slow_hw_power_brake_s")
_SERVES = {
    "module_average_w": "module_power_w",
    "sw_thermal_s": "slow_thermal_s",
    "hw_thermal_s": "slow_thermal_s",
    "temp_c": "temp_margin_c",
}
"""Readings that another field is made of."""
_GPU_SENSOR = 0
_SM, _MEM = 1, 2
_THRESHOLD_SLOWDOWN = 1
_MEMORY = (("mem_used_bytes", "used"), ("mem_total_bytes", "total"))


def slowdown_specs(driver: tuple[int, ...]) -> list[FieldSpec]:
    """Return the fields of the slowdown times (ns) for a driver's number.

    Their ids moved: 251 to 253 in drivers 575 to 580.65, 269 to 271 from 580.82 on, where the old ids mean power
    smoothing (nvidia-ml-py 12.575.51, 13.580.65 and 13.580.82 show it). Older drivers have none.
    """
    if driver < (575,):
        return []
    first = 251 if driver < (580, 82) else 269
    return [FieldSpec(name, first + number, 0, 1e9) for number, name in enumerate(_SLOWDOWN_TIMES)]


_GETTERS = (
    (GetterCall("nvmlDeviceGetPerformanceState", c_uint, (("pstate", ""),)),),
    (GetterCall("nvmlDeviceGetClockInfo", c_uint, (("sm_clock_mhz", ""),), (_SM,)),),
    (GetterCall("nvmlDeviceGetClockInfo", c_uint, (("mem_clock_mhz", ""),), (_MEM,)),),
    (
        GetterCall(
            "nvmlDeviceGetTemperatureV", pynvml.c_nvmlTemperature_v1_t, (("temp_c", "temperature"),), (),
            (("version", pynvml.nvmlTemperature_v1), ("sensorType", _GPU_SENSOR)),
        ),
        GetterCall("nvmlDeviceGetTemperature", c_uint, (("temp_c", ""),), (_GPU_SENSOR,)),
    ),
    (
        GetterCall(
            "nvmlDeviceGetMarginTemperature", pynvml.c_nvmlMarginTemperature_v1_t,
            (("temp_margin_c", "marginTemperature"),), (), (("version", pynvml.nvmlMarginTemperature_v1),),
        ),
        GetterCall("nvmlDeviceGetTemperatureThreshold", c_uint, (("slowdown_c", ""),), (_THRESHOLD_SLOWDOWN,)),
    ),
    (
        GetterCall("nvmlDeviceGetCurrentClocksEventReasons", c_ulonglong, (("clocks_event_reasons", ""),)),
        GetterCall("nvmlDeviceGetCurrentClocksThrottleReasons", c_ulonglong, (("clocks_event_reasons", ""),)),
    ),
    (
        GetterCall(
            "nvmlDeviceGetMemoryInfo_v2", pynvml.c_nvmlMemory_v2_t, _MEMORY, (),
            (("version", pynvml.nvmlMemory_v2),),
        ),
        GetterCall("nvmlDeviceGetMemoryInfo", pynvml.c_nvmlMemory_t, _MEMORY),
    ),
    (
        GetterCall(
            "nvmlDeviceGetUtilizationRates", pynvml.c_nvmlUtilization_t,
            (("util_percent", "gpu"), ("mem_util_percent", "memory")),
        ),
    ),
)  # fmt: skip


class GpuFull:
    """Collects `gpu` of one GPU, without what the sampler adds from the fast set (power extremes, energy)."""

    def __init__(self, driver: Driver, gpu: Gpu, wanted: Collection[str] = ()) -> None:
        """Prepare the batch and the getters with their fallbacks; `wanted` fields alone, all when empty."""
        specs = [spec for spec in (*_SPECS, *slowdown_specs(driver.number)) if _serves(spec.name, wanted)]
        ways = [some for some in _GETTERS if any(_serves(name, wanted) for name, _ in some[0].reads)]
        self.batch = driver.batch(gpu, specs)
        self.getters = driver.getters(gpu, ways)
        self._wanted = wanted
        self._pcie = {"pcie_tx_bytes": CounterUnwrapper(32), "pcie_rx_bytes": CounterUnwrapper(32)}
        nv = pynvml
        self._powers = {
            "power_average_w": Probe[float](lambda: nv.nvmlDeviceGetPowerUsage(gpu.handle) / 1000.0),
            "power_limit_w": Probe[float](lambda: nv.nvmlDeviceGetEnforcedPowerLimit(gpu.handle) / 1000.0),
            "power_limit_requested_w": Probe[float](lambda: nv.nvmlDeviceGetPowerManagementLimit(gpu.handle) / 1000.0),
        }
        self._powers = {name: probe for name, probe in self._powers.items() if _serves(name, wanted)}

    def collect(self) -> Fields:
        """Read everything; raises NVMLError where the GPU or the driver is gone."""
        fields = self.batch.read()
        for name, getter in self._powers.items():
            if name not in fields:
                value = getter.read()
                if value is not None:
                    fields[name] = value
        _merge(fields)
        for name, unwrap in self._pcie.items():
            if name in fields:
                fields[name] = float(unwrap.total(int(fields[name])))
        fields.update(self.getters.read())
        slowdown_c = fields.pop("slowdown_c", None)
        if slowdown_c is not None and "temp_c" in fields:
            fields["temp_margin_c"] = slowdown_c - fields["temp_c"]
        if fields.get("util_percent", 0) > 100:
            del fields["util_percent"], fields["mem_util_percent"]
        elif fields.get("mem_util_percent", 0) > 100:
            fields["mem_util_percent"] = 100
        if self._wanted:
            return {name: value for name, value in fields.items() if name in self._wanted}
        return fields


def _serves(name: str, wanted: Collection[str]) -> bool:
    """Say whether a reading is needed for the wanted fields."""
    return not wanted or name in wanted or _SERVES.get(name) in wanted


def _merge(fields: dict[str, float]) -> None:
    """Fold readings that the schema keeps as one: module power, and thermal slowdown by software and by hardware."""
    average_w = fields.pop("module_average_w", None)
    if average_w is not None and "module_power_w" not in fields:
        fields["module_power_w"] = average_w
    software_s, hardware_s = fields.pop("sw_thermal_s", None), fields.pop("hw_thermal_s", None)
    if software_s is not None or hardware_s is not None:
        fields["slow_thermal_s"] = (software_s or 0.0) + (hardware_s or 0.0)
