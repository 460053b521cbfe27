"""Activity of the parts of a GPU from NVML's GPM (Hopper and later): streaming multiprocessors, tensor cores, memory,
PCIe and NVLink. A value is the mean between two samples of the driver's counters, so none is missed in between.

Metric numbers and units: nvmlGpmMetricId_t of nvml.h (percent; throughput in MiB/s). DCGM and its host engine are not
needed; where it profiles the same GPU, the driver may refuse samples, and the fields are missing.
"""

from typing import Any, Final

import pynvml

from powerhall_agent.base.encoder import Fields
from powerhall_agent.nvml.driver import Driver, Gpu
from powerhall_agent.nvml.probe import Probe

__all__ = ["GPM_METRICS", "GpuGpm"]

_MIB: Final = 1024.0 * 1024.0
GPM_METRICS: Final = (
    ("sm_active_percent", 2, 1.0), ("sm_occupancy_percent", 3, 1.0), ("tensor_active_percent", 5, 1.0),
    ("tensor_dfma_percent", 6, 1.0), ("tensor_hmma_percent", 7, 1.0), ("tensor_dmma_percent", 8, 1.0),
    ("tensor_imma_percent", 9, 1.0), ("dram_active_percent", 10, 1.0), ("pcie_tx_bytes_per_s", 20, _MIB),
    ("pcie_rx_bytes_per_s", 21, _MIB), ("nvlink_rx_bytes_per_s", 60, _MIB), ("nvlink_tx_bytes_per_s", 61, _MIB),
)  # fmt: skip
"""Field of `gpu_activity`, number of the metric, and our units in one of NVML's."""


class GpuGpm:
    """Collects `gpu_activity` of one GPU; nothing where GPU or driver have no GPM."""

    def __init__(self, driver: Driver, gpu: Gpu) -> None:
        """Prepare; samples are allocated at the first read."""
        self._gpu = gpu
        self._left = list(GPM_METRICS) if driver.has("nvmlGpmSampleGet") else []
        self._support = Probe[bool](
            lambda: bool(pynvml.nvmlGpmQueryDeviceSupport(gpu.handle).isSupportedDevice),
        )
        self._take = Probe[bool](self._sample)
        self._samples: list[Any] = []
        self._taken = 0

    def collect(self) -> Fields:
        """Take a sample and return the means since the one before; the first read only takes a sample."""
        if not self._left or (not self._samples and not self._support.read()):
            self._left = []
            return {}
        if not self._take.read() or self._taken < 2:
            return {}
        return self._metrics()

    def _sample(self) -> bool:
        if not self._samples:
            self._samples = [pynvml.nvmlGpmSampleAlloc(), pynvml.nvmlGpmSampleAlloc()]
        self._samples.reverse()
        pynvml.nvmlGpmSampleGet(self._gpu.handle, self._samples[1])
        self._taken += 1
        return True

    def _metrics(self) -> Fields:
        request = pynvml.c_nvmlGpmMetricsGet_t()
        request.version, request.numMetrics = pynvml.NVML_GPM_METRICS_GET_VERSION, len(self._left)
        request.sample1, request.sample2 = self._samples
        for row, (_, metric, _) in enumerate(self._left):
            request.metrics[row].metricId = metric
        pynvml.nvmlGpmMetricsGet(request)
        fields: dict[str, float] = {}
        for row, (name, _, per) in enumerate(self._left):
            if not request.metrics[row].nvmlReturn:
                fields[name] = round(request.metrics[row].value * per, 3)
        if fields:
            self._left = [entry for entry in self._left if entry[0] in fields]
        return fields

    def close(self) -> None:
        """Free the samples; needed before the driver may be unbound."""
        samples, self._samples, self._taken = self._samples, [], 0
        for sample in samples:
            try:
                pynvml.nvmlGpmSampleFree(sample)
            except pynvml.NVMLError:
                return
