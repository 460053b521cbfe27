"""An entry point of the fuzz: seeds, and a function that reads a changed seed as the product would."""

import gzip
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["DATA", "ROOT", "Entry", "file_entry", "head"]

ROOT = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("POWERHALL_DATA", ROOT.parent / "shared" / "data"))


@dataclass(frozen=True)
class Entry:
    """`read` gets a folder of its own and the bytes; it returns, or raises PowerhallError, or the run is a failure."""

    name: str
    seeds: Sequence[bytes]
    read: Callable[[Path, bytes], object]


def file_entry(name: str, seeds: Sequence[bytes], file: str, read: Callable[[Path], object]) -> Entry:
    """Return an entry point that reads one file."""

    def call(folder: Path, body: bytes) -> object:
        (folder / file).write_bytes(body)
        return read(folder / file)

    return Entry(name, seeds, call)


def head(path: Path, lines: int) -> bytes:
    """Return the first lines of a file, expanded where it is gzip."""
    body = path.read_bytes()
    if body[:2] == b"\x1f\x8b":
        body = gzip.decompress(body)
    return b"\n".join(body.split(b"\n")[:lines])
