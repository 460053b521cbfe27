"""Inbox folder for shed signals: each file is a signal and moves to `done` or `refused` afterwards.

A file is read once its size and time are unchanged between two scans; one that ends in the middle gets `_PATIENCE_S`
more, in case that its writer is slow. Names that begin with a dot, or end otherwise than in .json and .csv, are
ignored. Everything else goes to `refused` with the reason in NAME.why: what cannot be read or understood, and what is
no regular file (links are not followed). Nothing in the folder ends the service.

A heap of files costs no good one its time: a look works for `_BUSY_S`, on the newest and the oldest in turn. The order
of files is of no importance otherwise, because the modification of an event decides.
"""

import os
import stat
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import tzinfo
from pathlib import Path

from powerhall.runtime.errors import ConfigError, PowerhallError, Rejected
from powerhall.runtime.log import Log
from powerhall_optimizer.shed.signal_archive import SignalArchive
from powerhall_optimizer.shed.signals import MOST_BYTES, Signal, is_cut_off, parse_signals

__all__ = ["SignalInbox"]

_ENDINGS = (".json", ".csv")
_BUSY_S = 0.5
_PATIENCE_S = 2.0
_RETRY_S = 1.0

_Stamp = tuple[int, int, int]
_Waiting = tuple[int, str, int]
"""Time of arrival in ns, name and mode of a file that is complete."""


@dataclass(frozen=True, slots=True)
class _Stuck:
    """A file that was read and cannot be moved away: it is not read again until it changes."""

    stamp: _Stamp
    where: str
    why: str


class SignalInbox:
    """Scans one folder; `look` is called several times a second."""

    def __init__(
        self, folder: Path, site: str, take: Callable[[Signal], object], log: Log, zone: tzinfo | None = None
    ) -> None:
        """Refuse a folder that is writable for all: any file in it sheds the site. `zone` is that of local times."""
        self._folder, self._site, self._take, self._log, self._zone = folder, site, take, log, zone
        self._seen: dict[str, _Stamp] = {}
        self._stuck: dict[str, _Stuck] = {}
        self._took_newest, self._retry_s, self._stays = False, 0.0, ""
        self._archive = SignalArchive(folder)
        try:
            mode = folder.stat().st_mode
        except OSError as error:
            raise ConfigError(f"shed: --watch: {str(folder)!r}: {error.strerror}") from None
        if not stat.S_ISDIR(mode) or mode & stat.S_IWOTH:
            raise ConfigError(f"shed: --watch: {str(folder)!r}: must be a folder that not everybody may write to")
        self.problem = self._archive.problem()
        """Why files cannot be moved away now, or ""."""
        if self.problem:
            raise ConfigError(f"shed: --watch: {self.problem}")

    def look(self, now_s: float) -> int:
        """Read the files that are complete, as many as half a second allows; return the number of signals."""
        seen: dict[str, _Stamp] = {}
        ready: list[_Waiting] = []
        with os.scandir(self._folder) as entries:
            for entry in entries:
                if entry.name.startswith(".") or not entry.name.endswith(_ENDINGS):
                    continue
                try:
                    found = entry.stat(follow_symlinks=False)
                except OSError:
                    continue  # gone meanwhile
                stamp = found.st_ino, found.st_size, found.st_mtime_ns
                seen[entry.name] = stamp
                stuck = self._stuck.get(entry.name)
                if self._seen.get(entry.name) == stamp and (stuck is None or stuck.stamp != stamp):
                    ready.append((found.st_ctime_ns, entry.name, found.st_mode))
        self._seen = seen
        self._stuck = {name: stuck for name, stuck in self._stuck.items() if seen.get(name) == stuck.stamp}
        count = 0
        until_s = time.monotonic() + _BUSY_S
        for _, name, mode in self._in_turn(ready):
            count += self._settle(name, mode, now_s)
            if time.monotonic() >= until_s:
                break
        self._retry(until_s)
        self.problem = self._archive.problem() or (self._stays if self._stuck else "")
        return count

    def _in_turn(self, ready: list[_Waiting]) -> Iterator[_Waiting]:
        """Yield the newest and the oldest in turn: neither a heap before a file nor a flood behind it holds it up."""
        waiting = deque(sorted(ready))
        while waiting:
            self._took_newest = not self._took_newest
            yield waiting.pop() if self._took_newest else waiting.popleft()

    def _settle(self, name: str, mode: int, now_s: float) -> int:
        """Read one file and move it away; return the number of signals in it."""
        try:
            if not stat.S_ISREG(mode):
                raise Rejected(f"{name}: must be a regular file")  # noqa: TRY301 - one way for all refusals
            count = self._read(name, now_s)
        except FileNotFoundError:
            return 0
        except OSError as error:
            self._refuse(name, "signal_unreadable", f"cannot read: {error.strerror}")
        except Rejected as error:
            self._refuse(name, "signal_refused", str(error))
        except PowerhallError as error:
            self._log.warning("signal_failed", key=name, file=name, detail=error)  # stays, and is tried again
        except Exception as error:  # noqa: BLE001 - an input that meets a defect is refused, and the service goes on
            self._refuse(name, "signal_defect", f"cannot be used: it met a defect: {error!r}")
        else:
            if count is not None:
                self._put_away(name, "done")
                return count
        return 0

    def _read(self, name: str, now_s: float) -> int | None:
        """Take the signals of a file; None while it may still be written."""
        descriptor = os.open(self._folder / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                raise Rejected(f"{name}: must be a regular file")
            text = file.read(MOST_BYTES + 1)
        is_whole = len(text) > MOST_BYTES or not is_cut_off(text)
        if not is_whole and 0.0 <= time.time() - found.st_mtime < _PATIENCE_S:
            return None
        signals = parse_signals(text, name, self._site, now_s, self._zone)
        for signal in signals:
            if signal.is_test:
                self._log.info("test_event", file=name, id=signal.event_id)
            else:
                self._take(signal)
        return len(signals)

    def _refuse(self, name: str, event: str, why: str) -> None:
        self._log.error(event, file=name, detail=why)
        self._put_away(name, "refused", why)

    def _put_away(self, name: str, where: str, why: str = "") -> None:
        try:
            self._archive.put(name, where, why)
            self._stuck.pop(name, None)
        except FileNotFoundError:
            self._stuck.pop(name, None)
        except OSError as error:
            if name not in self._stuck:
                self._log.error("signal_stays", file=name, detail=error.strerror)
            self._stays = f"{self._folder / name}: cannot be moved to {where}: {error.strerror}"
            if name in self._seen:
                self._stuck[name] = _Stuck(self._seen[name], where, why)

    def _retry(self, until_s: float) -> None:
        """Move away again what could not be moved, once a second."""
        if time.monotonic() < self._retry_s:
            return
        self._retry_s = time.monotonic() + _RETRY_S
        for name, stuck in list(self._stuck.items()):
            if self._seen.get(name) == stuck.stamp and time.monotonic() < until_s:
                self._put_away(name, stuck.where, stuck.why)
