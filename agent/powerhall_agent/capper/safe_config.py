"""What the safe caps need of capper.toml, read so that a broken file still gives safe caps.

The strict reading, which names every mistake, is that of `powerhall-agent cap`. Needs the standard library only (and
powerhall.units, which needs no more): `powerhall-safecaps` uses it too.
"""

import os
import re
import stat
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from powerhall.units import parse_power
from powerhall_agent.capper.found_limits import FoundLimits, boot_id, found_folders

__all__ = [
    "DEFAULT_CONFIG",
    "DEFAULT_MEMORY",
    "DEFAULT_SOCKET",
    "MOST_CONFIG_BYTES",
    "SafeConfig",
    "found_limits",
    "read_bounded",
    "read_safe_config",
]

DEFAULT_CONFIG: Final = "/etc/powerhall/capper.toml"
DEFAULT_MEMORY: Final = "/var/lib/powerhall-capper/memory.json"
DEFAULT_SOCKET: Final = "/run/powerhall-capper/capper.sock"
MOST_CONFIG_BYTES: Final = 64 * 1024
"""The largest capper.toml, for this reading and for the strict one."""
_FIELDS: Final = ("safe_gpu_power_limit", "memory", "socket")


@dataclass(frozen=True, slots=True)
class SafeConfig:
    """The safe limit in W (0 where it cannot be read: the lowest limit of each GPU), and the capper's files.

    `is_there` is false where there is no such file, nor a folder, link or pipe of its name; `problem` says in one line
    what is wrong with it, or "". `apart` are the files of a start whose settings cannot be read.
    """

    is_there: bool
    limit_w: float
    memory: Path
    socket: Path
    apart: tuple[Path, Path]
    problem: str = ""


def read_safe_config(path: Path, simulated: Path | None = None) -> SafeConfig:
    """Read what can be read; never raises for what the file holds.

    With simulated GPUs, whose state file is given, a broken file leads to files beside that state: never to this
    host's own, which would tell `powerhall-safecaps` that a capper has set its real GPUs.
    """
    memory, socket = Path(DEFAULT_MEMORY), Path(DEFAULT_SOCKET)
    apart = (memory, socket) if simulated is None else (simulated.with_name(memory.name), simulated.with_name("sock"))
    try:
        text = read_bounded(path, MOST_CONFIG_BYTES).decode("utf-8-sig", "replace")
    except OSError as error:
        problem = f"{path}: cannot read: {error.strerror or error}"
        return SafeConfig(os.path.lexists(path), 0.0, *apart, apart, problem)
    values, problem = _values(text)
    try:
        limit_w = parse_power(values.get("safe_gpu_power_limit", ""))
    except ValueError as error:
        limit_w, problem = 0.0, problem or f"safe_gpu_power_limit: {error}"
    if problem:
        memory, socket = apart
    memory, socket = _path(values, "memory", memory), _path(values, "socket", socket)
    return SafeConfig(True, limit_w, memory, socket, apart, f"{path}: {problem}" if problem else "")


def found_limits(config: SafeConfig, gpu_lock: Path | None) -> FoundLimits:
    """Return the limits found on the GPUs whose lock this is (None: no other process can see them)."""
    folders, apart = found_folders(config.memory, config.socket), found_folders(*config.apart)
    of_gpus = None if gpu_lock is None else gpu_lock.with_name(gpu_lock.name + ".found")
    return FoundLimits(folders, boot_id(), also=apart, of_gpus=of_gpus)


def read_bounded(path: Path, most_bytes: int) -> bytes:
    """Read a regular file of at most this size; any other raises OSError."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(0, "must be a regular file")
    with path.open("rb") as file:
        data = file.read(most_bytes + 1)
    if len(data) > most_bytes:
        raise OSError(0, f"must be at most {most_bytes} bytes")
    return data


def _values(text: str) -> tuple[dict[str, str], str]:
    """Return the fields by TOML, or line by line where the file is no TOML, and what is wrong."""
    try:
        data: dict[str, object] = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # ValueError: also a number of thousands of digits
        found = ((name, _line(text, name)) for name in _FIELDS)
        return {name: value for name, value in found if value is not None}, f"not valid TOML: {error}"
    return {name: value for name, value in data.items() if isinstance(value, str)}, ""


def _line(text: str, name: str) -> str | None:
    """Return the value of a line such as `name = "value"`, where the text has exactly one."""
    found: list[str] = re.findall(rf"""^[ \t]*{name}[ \t]*=[ \t]*["']([^"'\n]*)["']""", text, re.MULTILINE)
    return found[0] if len(found) == 1 else None


def _path(values: dict[str, str], name: str, default: Path) -> Path:
    value = values.get(name, "")
    return Path(value) if value and "\0" not in value else default
