"""The open intervals of a node in a small file beside its energy totals, so that a new sampler goes on with them.

The file is replaced whenever an interval begins, ends or is written again, and so is at most five minutes old. What a
GPU has used since then, by its energy total, goes to the jobs that hold it still. After a reboot no job does.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from powerhall.runtime.decode.json_data import read_json
from powerhall.runtime.errors import Rejected
from powerhall.runtime.log import Log

__all__ = ["KeptGpu", "KeptInterval", "KeptJobs"]

_log = Log(quiet=True)


class KeptInterval(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An interval that is open: who holds the GPU since when, and the energy so far by the method of its split."""

    job: str
    user_hash: str
    instances: tuple[str, ...]
    start_s: float
    time_ms: int
    split_j: Mapping[str, float]


class KeptGpu(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A GPU at `at_s`: its energy total, the time of its newest point, and the intervals that are open."""

    gpu: int
    uuid: str
    at_s: float
    newest_ms: int
    energy_j: float | None
    open: tuple[KeptInterval, ...]


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    boot: int
    gpus: tuple[KeptGpu, ...]


class KeptJobs:
    """The file of one node."""

    def __init__(self, state_dir: Path, node: str, boot: int) -> None:
        """`boot` names this boot of the host."""
        self._path, self._boot = state_dir / f"{node.replace('/', '_')}.jobs.json", boot
        self._told = False

    def read(self) -> tuple[Sequence[KeptGpu], bool]:
        """Return what was written last, and whether that was in this boot; a damaged file is logged and holds none."""
        try:
            found = read_json(self._path, _File) if self._path.is_file() else _File(self._boot, ())
        except (OSError, Rejected) as error:
            _log.warning("jobs_not_resumed", path=self._path, detail=error)
            found = _File(self._boot, ())
        return found.gpus, found.boot == self._boot

    def write(self, gpus: Sequence[KeptGpu]) -> None:
        """Replace the file; a folder that cannot be written is logged once."""
        fresh = self._path.with_suffix(".new")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            fresh.write_bytes(msgspec.json.encode(_File(self._boot, tuple(gpus))))
            fresh.replace(self._path)
        except OSError as error:
            if not self._told:
                self._told = True
                _log.warning("jobs_not_kept", path=self._path, detail=error.strerror)
