"""Settings of the demo, and the result from which summary and report are made."""

from dataclasses import dataclass, field
from pathlib import Path

from powerhall.plan.plan import Plan
from powerhall_twin.demo.rounds import RoundRunner
from powerhall_twin.demo.site_run import SiteRun

__all__ = ["Curtailment", "DemoResult", "DemoSettings", "PlannedSlot"]


@dataclass(frozen=True, slots=True)
class DemoSettings:
    """Settings of a demo; times are simulated seconds unless stated otherwise."""

    out: Path
    minutes: float = 480.0
    speedup: float = 900.0
    seed: int = 1
    store: str | None = None
    round_s: float = 1800.0
    sample_s: float = 300.0
    solve_s: float = 3.0
    """Wall-clock seconds that a round may solve."""
    cut: float = 0.30
    realtime: int = 2
    """Nodes that also run as complete daemons, in real time."""
    quiet: bool = False


@dataclass(frozen=True, slots=True)
class Curtailment:
    """A cut of the grid budget as a share of it, and when it is announced."""

    announced_s: float
    start_s: float
    end_s: float
    cut: float

    @classmethod
    def half_way(cls, start_s: float, length_s: float, cut: float) -> "Curtailment":
        """Return a cut in the middle of the run, for a quarter of it, announced ten minutes ahead at most."""

        def grid(seconds: float) -> float:
            return round(seconds / 300.0) * 300.0

        begin_s = start_s + max(300.0, grid(length_s / 2))
        end_s = begin_s + max(300.0, grid(length_s / 4))
        notice_s = min(600.0, max(300.0, grid(length_s / 8)))
        return cls(begin_s - notice_s, begin_s, end_s, cut)


@dataclass(frozen=True, slots=True)
class PlannedSlot:
    """Planned power per zone and heat per hall in a slot, in W."""

    time_s: float
    zone_w: dict[str, int]
    heat_w: dict[str, int]


@dataclass(slots=True)
class DemoResult:
    """The run, its rounds and its totals; `planned` holds the slots of the plans in force."""

    settings: DemoSettings
    store: str
    run: SiteRun
    rounds: RoundRunner
    curtailment: Curtailment
    start_s: float
    end_s: float
    wall_s: float = 0.0
    agent_points: int = 0
    agent_points_lost: int = 0
    planned: list[PlannedSlot] = field(default_factory=list)
    reported_plan: Plan | None = None
    """The plan that answered the announcement of the curtailment, or the newest before it."""
    realtime: list[str] = field(default_factory=list)
    interrupted: bool = False
