"""The full set of one GPU, once a second.

Each reading has fallbacks for older drivers; readings of the whole GPU that MIG disables (utilization) are left out.
"""

import math
from collections.abc import Collection
from typing import Final

import pynvml

from powerhall.store.gpu_fields import FULL_FIELDS, FieldValue
from powerhall_agent.base.counters import CounterUnwrapper
from powerhall_agent.base.encoder import Fields
from powerhall_agent.base.trusted_counter import TrustedCounter
from powerhall_agent.collectors.field_table import combinations, field_specs, getter_calls, select
from powerhall_agent.nvml.driver import Driver, Gpu
from powerhall_agent.nvml.probe import Probe

__all__ = ["GpuFull"]

_ROUNDED_PERCENT: Final = 110
"""Drivers show a few percent above 100 for full memory traffic."""


class GpuFull:
    """Collects `gpu` of one GPU, without the fields from the fast set (power extremes, energy)."""

    def __init__(self, driver: Driver, gpu: Gpu, wanted: Collection[str] = ()) -> None:
        """Prepare the batch and the getters with their fallbacks; `wanted` fields alone, all when empty."""
        rows = select(FULL_FIELDS, wanted)
        self.batch = driver.batch(gpu, field_specs(rows, driver.number))
        self.getters = driver.getters(gpu, getter_calls(rows))
        self._combinations = combinations(rows)
        self._wanted = wanted
        self._counters = {
            row.name: CounterUnwrapper(source.wrap_bits)
            for row in rows
            for source in row.sources
            if isinstance(source, FieldValue) and source.wrap_bits
        }
        nv = pynvml
        self._powers = {
            "power_average_w": Probe[float](lambda: nv.nvmlDeviceGetPowerUsage(gpu.handle) / 1000.0),
            "power_limit_w": Probe[float](lambda: nv.nvmlDeviceGetEnforcedPowerLimit(gpu.handle) / 1000.0),
            "power_limit_requested_w": Probe[float](lambda: nv.nvmlDeviceGetPowerManagementLimit(gpu.handle) / 1000.0),
        }
        self._powers = {name: probe for name, probe in self._powers.items() if not wanted or name in wanted}

    def collect(self) -> Fields:
        """Read everything; raises NVMLError where the GPU or the driver is gone."""
        fields = self.batch.read()
        for name, getter in self._powers.items():
            if name not in fields:
                value = getter.read()
                if value is not None:
                    fields[name] = value
        for combination in self._combinations:
            combination.apply(fields)
        for name, counter in self._counters.items():
            if name in fields:
                raw = int(fields[name])
                # What stands for a missing value is no number, so that it is dropped and counted as implausible.
                fields[name] = float(counter.total(raw)) if TrustedCounter.may_pass([raw]) else math.nan
        fields.update(self.getters.read())
        slowdown_c = fields.pop("slowdown_c", None)
        if slowdown_c is not None and "temp_c" in fields:
            fields["temp_margin_c"] = slowdown_c - fields["temp_c"]
        if 100 < fields.get("mem_util_percent", 0) <= _ROUNDED_PERCENT:
            fields["mem_util_percent"] = 100
        if self._wanted:
            return {name: value for name, value in fields.items() if name in self._wanted}
        return fields
