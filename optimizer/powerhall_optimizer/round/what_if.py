"""What-if: the site as it is and with changes, planned from the same start with the same work; nothing is published.

Each column is planned twice in half of the time. The second time it starts from its own plan and the other column's:
what one found, the other has too where it holds. The one with the looser limits comes last, so it is never behind by
the search alone. No column is held to the last plan.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import msgspec

from powerhall.plan.multi_site import MultiSitePlan
from powerhall.plan.plan import Plan
from powerhall.runtime.log import Log
from powerhall_optimizer.inputs.round_settings import RoundSettings
from powerhall_optimizer.inputs.what_if import multi_site_what_if, what_if
from powerhall_optimizer.planning.difference import Difference, Direction, difference, direction
from powerhall_optimizer.planning.multi_site import make_multi_site_plan
from powerhall_optimizer.planning.planner import make_plan
from powerhall_optimizer.round.multi_site import observed_sites
from powerhall_optimizer.round.request import RoundRequest
from powerhall_optimizer.round.single_site import observed

__all__ = ["Comparison", "compare"]

P = TypeVar("P", Plan, MultiSitePlan)
S = TypeVar("S")


@dataclass(frozen=True, slots=True)
class Comparison:
    """The plans of both columns, and what they prove about the change."""

    change: str
    base: Plan | MultiSitePlan
    other: Plan | MultiSitePlan
    difference: Difference


@dataclass(frozen=True, slots=True)
class _Run:
    """How each plan of both columns is made, in `seconds`."""

    settings: RoundSettings
    seconds: float
    stop: Callable[[], bool]
    log: Log
    created_s: int

    def both(self, plan: Callable[..., P], inputs: tuple[S, S], previous: P | None, change: Direction) -> tuple[P, P]:
        """Return the plans of both columns from the same start; the last one made starts from the final other one.

        `inputs` are what `plan` plans: as it is, and with the change.
        """

        def make(changed: bool, before: P | None, starts: Sequence[P]) -> P:
            return plan(
                inputs[changed],
                self.settings,
                self.seconds,
                created_s=self.created_s,
                log=self.log,
                stop=self.stop,
                previous=before,
                starts=starts,
            )

        plans = {changed: make(changed, previous, ()) for changed in (False, True)}
        base_last = change is Direction.TIGHTENED
        for changed in (base_last, not base_last):
            plans[changed] = make(changed, plans[changed], (plans[changed], plans[not changed]))
        return plans[False], plans[True]


def compare(  # noqa: PLR0917
    request: RoundRequest, change: str, settings: RoundSettings, stop: Callable[[], bool], log: Log, created_s: int
) -> Comparison:
    """Plan the site, or sites, of a request as they are and with a change; publish nothing."""
    request = replace(request, what_if=None, dry_run=True, clock=None)
    settings = msgspec.structs.replace(settings, keep_s=0.0, move_gain=0.0)
    run = _Run(settings, request.seconds / 2, stop, log, created_s)
    base, other = (_sites if len(request.sites) > 1 else _site)(request, change, run)
    return Comparison(change, base, other, difference(base, other))


def _site(request: RoundRequest, change: str, run: _Run) -> tuple[Plan, Plan]:
    snapshot, previous = observed(request, run.settings, run.log)
    other = what_if(snapshot, change)
    return run.both(make_plan, (snapshot, other), previous, direction([snapshot], [other]))


def _sites(request: RoundRequest, change: str, run: _Run) -> tuple[MultiSitePlan, MultiSitePlan]:
    snapshots, previous = observed_sites(request, run.settings, run.log)
    other = multi_site_what_if(snapshots, change)
    return run.both(make_multi_site_plan, (snapshots, other), previous, direction(snapshots, other))
