"""Identity of a GPU: read when it is bound, on every rebind and every ten minutes."""

import pynvml

from powerhall_agent.base.encoder import Fields
from powerhall_agent.nvml.driver import Driver, Gpu
from powerhall_agent.nvml.probe import Probe
from powerhall_agent.nvml.texts import driver_text

__all__ = ["GpuIdentity"]


class GpuIdentity:
    """Collects `gpu_identity` of one GPU."""

    def __init__(self, driver: Driver, gpu: Gpu) -> None:
        """Prepare the getters."""
        self._texts = (
            ("uuid", Probe[str](lambda: driver_text(pynvml.nvmlDeviceGetUUID, gpu.handle))),
            ("name", Probe[str](lambda: driver_text(pynvml.nvmlDeviceGetName, gpu.handle))),
            ("serial", Probe[str](lambda: driver_text(pynvml.nvmlDeviceGetSerial, gpu.handle))),
            ("vbios", Probe[str](lambda: driver_text(pynvml.nvmlDeviceGetVbiosVersion, gpu.handle))),
        )
        self._architecture = Probe[float](lambda: pynvml.nvmlDeviceGetArchitecture(gpu.handle))
        self._fixed = {"pci_bus_id": gpu.bus_id, "driver": driver.version}

    def collect(self) -> Fields:
        """Read everything; raises NVMLError where the GPU or the driver is gone."""
        fields: dict[str, float | str] = dict(self._fixed)
        for name, probe in self._texts:
            text = probe.read()
            if text:
                fields[name] = text
        architecture = self._architecture.read()
        if architecture is not None:
            fields["architecture"] = architecture
        return fields
