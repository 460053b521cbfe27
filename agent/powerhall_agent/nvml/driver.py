"""One session of the NVIDIA driver: initialise, list the GPUs, find symbols, shut down."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pynvml

from powerhall_agent.nvml.fields import FieldBatch, FieldSpec
from powerhall_agent.nvml.getters import GetterBatch, GetterCall

__all__ = ["Driver", "Gpu"]


@dataclass(slots=True)
class Gpu:
    """One GPU of a node: its number, its handle in this session, and its PCI bus id to find it again."""

    index: int
    handle: Any
    uuid: str
    bus_id: str
    name: str

    def reopen(self) -> None:
        """Find the GPU again by its PCI bus id; raises NVMLError while it is gone."""
        self.handle = pynvml.nvmlDeviceGetHandleByPciBusId(self.bus_id.encode())


class Driver:
    """NVML between `nvmlInit` and `nvmlShutdown`."""

    def __init__(self, first: int = 0, count: int | None = None) -> None:
        """Initialise; `first` and `count` narrow the GPUs to a window (several simulated nodes in one process).

        Raises NVMLError when the driver is not there. A GPU that cannot be opened is listed in `unopened`.
        """
        pynvml.nvmlInit()
        self._first = first
        self.version: str = pynvml.nvmlSystemGetDriverVersion()
        total = pynvml.nvmlDeviceGetCount()
        last = total if count is None else min(total, first + count)
        self.gpus: list[Gpu] = []
        self.unopened: dict[int, int] = {}
        for number in range(first, last):
            try:
                self.gpus.append(self.open(number - first))
            except pynvml.NVMLError as error:
                self.unopened[number - first] = error.value

    @property
    def number(self) -> tuple[int, ...]:
        """The first two parts of the driver version, such as (580, 82)."""
        return tuple(int(part) for part in self.version.split(".")[:2] if part.isdigit())

    def open(self, index: int) -> Gpu:
        """Open a GPU of this node by its number; raises NVMLError when it does not answer."""
        handle = pynvml.nvmlDeviceGetHandleByIndex(self._first + index)
        pci = pynvml.nvmlDeviceGetPciInfo(handle)
        bus_id = pci.busId.decode() if isinstance(pci.busId, bytes) else pci.busId
        return Gpu(index, handle, pynvml.nvmlDeviceGetUUID(handle), bus_id, pynvml.nvmlDeviceGetName(handle))

    @staticmethod
    def has(symbol: str) -> bool:
        """Return whether the loaded library has a function."""
        return hasattr(pynvml.nvmlLib, symbol)

    def batch(self, gpu: Gpu, specs: list[FieldSpec]) -> FieldBatch:
        """Make a batch of fields; where the driver has no field values at all, the batch is empty."""
        call: Callable[..., int] | None = getattr(pynvml.nvmlLib, "nvmlDeviceGetFieldValues", None)
        return FieldBatch(call or _nothing, gpu.handle, specs if call else [])

    def getters(self, gpu: Gpu, wanted: Sequence[Sequence[GetterCall]]) -> GetterBatch:
        """Make a reading of getters; those that the loaded library lacks are left out."""
        return GetterBatch(pynvml.nvmlLib, gpu.handle, wanted)

    def close(self) -> None:
        """Shut NVML down; a driver that is already gone is no error."""
        try:
            pynvml.nvmlShutdown()
        except pynvml.NVMLError:
            return


def _nothing(*_args: object) -> int:
    return 0
