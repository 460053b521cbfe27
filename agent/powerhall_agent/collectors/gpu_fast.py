"""Power and energy of one GPU, ten times a second.

Instantaneous power falls back to the driver's one-second average and then to the getter (old drivers); the energy
counter from field 191 to 83 to the getter. A power of 0 mW means that the sensor had nothing new and is left out.
"""

import pynvml

from powerhall_agent.encode import Fields
from powerhall_agent.nvml.driver import Driver, Gpu
from powerhall_agent.nvml.fields import FieldSpec
from powerhall_agent.nvml.probe import Probe

__all__ = ["GpuFast"]

INSTANT = FieldSpec("power_w", 186, 0, 1e3)
AVERAGE = FieldSpec("average_w", 185, 0, 1e3)
ENERGY = FieldSpec("energy_j", 191, 0, 1e3)
TOTAL_ENERGY = FieldSpec("total_energy_j", 83, 0, 1e3)


class GpuFast:
    """Collects `gpu_fast` of one GPU; the energy is the raw counter of the driver."""

    def __init__(self, driver: Driver, gpu: Gpu) -> None:
        """Start with both ways of either reading; what the driver lacks drops out at the first read."""
        self.batch = driver.batch(gpu, [INSTANT, ENERGY, AVERAGE, TOTAL_ENERGY])
        self._power = Probe[float](lambda: pynvml.nvmlDeviceGetPowerUsage(gpu.handle) / 1000.0)
        self._energy = Probe[float](lambda: pynvml.nvmlDeviceGetTotalEnergyConsumption(gpu.handle) / 1000.0)
        self._settled = False

    def collect(self) -> Fields:
        """Read power and energy."""
        values = self.batch.read()
        if not self._settled:
            self._settle(values)
        power_w = values.get("power_w") or values.get("average_w") or self._power.read()
        energy_j = values.get("energy_j") or values.get("total_energy_j")
        if energy_j is None:
            energy_j = self._energy.read()
        fields: dict[str, float] = {}
        if power_w:
            fields["power_w"] = power_w
        if energy_j is not None:
            fields["energy_j"] = energy_j
        return fields

    def _settle(self, values: dict[str, float]) -> None:
        """Keep only the better way of each reading once the driver has shown it."""
        worse = {AVERAGE.name} if values.get("power_w") else set()
        worse |= {TOTAL_ENERGY.name} if "energy_j" in values else set()
        if values:
            self.batch.drop(worse)
            self._settled = True
