"""A wall clock per node that an episode sets: a small preloaded library; without a compiler clocks are left alone."""

import mmap
import shutil
import struct
import subprocess
from pathlib import Path

SOURCE = Path(__file__).with_name("clock.c")


def build(folder: Path) -> Path | None:
    """Compile the library; None where there is no compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        return None
    library = folder / "clock.so"
    subprocess.run([compiler, "-O2", "-shared", "-fPIC", "-o", library, SOURCE], check=True)
    library.chmod(0o755)
    return library


class Clock:
    """The clock of one machine: `set` steps it by seconds against the true one."""

    def __init__(self, path: Path, library: Path | None) -> None:
        path.write_bytes(bytes(8))
        path.chmod(0o644)
        with path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), 8)
        self.env = {} if library is None else {"LD_PRELOAD": str(library), "CHAOS_CLOCK": str(path)}
        self.offset_s = 0.0

    def set(self, offset_s: float) -> None:
        """Step the clock; nothing happens where the library could not be built."""
        if self.env:
            self.offset_s = offset_s
            self._memory[:8] = struct.pack("q", int(offset_s * 1e9))
