"""Energy totals and the last timestamp of a node, kept over restarts in a small mapped file.

Invariants: every record has two slots that are written in turn, each with a sequence number and a CRC, so that one is
always whole; a damaged file, or one of another version, is initialised again without an error. The file is written in
place without syncing: it outlives a killed process, and after a power cut the driver's counters restart anyway.

    header, 64 bytes     magic, version
    two clock slots      sequence, last timestamp in ms, monotonic clock at that time in ns, boot, CRC
    then per GPU         two slots: sequence, UUID (48 bytes), counter mJ, integral mJ, raw counter mJ, boot,
                         when the raw counter was read (0 in files of older agents), CRC
"""

import mmap
import struct
import zlib
from pathlib import Path
from typing import Final

import msgspec

from powerhall.runtime.log import Log

__all__ = ["Checkpoint", "Totals", "open_checkpoint"]

_log = Log(quiet=True)

_MAGIC: Final = b"PHCKPT01"
_HEADER: Final = 64
_CLOCK: Final = struct.Struct("<QqqQ")
_GPU: Final = struct.Struct("<Q48sqqqQq")
_SLOT: Final = 128
_RECORDS: Final = 65
_CRC: Final = struct.Struct("<I")


class Totals(msgspec.Struct, frozen=True, gc=False):
    """Stored totals of one GPU; `boot` names the boot of the host in which `raw_mj` was read.

    `raw_ns` says when it was read, by the monotonic clock of that boot.
    """

    uuid: str
    counter_mj: int
    integral_mj: int
    raw_mj: int
    boot: int
    raw_ns: int = 0


class Checkpoint:
    """The mapped file; without a path nothing is kept."""

    def __init__(self, path: Path | None) -> None:
        """Map the file; it is created or initialised where needed."""
        size = _HEADER + 2 * _SLOT * _RECORDS
        if path is None:
            self._map = mmap.mmap(-1, size)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a+b") as file:
                if file.seek(0, 2) != size:
                    file.truncate(0)
                    file.truncate(size)
                self._map = mmap.mmap(file.fileno(), size)
        if self._map[: len(_MAGIC)] != _MAGIC:
            self._map[:size] = bytes(size)
            self._map[: len(_MAGIC)] = _MAGIC
        self._sequences: dict[int, int] = {}
        self._places: dict[str, int] = {}
        for record in range(1, _RECORDS):
            found = self._read(record)
            if found is not None:
                self._places[_GPU.unpack_from(found)[1].rstrip(b"\0").decode("ascii", "replace")] = record

    def _read(self, record: int) -> bytes | None:
        """Return the newer whole slot of a record."""
        best: tuple[int, bytes] | None = None
        for slot in (0, 1):
            start = _HEADER + _SLOT * (2 * record + slot)
            body = self._map[start : start + _SLOT - _CRC.size]
            (crc,) = _CRC.unpack_from(self._map, start + _SLOT - _CRC.size)
            sequence = int.from_bytes(body[:8], "little")
            if sequence and crc == zlib.crc32(body) and (best is None or sequence > best[0]):
                best = (sequence, body)
        if best is None:
            return None
        self._sequences[record] = best[0]
        return best[1]

    def _write(self, record: int, body: bytes) -> None:
        body = body.ljust(_SLOT - _CRC.size, b"\0")
        slot = int.from_bytes(body[:8], "little") & 1
        start = _HEADER + _SLOT * (2 * record + slot)
        self._map[start : start + _SLOT] = body + _CRC.pack(zlib.crc32(body))

    def _next(self, record: int) -> int:
        self._sequences[record] = self._sequences.get(record, 0) + 1
        return self._sequences[record]

    def last_ms(self) -> int:
        """Return the last timestamp of an earlier run, 0 where none is known."""
        found = self._read(0)
        return 0 if found is None else _CLOCK.unpack_from(found)[1]

    def last_mono_ns(self, boot: int) -> int | None:
        """Return when that timestamp was made, by the monotonic clock; None where that was in another boot."""
        found = self._read(0)
        if found is None:
            return None
        _, _, mono_ns, kept_boot = _CLOCK.unpack_from(found)
        return mono_ns if mono_ns and kept_boot == boot else None

    def keep_ms(self, last_ms: int, mono_ns: int = 0, boot: int = 0) -> None:
        """Keep the last timestamp, and when it was made by the monotonic clock of this boot."""
        self._write(0, _CLOCK.pack(self._next(0), last_ms, mono_ns, boot))

    def totals(self, uuid: str) -> Totals | None:
        """Return the stored totals of a GPU."""
        record = self._places.get(uuid)
        found = None if record is None else self._read(record)
        if found is None:
            return None
        _, _, counter_mj, integral_mj, raw_mj, boot, raw_ns = _GPU.unpack_from(found)
        return Totals(uuid, counter_mj, integral_mj, raw_mj, boot, raw_ns)

    def keep(self, totals: Totals) -> None:
        """Keep the totals of a GPU; when all places are taken, the lowest-numbered place is reused."""
        record = self._places.get(totals.uuid)
        if record is None:
            free = [number for number in range(1, _RECORDS) if number not in self._places.values()]
            record = free[0] if free else 1
            self._places = {uuid: place for uuid, place in self._places.items() if place != record}
            self._places[totals.uuid] = record
        body = _GPU.pack(
            self._next(record),
            totals.uuid.encode(),
            totals.counter_mj,
            totals.integral_mj,
            totals.raw_mj,
            totals.boot,
            totals.raw_ns,
        )
        self._write(record, body)


def open_checkpoint(state_dir: str, node: str) -> Checkpoint:
    """Open the checkpoint of earlier runs; a folder that cannot be written is logged, and totals start at zero."""
    if not state_dir:
        return Checkpoint(None)
    path = Path(state_dir) / f"{node.replace('/', '_')}.energy"
    try:
        return Checkpoint(path)
    except OSError as error:
        _log.warning("state_not_kept", path=path, detail=error.strerror)
        return Checkpoint(None)
