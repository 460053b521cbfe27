"""A batch of getters of one GPU: called one after the other into one buffer, which is unpacked at once.

pynvml's wrapper of a getter looks its symbol up, makes a structure, and checks and copies the result at every call.
Here that is done once per driver session; a reading is the bare library calls and one unpack. A getter may have
alternatives (newer and older symbols, best first): the first that works is kept.
"""

import ctypes
import struct
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import pynvml

from powerhall_agent.nvml.call_start import call_start
from powerhall_agent.nvml.codes import Action, action

__all__ = ["GetterBatch", "GetterCall"]

_FATAL: Final = {Action.QUARANTINE, Action.REINIT, Action.RESPAWN, Action.STRIKE}
_CODES: Final = {(4, True): "i", (4, False): "I", (8, True): "q", (8, False): "Q"}
_ALIGN: Final = 8


@dataclass(frozen=True, slots=True)
class GetterCall:
    """One library function: its symbol, the type of its last argument, and which values are read from it."""

    symbol: str
    out: Any
    reads: tuple[tuple[str, str], ...]
    """Our name and the structure's attribute; "" where `out` is a plain number."""
    arguments: tuple[int, ...] = ()
    """Arguments between the handle and `out`."""
    preset: tuple[tuple[str, int], ...] = ()
    """Attributes of the structure that the caller fills in."""


class GetterBatch:
    """Reads a fixed set of getters of one GPU."""

    def __init__(self, library: object, handle: object, wanted: Sequence[Sequence[GetterCall]]) -> None:
        """Take the alternatives of each getter, best first; symbols that the library lacks are left out."""
        self._library, self._handle = library, handle
        self._left = [[way for way in ways if hasattr(library, way.symbol)] for ways in wanted]
        self._worked: set[GetterCall] = set()
        self._settled = False
        self._compile()

    def _compile(self) -> None:
        """Lay out the outputs of the best alternatives in one buffer."""
        self._ways = [ways[0] for ways in self._left if ways]
        sizes = [-(-ctypes.sizeof(way.out) // _ALIGN) * _ALIGN for way in self._ways]
        self._buffer = bytearray(sum(sizes))
        self._calls: list[tuple[Any, tuple[Any, ...]]] = []
        places: list[tuple[int, str, str]] = []
        start = 0
        for way, size in zip(self._ways, sizes, strict=True):
            out = way.out.from_buffer(self._buffer, start)
            for attribute, value in way.preset:
                setattr(out, attribute, value)
            arguments = (self._handle, *map(ctypes.c_uint, way.arguments), ctypes.byref(out))
            self._calls.append((getattr(self._library, way.symbol), arguments))
            places += [(start + offset, code, name) for offset, code, name in _places(way)]
            start += size
        self._names, self._unpack = _unpacker(places)

    def read(self) -> dict[str, float]:
        """Return the values that the driver gave, by name; raises NVMLError where the GPU or the driver is gone."""
        watched, now = call_start(), time.monotonic_ns
        refused: dict[int, int] = {}
        for number, (call, arguments) in enumerate(self._calls):
            watched.call_ns = now()
            code = call(*arguments)
            if code:
                if action(code) in _FATAL:
                    raise pynvml.NVMLError(code)
                refused[number] = code
        values = dict(zip(self._names, self._unpack(self._buffer), strict=True))
        if refused or not self._settled:
            return self._settle(values, refused)
        return values

    def times_s(self) -> dict[str, float]:
        """Call every getter once more and return how long each took, by the name of its first value."""
        watched, now, times = call_start(), time.monotonic_ns, {}
        for way, (call, arguments) in zip(self._ways, self._calls, strict=True):
            begun_ns = watched.call_ns = now()
            if not call(*arguments):
                times[way.reads[0][0]] = (now() - begun_ns) / 1e9
        return times

    def _settle(self, values: dict[str, float], refused: Mapping[int, int]) -> dict[str, float]:
        """Leave out refused values; an unsupported alternative that has never worked is replaced by the next one."""
        self._worked.update(way for number, way in enumerate(self._ways) if number not in refused)
        again = dropped = False
        for number, code in refused.items():
            way = self._ways[number]
            for name, _ in way.reads:
                values.pop(name, None)
            if action(code) is Action.UNSUPPORTED and way not in self._worked:
                ways = next(ways for ways in self._left if ways and ways[0] == way)
                del ways[0]
                again, dropped = again or bool(ways), True
        if dropped:
            self._compile()
        self._settled = len(self._worked) == len(self._ways)
        return self.read() if again else values


def _places(way: GetterCall) -> list[tuple[int, str, str]]:
    """Return offset, format and name of every value that is read from a call's output.

    Of an attribute that is itself a structure or an array (a bit mask), the first number is read.
    """
    found = []
    for name, attribute in way.reads:
        kind = dict(way.out._fields_)[attribute] if attribute else way.out
        offset = getattr(way.out, attribute).offset if attribute else 0
        while not isinstance(getattr(kind, "_type_", None), str):
            kind = kind._type_ if hasattr(kind, "_type_") else kind._fields_[0][1]
        found.append((offset, _CODES[ctypes.sizeof(kind), kind._type_.islower()], name))
    return found


def _unpacker(places: list[tuple[int, str, str]]) -> tuple[tuple[str, ...], Any]:
    """Compile one unpack of all places."""
    layout, at = "<", 0
    ordered = sorted(places)
    for offset, code, _ in ordered:
        layout += f"{offset - at}x{code}"
        at = offset + struct.calcsize("<" + code)
    return tuple(name for _, _, name in ordered), struct.Struct(layout).unpack_from
