"""Plan a changed snapshot again as the next round would: from the plan in force, and from nothing."""

import io
import time
from collections.abc import Sequence

import msgspec

from powerhall.plan.plan import Plan, Snapshot
from powerhall.runtime.errors import PowerhallError
from powerhall.runtime.log import Log
from powerhall_optimizer.inputs.round_settings import RoundSettings
from powerhall_optimizer.planning.planner import make_plan
from powerhall_optimizer.planning.round_clock import RoundClock
from powerhall_optimizer.round.single_site import still_planned

__all__ = ["DEFAULT_S", "PlannedAgain"]

DEFAULT_S = 30.0
"""Seconds in all, where nobody says."""

_MOST_S = 5.0
"""Seconds of each plan, at most."""
_PATIENCE, _PATIENCE_S = 2.0, 3.0
"""How much longer a plan may take than its seconds, in these and in s: on a busy machine its work is the same."""
_UNKNOWN_S = 2.0
"""The same where the plan does not say how long its round was."""


class PlannedAgain:
    """Plans made again within some seconds in all, each as long as the plan's own round, but 5 s at most."""

    def __init__(self, plan: Plan, settings: RoundSettings, seconds: float) -> None:
        self.plan = plan
        self.settings = settings
        self.end_s = time.monotonic() + seconds
        self.each_s = min(plan.round_s or _UNKNOWN_S, _MOST_S)

    def __call__(self, snapshot: Snapshot) -> Sequence[Plan]:
        """Return the plans from the plan in force and from nothing; none where time is over, or a deadline cut one."""
        found: list[Plan] = []
        for previous in (self.plan, None):
            if time.monotonic() + self.each_s > self.end_s:
                return ()
            begun = msgspec.structs.replace(snapshot, planned=still_planned(previous, snapshot))
            try:
                plan = make_plan(
                    begun,
                    self.settings,
                    self.each_s,
                    created_s=0,
                    log=Log(io.StringIO(), quiet=True),
                    previous=previous,
                    clock=RoundClock.start(self.each_s).later(_PATIENCE * self.each_s + _PATIENCE_S),
                )
            except PowerhallError:
                return ()
            if plan.cut_short:
                return ()
            found.append(plan)
        return found
