"""Settings of a round: one optional TOML file (`--settings`), every value with a default."""

from pathlib import Path
from typing import Literal

import msgspec

from powerhall.plan.plan import Objective
from powerhall.runtime.errors import Rejected
from powerhall.runtime.settings import read_toml

__all__ = ["RoundSettings", "check_settings", "read_settings"]


class RoundSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a round plans."""

    slot_s: int = 300
    """Length of a slot in s."""
    coarse: tuple[tuple[float, float], ...] = ()
    """Grid of far starts as pairs of seconds, such as `[[7200, 900], [43200, 3600]]`: after 2 h in steps of 15
    min, after 12 h in steps of 60 min. The plan is refined to and checked on `slot_s` in any case."""
    target_gap: float = 0.005
    """Stop solving at this proven gap."""
    seed: int = 1
    """Seed of the solver."""
    work_rate: float = 0.85
    """Counted work of the solver per second that it has: 1 is what an idle machine of 2 cores did in 2026. A lower one
    leaves room on a slower or busy machine: the same inputs give the same plan as long as no deadline cuts it short."""
    workers: int = 2
    """Threads of the solver."""
    stale_after_s: float = 120.0
    """A node without telemetry for this long counts at its worst case."""
    queue_stale_after_s: float = 900.0
    """A queue in the store that was read longer ago raises the alarm `stale_queue`, and nothing new starts."""
    stale_share: float = 0.2
    """With a larger share of the nodes stale, no running job is raised to a faster mode."""
    risk: float = 0.01
    """Probability that the true draw of a zone exceeds its planned draw; sets the margins below budgets."""
    learn_days: float = 7.0
    """How long telemetry counts for forecasts; 0 learns nothing."""
    learn_speed: bool = False
    """The queue's remaining work is real progress and not elapsed time, so that speeds can be learned from it."""
    lp_solver: Literal["glop", "highs", "pdlp"] = "glop"
    """Solver of the linear program that plans batteries, tanks and loops."""
    length_share: float = 0.9
    """Without real progress, plan a job for the time that this share of its class really took; 1 plans the time
    that was asked for."""
    keep_s: float = 1800.0
    """A waiting job that the last plan announced to start within this time keeps start, place and mode unless a limit,
    or a node that is gone, forces it, or `near_gain` is at stake; 0: none."""
    near_gain: float = 0.02
    """Such a job moves unforced only where the plan cannot gain this share of its value otherwise; 1: never."""
    move_gain: float = 0.1
    """A later one moves only where the plan gains at least this share of the mean value of a decision; 0 with
    `keep_s = 0` plans without regard to the last plan."""
    keep_cost: float = 0.01
    """What holding later ones may cost in all, as a share of the plan's value: where a plan without regard to them is
    worth more, they move for less than `move_gain`, or altogether."""
    scheduler: str = ""
    """Address of a Dask scheduler, such as "tcp://10.0.0.1:8786", on whose workers jobs are priced and the bound is
    summed up; empty: in the threads of this process. `--scheduler` comes before it."""
    archive_mb: float = 1000.0
    """Size of the archive of `round --archive` in MB: the oldest rounds are dropped beyond it, the newest never."""
    objective: Objective = Objective()
    """Weights of the objective."""


_RANGES = {
    "slot_s": (10, 3600),
    "target_gap": (0.0, 1.0),
    "work_rate": (0.001, 100.0),
    "workers": (1, 256),
    "stale_after_s": (1.0, 86400.0),
    "queue_stale_after_s": (1.0, 86400.0),
    "stale_share": (0.0, 1.0),
    "risk": (1e-6, 0.5),
    "learn_days": (0.0, 365.0),
    "length_share": (0.5, 1.0),
    "keep_s": (0.0, 86400.0),
    "near_gain": (0.0, 1.0),
    "move_gain": (0.0, 1.0),
    "keep_cost": (0.0, 1.0),
    "archive_mb": (0.001, 1e9),
    "objective.usd_per_gpu_h": (1e-6, 1e6),
    "objective.carbon_usd_per_t": (0.0, 1e6),
    "objective.delay_share": (0.0, 1.0),
    "objective.slow_share": (0.0, 1.0),
    "objective.shift_share": (0.0, 1.0),
    "objective.move_share": (0.0, 1.0),
}


def read_settings(path: Path | None) -> RoundSettings:
    """Read the settings, or the defaults without a file; a wrong one is refused by file, field and value."""
    if path is None:
        return RoundSettings()
    settings = read_toml(path, RoundSettings)
    check_settings(settings, str(path))
    return settings


def check_settings(settings: RoundSettings, source: str) -> None:
    """Refuse a value out of its range."""
    for name, (low, high) in _RANGES.items():
        value: object = settings
        for part in name.split("."):
            value = getattr(value, part)
        if not isinstance(value, int | float) or not low <= value <= high:
            raise Rejected.field(source, name, value, f"must be from {low:g} to {high:g}")
    _check_coarse(source, settings)


def _check_coarse(source: str, settings: RoundSettings) -> None:
    """Check that later slots are multiples of earlier ones and begin on their own grid."""
    after_s, long_s = 0.0, float(settings.slot_s)
    for i, (after, length) in enumerate(settings.coarse):
        if not after > after_s or not length > long_s or length % long_s or after % length:
            allowed = (
                f"must be seconds, multiples of slot_s ({settings.slot_s}): after which time, a multiple of the "
                "length, and the length of the slots, a multiple of the one before; both rising"
            )
            raise Rejected.field(source, f"coarse[{i}]", [after, length], allowed)
        after_s, long_s = after, length
