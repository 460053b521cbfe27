"""Where an archive lies: a folder, or documents of a store; files by name, each put whole or not at all."""

import contextlib
import time
from pathlib import Path
from typing import Protocol

from powerhall.runtime.decode.bytes_in import read_file
from powerhall.runtime.decode.limits import MOST_JSON_BYTES
from powerhall.runtime.errors import PowerhallError
from powerhall.runtime.files import replace_file
from powerhall.store import Store

__all__ = ["FolderShelf", "Shelf", "StoreShelf"]

_KIND = "archive"


class Shelf(Protocol):
    """Files by name."""

    def get(self, name: str) -> bytes | None:
        """Return a file; None where there is none."""
        ...

    def put(self, name: str, raw: bytes) -> None:
        """Put a file in one step; raises OSError or PowerhallError."""
        ...

    def sizes(self) -> dict[str, int] | None:
        """Return every file with its size in bytes; None where the place cannot tell and prunes by itself."""
        ...

    def remove(self, name: str) -> None:
        """Take a file away, if it is there."""
        ...


class FolderShelf:
    """Files below a folder, durable when `put` returns."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def get(self, name: str) -> bytes | None:
        """Return a file; one that cannot be read raises PowerhallError or OSError."""
        path = self.folder / name
        return read_file(path, MOST_JSON_BYTES) if path.exists() else None

    def put(self, name: str, raw: bytes) -> None:
        """Write beside the place, flush, and move there."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, raw, durable=True)

    def sizes(self) -> dict[str, int] | None:
        """Return the files; those half written (`.part`) are no part of the archive."""
        found: dict[str, int] = {}
        for path in self.folder.rglob("*"):
            with contextlib.suppress(FileNotFoundError):
                if path.is_file() and path.suffix not in (".part", ".lock"):
                    found[str(path.relative_to(self.folder))] = path.stat().st_size
        return found

    def remove(self, name: str) -> None:
        """Delete the file."""
        (self.folder / name).unlink(missing_ok=True)


class StoreShelf:
    """Documents of a store, under a key of site and name; the store's retention bounds them."""

    def __init__(self, store: Store, site: str) -> None:
        self.store = store
        self.site = site

    def get(self, name: str) -> bytes | None:
        """Return the newest document of this name."""
        return self.store.latest_document(_KIND, f"{self.site}/{name}")

    def put(self, name: str, raw: bytes) -> None:
        """Keep a document; the newest of a name counts."""
        self.store.put_document(_KIND, f"{self.site}/{name}", time.time(), raw)

    def sizes(self) -> dict[str, int] | None:
        """Return None: a store lists no documents."""
        return None

    def remove(self, name: str) -> None:
        """Refuse: nothing is deleted from a store."""
        raise PowerhallError(f"archive: {name}: a store deletes nothing")
