"""The full set of one GPU, once a second.

Each reading has fallbacks for older drivers; whole-GPU readings that MIG takes away (utilization) are left out.
"""

import pynvml

from powerhall_agent.encode import Fields
from powerhall_agent.nvml.driver import Driver, Gpu
from powerhall_agent.nvml.fields import FieldSpec
from powerhall_agent.nvml.probe import Probe
from powerhall_agent.unwrap import Unwrap

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
_GPU_SENSOR = 0
_SM, _MEM = 1, 2
_THRESHOLD_SLOWDOWN = 1


def slowdown_specs(driver_version: str) -> list[FieldSpec]:
    """Return the fields of the slowdown times (ns).

    Their ids moved: 251 to 253 in drivers 575 to 580.65, 269 to 271 from 580.82 on, where the old ids mean power
    smoothing (nvidia-ml-py 12.575.51, 13.580.65 and 13.580.82 show it). Older drivers have none.
    """
    version = tuple(int(part) for part in driver_version.split(".")[:2] if part.isdigit())
    if version < (575,):
        return []
    first = 251 if version < (580, 82) else 269
    return [FieldSpec(name, first + number, 0, 1e9) for number, name in enumerate(_SLOWDOWN_TIMES)]


class GpuFull:
    """Collects `gpu` of one GPU, without what the sampler adds from the fast set (power extremes, energy)."""

    def __init__(self, driver: Driver, gpu: Gpu) -> None:
        """Prepare the batch and the getters with their fallbacks."""
        self.batch = driver.batch(gpu, [*_SPECS, *slowdown_specs(driver.version)])
        self._gpu = gpu
        self._pcie = {"pcie_tx_bytes": Unwrap(32), "pcie_rx_bytes": Unwrap(32)}
        nv = pynvml
        self._temp = Probe[float](
            lambda: nv.nvmlDeviceGetTemperatureV(gpu.handle, _GPU_SENSOR),
            lambda: nv.nvmlDeviceGetTemperature(gpu.handle, _GPU_SENSOR),
        )
        self._margin = Probe[float](
            lambda: nv.nvmlDeviceGetMarginTemperature(gpu.handle),
            lambda: nv.nvmlDeviceGetTemperatureThreshold(gpu.handle, _THRESHOLD_SLOWDOWN) - (self._temp.read() or 0.0),
        )
        self._reasons = Probe[float](
            lambda: nv.nvmlDeviceGetCurrentClocksEventReasons(gpu.handle),
            lambda: nv.nvmlDeviceGetCurrentClocksThrottleReasons(gpu.handle),
        )
        self._memory = Probe[tuple[float, float]](self._memory_v2, self._memory_v1)
        self._util = Probe[tuple[float, float]](self._utilization)
        self._simple = (
            ("pstate", Probe[float](lambda: nv.nvmlDeviceGetPerformanceState(gpu.handle))),
            ("sm_clock_mhz", Probe[float](lambda: nv.nvmlDeviceGetClockInfo(gpu.handle, _SM))),
            ("mem_clock_mhz", Probe[float](lambda: nv.nvmlDeviceGetClockInfo(gpu.handle, _MEM))),
            ("temp_c", self._temp),
            ("temp_margin_c", self._margin),
            ("clocks_event_reasons", self._reasons),
        )
        self._getters = {
            "power_average_w": Probe[float](lambda: nv.nvmlDeviceGetPowerUsage(gpu.handle) / 1000.0),
            "power_limit_w": Probe[float](lambda: nv.nvmlDeviceGetEnforcedPowerLimit(gpu.handle) / 1000.0),
            "power_limit_requested_w": Probe[float](lambda: nv.nvmlDeviceGetPowerManagementLimit(gpu.handle) / 1000.0),
        }

    def _memory_v2(self) -> tuple[float, float]:
        memory = pynvml.nvmlDeviceGetMemoryInfo(self._gpu.handle, version=pynvml.nvmlMemory_v2)
        return memory.used, memory.total

    def _memory_v1(self) -> tuple[float, float]:
        memory = pynvml.nvmlDeviceGetMemoryInfo(self._gpu.handle)
        return memory.used, memory.total

    def _utilization(self) -> tuple[float, float]:
        rates = pynvml.nvmlDeviceGetUtilizationRates(self._gpu.handle)
        return rates.gpu, rates.memory

    def collect(self) -> Fields:
        """Read everything; raises NVMLError where the GPU or the driver is gone."""
        fields = self.batch.read()
        for name, getter in self._getters.items():
            if name not in fields:
                value = getter.read()
                if value is not None:
                    fields[name] = value
        _merge(fields)
        for name, unwrap in self._pcie.items():
            if name in fields:
                fields[name] = float(unwrap.total(int(fields[name])))
        for name, probe in self._simple:
            value = probe.read()
            if value is not None:
                fields[name] = value
        memory = self._memory.read()
        if memory is not None:
            fields["mem_used_bytes"], fields["mem_total_bytes"] = memory
        util = self._util.read()
        if util is not None and util[0] <= 100:
            fields["util_percent"], fields["mem_util_percent"] = util[0], min(100, util[1])
        return fields


def _merge(fields: dict[str, float]) -> None:
    """Fold readings that the schema keeps as one: module power, and thermal slowdown by software and by hardware."""
    average_w = fields.pop("module_average_w", None)
    if average_w is not None and "module_power_w" not in fields:
        fields["module_power_w"] = average_w
    software_s, hardware_s = fields.pop("sw_thermal_s", None), fields.pop("hw_thermal_s", None)
    if software_s is not None or hardware_s is not None:
        fields["slow_thermal_s"] = (software_s or 0.0) + (hardware_s or 0.0)
