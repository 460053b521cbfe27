"""Fault scripts: faults of simulated GPUs by time.

One step per line: `at SECONDS [gpu N] VERB [VALUE ...]`; `#` starts a comment. Times count from the start.

    at 0    gpu 0 load 0.95 40GiB      utilization (0 to 1), and memory held
    at 0    limit 400                  requested power limit in W; without `gpu` all GPUs
    at 5    gpu 3 lost                 off the bus: every call answers 15
    at 5    gpu 3 hung 60              calls block for 60 s
    at 5    gpu 3 slow 0.2             every call takes 0.2 s
    at 5    gpu 2 reset_required       every call answers 16
    at 5    gpu 2 unknown              every call answers 999
    at 9    gpu 2 well                 all of these end
    at 9    gpu 2 reset                energy counter back to 0, as a GPU reset does
    at 9    gpu 1 wrap 32              the energy counter wraps at 2^32 mJ, a moment from now
    at 9    gpu 1 unsupported 186      field 186 answers "not supported"; also a getter's name, such as MARGIN
    at 9    gpu 1 xid 79               XID event; also ecc, storm, retired, poison, unavailable, recovery N
    at 9    gpu 1 operational 7 30 94  operational event: code, severity 10 to 40, XID that it stands for
    at 9    gpu 1 mig 3:20GiB 5:10GiB  partitioned: GPU instance ids and sizes; `mig off` ends it
    at 9    gpu 1 brake on             power brake; `brake off` ends it
    at 9    inlet 45                   inlet temperature in degC
    at 20   unbind                     driver unbind event, driver gone until `load`
    at 20   reload 595.10              driver reload, counters at 0, version as given
    at 20   unload / load / mismatch   driver not loaded (9) / loaded again / library does not fit (18)
"""

import re
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from powerhall.runtime.decode.bytes_in import read_file, utf8
from powerhall.runtime.decode.limits import MOST_TOML_BYTES
from powerhall.runtime.decode.numbers_in import digits, finite
from powerhall.runtime.errors import Rejected
from powerhall_agent.simulate import layout as at
from powerhall_agent.simulate.state import StateFile

__all__ = ["Step", "apply", "parse_script", "play", "read_script"]

_LINE: Final = re.compile(r"at\s+(?P<time>\S+)\s+(?:gpu\s+(?P<gpu>\S+)\s+)?(?P<verb>[a-z_]+)\s*(?P<values>.*)")
_SIZE: Final = re.compile(r"(\d+(?:\.\d+)?)(MiB|GiB|B)?")
_UNITS: Final = {"B": 1, "MiB": 1 << 20, "GiB": 1 << 30, None: 1}
_CODES: Final = {"lost": 15, "reset_required": 16, "unknown": 999}
_EVENTS: Final = {
    "xid": 0x8, "ecc": 0x2, "storm": 0x200, "retired": 0x400, "poison": 0x1000, "unavailable": 0x4000,
    "recovery": 0x8000,
}  # fmt: skip
_MIG_EVENT: Final = 0x100
_UNBIND, _BIND = 0x1, 0x2
_HALF_WRAP: Final = 50.0
"""A counter made to wrap stands this many joules before its end."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a script; `gpu` None means all GPUs, or the driver."""

    time_s: float
    gpu: int | None
    verb: str
    values: tuple[str, ...]
    source: str

    def refuse(self, field: str, value: object, allowed: str) -> Rejected:
        """Build the refusal of a value in this step."""
        return Rejected.field(self.source, field, value, allowed)

    def number(self, position: int, default: float | None = None) -> float:
        """Return a value as a number."""
        if position >= len(self.values):
            if default is None:
                raise self.refuse(self.verb, "", "needs a number")
            return default
        try:
            return finite(self.values[position])
        except ValueError:
            raise self.refuse(self.verb, self.values[position], "must be a number") from None


def read_script(path: Path) -> list[Step]:
    """Read a script file; an invalid step raises Rejected with file and line."""
    return parse_script(utf8(read_file(path, MOST_TOML_BYTES, what="the fault script"), str(path)), str(path))


def parse_script(text: str, source: str = "script") -> list[Step]:
    """Read the steps of a script in order of time."""
    steps = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split("#", 1)[0].strip()
        if words:
            steps.append(_parse_line(words, f"{source}:{number}"))
    return sorted(steps, key=lambda step: step.time_s)


def _parse_line(words: str, source: str) -> Step:
    found = _LINE.fullmatch(words)
    if found is None:
        raise Rejected.field(source, "line", words, "must be 'at SECONDS [gpu N] VERB [VALUE ...]'")
    try:
        time_s, gpu = float(found["time"]), None if found["gpu"] is None else int(found["gpu"])
    except ValueError:
        raise Rejected.field(source, "line", words, "times and GPU numbers must be numbers") from None
    if found["verb"] not in _VERBS:
        raise Rejected.field(source, "verb", found["verb"], f"must be one of {', '.join(sorted(_VERBS))}")
    return Step(time_s, gpu, found["verb"], tuple(found["values"].split()), source)


def apply(state: StateFile, step: Step) -> None:
    """Do one step."""
    _VERBS[step.verb](state, step)


def play(state: StateFile, steps: Iterable[Step], stop: threading.Event) -> None:
    """Do the steps by the wall clock until `stop` is set."""
    start_s = time.monotonic()
    for step in steps:
        if stop.wait(max(0.0, step.time_s - (time.monotonic() - start_s))):
            return
        apply(state, step)


def _gpus(state: StateFile, step: Step) -> Iterable[int]:
    return range(state.gpus) if step.gpu is None else (step.gpu,)


def _size(step: Step, text: str) -> int:
    found = _SIZE.fullmatch(text)
    if found is None:
        raise step.refuse(step.verb, text, "must be a size such as 20GiB")
    return int(float(found[1]) * _UNITS[found[2]])


def _load(state: StateFile, step: Step) -> None:
    used = _size(step, step.values[1]) if len(step.values) > 1 else None
    for gpu in _gpus(state, step):
        state.set_load(gpu, step.number(0), used)


def _limit(state: StateFile, step: Step) -> None:
    for gpu in _gpus(state, step):
        state.set_limit(gpu, step.number(0))


def _fail(state: StateFile, step: Step) -> None:
    for gpu in _gpus(state, step):
        state.ints[state.base(gpu) + at.C_FORCE_RETURN] = _CODES[step.verb]


def _hung(state: StateFile, step: Step) -> None:
    for gpu in _gpus(state, step):
        state.ints[state.base(gpu) + at.C_HANG_UNTIL_NS] = time.monotonic_ns() + int(step.number(0, 60.0) * 1e9)


def _slow(state: StateFile, step: Step) -> None:
    for gpu in _gpus(state, step):
        state.ints[state.base(gpu) + at.C_LATENCY_NS] = int(step.number(0) * 1e9)


def _well(state: StateFile, step: Step) -> None:
    for gpu in _gpus(state, step):
        for word in (at.C_FORCE_RETURN, at.C_HANG_UNTIL_NS, at.C_LATENCY_NS):
            state.ints[state.base(gpu) + word] = 0


def _reset(state: StateFile, step: Step) -> None:
    for gpu in _gpus(state, step):
        base = state.base(gpu)
        state.doubles[base + at.C_ENERGY_OFFSET_MJ] = state.doubles[base + at.C_ENERGY_MJ]


def _wrap(state: StateFile, step: Step) -> None:
    bits = int(step.number(0, 32.0))
    for gpu in _gpus(state, step):
        base = state.base(gpu)
        state.ints[base + at.C_ENERGY_WRAP_BITS] = bits
        offset = state.doubles[base + at.C_ENERGY_MJ] - ((1 << bits) - _HALF_WRAP * 1000.0)
        state.doubles[base + at.C_ENERGY_OFFSET_MJ] = offset


def _unsupported(state: StateFile, step: Step) -> None:
    for text in step.values:
        for gpu in _gpus(state, step):
            if (number := digits(text)) is not None:
                slot = at.field_slot(number)
                if slot is None:
                    raise step.refuse(step.verb, text, f"must be a field below {at.FIELD_IDS}")
                state.ints[state.base(gpu) + at.F_BASE + at.F_WORDS * slot] = at.NOT_SUPPORTED
            elif text in at.GETTERS:
                state.ints[state.base(gpu) + at.getter_word(text)] = at.NOT_SUPPORTED
            else:
                raise step.refuse(step.verb, text, f"must be a field number or one of {', '.join(at.GETTERS)}")


def _event(state: StateFile, step: Step) -> None:
    for gpu in _gpus(state, step):
        if step.verb == "recovery":
            state.ints[state.base(gpu) + at.F_BASE + at.F_WORDS * 230 + 1] = int(step.number(0))
        state.post_event(gpu, _EVENTS[step.verb], int(step.number(0, 0.0)))


def _operational(state: StateFile, step: Step) -> None:
    code, severity, xid = (int(step.number(place, default)) for place, default in enumerate((1.0, 30.0, 0.0)))
    for gpu in _gpus(state, step):
        state.post_event(gpu, at.OPERATIONAL_EVENT, code | severity << 32 | xid << 40)


def _mig(state: StateFile, step: Step) -> None:
    instances = []
    for text in () if step.values == ("off",) else step.values:
        name, _, size = text.partition(":")
        instance = digits(name)
        if instance is None or not size:
            raise step.refuse(step.verb, text, "must be ID:SIZE, such as 3:20GiB, or off")
        instances.append((instance, _size(step, size), 0, 0.5))
    for gpu in _gpus(state, step):
        state.set_mig(gpu, instances)
        state.post_event(gpu, _MIG_EVENT)


def _brake(state: StateFile, step: Step) -> None:
    for gpu in _gpus(state, step):
        state.doubles[state.base(gpu) + at.C_BRAKE] = 0.0 if step.values == ("off",) else 1.0


def _inlet(state: StateFile, step: Step) -> None:
    for gpu in _gpus(state, step):
        state.doubles[state.base(gpu) + at.C_INLET_C] = step.number(0)


def _unbind(state: StateFile, _step: Step) -> None:
    state.post_event(-1, _UNBIND)


def _reload(state: StateFile, step: Step) -> None:
    if step.values:
        state.set_driver_version(step.values[0])
    for gpu in range(state.gpus):
        base = state.base(gpu)
        state.doubles[base + at.C_ENERGY_OFFSET_MJ] = state.doubles[base + at.C_ENERGY_MJ]
    state.ints[at.H_DRIVER_RETURN] = 0
    state.ints[at.H_GENERATION] += 1
    state.post_event(-1, _BIND)


def _driver(code: int) -> Callable[[StateFile, Step], None]:
    def change(state: StateFile, _step: Step) -> None:
        state.ints[at.H_DRIVER_RETURN] = code

    return change


_VERBS: Final[dict[str, Callable[[StateFile, Step], None]]] = {
    "load": lambda state, step: _load(state, step) if step.values else _reload(state, step),
    "limit": _limit, "lost": _fail, "reset_required": _fail, "unknown": _fail, "hung": _hung, "slow": _slow,
    "well": _well, "reset": _reset, "wrap": _wrap, "unsupported": _unsupported, "mig": _mig, "brake": _brake,
    "operational": _operational,
    "inlet": _inlet, "unbind": _unbind, "reload": _reload, "unload": _driver(9), "mismatch": _driver(18),
    **dict.fromkeys(_EVENTS, _event),
}  # fmt: skip
