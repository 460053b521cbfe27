"""Outcomes as Parquet files, for notebooks and data frames; needs pyarrow, which is in an extra of its own."""

import importlib.util
import io
from collections.abc import Sequence
from pathlib import Path

import msgspec

from powerhall.runtime.errors import PowerhallError
from powerhall.runtime.files import replace_file
from powerhall_twin.engine.outcome import SimulationOutcome
from powerhall_twin.replay.figures import figures_of

__all__ = ["require_parquet", "write_parquet"]

_EXTRA = "--parquet needs pyarrow: pip install 'powerhall[parquet]'"


def require_parquet() -> None:
    """Raise PowerhallError that names the extra where pyarrow is missing."""
    if importlib.util.find_spec("pyarrow") is None:
        raise PowerhallError(_EXTRA)


def write_parquet(outcomes: Sequence[SimulationOutcome], out: Path) -> None:
    """Write one file each of policies, jobs and power at every event, each in one step; all in SI units."""
    _write(
        out / "policies.parquet",
        [msgspec.to_builtins(figures_of(one)) for one in outcomes],
    )
    jobs = [{"policy": o.policy} | msgspec.to_builtins(job) for o in outcomes for job in o.job_outcomes]
    _write(out / "jobs.parquet", jobs)
    power = [
        {"policy": o.policy, "time_s": time_s, "facility_w": power_w}
        for o in outcomes
        for time_s, power_w in zip(o.times_s, o.facility_w, strict=True)
    ]
    _write(out / "power.parquet", power)


def _write(path: Path, rows: Sequence[dict[str, object]]) -> None:
    import pyarrow
    from pyarrow import parquet

    flat = [
        {key: msgspec.json.encode(value).decode() if isinstance(value, dict) else value for key, value in row.items()}
        for row in rows
    ]
    buffer = io.BytesIO()
    parquet.write_table(pyarrow.Table.from_pylist(flat), buffer)
    replace_file(path, buffer.getvalue())
