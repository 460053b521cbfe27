"""What the running agent has dropped, in a small file beside its energy totals, where `doctor` reads it."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from powerhall.runtime.decode.json_data import read_json
from powerhall.runtime.errors import Rejected
from powerhall.runtime.log import Log
from powerhall_agent.base.encoder import Record, Series
from powerhall_agent.base.sensor_log import SensorLog
from powerhall_agent.sampling.record_queue import RecordQueue

__all__ = ["SensorFile", "SensorReport", "SensorState", "read_sensors"]

_log = Log(quiet=True)


class SensorState(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A sensor that has shown implausible readings; `gpu` is empty for a sensor of the host."""

    gpu: str
    sensor: str
    dropped_readings: float
    suspect: bool
    reason: str


class SensorFile:
    """Writes the states when they change; without a folder nothing is kept."""

    def __init__(self, state_dir: str, node: str) -> None:
        self._path = _path(Path(state_dir), node) if state_dir else None
        self._written: Sequence[SensorState] | None = None

    def write(self, states: Sequence[SensorState]) -> None:
        """Replace the file; a folder that cannot be written is logged once."""
        if self._path is None or states == self._written or not (states or self._written or self._path.exists()):
            return
        self._written = states
        fresh = self._path.with_suffix(".new")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            fresh.write_bytes(msgspec.json.encode(states))
            fresh.replace(self._path)
        except OSError as error:
            _log.warning("sensors_not_kept", path=self._path, detail=error.strerror)


class SensorReport:
    """Writes the states as points of `sensor`, and into the file."""

    def __init__(self, tags: Mapping[str, str], file: SensorFile) -> None:
        self._tags, self._file = tags, file

    def write(self, logs: Sequence[tuple[str, SensorLog]], queue: RecordQueue, time_ms: int) -> None:
        """Write the sensors of these logs, each with its GPU number or \"\" for the host."""
        states = []
        for gpu, log in logs:
            for name, fields in log.report():
                series = Series("sensor", {**self._tags, "gpu": gpu, "sensor": name})
                queue.put(Record(series, fields, time_ms))
                dropped, suspect = float(fields["dropped_readings"]), bool(fields["suspect"])
                states.append(SensorState(gpu, name, dropped, suspect, str(fields["reason"])))
        self._file.write(states)


def read_sensors(state_dir: Path, node: str) -> list[SensorState]:
    """Return what the agent of this node wrote last; nothing where there is no file or a damaged one."""
    path = _path(state_dir, node)
    try:
        return read_json(path, list[SensorState]) if path.is_file() else []
    except (OSError, Rejected):
        return []


def _path(state_dir: Path, node: str) -> Path:
    return state_dir / f"{node.replace('/', '_')}.sensors.json"
