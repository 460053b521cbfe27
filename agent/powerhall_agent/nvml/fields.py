"""Field values in batches: one driver call per GPU and cadence, into an array allocated once.

`nvmlDeviceGetFieldValues` succeeds when any value was filled, so the code of every value is looked at. A field that is
not supported is dropped from the batch, but never one that has once succeeded.
"""

import ctypes
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import pynvml

from powerhall_agent.nvml.codes import Action, action
from powerhall_agent.nvml.pulse import call_begins

__all__ = ["FieldBatch", "FieldSpec"]

_RECORD: Final = "IIqqIIq"
"""field id, scope id, timestamp (us), latency (us), value type, return code, value bits."""
_RECORD_VALUES: Final = len(_RECORD)
_DOUBLE: Final = struct.Struct("<d")
_BITS: Final = struct.Struct("<q")
_MASKS: Final = {1: 0xFFFFFFFF, 2: 0xFFFFFFFFFFFFFFFF, 3: 0xFFFFFFFFFFFFFFFF, 6: 0xFFFF}
_FATAL: Final = {Action.QUARANTINE, Action.REINIT, Action.RESPAWN, Action.STRIKE}


@dataclass(frozen=True, slots=True)
class FieldSpec:
    """A field to read: our name, NVML's id and scope, and how many of NVML's units make one of ours."""

    name: str
    field_id: int
    scope_id: int = 0
    per: float = 1.0


class FieldBatch:
    """Reads a fixed set of fields of one GPU; `latency_s` is the driver's own figure for the last read."""

    def __init__(self, call: Callable[..., int], handle: object, specs: Sequence[FieldSpec]) -> None:
        """Allocate the array; `call` is the library's nvmlDeviceGetFieldValues."""
        self._call, self._handle = call, handle
        self._seen: set[str] = set()
        self.latency_s = 0.0
        self.denied: set[str] = set()
        self._allocate(list(specs))

    def _allocate(self, specs: list[FieldSpec]) -> None:
        self.specs = specs
        self._array: Any = (pynvml.c_nvmlFieldValue_t * max(1, len(specs)))()
        self._count = ctypes.c_int(len(specs))
        self._bytes = memoryview(self._array).cast("B")
        self._unpack = struct.Struct("<" + _RECORD * len(specs)).unpack_from
        self._plan = [(spec, _RECORD_VALUES * number) for number, spec in enumerate(specs)]
        for entry, spec in zip(self._array, specs, strict=False):
            entry.fieldId, entry.scopeId = spec.field_id, spec.scope_id

    def read(self) -> dict[str, float]:
        """Return the values that the driver gave, by name; raises NVMLError where the GPU or the driver is gone."""
        if not self.specs:
            return {}
        call_begins()
        code = self._call(self._handle, self._count, self._array)
        if code and action(code) in _FATAL:
            raise pynvml.NVMLError(code)
        raw = self._unpack(self._bytes)
        values: dict[str, float] = {}
        dropped: list[FieldSpec] = []
        for spec, first in self._plan:
            if raw[first + 5]:
                self._refused(spec, raw[first + 5], dropped)
                continue
            mask = _MASKS.get(raw[first + 4])
            bits = raw[first + 6]
            values[spec.name] = (bits & mask if mask else _decode(raw[first + 4], bits)) / spec.per
        self._seen.update(values)
        self.latency_s = sum(raw[3::_RECORD_VALUES]) / 1e6
        if dropped:
            self._allocate([spec for spec in self.specs if spec not in dropped])
        return values

    def drop(self, names: set[str]) -> None:
        """Stop reading these fields."""
        self._allocate([spec for spec in self.specs if spec.name not in names])

    def _refused(self, spec: FieldSpec, code: int, dropped: list[FieldSpec]) -> None:
        todo = action(code)
        if todo in _FATAL:
            raise pynvml.NVMLError(code)
        if todo is Action.NO_PERMISSION:
            self.denied.add(spec.name)
        elif todo is Action.UNSUPPORTED and spec.name not in self._seen:
            dropped.append(spec)


def _decode(kind: int, bits: int) -> float:
    """Read a value that is not unsigned: a double, or a signed number."""
    if kind == 0:
        return float(_DOUBLE.unpack(_BITS.pack(bits))[0])
    if kind == 5:
        return ((bits & 0xFFFFFFFF) ^ 0x80000000) - 0x80000000
    return bits
