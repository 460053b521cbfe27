"""Writes files of a host, and never over a file that was changed by hand, unless told to.

Each file ends in a comment with the digest of the lines above it; JSON, which has no comments, has its digest in the
file `.powerhall.sha256` of its folder, in the form of sha256sum. A file whose digest is right is as it was installed,
and is replaced by a newer one; any other stays, and the new one is put beside it as NAME.new.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from powerhall.install.host_files import HostFile
from powerhall.runtime.decode.bytes_in import read_file, utf8
from powerhall.runtime.decode.limits import MOST_SECRET_BYTES
from powerhall.runtime.errors import PowerhallError
from powerhall.runtime.files import replace_file

__all__ = ["Action", "Change", "changes", "signed", "write"]

_MARK: Final = "# Installed by Powerhall; sha256 of the lines above: "


_DIGESTS: Final = ".powerhall.sha256"


class Action(StrEnum):
    """What happens to a file."""

    WRITE = "write"
    SAME = "same"
    UPDATE = "update"
    KEEP = "keep"
    """Changed by hand: stays, and the new one is written as NAME.new."""
    REPLACE = "replace"
    """Changed by hand and forced: the old one is kept as NAME.old."""


@dataclass(frozen=True, slots=True)
class Change:
    """A file with what happens to it; `path` is under the root that was given."""

    path: Path
    text: str
    action: Action


def signed(text: str, name: str = "") -> str:
    """Return the text with its last line, by which a later installation knows that nobody changed it; JSON as it is."""
    if name.endswith(".json"):
        return text
    body = text if text.endswith("\n") else text + "\n"
    return body + _mark(body.encode())


def _mark(body: bytes) -> str:
    return f"{_MARK}{hashlib.sha256(body).hexdigest()}\n"


def changes(files: Sequence[HostFile], root: Path, *, force: bool) -> list[Change]:
    """Return what installing these files under a root would do; writes nothing."""
    found = []
    for file in files:
        path, text = root / file.place.lstrip("/"), signed(file.text, file.place)
        found.append(Change(path, text, _action(path, text, force=force)))
    return found


def _action(path: Path, text: str, *, force: bool) -> Action:
    if path.is_symlink():  # such as a masked unit
        return Action.REPLACE if force else Action.KEEP
    try:
        old = path.read_bytes()
    except FileNotFoundError:
        return Action.WRITE
    except OSError as error:
        raise PowerhallError(f"{path}: cannot read: {error.strerror}") from None
    if old == text.encode():
        return Action.SAME
    if _is_ours(path, old):
        return Action.UPDATE
    return Action.REPLACE if force else Action.KEEP


def _is_ours(path: Path, old: bytes) -> bool:
    """Return whether a file is as an installation left it."""
    if path.suffix == ".json":
        return _digests(path.parent).get(path.name) == hashlib.sha256(old).hexdigest()
    begin = old[:-1].rfind(b"\n") + 1
    return old[begin:] == _mark(old[:begin]).encode()


def _digests(folder: Path) -> dict[str, str]:
    """Return the digests of JSON files that were installed into a folder, by name."""
    path = folder / _DIGESTS
    try:
        lines = utf8(read_file(path, MOST_SECRET_BYTES), str(path)).splitlines()
    except PowerhallError:  # absent, or no text: then every file counts as changed by hand
        return {}
    return {name: digest for digest, _, name in (line.partition("  ") for line in lines) if name}


def _note_digest(path: Path, body: bytes) -> None:
    digests = _digests(path.parent) | {path.name: hashlib.sha256(body).hexdigest()}
    text = "".join(f"{digest}  {name}\n" for name, digest in sorted(digests.items()))
    replace_file(path.parent / _DIGESTS, text.encode())


def write(change: Change) -> None:
    """Do it; a folder that is absent is made. What cannot be written raises PowerhallError."""
    if change.action is Action.SAME:
        return
    path = change.path
    try:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        if change.action is Action.REPLACE:
            path.rename(path.with_name(f"{path.name}.old"))
        if change.action is Action.KEEP:
            path = path.with_name(f"{path.name}.new")
        replace_file(path, change.text.encode(), durable=True)
        path.chmod(0o644)
        if path.suffix == ".json":
            _note_digest(path, change.text.encode())
    except OSError as error:
        raise PowerhallError(f"{path}: cannot write: {error.strerror}") from None
