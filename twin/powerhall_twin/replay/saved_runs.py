"""Outcomes of a replay in its folder, so that one that was killed goes on where it was."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import msgspec

import powerhall
from powerhall.runtime.errors import PowerhallError
from powerhall.runtime.files import replace_file
from powerhall.runtime.settings import read_json
from powerhall_twin.engine.outcome import SimulationOutcome
from powerhall_twin.policies.policy import PolicyInputs

__all__ = ["SavedRuns", "inputs_hash"]


class _SavedRun(msgspec.Struct, frozen=True):
    inputs: str
    outcome: SimulationOutcome


def inputs_hash(inputs: PolicyInputs) -> str:
    """Return a hash of everything that an outcome depends on: scenario, timing, plan, version of the software."""
    return hashlib.sha256(msgspec.json.encode((powerhall.__version__, inputs))).hexdigest()


@dataclass(frozen=True, slots=True)
class SavedRuns:
    """One file per policy in `folder/runs`; a file of other inputs counts as absent."""

    folder: Path
    inputs: str

    def read(self, name: str) -> SimulationOutcome | None:
        """Return the kept outcome of a policy, None where there is none of these inputs."""
        path = self._path(name)
        if not path.exists():
            return None
        try:
            saved = read_json(path, _SavedRun)
        except PowerhallError:
            return None
        return saved.outcome if saved.inputs == self.inputs else None

    def write(self, outcome: SimulationOutcome) -> None:
        """Keep an outcome, in one step."""
        path = self._path(outcome.policy)
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, msgspec.json.encode(_SavedRun(self.inputs, outcome)))

    def _path(self, name: str) -> Path:
        return self.folder / "runs" / f"{name.replace(' ', '-')}.json"
