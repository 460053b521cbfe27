"""Recordings of GPUs: NVML's answers, sample by sample, to be replayed on simulated GPUs.

Format (version 1), one JSON object per line, gzip when the name ends in .gz:

    {"powerhall_recording": 1, "driver": "590.48.01", "gpus": [{"uuid": ..., "name": ..., "fields": {"186": 1, ...},
     "getters": {"TEMPERATURE": 0, ...}}]}
    {"t": 0.1, "gpu": 0, "f": {"186": 69620, "185:2": 46600}, "g": {"TEMPERATURE": [41, 0]}}

The first line says what each GPU supports: fields with their NVML value type, getters (names of layout.GETTERS) with
their return code, and texts. Every later line holds the values that changed, `t` seconds after the start. A field key
is `ID` or `ID:SCOPE`.
"""

import gzip
import threading
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO, Final

import msgspec

from powerhall.runtime.decode.bytes_in import read_expanded
from powerhall.runtime.decode.json_data import decode_json
from powerhall.runtime.decode.numbers_in import digits
from powerhall.runtime.errors import Rejected
from powerhall_agent.simulate import layout as at
from powerhall_agent.simulate.state import StateFile

__all__ = [
    "GpuHead",
    "Recording",
    "RecordingSample",
    "describe_gpu",
    "play_recording",
    "read_recording",
    "write_recording",
]

_VERSION: Final = 1
_TEXTS: Final = {
    "uuid": at.T_UUID, "name": at.T_NAME, "serial": at.T_SERIAL, "bus_id": at.T_BUS_ID, "vbios": at.T_VBIOS,
}  # fmt: skip


class GpuHead(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Identity and supported readings of one GPU."""

    uuid: str
    name: str
    bus_id: str
    serial: str = ""
    vbios: str = ""
    fields: dict[str, int] = {}
    """NVML value type by field key."""
    getters: dict[str, int] = {}
    """Return code by getter; a getter that is not named is not supported."""


class _Head(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    powerhall_recording: int
    driver: str
    gpus: list[GpuHead]


class RecordingSample(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Changes of one GPU at one moment."""

    t: float
    gpu: int
    f: dict[str, int | float] = {}
    g: dict[str, list[int]] = {}


class Recording(msgspec.Struct, frozen=True, kw_only=True):
    """A whole recording; samples in order of time."""

    driver: str
    gpus: list[GpuHead]
    samples: list[RecordingSample]


def _slot(key: str) -> int | None:
    field_id, _, scope_id = key.partition(":")
    field, scope = digits(field_id), digits(scope_id or "0")
    return None if field is None or scope is None else at.field_slot(field, scope)


def _create(path: Path) -> IO[bytes]:
    return gzip.open(path, "wb") if path.suffix == ".gz" else path.open("wb")  # type: ignore[return-value]


def read_recording(path: Path) -> Recording:
    """Read a recording; a damaged or foreign file raises Rejected with file and line."""
    lines = read_expanded(path, what="the recording").splitlines()
    if not lines:
        raise Rejected.field(str(path), "file", "", "must start with the recording's head")
    head = decode_json(lines[0], _Head, f"{path}:1")
    samples = []
    for number, line in enumerate(lines[1:], 2):
        sample = decode_json(line, RecordingSample, f"{path}:{number}")
        _check(sample, head, f"{path}:{number}")
        samples.append(sample)
    if head.powerhall_recording != _VERSION:
        raise Rejected.field(str(path), "powerhall_recording", head.powerhall_recording, f"must be {_VERSION}")
    return Recording(driver=head.driver, gpus=head.gpus, samples=sorted(samples, key=lambda sample: sample.t))


def _check(sample: RecordingSample, head: _Head, source: str) -> None:
    if not 0 <= sample.gpu < len(head.gpus):
        raise Rejected.field(source, "gpu", sample.gpu, f"must be 0 to {len(head.gpus) - 1}")
    for key in sample.f:
        if _slot(key) is None:
            raise Rejected.field(source, "f", key, "must be a field id, or id:scope")
    for name in sample.g:
        if name not in at.GETTERS:
            raise Rejected.field(source, "g", name, f"must be one of {', '.join(at.GETTERS)}")


def write_recording(path: Path, driver: str, gpus: list[GpuHead], samples: Iterable[RecordingSample]) -> None:
    """Write a recording."""
    encoder = msgspec.json.Encoder()
    with _create(path) as file:
        file.write(encoder.encode(_Head(powerhall_recording=_VERSION, driver=driver, gpus=gpus)) + b"\n")
        for sample in samples:
            file.write(encoder.encode(sample) + b"\n")


def describe_gpu(state: StateFile, gpu: int, head: GpuHead) -> None:
    """Write identity and supported readings of a recorded or captured GPU; it has no physics."""
    base = state.base(gpu)
    state.doubles[base + at.C_STATIC] = 1.0
    for name, place in _TEXTS.items():
        state.set_text(gpu, place, getattr(head, name))
    for key, kind in head.fields.items():
        slot = _slot(key)
        if slot is not None:
            state.ints[base + at.F_BASE + at.F_WORDS * slot] = kind << 32
    for name, code in head.getters.items():
        state.ints[base + at.getter_word(name)] = code
    for name in ("SERIAL", "VBIOS"):
        state.ints[base + at.getter_word(name)] = 0 if getattr(head, name.lower()) else at.NOT_SUPPORTED


def write_values(
    state: StateFile, gpu: int, fields: Mapping[str, int | float], getters: Mapping[str, list[int]]
) -> None:
    """Write values of a recorded or captured GPU."""
    base = state.base(gpu)
    for key, value in fields.items():
        slot = _slot(key)
        if slot is None:
            continue
        word = base + at.F_BASE + at.F_WORDS * slot
        if state.ints[word] >> 32 == at.VALUE_DOUBLE:
            state.doubles[word + 1] = float(value)
        else:
            state.ints[word + 1] = int(value)
    for name, values in getters.items():
        word = base + at.getter_word(name)
        for offset, number in enumerate(values[:2], 1):
            state.ints[word + offset] = number


def play_recording(state: StateFile, recording: Recording, stop: threading.Event) -> None:
    """Replay by the wall clock until the recording ends or `stop` is set; the last values stay."""
    for gpu, head in enumerate(recording.gpus):
        describe_gpu(state, gpu, head)
    start_s = time.monotonic()
    for sample in recording.samples:
        wait_s = sample.t - (time.monotonic() - start_s)
        if wait_s > 0 and stop.wait(wait_s):
            return
        write_values(state, sample.gpu, sample.f, sample.g)
