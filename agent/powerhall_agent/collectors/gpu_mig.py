"""One MIG instance: its memory, and its activity from two GPM samples (Hopper and later).

Power, temperature and limits are the parent's; the driver has no utilization of an instance.
"""

from typing import Any

import pynvml

from powerhall_agent.base.encoder import Fields
from powerhall_agent.base.gpu_snapshot import MigSlice
from powerhall_agent.nvml.codes import Action, action
from powerhall_agent.nvml.driver import Gpu
from powerhall_agent.nvml.probe import Probe
from powerhall_agent.nvml.texts import driver_text

__all__ = ["MigInstance", "instances_of"]

_SM_UTIL = 2


def instances_of(gpu: Gpu) -> "list[MigInstance]":
    """List the MIG instances of a GPU; empty where MIG is off or unknown to the driver."""
    mode = Probe[list[int]](lambda: pynvml.nvmlDeviceGetMigMode(gpu.handle)).read()
    if not mode or not mode[0]:
        return []
    found = []
    for number in range(pynvml.nvmlDeviceGetMaxMigDeviceCount(gpu.handle)):
        try:
            handle = pynvml.nvmlDeviceGetMigDeviceHandleByIndex(gpu.handle, number)
            found.append(MigInstance(gpu, handle, pynvml.nvmlDeviceGetGpuInstanceId(handle)))
        except pynvml.NVMLError as error:
            if action(error.value) not in {Action.NO_SAMPLE, Action.UNSUPPORTED}:
                raise
    return found


class MigInstance:
    """Collects `gpu_mig` of one instance; `instance` is the GPU instance id."""

    def __init__(self, gpu: Gpu, handle: object, instance: int) -> None:
        """Allocate the GPM samples where the driver has them."""
        self.instance = instance
        self._gpu, self._handle = gpu, handle
        self.uuid = Probe[str](lambda: driver_text(pynvml.nvmlDeviceGetUUID, handle)).read() or ""
        self.slice = MigSlice(instance)
        """What job attribution needs to know of it."""
        self._processes = Probe[list[Any]](lambda: pynvml.nvmlDeviceGetComputeRunningProcesses_v3(handle))
        self._memory = Probe[Any](
            lambda: pynvml.nvmlDeviceGetMemoryInfo(handle, version=pynvml.nvmlMemory_v2),
            lambda: pynvml.nvmlDeviceGetMemoryInfo(handle),
        )
        self._activity = Probe[float](self._sample)
        self._samples: list[Any] = []
        self._filled = False

    def collect(self) -> Fields:
        """Read memory and activity; the first activity needs two reads."""
        fields: dict[str, float] = {}
        pids = tuple(entry.pid for entry in self._processes.read() or ())
        memory = self._memory.read()
        if memory is not None:
            fields["mem_used_bytes"], fields["mem_total_bytes"] = memory.used, memory.total
        activity = self._activity.read()
        if activity is not None and activity >= 0:
            fields["activity_percent"] = activity
        memory_bytes = fields.get("mem_total_bytes", 0.0)
        self.slice = MigSlice(self.instance, pids, memory_bytes, fields.get("activity_percent"))
        return fields

    def _sample(self) -> float:
        """Take a sample and return the SM utilization since the one before; -1 at the first."""
        if not self._samples:
            self._samples = [pynvml.nvmlGpmSampleAlloc(), pynvml.nvmlGpmSampleAlloc()]
        before, now = self._samples
        pynvml.nvmlGpmMigSampleGet(self._gpu.handle, self.instance, now)
        self._samples = [now, before]
        if not self._filled:
            self._filled = True
            return -1.0
        request = pynvml.c_nvmlGpmMetricsGet_t()
        request.version, request.numMetrics = pynvml.NVML_GPM_METRICS_GET_VERSION, 1
        request.sample1, request.sample2 = before, now
        request.metrics[0].metricId = _SM_UTIL
        pynvml.nvmlGpmMetricsGet(request)
        metric = request.metrics[0]
        return -1.0 if metric.nvmlReturn else float(metric.value)

    def close(self) -> None:
        """Free the GPM samples; needed before the driver may be unbound."""
        for sample in self._samples:
            try:
                pynvml.nvmlGpmSampleFree(sample)
            except pynvml.NVMLError:
                break
        self._samples = []
        self._filled = False
