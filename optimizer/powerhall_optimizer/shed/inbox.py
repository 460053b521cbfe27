"""Inbox folder for shed signals: each file is a signal and moves to `done` or `refused` afterwards.

A file is read once its size and time are unchanged between two scans, so that a file still being written is not read.
Names that begin with a dot or end in .part or .tmp are ignored, and so is everything that is not a regular file.
"""

import os
import stat
import time
from collections.abc import Callable
from pathlib import Path

from powerhall.runtime.errors import ConfigError, PowerhallError, Rejected
from powerhall.runtime.log import Log
from powerhall_optimizer.shed.signals import MOST_BYTES, Signal, parse_signals

__all__ = ["SignalInbox"]

_ENDINGS = (".json", ".csv")


class SignalInbox:
    """Scans one folder; `look` is called several times a second."""

    def __init__(self, folder: Path, site: str, take: Callable[[Signal], object], log: Log) -> None:
        """Refuse a folder that is writable for all: any file in it sheds the site."""
        self._folder, self._site, self._take, self._log = folder, site, take, log
        self._seen: dict[str, tuple[int, int]] = {}
        try:
            mode = folder.stat().st_mode
            for name in ("done", "refused"):
                (folder / name).mkdir(exist_ok=True)
        except OSError as error:
            raise ConfigError(f"shed: --watch: {str(folder)!r}: {error.strerror}") from None
        if not stat.S_ISDIR(mode) or mode & stat.S_IWOTH:
            raise ConfigError(f"shed: --watch: {str(folder)!r}: must be a folder that not everybody may write to")

    def look(self, now_s: float) -> int:
        """Read every file that is complete; return the number of signals."""
        seen: dict[str, tuple[int, int]] = {}
        taken = 0
        for entry in sorted(os.scandir(self._folder), key=lambda e: e.name):
            if entry.name.startswith(".") or not entry.name.endswith(_ENDINGS):
                continue
            try:
                known = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            if not stat.S_ISREG(known.st_mode):
                continue
            seen[entry.name] = known.st_size, known.st_mtime_ns
            if self._seen.get(entry.name) == seen[entry.name]:
                taken += self._read(Path(entry.path), now_s)
        self._seen = seen
        return taken

    def _read(self, path: Path, now_s: float) -> int:
        try:
            with path.open("rb") as file:
                signals = parse_signals(file.read(MOST_BYTES + 1), path.name, self._site, now_s)
            for signal in signals:
                self._take(signal)
        except OSError as error:
            self._log.error("signal_unreadable", file=path.name, detail=error.strerror)
            self._put_away(path, "refused", f"cannot read: {error.strerror}")
            return 0
        except Rejected as error:
            self._log.error("signal_refused", file=path.name, detail=error)
            self._put_away(path, "refused", str(error))
            return 0
        except PowerhallError as error:
            self._log.error("signal_failed", file=path.name, detail=error)  # stays, and is tried again
            return 0
        self._put_away(path, "done")
        return len(signals)

    def _put_away(self, path: Path, where: str, why: str = "") -> None:
        name = f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{path.name}"
        to = self._folder / where / name
        number = 1
        while to.exists():
            number += 1
            to = self._folder / where / f"{name}.{number}"
        try:
            path.rename(to)
            if why:
                to.with_name(f"{to.name}.why").write_text(why + "\n", encoding="utf-8")
        except OSError as error:
            self._log.error("signal_stays", file=path.name, detail=error.strerror)
