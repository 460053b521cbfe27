"""Turns rows of the GPU field table (powerhall.store.gpu_fields) into field values and getter calls of the driver."""

import ctypes
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import pynvml

from powerhall.store.gpu_fields import FieldValue, Getter, GpuField
from powerhall_agent.nvml.fields import FieldSpec
from powerhall_agent.nvml.getters import GetterCall

__all__ = ["Combination", "combinations", "field_specs", "getter_calls", "select"]

_NEEDS: Final = {"temp_margin_c": "temp_c", "mem_util_percent": "util_percent"}
"""A margin may be made from the temperature; a utilization above 100 % makes both of them invalid."""
_NUMBERS: Final = {"u32": ctypes.c_uint, "u64": ctypes.c_ulonglong}


def select(rows: Sequence[GpuField], names: Collection[str]) -> tuple[GpuField, ...]:
    """Return the rows of these names and those that they need; all when there are no names."""
    wanted = {*names, *(needed for name, needed in _NEEDS.items() if name in names)}
    return tuple(row for row in rows if not wanted or row.name in wanted)


def field_specs(rows: Sequence[GpuField], driver: tuple[int, ...]) -> list[FieldSpec]:
    """Return the field values of these rows that a driver version has; those whose ids move come last."""
    values = [(row, value) for row in rows for value in _values(row) if value.is_in(driver)]
    values.sort(key=lambda entry: bool(entry[1].since))
    return [FieldSpec(value.part or row.name, value.field_id, value.scope_id, value.per) for row, value in values]


def getter_calls(rows: Sequence[GpuField]) -> list[tuple[GetterCall, ...]]:
    """Return the calls of these rows, each with its fallbacks; rows that one function answers share a call."""
    groups: dict[tuple[str, tuple[int, ...]], list[GpuField]] = {}
    for row in rows:
        first = next(_getters(row), None)
        if first is not None:
            groups.setdefault((first.symbol, first.arguments), []).append(row)
    return [tuple(_shared_call(group, rank) for rank in range(_count(group[0]))) for group in groups.values()]


@dataclass(frozen=True, slots=True)
class Combination:
    """A field that is made of several values: the first that is there, or their sum."""

    name: str
    parts: tuple[str, ...]
    is_sum: bool

    def apply(self, fields: dict[str, float]) -> None:
        """Replace the parts by the field."""
        found = [fields.pop(part) for part in self.parts if part in fields and part != self.name]
        if found and self.name not in fields:
            fields[self.name] = sum(found) if self.is_sum else found[0]


def combinations(rows: Sequence[GpuField]) -> list[Combination]:
    """Return the rows whose field is made of several field values."""
    parts = {row.name: tuple(dict.fromkeys(value.part or row.name for value in _values(row))) for row in rows}
    return [
        Combination(row.name, parts[row.name], row.combine == "sum")
        for row in rows
        if row.combine != "own" and len(parts[row.name]) > 1
    ]


def _values(row: GpuField) -> Iterator[FieldValue]:
    return (source for source in row.sources if isinstance(source, FieldValue))


def _getters(row: GpuField) -> Iterator[Getter]:
    return (source for source in row.sources if isinstance(source, Getter))


def _count(row: GpuField) -> int:
    return sum(1 for _ in _getters(row))


def _shared_call(rows: Sequence[GpuField], rank: int) -> GetterCall:
    """Return the call number `rank` (0 is the best) that answers all of these rows."""
    getters = [(row, list(_getters(row))[rank]) for row in rows]
    reads = tuple((getter.part or row.name, getter.attribute) for row, getter in getters)
    first = getters[0][1]
    return GetterCall(first.symbol, _output(first), reads, first.arguments, (*_version(first), *first.preset))


def _output(getter: Getter) -> Any:  # noqa: ANN401 - a ctypes type
    return _NUMBERS.get(getter.output) or getattr(pynvml, f"c_{getter.output}_t")


def _version(getter: Getter) -> tuple[tuple[str, int], ...]:
    """Return the version that a versioned structure must carry; pynvml has it under the structure's name."""
    version = getattr(pynvml, getter.output, None)
    return () if version is None else (("version", version),)
