"""Request of a round; the command line and scripts are checked alike."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from powerhall.jobs import Job
from powerhall.jobs.left_out import LeftOut
from powerhall.plan.multi_site import MultiSitePlan
from powerhall.plan.plan import Plan
from powerhall.runtime.errors import Rejected
from powerhall.site.index import SiteIndex
from powerhall.store import Store
from powerhall.timeseries import parse_time
from powerhall.units import parse_span
from powerhall_optimizer.archive.keep import Archive
from powerhall_optimizer.inputs.horizon import Horizon, floor_slot
from powerhall_optimizer.inputs.snapshot import SiteInputs
from powerhall_optimizer.planning.round_clock import RoundClock

__all__ = ["Refuse", "RoundRequest", "check_request", "plan_horizon"]

T = TypeVar("T")
Refuse = Callable[[str, object, str], Rejected]
"""Makes the refusal of an option from its name, its value and what is allowed."""
_MOST_S = 14 * 86400


@dataclass(frozen=True, slots=True)
class RoundRequest:
    """Inputs and options of a round. Several sites are planned together."""

    sites: tuple[SiteInputs, ...]
    horizon: Horizon
    now_s: float
    seconds: float
    jobs: tuple[Job, ...] | None = None
    """The queue; None: the store has it."""
    left_out: tuple[LeftOut, ...] = ()
    """Jobs that the queue's reader left out."""
    queue_notes: tuple[str, ...] = ()
    """What the queue's reader skipped or assumed."""
    strict: bool = True
    """Refuse the round where a job cannot be planned with, instead of leaving it out."""
    jobs_source: str = "queue"
    """Source named in refusals of a job: the file of the queue."""
    store: Store | None = None
    out: Path | None = None
    dry_run: bool = False
    down_nodes: tuple[str, ...] = ()
    """Nodes that take nothing new; they draw their idle power and that of what runs on them."""
    off_nodes: tuple[str, ...] = ()
    """Nodes that draw nothing."""
    what_if: str | None = None
    clock: RoundClock | None = None
    """When the round began: with reading its inputs; None: with planning."""
    archive: Archive | None = None
    """Where the round is kept; None: nowhere. A dry run is not kept."""
    previous: Plan | MultiSitePlan | None = None
    """The last plan; None: the one of `out`, else of the store, if there is one."""


def _parsed(option: str, text: str, parse: Callable[[str], T], refuse: Refuse) -> T:
    try:
        return parse(text)
    except ValueError as error:
        raise refuse(option, text, str(error)) from None


def plan_horizon(start: str | None, horizon: str, slot_s: int, refuse: Refuse) -> tuple[float, Horizon]:
    """Return now, in seconds since the epoch (without `start`: the clock), and the slots of the plan."""
    length_s = _parsed("horizon", horizon, parse_span, refuse)
    now_s = time.time() if start is None else _parsed("start", start, parse_time, refuse)
    if not slot_s <= length_s <= _MOST_S:
        raise refuse("horizon", horizon, "must be from one slot to 14 d")
    return now_s, Horizon(floor_slot(now_s, slot_s), slot_s, int(length_s))


def check_request(request: RoundRequest, refuse: Refuse) -> None:
    """Refuse a time to solve out of range, sites of the same name, and nodes that no site has."""
    if not 0 < request.seconds <= 86400:
        raise refuse("seconds", request.seconds, "must be above 0 and at most 86400")
    sites = [inputs.site for inputs in request.sites]
    names = [site.name for site in sites]
    for number, name in enumerate(names):
        if name in names[:number]:
            raise refuse("site", name, "must be different sites with different names")
    for option, nodes in (("down", request.down_nodes), ("off", request.off_nodes)):
        for node in nodes:
            if not any(node in SiteIndex.of(site).rack_of for site in sites):
                raise refuse(option, node, "must be a node of the site")
