"""One file of the spool: records of line protocol, each with its length, line count and checksum.

On-disk format (little endian):

    segment := MAGIC record*
    MAGIC   := b"PHSPOOL1"
    record  := bytes:u32 points:u32 packing:u32 crc:u32 payload[bytes]

`crc` is the CRC-32 of the twelve bytes before it and of the payload; a run of zeros is therefore no record.
`packing` says how the payload is stored: 0 as it is, 1 by bz2. Unpacked it is `points` newline-terminated lines.

Invariants:
* `scan` returns a prefix of the appended records: everything after a bad record is ignored;
* reading never raises for damage, only for a file that cannot be read at all;
* `lost_points` is not less than what damage has cost, as far as the bytes that are left tell.
"""

import bz2
import math
import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["MAGIC", "Scan", "SegmentRecord", "encode_record", "lost_points", "pack", "scan", "unpack"]

MAGIC = b"PHSPOOL1"
PLAIN, BZ2 = 0, 1
_HEAD = struct.Struct("<IIII")
_CHECKED = struct.Struct("<III")
_LEAST_LINE_BYTES = 20
"""Of a line: measurement, field, value, a timestamp of 13 digits."""
_PACKED_LINE_BYTES = 3
"""What a packed line takes at least in practice."""
_FILLED = re.compile(rb"[^\0]")
_MOST_RECORD_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class SegmentRecord:
    """Where one record lies in its segment, and how many points it holds."""

    start: int
    end: int
    points: int
    packing: int


@dataclass(frozen=True, slots=True)
class Scan:
    """The valid part of a segment: its records, and the offset where it ends."""

    records: tuple[SegmentRecord, ...]
    good_bytes: int

    @property
    def points(self) -> int:
        """Count the points of all records."""
        return sum(entry.points for entry in self.records)


def encode_record(payload: bytes, points: int, packing: int = PLAIN) -> bytes:
    """Encode one record."""
    checked = _CHECKED.pack(len(payload), points, packing)
    return checked + zlib.crc32(payload, zlib.crc32(checked)).to_bytes(4, "little") + payload


def pack(lines: bytes, points: int) -> bytes:
    """Encode a whole segment as one compressed record."""
    return MAGIC + encode_record(bz2.compress(lines, 5), points, BZ2)


def scan(data: bytes) -> Scan:
    """Find the records of a segment up to the first that is torn or damaged."""
    if not data.startswith(MAGIC):
        return Scan((), 0)
    found: list[SegmentRecord] = []
    at = len(MAGIC)
    while (record := _record(data, at)) is not None:
        found.append(record)
        at = record.end
    return Scan(tuple(found), at)


def _record(data: bytes, at: int) -> SegmentRecord | None:
    """Return the record that begins here; None where it is torn or damaged."""
    if at + _HEAD.size > len(data):
        return None
    length, points, packing, crc = _HEAD.unpack_from(data, at)
    start, end = at + _HEAD.size, at + _HEAD.size + length
    if end > len(data) or packing > BZ2:
        return None
    if zlib.crc32(memoryview(data)[start:end], zlib.crc32(memoryview(data)[at : at + _CHECKED.size])) != crc:
        return None
    return SegmentRecord(start, end, points, packing)


def lost_points(data: bytes, good: Scan) -> int:
    """Count the points behind the valid part of a segment, which are lost; rather too many than too few.

    A record counts with the number in its head, or with its line ends where those are more; bytes that show no head
    count with their line ends, or with as many lines as would fit.
    """
    plain = [(entry.end - entry.start) / entry.points for entry in good.records if entry.points and not entry.packing]
    at, lost = max(good.good_bytes, len(MAGIC)), 0
    while at < len(data):
        end, points = _damaged_record(data, at) or _gap(data, at, min(plain, default=_LEAST_LINE_BYTES))
        lost, at = lost + points, end
    return lost


def _damaged_record(data: bytes, at: int) -> tuple[int, int] | None:
    """Return the end and the points of a record whose head can be true; None where it cannot."""
    if at + _HEAD.size > len(data):
        return None
    length, points, packing, _ = _HEAD.unpack_from(data, at)
    if packing > BZ2 or not points or length > _MOST_RECORD_BYTES:
        return None
    if points * (_LEAST_LINE_BYTES if packing == PLAIN else 1) > length:
        return None
    end = min(at + _HEAD.size + length, len(data))
    return end, max(points, 0 if packing else data.count(b"\n", at + _HEAD.size, end))


def _gap(data: bytes, at: int, line_bytes: float) -> tuple[int, int]:
    """Return where the next valid record begins, and as many points as may have stood before it."""
    end = next((start for start in _heads(data, at + 1) if _record(data, start) is not None), len(data))
    if data.find(b"BZh", at, end) >= 0:
        line_bytes = _PACKED_LINE_BYTES
    return end, max(data.count(b"\n", at, end), math.ceil((end - at) / line_bytes))


def _heads(data: bytes, at: int) -> Iterator[int]:
    """Yield where a head may begin: its first word is not 0, its third is 0 or 1."""
    while (found := data.find(b"\0\0\0", at + 9)) >= 0:
        start = found - 9
        if not any(data[start : start + 4]):  # zeros, perhaps a million of them
            filled = _FILLED.search(data, start + 4)
            if filled is None:
                return
            at = filled.start() - 3
            continue
        if data[found - 1] <= BZ2:
            yield start
        at = start + 1


def unpack(data: bytes, records: tuple[SegmentRecord, ...]) -> bytes:
    """Join the lines of these records of a segment's bytes."""
    parts = []
    for entry in records:
        payload = data[entry.start : entry.end]
        parts.append(bz2.decompress(payload) if entry.packing == BZ2 else payload)
    return b"".join(parts)
