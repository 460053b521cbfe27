"""The folder `damaged/` of a spool: tails of segments that failed their checksum, for inspection."""

from pathlib import Path

from powerhall.runtime.log import Log
from powerhall_agent.base.durable_files import write_file

__all__ = ["DamagedTails"]

_MOST_BYTES = 16 * 1024 * 1024


class DamagedTails:
    """Keeps tails up to a size of all of them together; `bytes` counts those that it could not keep too."""

    def __init__(self, folder: Path, log: Log) -> None:
        """Make the folder; raises OSError."""
        folder.mkdir(parents=True, exist_ok=True)
        self.bytes = 0
        self._folder, self._log = folder, log

    def keep(self, path: Path, tail: bytes, offset: int, points: int) -> None:
        """Keep what stood in a segment from `offset`; `points` are lost with it."""
        self.bytes += len(tail)
        values = {"file": path, "offset": offset, "bytes": len(tail), "dropped_points": points}
        self._log.warning("spool_damage", key="", **values, kept_in=self._folder)
        try:
            if len(tail) + sum(p.stat().st_size for p in self._folder.iterdir()) <= _MOST_BYTES:
                write_file(self._folder / f"{path.stem}@{offset}", tail)
        except OSError as error:
            self._log.warning("spool_damage_not_kept", key="", file=path, detail=error.strerror)
