"""Field values in batches: one driver call per GPU and cadence, into an array allocated once.

`nvmlDeviceGetFieldValues` succeeds when any value was filled, so the return code of every value is checked. A field
that is not supported is dropped from the batch, unless it has succeeded before.
"""

import ctypes
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import and_, truediv
from typing import Any, Final

import pynvml

from powerhall_agent.nvml.call_start import note_call_start
from powerhall_agent.nvml.codes import Action, action

__all__ = ["FieldBatch", "FieldSpec"]

_RECORD: Final = "24xqq"
"""One record: field id, scope id, timestamp (us) and latency (us) are skipped; then type, return code and value."""
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
    """Reads a fixed set of fields of one GPU."""

    def __init__(self, call: Callable[..., int], handle: object, specs: Sequence[FieldSpec]) -> None:
        """Allocate the array; `call` is the library's nvmlDeviceGetFieldValues."""
        self._call, self._handle = call, handle
        self._seen: set[str] = set()
        self.denied: set[str] = set()
        self._allocate(list(specs))

    def _allocate(self, specs: list[FieldSpec]) -> None:
        self.specs = specs
        self._array: Any = (pynvml.c_nvmlFieldValue_t * max(1, len(specs)))()
        self.arguments = (self._handle, ctypes.c_int(len(specs)), self._array)
        self.memory = memoryview(self._array).cast("B")
        self._unpack = struct.Struct("<" + _RECORD * len(specs)).unpack_from
        self._names = [spec.name for spec in specs]
        self._pers = [spec.per for spec in specs]
        self._usual: tuple[int, ...] = ()
        self._masks: list[int] = []
        for entry, spec in zip(self._array, specs, strict=False):
            entry.fieldId, entry.scopeId = spec.field_id, spec.scope_id

    def times_s(self) -> dict[str, float]:
        """Return how long each field took at the last read, as the driver reports it."""
        rows = zip(self.specs, self._array, strict=False)
        return {spec.name: entry.latencyUsec / 1e6 for spec, entry in rows if entry.timestamp}

    @property
    def call(self) -> Callable[..., int]:
        """The library's function, for a caller that reads `memory` itself after calling it with `arguments`."""
        return self._call

    def read(self) -> dict[str, float]:
        """Return the values that the driver gave, by name; raises NVMLError where the GPU or the driver is gone."""
        if not self.specs:
            return {}
        note_call_start()
        code = self._call(*self.arguments)
        if code and action(code) in _FATAL:
            raise pynvml.NVMLError(code)
        raw = self._unpack(self.memory)
        if raw[::2] == self._usual:
            return dict(zip(self._names, map(truediv, map(and_, raw[1::2], self._masks), self._pers), strict=True))
        return self._sift(raw[::2], raw[1::2])

    def _sift(self, statuses: tuple[int, ...], bits: tuple[int, ...]) -> dict[str, float]:
        """Check the return code of each value; when all are good and unsigned, the next read uses the fast path."""
        values: dict[str, float] = {}
        dropped: list[FieldSpec] = []
        for spec, status, value in zip(self.specs, statuses, bits, strict=True):
            kind, code = status & 0xFFFFFFFF, status >> 32
            if code:
                self._refused(spec, code, dropped)
                continue
            mask = _MASKS.get(kind)
            values[spec.name] = (value & mask if mask else _decode(kind, value)) / spec.per
        self._seen.update(values)
        if dropped:
            self._allocate([spec for spec in self.specs if spec not in dropped])
        elif all(status in _MASKS for status in statuses):
            self._usual, self._masks = statuses, [_MASKS[status] for status in statuses]
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
