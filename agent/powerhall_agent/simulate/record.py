"""Records real GPUs through NVML into the project's own recording format, to be replayed without GPUs.

python -m powerhall_agent.simulate.record OUT.jsonl.gz [SECONDS] [INTERVAL_S]
"""

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pynvml

from powerhall_agent.nvml.driver import Driver, Gpu
from powerhall_agent.simulate import layout as at
from powerhall_agent.simulate.recording import GpuHead, RecordingSample, write_recording

__all__ = ["main", "record"]

_SLOW_FIELDS: Final = frozenset({204, 203, 202, 201})
"""NVLink packet and byte counts: one value per link, not one for the GPU."""
_KEYS: Final = [
    *((number, 0) for number in range(1, at.FIELD_IDS) if number not in _SLOW_FIELDS),
    *((number, scope) for scope in (1, 2) for number in at.POWER_FIELDS),
]
_ALL_LINKS: Final = {138: 0xFFFFFFFF, 139: 0xFFFFFFFF}
_BATCH: Final = 32


def _getters(handle: Any) -> dict[str, Callable[[], tuple[int, int]]]:  # noqa: ANN401
    nv = pynvml

    def one(call: Callable[..., int], *args: int) -> Callable[[], tuple[int, int]]:
        return lambda: (int(call(handle, *args)), 0)

    def pair(call: Callable[..., Any], first: str | int, second: str | int) -> Callable[[], tuple[int, int]]:
        def read() -> tuple[int, int]:
            found = call(handle)
            values = [found[key] if isinstance(key, int) else getattr(found, key) for key in (first, second)]
            return int(values[0]), int(values[1])

        return read

    def memory_v2(_handle: object) -> Any:  # noqa: ANN401
        return nv.nvmlDeviceGetMemoryInfo(handle, version=nv.nvmlMemory_v2)

    scalars = {name: getattr(nv, symbol, None) for symbol, (name, _) in at.SCALAR_GETTERS.items()}
    return {
        **{name: one(call) for name, call in scalars.items() if call is not None},
        "TEMPERATURE": one(nv.nvmlDeviceGetTemperatureV, 0),
        "MARGIN": one(nv.nvmlDeviceGetMarginTemperature),
        "UTILIZATION": pair(nv.nvmlDeviceGetUtilizationRates, "gpu", "memory"),
        "MEMORY": pair(memory_v2, "total", "used"),
        "MEMORY_RESERVED": pair(memory_v2, "reserved", "reserved"),
        "CLOCK_GRAPHICS": one(nv.nvmlDeviceGetClockInfo, 0),
        "CLOCK_SM": one(nv.nvmlDeviceGetClockInfo, 1),
        "CLOCK_MEM": one(nv.nvmlDeviceGetClockInfo, 2),
        "REASONS": one(nv.nvmlDeviceGetCurrentClocksEventReasons),
        "LIMIT_RANGE": pair(nv.nvmlDeviceGetPowerManagementLimitConstraints, 0, 1),
        "THRESHOLD_SHUTDOWN": one(nv.nvmlDeviceGetTemperatureThreshold, 0),
        "THRESHOLD_SLOWDOWN": one(nv.nvmlDeviceGetTemperatureThreshold, 1),
        "THRESHOLD_MEM_MAX": one(nv.nvmlDeviceGetTemperatureThreshold, 2),
        "THRESHOLD_GPU_MAX": one(nv.nvmlDeviceGetTemperatureThreshold, 3),
        "MIG_MODE": pair(nv.nvmlDeviceGetMigMode, 0, 1),
    }


class _GpuRecorder:
    """One GPU being recorded: its supported readings, and the last value of each."""

    def __init__(self, gpu: Gpu) -> None:
        self.gpu = gpu
        self._keys: list[tuple[int, int]] = list(_KEYS)
        self._getters = _getters(gpu.handle)
        self._shown: dict[str, object] = {}
        self.types: dict[str, int] = {}
        fields, getters = self._fields(), self._read_getters()
        self._keys = [key for key in self._keys if _name(key) in fields]
        self._getters = {name: call for name, call in self._getters.items() if name in getters}

    def head(self, mask: bool) -> GpuHead:
        """Describe the GPU; identifiers are masked unless asked for."""
        gpu = self.gpu
        return GpuHead(
            uuid=f"GPU-00000000-0000-0000-0000-{gpu.index:012d}" if mask else gpu.uuid,
            name=gpu.name,
            bus_id=gpu.bus_id,
            fields=self.types,
            getters=dict.fromkeys(self._getters, 0),
        )

    def _fields(self) -> dict[str, int | float]:
        found: dict[str, int | float] = {}
        for start in range(0, len(self._keys), _BATCH):
            keys = self._keys[start : start + _BATCH]
            try:
                values = pynvml.nvmlDeviceGetFieldValues(
                    self.gpu.handle, [(number, _ALL_LINKS.get(number, scope)) for number, scope in keys]
                )
            except pynvml.NVMLError:
                continue
            for key, value in zip(keys, values, strict=True):
                if value.nvmlReturn == 0:
                    self.types[_name(key)] = value.valueType
                    found[_name(key)] = _value(value)
        return found

    def _read_getters(self) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        for name, call in self._getters.items():
            try:
                found[name] = list(call())
            except pynvml.NVMLError:
                continue
        return found

    def sample(self, seconds: float) -> RecordingSample:
        """Read everything and keep the changed values."""
        fields, getters = self._fields(), self._read_getters()
        changed = {name: value for name, value in fields.items() if self._shown.get(name) != value}
        moved = {name: values for name, values in getters.items() if self._shown.get(name) != values}
        self._shown.update(fields)
        self._shown.update(getters)
        return RecordingSample(t=round(seconds, 4), gpu=self.gpu.index, f=changed, g=moved)


def _name(key: tuple[int, int]) -> str:
    return str(key[0]) if key[1] == 0 else f"{key[0]}:{key[1]}"


def _value(entry: Any) -> int | float:  # noqa: ANN401
    kinds = {0: "dVal", 1: "uiVal", 5: "siVal", 6: "usVal"}
    found: int | float = getattr(entry.value, kinds.get(entry.valueType, "sllVal"))
    return found


def record(path: Path, seconds: float, interval_s: float = 0.1, *, mask: bool = True) -> int:
    """Record all GPUs of this host; returns the number of samples. Raises NVMLError without a driver."""
    driver = Driver()
    recorders = [_GpuRecorder(gpu) for gpu in driver.gpus]
    count = 0

    def samples() -> Iterator[RecordingSample]:
        nonlocal count
        start_s = time.monotonic()
        while (elapsed_s := time.monotonic() - start_s) < seconds:
            for recorder in recorders:
                count += 1
                yield recorder.sample(elapsed_s)
            time.sleep(max(0.0, interval_s - (time.monotonic() - start_s - elapsed_s)))

    write_recording(path, driver.version, [recorder.head(mask) for recorder in recorders], samples())
    driver.close()
    return count


def main() -> int:
    """Record as the command line says."""
    if len(sys.argv) not in {2, 3, 4}:
        sys.stderr.write(f"usage: {__doc__.strip().splitlines()[-1].strip()}\n" if __doc__ else "")
        return 2
    numbers = [float(text) for text in sys.argv[2:]] or [60.0]
    try:
        count = record(Path(sys.argv[1]), *numbers)
    except pynvml.NVMLError as error:
        sys.stderr.write(f"record: NVML: {error}\n")
        return 1
    sys.stdout.write(f"{sys.argv[1]}: {count} samples\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
