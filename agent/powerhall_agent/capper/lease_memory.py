"""The capper's memory on disk: the newest lease's number and times, kept over crashes, stops and boots.

The file begins with a SHA-256 of the rest, so that a byte that a fault changed is found although the file still reads
as JSON. Earlier versions wrote none: such a memory is taken once, if it holds their fields alone.

A memory that cannot be read is set aside as `MEMORY.damaged-TIME` and a new one begins: which leases held before is not
known then, so leases that were issued before this start are refused. One that is absent although a capper ran here
before is lost, and counts as damaged: the marker `MEMORY.begun`, memories set aside and notes of found limits tell.
"""

import contextlib
import hashlib
import math
import re
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from powerhall.lease import GpuCap
from powerhall.runtime.files import replace_file
from powerhall_agent.capper.safe_config import read_bounded

__all__ = ["LeaseMemory"]

_MAX_BYTES: Final = 1 << 20
_KEPT_DAMAGED: Final = 10
_CHECKED: Final = re.compile(rb'\{"check":"([0-9a-f]{64})",')


class _Kept(msgspec.Struct):
    """The file after its checksum. `since_s` is when the memory began; fields of a newer version are left alone.

    `issued_s` is the newest issue time that was accepted, and `heard_s` when that was. `until_s` is the end of the
    newest lease, 0 for one of an earlier boot; both count by CLOCK_BOOTTIME of boot `boot`. `gpus` is the most GPUs
    that the driver ever listed. `limits_w` are the limits found in that boot and not put back yet, by GPU UUID: a copy
    of the notes.
    `found` is of earlier versions only, by GPU number.
    """

    found: tuple[GpuCap, ...] | None = None
    sequence: int = 0
    boot: str = ""
    since_s: float = 0.0
    issued_s: float = 0.0
    heard_s: float | None = None
    until_s: float | None = None
    gpus: int = 0
    limits_w: dict[str, float] = {}


class _Unchecked(_Kept, forbid_unknown_fields=True):
    """The file of an earlier version, without a checksum."""


class LeaseMemory:
    """Reads the memory at the start and replaces it in one step at each change."""

    def __init__(
        self, path: Path, *, started_s: float, boot: str, skew_s: float, ran_before: Callable[[], bool] = bool
    ) -> None:
        """`started_s` is the wall clock now: where there is no memory, no lease that was issued before is accepted.

        After a damaged or lost one, no lease that was issued less than `skew_s` later either: clocks may differ so
        much. `ran_before` is asked where the folder does not tell whether a capper ran on this host before.
        """
        self._path, self._begun = path, path.with_name(path.name + ".begun")
        self._ran_before = ran_before
        self.damaged = ""
        """Where a damaged memory was set aside and why, or that it is lost, or ""."""
        self.unsaved = ""
        """Why the latest change is not on disk, or ""."""
        self.kept = self._read(started_s, skew_s)
        self.found_before = self.kept.found if self.kept.boot == boot else None
        """Limits by GPU number that an earlier version found in this boot."""
        self.kept.found = None
        if self.kept.boot != boot:
            self.kept.boot, self.kept.limits_w = boot, {}
            self.kept.until_s = 0.0 if self.kept.sequence else None  # it may have run out while the host was off
            self.kept.heard_s = 0.0  # at least the time since the boot has passed

    def save(self) -> bool:
        """Replace the file, on disk when this returns; return whether that worked.

        A device is never replaced: settings that name one cost this host's leases, not its device.
        """
        if _is_device(self._path):
            self.unsaved = f"capper: memory: {self._path}: must be a regular file, not a device"
            return False
        try:
            replace_file(self._path, _encode(self.kept), durable=True)
            self._begun.touch(mode=0o600)
        except OSError as error:
            self.unsaved = f"capper: memory: {self._path}: cannot write: {error.strerror}"
        else:
            self.unsaved = ""
        return not self.unsaved

    def _read(self, started_s: float, skew_s: float) -> _Kept:
        unknown = _Kept(since_s=started_s + skew_s)
        try:
            kept = _decode(read_bounded(self._path, _MAX_BYTES))
        except FileNotFoundError:
            if not self._is_lost():
                return _Kept(since_s=started_s)
            self.damaged = f"{self._path}: lost: it is absent, and a capper ran here before"
            return unknown
        except (OSError, ValueError, RecursionError) as error:
            self._set_aside(str(error))
            return unknown
        if not _is_plausible(kept):
            self._set_aside("holds numbers that no capper writes")
            return unknown
        kept.since_s = min(kept.since_s, started_s + skew_s)  # a clock that was ahead then would lock every lease out
        return kept

    def _is_lost(self) -> bool:
        aside = any(self._path.parent.glob(f"{self._path.name}.damaged-*"))
        return self._begun.exists() or aside or self._ran_before()

    def _set_aside(self, why: str) -> None:
        if _is_device(self._path):
            self.damaged = f"{self._path}: {why}"
            return
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        aside = self._path.with_name(f"{self._path.name}.damaged-{stamp}")
        try:
            self._path.rename(aside)
        except OSError as error:
            self.damaged = f"{self._path}: damaged ({why}), and cannot be set aside: {error.strerror}"
            return
        self.damaged = f"{self._path}: damaged ({why}); set aside as {aside.name}"
        with contextlib.suppress(OSError):
            for old in sorted(self._path.parent.glob(f"{self._path.name}.damaged-*"))[:-_KEPT_DAMAGED]:
                old.unlink()


def _encode(kept: _Kept) -> bytes:
    """Write the memory: `{"check":"SHA-256 of the rest",` and the rest."""
    rest = msgspec.json.encode(kept)[1:]
    return b'{"check":"' + hashlib.sha256(rest).hexdigest().encode() + b'",' + rest


def _decode(data: bytes) -> _Kept:
    """Read a memory; one that is damaged raises ValueError (that of msgspec is one)."""
    found = _CHECKED.match(data)
    if found is None:
        return msgspec.json.decode(data, type=_Unchecked)
    rest = data[found.end() :]
    if hashlib.sha256(rest).hexdigest().encode() != found[1]:
        raise ValueError("its checksum is of other contents")
    return msgspec.json.decode(b"{" + rest, type=_Kept)


def _is_device(path: Path) -> bool:
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return stat.S_ISCHR(mode) or stat.S_ISBLK(mode)


def _is_plausible(kept: _Kept) -> bool:
    numbers = (kept.since_s, kept.issued_s, kept.heard_s or 0.0, kept.until_s or 0.0, *kept.limits_w.values())
    return all(map(math.isfinite, numbers)) and 0 <= kept.sequence <= 1 << 53 and 0 <= kept.gpus <= 1024
