"""Regular files: opened without waiting for what lies in their place, and replaced whole."""

import contextlib
import errno
import os
import stat
from collections.abc import Mapping
from pathlib import Path

__all__ = ["check_regular", "open_regular", "replace_file", "replace_files"]

_NOT_REGULAR = "must be a regular file"


def open_regular(path: str | Path, flags: int = os.O_RDONLY) -> int:
    """Open a regular file and return its descriptor; raises OSError for anything else, and never waits for it.

    A pipe in the place of a file would hold its reader, or its writer, until somebody opens the other end.
    """
    try:
        descriptor = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    except OSError as error:
        if error.errno == errno.ENXIO:  # a pipe that nobody reads, or a socket
            raise OSError(errno.ENXIO, _NOT_REGULAR) from None
        raise
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return descriptor
    os.close(descriptor)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    raise OSError(errno.EINVAL, _NOT_REGULAR)


def check_regular(*paths: str | Path | None) -> None:
    """Raise OSError where one of these is not a regular file that can be read: for libraries that open by name."""
    for path in paths:
        if path:
            os.close(open_regular(path))


def replace_file(path: str | Path, body: bytes, *, durable: bool = False) -> None:
    """Write the file in one step; `durable`: content and name are on disk when this returns. Raises OSError.

    A reader sees the old file or the new one, never half of one.
    """
    path = Path(path)
    replace_files({path: body}, durable=durable)
    if durable:
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def replace_files(bodies: Mapping[Path, bytes], *, durable: bool = False) -> None:
    """Write several files, in the order given; raises OSError, which names the file.

    All are written beside their places before the first one takes its place: where a disk is full or a folder has gone,
    every old file stays, and nothing half-written is left.
    """
    parts = {path: path.with_name(f".{path.name}.part") for path in bodies}
    try:
        for path, body in bodies.items():
            _write_part(parts[path], body, durable=durable)
        for path, part in parts.items():
            part.replace(path)
    except OSError as error:
        for part in parts.values():
            with contextlib.suppress(OSError):
                part.unlink()
        if error.filename is None or str(error.filename).endswith(".part"):
            named = next((path for path, part in parts.items() if str(part) == str(error.filename)), path)
            raise OSError(error.errno, error.strerror, str(named)) from error
        raise


def _write_part(part: Path, body: bytes, *, durable: bool) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
    with os.fdopen(open_regular(part, flags), "wb") as file:
        file.write(body)
        if durable:
            file.flush()
            os.fsync(file.fileno())
