"""State of wrapping counters that outlives a restart of the gateway."""

from pathlib import Path

import msgspec

from powerhall.runtime.decode.json_data import read_json
from powerhall.runtime.errors import Rejected
from powerhall.runtime.log import Log
from powerhall_agent.base.durable_files import write_file
from powerhall_agent.facility.validation import CounterState

__all__ = ["CounterStateFile"]


class CounterStateFile:
    """A small JSON file that keeps the sums of wrapping counters over a restart; without a path nothing is kept."""

    def __init__(self, path: Path | None, log: Log) -> None:
        self._path, self._log = path, log

    def load(self) -> dict[str, dict[str, CounterState]]:
        """Read the file; a damaged one is logged, and the sums start again."""
        if self._path is None or not self._path.exists():
            return {}
        try:
            return read_json(self._path, dict[str, dict[str, CounterState]])
        except Rejected as error:
            self._log.warning("counters_lost", key="", path=self._path, detail=error)
            return {}

    def save(self, counters: dict[str, dict[str, CounterState]]) -> None:
        """Replace the file in one step."""
        if self._path is None or not counters:
            return
        fresh = self._path.with_suffix(".new")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_file(fresh, msgspec.json.encode(counters))
            fresh.replace(self._path)
        except OSError as error:
            self._log.warning("counters_not_kept", key="", path=self._path, detail=error)
