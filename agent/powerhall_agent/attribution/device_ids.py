"""Finds the GPU, and its MIG instance, of a device id as device plugins and DRA drivers write it.

Forms: `GPU-UUID`, `MIG-UUID`, both with `::N` for a replica (time slicing, MPS); `nvidia0` by minor number, with
`/giN` for a MIG instance and `/vgpuN` for a share (GKE); `GPU-UUID-N` (shares of other plugins); `gpu-0` and
`gpu-0-mig-...` by minor number (devices of a DRA claim); `MIG-GPU-UUID/GI/CI` (drivers before R470).
"""

import re
from collections.abc import Callable, Mapping
from typing import Final

from powerhall_agent.base.gpu_snapshot import GpuSnapshot

__all__ = ["Place", "find_device"]

Place = tuple[int, str]
"""Index of the GPU, and UUID of the MIG instance, "" for the whole GPU or where it is not known."""

_BY_MINOR: Final = re.compile(r"nvidia(\d{1,4})(?:/gi(\d{1,3}))?(?:/vgpu\d+)?|gpu-(\d{1,4})(?:-mig-[0-9a-z-]+)?")
_OLDER_MIG: Final = re.compile(r"MIG-(GPU-[0-9a-fA-F-]{36})/(\d{1,3})/\d{1,3}")
_UUID: Final = re.compile(r"(?:GPU|MIG)-[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


def find_device(
    text: str, gpus: Mapping[int, GpuSnapshot], minor_of: Callable[[GpuSnapshot, int], int]
) -> Place | None:
    """Return where a device lies; None for one that is not of this node."""
    name = text.partition("::")[0]
    older = _OLDER_MIG.fullmatch(name)
    if older is not None:
        found = _by_uuid(older[1], gpus)
        return None if found is None else _part(found[0], gpus[found[0]], older[2])
    for candidate in (name, name.rpartition("-")[0], *_UUID.findall(name)):
        found = _by_uuid(candidate, gpus)
        if found is not None:
            return found
    match = _BY_MINOR.fullmatch(name)
    if match is None:
        return None
    minor = int(match[1] or match[3])
    for gpu, now in gpus.items():
        if minor_of(now, gpu) == minor:
            return _part(gpu, now, match[2] or "")
    return None


def _part(gpu: int, now: GpuSnapshot, instance: str) -> Place:
    """Return the place of a GPU instance by its number; that of the GPU where there is none."""
    numbers = {str(part.number): uuid for uuid, part in now.slices.items()}
    return gpu, numbers.get(instance, "")


def _by_uuid(name: str, gpus: Mapping[int, GpuSnapshot]) -> Place | None:
    for gpu, now in gpus.items():
        if name == now.uuid:
            return gpu, ""
        if name in now.instances:
            return gpu, name
    return None
