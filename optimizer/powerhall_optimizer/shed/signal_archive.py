"""Folders for signal files that are settled: `done`, and `refused` with the reason in NAME.why.

They are made anew where they are gone. A link in their place is not followed: it could lead anywhere.
"""

import contextlib
import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["SignalArchive"]

_FOLDERS = ("done", "refused")
_NAME_BYTES = 180
"""Longest part of a name that is kept: with time, number and `.why` it fits the 255 bytes of a file system."""


class SignalArchive:
    """Both folders of one inbox."""

    def __init__(self, inbox: Path) -> None:
        self._inbox = inbox

    def problem(self) -> str:
        """Make what is missing; return why a folder cannot be used, or ""."""
        for where in _FOLDERS:
            try:
                with self._opened(where):
                    pass
            except OSError as error:
                return f"{self._inbox / where}: {error.strerror}"
        return ""

    def put(self, name: str, where: str, why: str = "") -> None:
        """Move a file of the inbox away, with the reason beside it; raises OSError where it stays."""
        kept = f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{_short(name)}"
        with self._opened(where) as folder:
            to, number = kept, 1
            while _is_there(to, folder) or _is_there(f"{to}.why", folder):
                number += 1
                to = f"{kept}.{number}"
            os.rename(self._inbox / name, to, dst_dir_fd=folder)
            if why:
                text = f"{why}\n" if len(os.fsencode(name)) <= _NAME_BYTES else f"{why}\nwas named {name}\n"
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
                with os.fdopen(os.open(f"{to}.why", flags, 0o666, dir_fd=folder), "wb") as file:
                    file.write(text.encode("utf-8", "backslashreplace"))

    @contextmanager
    def _opened(self, where: str) -> Iterator[int]:
        folder = self._inbox / where
        with contextlib.suppress(FileExistsError):
            folder.mkdir()
        try:
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except NotADirectoryError as error:
            raise NotADirectoryError(error.errno, "must be a folder, and no link") from None
        try:
            yield descriptor
        finally:
            os.close(descriptor)


def _is_there(name: str, folder: int) -> bool:
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _short(name: str) -> str:
    """Return a name that fits beside a time and `.why`; a long one keeps its beginning, a hash and its ending."""
    raw = os.fsencode(name)
    if len(raw) <= _NAME_BYTES:
        return name
    digest = hashlib.sha256(raw).hexdigest()[:12]
    return f"{raw[: _NAME_BYTES - 24].decode('utf-8', 'ignore')}-{digest}{Path(name).suffix}"
