"""Reads what `nvidia-smi -q` (text) and `nvidia-smi -q -x` (XML) print, as simulated GPUs.

Both are turned into flat texts by path ("Temperature/GPU Current Temp", "temperature/gpu_temp"), and one table maps
paths to NVML fields and getters. "N/A" and the like mean: not supported. Captures hold no energy counter and no fast
power, so a captured GPU is read by the getters alone where its driver is old.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from powerhall.runtime.decode.numbers_in import whole
from powerhall.runtime.decode.xml_data import decode_xml
from powerhall.runtime.errors import Rejected
from powerhall_agent.simulate import layout as at
from powerhall_agent.simulate.capture_table import EVENT_REASONS, FIELDS, GETTERS, SLOWDOWN_TIMES, TEXTS, pick
from powerhall_agent.simulate.publish import slowdown_ids
from powerhall_agent.simulate.recording import GpuHead, describe_gpu, write_values
from powerhall_agent.simulate.state import StateFile

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

__all__ = ["Capture", "CapturedGpu", "read_text", "read_xml", "to_state"]

_LINE: Final = re.compile(r"( *)(\S.*?)\s*(?: : (.*))?")
_NUMBER: Final = re.compile(r"-?\d+(?:\.\d+)?")
_MIB: Final = 1 << 20
_MOST_DIGITS: Final = 12


@dataclass(slots=True)
class CapturedGpu:
    """One GPU of a capture: its texts by path, its MIG devices and processes (pid, bytes)."""

    bus_id: str
    texts: dict[str, str] = field(default_factory=dict)
    mig: list[dict[str, str]] = field(default_factory=list)
    processes: list[tuple[int, int]] = field(default_factory=list)


@dataclass(slots=True)
class Capture:
    """A capture of one machine."""

    driver: str
    gpus: list[CapturedGpu]


def read_xml(text: str, source: str) -> Capture:
    """Read `nvidia-smi -q -x`; another document raises Rejected."""
    try:
        root = decode_xml(text, source)
    except Rejected as error:
        raise Rejected(f"{error}; must be the XML of nvidia-smi -q -x") from None
    gpus = []
    for node in root.findall("gpu"):
        gpu = CapturedGpu(node.get("id", ""))
        for child in node:
            if child.tag == "mig_devices":
                gpu.mig = [dict(_flat(device)) for device in child.findall("mig_device")]
            elif child.tag == "processes":
                gpu.processes = [_process(dict(_flat(entry))) for entry in child.findall("process_info")]
            else:
                gpu.texts.update(_flat(child, child.tag))
        gpus.append(gpu)
    return _checked(Capture((root.findtext("driver_version") or "").strip(), gpus), source)


def _flat(node: "Element", path: str = "") -> Iterator[tuple[str, str]]:
    if len(node) == 0 and path:
        yield path, (node.text or "").strip()
    for child in node:
        yield from _flat(child, f"{path}/{child.tag}" if path else child.tag)


def _process(texts: dict[str, str]) -> tuple[int, int]:
    used = _NUMBER.match(texts.get("used_memory", ""))
    return _pid(texts.get("pid", "0")), _mib(used[0]) if used else 0


def _pid(text: str) -> int:
    try:
        return whole(text)
    except ValueError:
        return 0


def _mib(text: str) -> int:
    return int(float(text[:_MOST_DIGITS])) * _MIB


def read_text(text: str, source: str) -> Capture:
    """Read `nvidia-smi -q`; sections follow from indentation. A text without a GPU raises Rejected."""
    driver = ""
    gpus: list[CapturedGpu] = []
    path: list[tuple[int, str]] = []
    for line in text.splitlines():
        found = _LINE.fullmatch(line.rstrip())
        if found is None:
            continue
        depth, key, value = len(found[1]), found[2], found[3]
        if depth == 0:
            if key == "Driver Version" and value:
                driver = value.split()[0]
            elif key.startswith("GPU 0") and value is None:
                gpus.append(CapturedGpu(key.split()[1]))
                path = []
            continue
        while path and path[-1][0] >= depth:
            path.pop()
        if not gpus:
            continue
        if value is None:
            path.append((depth, key))
            if key == "MIG Device":
                gpus[-1].mig.append({})
        else:
            _take(gpus[-1], [name for _, name in path], key, value.strip())
    return _checked(Capture(driver, gpus), source)


def _take(gpu: CapturedGpu, path: list[str], key: str, value: str) -> None:
    if path[:1] == ["Processes"]:
        if key == "Process ID":
            gpu.processes.append((_pid(value), 0))
        elif key == "Used GPU Memory" and gpu.processes:
            found = _NUMBER.match(value)
            gpu.processes[-1] = (gpu.processes[-1][0], _mib(found[0]) if found else 0)
    elif path[:1] == ["MIG Device"]:
        gpu.mig[-1]["/".join([*path[1:], key])] = value
    else:
        gpu.texts.setdefault("/".join([*path, key]), value)


def _checked(capture: Capture, source: str) -> Capture:
    if not capture.gpus:
        raise Rejected.field(source, "gpu", "", "must hold at least one GPU")
    return capture


def to_state(capture: Capture, path: Path | None = None) -> StateFile:
    """Make a simulated node that answers as the captured machine did."""
    state = StateFile.blank(path, len(capture.gpus), capture.driver)
    for number, gpu in enumerate(capture.gpus):
        _write_gpu(state, number, gpu, capture.driver)
    return state


def _write_gpu(state: StateFile, number: int, gpu: CapturedGpu, driver: str) -> None:
    fields, kinds, getters = _values(gpu.texts, driver)
    texts = {name: pick(gpu.texts, paths) or "" for name, paths in TEXTS.items()}
    head = GpuHead(
        uuid=texts["uuid"],
        name=texts["name"],
        serial=texts["serial"],
        vbios=texts["vbios"],
        bus_id=gpu.bus_id,
        fields=kinds,
        getters=dict.fromkeys([*getters, "PROCESSES"], 0),
    )
    describe_gpu(state, number, head)
    write_values(state, number, fields, getters)
    state.set_processes(number, gpu.processes)
    instances = [_instance(device) for device in gpu.mig]
    if instances:
        state.set_mig(number, instances)
        state.ints[state.base(number) + at.getter_word("MIG_MODE")] = 0


def _instance(texts: dict[str, str]) -> tuple[int, int, int, float]:
    instance = texts.get("GPU Instance ID") or texts.get("gpu_instance_id", "0")
    sizes = []
    for name in ("Total", "Used"):
        paths = (f"Shared FB Memory Usage/{name}", f"FB Memory Usage/{name}", f"fb_memory_usage/{name.lower()}")
        found = _NUMBER.match(pick(texts, paths) or "0")
        sizes.append(_mib(found[0]) if found else 0)
    return int(instance), sizes[0], sizes[1], 0.0


def _values(texts: dict[str, str], driver: str) -> tuple[dict[str, int | float], dict[str, int], dict[str, list[int]]]:
    """Return field values, field types and getter values of a GPU."""
    fields: dict[str, int | float] = {}
    kinds: dict[str, int] = {}
    getters: dict[str, list[int]] = {}
    slowdowns = zip(slowdown_ids(driver), SLOWDOWN_TIMES, strict=False)
    for key, kind, scale, sums in (*FIELDS, *((str(number), 3, 1000, (paths,)) for number, paths in slowdowns)):
        found = [_number(pick(texts, paths)) for paths in sums]
        if None not in found:
            fields[key], kinds[key] = round(sum(number or 0.0 for number in found) * scale), kind
    for name, scale, places in GETTERS:
        found = [_number(pick(texts, paths)) for paths in places]
        if None not in found:
            getters[name] = [round((number or 0.0) * scale) for number in found]
    reasons = {bit: pick(texts, paths) for bit, paths in EVENT_REASONS.items()}
    if any(text in {"Active", "Not Active"} for text in reasons.values()):
        getters["REASONS"] = [sum(bit for bit, text in reasons.items() if text == "Active")]
    return fields, kinds, getters


_WORDS: Final = {
    "No": 0.0, "Yes": 1.0, "None": 0.0, "Disabled": 0.0, "Enabled": 1.0, "Completed": 3.0, "In Progress": 2.0,
    "Not Started": 1.0, "Success": 0.0, "Reset": 1.0, "Reboot": 2.0, "Drain P2P": 3.0, "Drain and Reset": 4.0,
    "Kepler": 2.0, "Maxwell": 3.0, "Pascal": 4.0, "Volta": 5.0, "Turing": 6.0, "Ampere": 7.0, "Ada Lovelace": 8.0,
    "Hopper": 9.0, "Blackwell": 10.0,
}  # fmt: skip


def _number(text: str | None) -> float | None:
    """Return the number in a text, None where the machine had none."""
    if text is None:
        return None
    if text in _WORDS:
        return _WORDS[text]
    found = _NUMBER.match(text.removeprefix("P"))
    return None if found is None else float(found[0])
