"""Differences between two sweeps or replays, point by point over the seeds that both have."""

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

import msgspec

from powerhall.runtime.decode.bytes_in import read_file
from powerhall.runtime.decode.json_data import decode_json
from powerhall.runtime.decode.limits import MOST_JSON_BYTES
from powerhall_twin.replay.figures import ReplayResults
from powerhall_twin.replay.size import interval
from powerhall_twin.replay.sweep import SweepRow

__all__ = ["COMPARED", "Difference", "compare_rows", "rows_of"]


def rows_of(path: Path) -> Sequence[SweepRow]:
    """Return the rows of a sweep's file, or those of a replay's results.json: each policy once, as the jobs are."""
    raw = read_file(path, MOST_JSON_BYTES)
    if raw.lstrip().startswith(b"{"):
        return [SweepRow("", one.name, 0, one) for one in decode_json(raw, ReplayResults, str(path)).policies]
    return decode_json(raw, list[SweepRow], str(path))


COMPARED = ("weighted_work", "work_per_mwh", "energy_j", "cost", "mean_wait_s")
"""Figures that are compared, as shares of the first sweep's."""


class Difference(msgspec.Struct, frozen=True):
    """Mean of second less first as a share of the first, and its 95 % interval (Student's t; None for one seed)."""

    change: str
    policy: str
    figure: str
    seeds: int
    mean: float
    low: float | None
    high: float | None


def compare_rows(first: Sequence[SweepRow], second: Sequence[SweepRow]) -> list[Difference]:
    """Return the differences of each change and policy that both have, as shares of the first's size, seed by seed."""
    before = {(row.change, row.policy, row.seed): row.figures for row in first}
    ratios: dict[tuple[str, str, str], list[float]] = {}
    for row in second:
        base = before.get((row.change, row.policy, row.seed))
        for figure in COMPARED if base is not None else ():
            one, two = getattr(base, figure), getattr(row.figures, figure)
            if one:
                ratios.setdefault((row.change, row.policy, figure), []).append((two - one) / abs(one))
    return [Difference(*key, len(values), fmean(values), *interval(values)) for key, values in ratios.items()]
