"""Files that are replaced whole: a reader sees the old one or the new one, never half of one."""

import os
from pathlib import Path

__all__ = ["replace_file"]


def replace_file(path: str | Path, body: bytes, *, durable: bool = False) -> None:
    """Write the file in one step; `durable`: content and name are on disk when this returns. Raises OSError."""
    path = Path(path)
    part = path.with_name(f".{path.name}.part")
    with part.open("wb") as file:
        file.write(body)
        if durable:
            file.flush()
            os.fsync(file.fileno())
    part.replace(path)
    if durable:
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
