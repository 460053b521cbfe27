"""capper.toml after the start: changed settings are taken by a new start, at a moment when that costs no lease.

A damaged file may still be valid, with another path for the key or another node: the capper then runs, refuses every
lease, and would do so after its owner has mended the file.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final, Generic, TypeVar

from powerhall.runtime.errors import ConfigError

__all__ = ["SettingsWatch"]

T = TypeVar("T")
_LOOK_S: Final = 1.0


class SettingsWatch(Generic[T]):
    """Compares the file with the settings in force, once a second while no lease is."""

    def __init__(self, path: Path, settings: T, read: Callable[[Path], T]) -> None:
        """`read` is the strict reading, which raises ConfigError for a file that cannot be used."""
        self._path, self._settings, self._read = path, settings, read
        self._seen: tuple[int, ...] | None = None
        self._is_compared = False
        self._next_s = 0.0

    def check(self, mono_s: float, *, is_leased: bool) -> None:
        """Raise ConfigError where the file holds other good settings, has rested for a second, and no lease is held."""
        if mono_s < self._next_s:
            return
        self._next_s = mono_s + _LOOK_S
        state = self._stat()
        if state != self._seen:
            self._seen, self._is_compared = state, False
            return
        if state is None or self._is_compared or is_leased:
            return
        self._is_compared = True
        try:
            is_changed = self._read(self._path) != self._settings
        except ConfigError:
            return  # the settings in force stay; the next start names what is wrong
        if is_changed:
            raise ConfigError(f"{self._path}: changed while no lease was in force; start the capper again")

    def _stat(self) -> tuple[int, ...] | None:
        try:
            found = os.stat(self._path)  # noqa: PTH116 - one call, all numbers
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_size, found.st_ctime_ns
