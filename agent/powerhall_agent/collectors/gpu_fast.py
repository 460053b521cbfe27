"""Power and energy of one GPU, ten times a second.

Instantaneous power falls back to the driver's one-second average and then to the getter (old drivers); the energy
counter from field 191 to 83 to the getter. A power of 0 mW means that the sensor had nothing new and is left out.
"""

import functools
import math
import struct
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import pynvml

from powerhall.store.gpu_fields import FAST_FIELDS
from powerhall_agent.base.encoder import Fields
from powerhall_agent.collectors.field_table import field_specs
from powerhall_agent.nvml.driver import Driver, Gpu
from powerhall_agent.nvml.probe import Probe

__all__ = ["FastSample", "GpuFast", "Shortcut"]

INSTANT, AVERAGE, ENERGY, TOTAL_ENERGY = field_specs(FAST_FIELDS, ())
_UNSIGNED: Final = {1: "I4x", 2: "Q", 3: "Q"}
"""How a field value of this type lies in its eight bytes."""
_STATUSES: Final = struct.Struct("<24xq8x24xq8x")

FastSample = tuple[int | None, int | None]
"""Power in mW and the driver's energy counter in mJ; None where there is none."""


class Shortcut(NamedTuple):
    """Call the driver with the arguments, unpack the memory: status and mW of power, status and mJ of energy.

    Where the call fails, a status differs or the power is 0, `GpuFast.sample` handles the reading.
    """

    call: Callable[..., int]
    arguments: tuple[Any, ...]
    unpack: Callable[[memoryview], tuple[int, int, int, int]]
    memory: memoryview
    power_status: int
    energy_status: int


class GpuFast:
    """Collects `gpu_fast` of one GPU; the energy is the raw counter of the driver."""

    def __init__(self, driver: Driver, gpu: Gpu) -> None:
        """Start with both sources of either reading; those that the driver lacks are dropped at the first read."""
        self.batch = driver.batch(gpu, [INSTANT, ENERGY, AVERAGE, TOTAL_ENERGY])
        self._power = Probe[float](lambda: pynvml.nvmlDeviceGetPowerUsage(gpu.handle) / 1000.0)
        self._energy = Probe[float](lambda: pynvml.nvmlDeviceGetTotalEnergyConsumption(gpu.handle) / 1000.0)
        self._settled = False
        self.shortcut: Shortcut | None = None
        """The same reading as one call and one unpack; None until the driver has shown how it answers."""

    def sample(self) -> FastSample:
        """Read power and energy as integers by any source that the driver has, and set up the shortcut again."""
        fields = self.collect()
        self._learn()
        return _milli(fields.get("power_w")), _milli(fields.get("energy_j"))

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
        """Keep only the better source of each reading, once the driver has answered with it."""
        worse = {AVERAGE.name} if values.get("power_w") else set()
        worse |= {TOTAL_ENERGY.name} if "energy_j" in values else set()
        if values:
            self.batch.drop(worse)
            self._settled = True

    def _learn(self) -> None:
        """Set up the shortcut where the driver gives power and energy, both good and unsigned."""
        specs = self.batch.specs
        self.shortcut = None
        if len(specs) == 2 and specs[0] in (INSTANT, AVERAGE) and specs[1] in (ENERGY, TOTAL_ENERGY):
            first, second = _STATUSES.unpack_from(self.batch.memory)
            if first in _UNSIGNED and second in _UNSIGNED:
                unpack, batch = _unpack_of(first, second), self.batch
                self.shortcut = Shortcut(batch.call, batch.arguments, unpack, batch.memory, first, second)


@functools.cache
def _unpack_of(power_type: int, energy_type: int) -> Callable[..., Any]:
    return struct.Struct(f"<24xq{_UNSIGNED[power_type]}24xq{_UNSIGNED[energy_type]}").unpack_from


def _milli(value: float | str | None) -> int | None:
    """Return a value in thousandths; None where there is none, or no number."""
    return None if value is None or not math.isfinite(float(value)) else round(float(value) * 1000)
