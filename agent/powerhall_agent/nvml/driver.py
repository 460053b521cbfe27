"""One session of the NVIDIA driver: initialise, list the GPUs, find symbols, shut down."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import pynvml

from powerhall.runtime.decode.numbers_in import digits
from powerhall.runtime.log import Log
from powerhall_agent.nvml.codes import UNKNOWN
from powerhall_agent.nvml.fields import FieldBatch, FieldSpec
from powerhall_agent.nvml.getters import GetterBatch, GetterCall
from powerhall_agent.nvml.texts import driver_text

__all__ = ["Driver", "Gpu"]

_log = Log(quiet=True)
_OPEN_S: Final = 2.0
"""How long the opening of all GPUs is waited for, in s."""


@dataclass(slots=True)
class Gpu:
    """One GPU of a node: its number, its handle in this session, and its PCI bus id to find it again."""

    index: int
    handle: Any
    uuid: str
    bus_id: str
    name: str

    def reopen(self) -> bool:
        """Find the GPU again by its PCI bus id; False where another is there now. Raises NVMLError while it is gone."""
        self.handle = pynvml.nvmlDeviceGetHandleByPciBusId(self.bus_id.encode())
        return driver_text(pynvml.nvmlDeviceGetUUID, self.handle) == self.uuid


class Driver:
    """NVML between `nvmlInit` and `nvmlShutdown`."""

    def __init__(self, first: int = 0, count: int | None = None) -> None:
        """Initialise; `first` and `count` narrow the GPUs to a window (several simulated nodes in one process).

        Raises NVMLError when the driver is not there. A GPU that cannot be opened is listed in `unopened` with its
        return code, or None where the call does not return within two seconds.
        """
        pynvml.nvmlInit()
        self._first = first
        self.version = driver_text(pynvml.nvmlSystemGetDriverVersion)
        total = pynvml.nvmlDeviceGetCount()
        last = total if count is None else min(total, first + count)
        self.gpus: list[Gpu] = []
        self.unopened: dict[int, int | None] = {}
        found = self._open_all(last - first)
        for index in range(last - first):
            match found.get(index):
                case Gpu() as gpu:
                    self.gpus.append(gpu)
                case pynvml.NVMLError() as error:
                    self.unopened[index] = error.value
                case None:
                    self.unopened[index] = None
                case error:
                    self.unopened[index] = UNKNOWN
                    _log.warning("gpu_not_opened", gpu=index, detail=f"{type(error).__name__}: {error}")

    @property
    def number(self) -> tuple[int, ...]:
        """The first two parts of the driver version, such as (580, 82)."""
        return tuple(number for part in self.version.split(".")[:2] if (number := digits(part)) is not None)

    def _open_all(self, count: int) -> dict[int, Gpu | Exception]:
        """Open the GPUs, each in a thread: one that hangs keeps no other from being opened, and is left out."""
        found: dict[int, Gpu | Exception] = {}

        def open_one(index: int) -> None:
            try:
                found[index] = self.open(index)
            except Exception as error:  # noqa: BLE001 - told apart by the caller
                found[index] = error

        threads = [threading.Thread(target=open_one, args=(index,), daemon=True) for index in range(count)]
        for thread in threads:
            thread.start()
        until_s = time.monotonic() + _OPEN_S
        for thread in threads:
            thread.join(max(0.0, until_s - time.monotonic()))
        return dict(found)

    def open(self, index: int) -> Gpu:
        """Open a GPU of this node by its number; raises NVMLError when it does not answer."""
        handle = pynvml.nvmlDeviceGetHandleByIndex(self._first + index)
        pci = pynvml.nvmlDeviceGetPciInfo(handle)
        bus_id = pci.busId.decode("ascii", "backslashreplace") if isinstance(pci.busId, bytes) else pci.busId
        uuid, name = (driver_text(call, handle) for call in (pynvml.nvmlDeviceGetUUID, pynvml.nvmlDeviceGetName))
        return Gpu(index, handle, uuid, bus_id, name)

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
