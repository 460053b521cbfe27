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

_RECORD: Final = struct.Struct("<IIqqIIq")
"""field id, scope id, timestamp (us), latency (us), value type, return code, value bits."""
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
        self._bytes = memoryview(self._array).cast("B")[: _RECORD.size * len(specs)]
        for entry, spec in zip(self._array, specs, strict=False):
            entry.fieldId, entry.scopeId = spec.field_id, spec.scope_id

    def read(self) -> dict[str, float]:
        """Return the values that the driver gave, by name; raises NVMLError where the GPU or the driver is gone."""
        specs = self.specs
        if not specs:
            return {}
        call_begins()
        code = self._call(self._handle, self._count, self._array)
        if code and action(code) in _FATAL:
            raise pynvml.NVMLError(code)
        values: dict[str, float] = {}
        latency_us = 0
        dropped: list[FieldSpec] = []
        for spec, (_, _, _, field_us, kind, result, bits) in zip(specs, _RECORD.iter_unpack(self._bytes), strict=True):
            latency_us += field_us
            if result:
                self._refused(spec, result, dropped)
                continue
            values[spec.name] = _decode(kind, bits) / spec.per
        self._seen.update(values)
        self.latency_s = latency_us / 1e6
        if dropped:
            self._allocate([spec for spec in specs if spec not in dropped])
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
    mask = _MASKS.get(kind)
    if mask is not None:
        return bits & mask
    if kind == 0:
        return float(_DOUBLE.unpack(_BITS.pack(bits))[0])
    if kind == 5:
        return ((bits & 0xFFFFFFFF) ^ 0x80000000) - 0x80000000
    return bits
