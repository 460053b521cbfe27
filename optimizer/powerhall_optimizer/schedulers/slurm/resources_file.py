"""Slurm's resources.yaml: Powerhall's resource between two marked lines, with what others wrote kept around it.

Slurm reads the file beside slurm.conf at `scontrol reconfigure`; scontrol cannot change counts by itself.
"""

import re
from pathlib import Path

from powerhall.hostlist import compress
from powerhall.runtime.errors import Rejected
from powerhall.runtime.files import replace_file
from powerhall_optimizer.schedulers.slurm.power_tree import PowerTree

__all__ = ["file_text", "merged", "replace_text", "resource_text"]

_BEGIN = "# powerhall begin: written by powerhall-optimizer schedule, changes up to `powerhall end` are lost"
_END = "# powerhall end"
_OURS = re.compile(r"^# powerhall begin.*?^# powerhall end[^\n]*\n", re.DOTALL | re.MULTILINE)
_MOST_BYTES = 16 * 1024 * 1024


def resource_text(tree: PowerTree, licence: str) -> str:
    """Return the resource with its layers; a comment names the zones of each."""
    lines = [_BEGIN, f"- resource: {licence}", "  mode: MODE_3", "  layers:"]
    for layer in tree.layers:
        zones = re.sub(r"[^\w ,./:+-]", "_", ", ".join(layer.zones) or "no limit of its own")
        lines += [
            f"    - nodes:  # {zones}",
            f'        - "{compress(sorted(layer.nodes))}"',
            f"      count: {layer.count}",
        ]
    return "\n".join([*lines, _END]) + "\n"


def merged(before: str, ours: str, licence: str, source: str) -> str:
    """Return the file with our resource in it; one of the same name by somebody else is refused."""
    others = _OURS.sub("", before)
    if re.search(rf"^\s*-\s*resource:\s*[\"']?{re.escape(licence)}[\"']?\s*(#.*)?$", others, re.MULTILINE):
        allowed = f"must not define {licence}, which Powerhall writes: remove it, or choose another slurm.licence"
        raise Rejected.field(source, "resource", licence, allowed)
    if not others.strip():
        others = "---\n"
    return others + ("" if others.endswith("\n") else "\n") + ours


def file_text(path: Path) -> str:
    """Return the file's text, "" where there is none; one that cannot be read, or is no UTF-8, raises OSError."""
    try:
        with path.open("rb") as file:
            body = file.read(_MOST_BYTES + 1)
        if len(body) > _MOST_BYTES:
            raise OSError(f"has more than {_MOST_BYTES} bytes")
        return body.decode("utf-8")
    except FileNotFoundError:
        return ""
    except UnicodeDecodeError:
        raise OSError("is no UTF-8") from None


def replace_text(path: Path, text: str) -> None:
    """Write the file in one step; OSError where that is not possible."""
    replace_file(path, text.encode(), durable=True)
