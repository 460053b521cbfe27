"""One file of the spool: records of line protocol, each with its length, line count and checksum.

On-disk format (little endian):

    segment := MAGIC record*
    MAGIC   := b"PHSPOOL1"
    record  := bytes:u32 points:u32 packing:u32 crc:u32 payload[bytes]

`crc` is the CRC-32 of the twelve bytes before it and of the payload; a run of zeros is therefore no record.
`packing` says how the payload is stored: 0 as it is, 1 by bz2. Unpacked it is `points` newline-terminated lines.

Invariants:
* `scan` returns a prefix of the appended records: everything after a bad record is ignored;
* reading never raises for damage, only for a file that cannot be read at all.
"""

import bz2
import struct
import zlib
from dataclasses import dataclass

__all__ = ["MAGIC", "Scan", "SegmentRecord", "encode_record", "pack", "scan", "unpack"]

MAGIC = b"PHSPOOL1"
PLAIN, BZ2 = 0, 1
_HEAD = struct.Struct("<IIII")
_CHECKED = struct.Struct("<III")


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
    while at + _HEAD.size <= len(data):
        length, points, packing, crc = _HEAD.unpack_from(data, at)
        start, end = at + _HEAD.size, at + _HEAD.size + length
        if end > len(data) or packing > BZ2:
            break
        if zlib.crc32(memoryview(data)[start:end], zlib.crc32(memoryview(data)[at : at + _CHECKED.size])) != crc:
            break
        found.append(SegmentRecord(start, end, points, packing))
        at = end
    return Scan(tuple(found), at)


def unpack(data: bytes, records: tuple[SegmentRecord, ...]) -> bytes:
    """Join the lines of these records of a segment's bytes."""
    parts = []
    for entry in records:
        payload = data[entry.start : entry.end]
        parts.append(bz2.decompress(payload) if entry.packing == BZ2 else payload)
    return b"".join(parts)
