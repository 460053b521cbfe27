"""States of Slurm's accounting: whether a line's job has nodes, waits, or is over."""

import re
from collections.abc import Mapping
from contextlib import suppress
from enum import Enum, auto

from powerhall.timeseries import parse_moment

__all__ = ["Phase", "phase_of"]


class Phase(Enum):
    """What a line of accounting says about its job."""

    RUNS = auto()
    WAITS = auto()
    OVER = auto()
    UNKNOWN = auto()


_SHORT = {
    "R": "RUNNING", "CG": "COMPLETING", "S": "SUSPENDED", "ST": "STOPPED", "CF": "CONFIGURING", "RS": "RESIZING",
    "SI": "SIGNALING", "SO": "STAGE_OUT", "PD": "PENDING", "RQ": "REQUEUED", "RH": "REQUEUE_HOLD",
    "SE": "SPECIAL_EXIT", "RD": "RESV_DEL_HOLD", "RF": "REQUEUE_FED", "BF": "BOOT_FAIL", "CA": "CANCELLED",
    "CD": "COMPLETED", "DL": "DEADLINE", "F": "FAILED", "NF": "NODE_FAIL", "OOM": "OUT_OF_MEMORY", "PR": "PREEMPTED",
    "RV": "REVOKED", "TO": "TIMEOUT",
}  # fmt: skip
_PHASES = {
    Phase.RUNS: (
        *("RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "CONFIGURING", "RESIZING", "SIGNALING", "STAGE_OUT"),
        "POWER_UP_NODE",
    ),
    Phase.WAITS: ("PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "RESV_DEL_HOLD"),
    Phase.OVER: (
        *("COMPLETED", "CANCELLED", "FAILED", "TIMEOUT", "NODE_FAIL", "PREEMPTED", "BOOT_FAIL", "DEADLINE"),
        *("OUT_OF_MEMORY", "REVOKED", "LAUNCH_FAILED", "RECONFIG_FAIL"),
    ),
}
_CUT_CHARS = 5
"""A word of a column that is too narrow ends in + and is known by its first letters, if these are so many."""


def phase_of(row: Mapping[str, str]) -> Phase:
    """Return the phase of a line, by the first of its words that is known: `CANCELLED by 1000`, `RUNNING+COMPLETING`.

    One that has nodes counts before others. The old size of a resized job is over. With a word that is not known a job
    runs where the line has an allocation and no end.
    """
    words = {_SHORT.get(word, word) for word in re.findall(r"[A-Z_]+", row.get("State", "").upper())}
    if "RESIZING" in words and _has_ended(row):
        return Phase.OVER
    for phase, known in _PHASES.items():
        if any(_means(word, one) for word in words for one in known):
            return phase
    if "State" not in row or "=" not in row.get("AllocTRES", "") or _has_ended(row):
        return Phase.OVER
    return Phase.RUNS if "End" in row else Phase.UNKNOWN


def _means(word: str, known: str) -> bool:
    return word == known or (len(word) >= _CUT_CHARS and known.startswith(word))


def _has_ended(row: Mapping[str, str]) -> bool:
    with suppress(ValueError):
        return bool(parse_moment(row.get("End", "")))
    return False
