"""What would start a waiting job: every statement is checked by planning again, or said to hold alone.

* *It would start by T if ...*: plans that were made again with the change, from the plan in force and from nothing,
  start the job by T.
* *Alone, ... would be enough for a start at T*: the plan in force with this change, the job started at T and all else
  kept holds every limit. A plan made again may give the room to other jobs.

What neither holds for is not said.
"""

from collections.abc import Callable, Iterator, Sequence

import msgspec

from powerhall.plan.plan import Plan, Snapshot
from powerhall_optimizer.physics.site_conditions import time_text
from powerhall_optimizer.planning.changes import Change, Lever, Levers
from powerhall_optimizer.planning.shared_gpus import host_plan

__all__ = ["Promise", "Replan", "promises"]

Replan = Callable[[Snapshot], Sequence[Plan]]
"""Plans a changed snapshot again in every way in which a round may; empty where there is no time for it."""


class Promise(msgspec.Struct, frozen=True):
    """A change, as items of `--what-if` and in words, and when the job starts with it; `alone`: see the module."""

    items: tuple[str, ...]
    change: str
    by_s: int
    alone: bool

    def text(self) -> str:
        """Return it as a sentence."""
        if self.alone:
            enough = f"Alone, it could start at {time_text(self.by_s)} if {self.change}"
            return f"{enough}: were this the only change, and did no other job take the room."
        return f"It would start by {time_text(self.by_s)} if {self.change}."


def promises(plan: Plan, job_id: str, replan: Replan) -> Iterator[Promise]:
    """Yield what would start a waiting job: first what planning again has shown, then what holds alone."""
    alone: list[Promise] = []
    for lever in Levers(host_plan(plan)).of(job_id):
        found = _shown(plan, job_id, lever, replan)
        if found is not None:
            yield found
        elif lever.alone_s is not None:
            alone.append(_promise(lever.changes[0], lever.alone_s, alone=True))
    yield from alone


def _shown(plan: Plan, job_id: str, lever: Lever, replan: Replan) -> Promise | None:
    """Return the least change of a lever with which every plan made again starts the job, and when at the latest."""
    for change in lever.changes:
        plans = replan(change.applied(plan.snapshot))
        starts = [next((a.start_s for a in again.assignments if a.job_id == job_id), None) for again in plans]
        if starts and None not in starts:
            return _promise(change, max(start for start in starts if start is not None), alone=False)
    return None


def _promise(change: Change, by_s: int, *, alone: bool) -> Promise:
    return Promise(change.items, change.text, by_s, alone)
