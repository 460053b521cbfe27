"""Execute rungs of a ladder: leases first, then the scheduler, then the file of the shed plan.

Invariants: no cap rises, whatever the ledger and the budgets are; only nodes of touched jobs get leases; a failure is
reported and does not stop the remaining steps. Waiting, for the next step of a ramp or for confirmations, ends when
another event has to act: what is left undone is a problem of the outcome.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from powerhall.hostlist import expand
from powerhall.plan.plan import Plan, write_plan
from powerhall.runtime.errors import PowerhallError
from powerhall.store import Store
from powerhall.units import format_power
from powerhall_optimizer.leases.acks import read_acks
from powerhall_optimizer.leases.budgets import known_falls_s
from powerhall_optimizer.leases.caps import CapRequest, cap_requests, grant_leases
from powerhall_optimizer.leases.lease_points import publish_leases
from powerhall_optimizer.leases.ledger import Ledger as LeaseLedger
from powerhall_optimizer.schedulers.base import PlanWriter
from powerhall_optimizer.schedulers.skip_reasons import DRAWS_NOTHING
from powerhall_optimizer.shed import texts
from powerhall_optimizer.shed.act import shed_modes, shed_plan, with_frozen_budgets
from powerhall_optimizer.shed.ladder import ActionKind, Ladder
from powerhall_optimizer.shed.stages import stages

__all__ = ["Outcome", "Shedder", "outcome_of"]

_LOOK_S = 0.25


class Outcome(msgspec.Struct, frozen=True):
    """Outcome of a shed; powers at the meter from planned draws.

    `seconds` is the time until the last lease was sent; `confirmed` of `leases` nodes confirmed within
    `confirmed_seconds` that their caps hold (only with a deadline). `problems` are the failures.
    """

    plan_id: str
    before_w: float
    target_w: float
    after_w: float
    rungs: int
    lowered: int
    paused: int
    stopped: int
    protected: int
    leases: int
    met: bool
    seconds: float
    dry_run: bool
    confirmed: int = 0
    confirmed_seconds: float | None = None
    problems: tuple[str, ...] = ()
    own_w: float | None = None
    """Limit in W of the event itself, where it asked for a reduction; `target_w` may be that of another event."""


@dataclass(frozen=True, slots=True)
class Shedder:
    """Executes sheds; store, scheduler, keys and clocks are passed in."""

    ledger: LeaseLedger | None
    store: Store | None
    site_key: bytes | None
    writer: PlanWriter | None
    out: Path | None
    lease_s: float = 900.0
    ramp_w_per_s: float | None = None
    clock: Callable[[], float] = time.time
    sleep: Callable[[float], None] = time.sleep

    def act(
        self,
        plan: Plan,
        steps: Ladder,
        target_w: float,
        *,
        until_s: float | None = None,
        within_s: float | None = None,
        must_yield: Callable[[], bool] = bool,
    ) -> Outcome:
        """Take the rungs to `target_w`, to hold until `until_s`; with a deadline wait for the nodes' confirmations.

        `must_yield` is asked while it waits.
        """
        begin_s = self.clock()
        problems: list[str] = []
        sent: dict[str, int] = {}
        before: Mapping[str, str] = {}
        seconds = 0.0
        for delay_s, level_w in stages(steps.power_w, target_w, self.ramp_w_per_s, within_s):
            if not self._waited(begin_s + delay_s, must_yield):
                problems.append(texts.gives_way(f"ramp to {format_power(target_w)}"))
                break
            modes = shed_modes(steps, steps.rungs_to(level_w))
            fresh = {job: mode for job, mode in modes.items() if before.get(job) != mode}
            before = modes
            try:
                sent |= self._leases(plan, fresh, modes)
            except PowerhallError as error:
                problems.append(texts.failed_leases(error))
            seconds = self.clock() - begin_s
        else:
            try:
                problems += self._hand_over(plan, steps, target_w, until_s or steps.time_s + self.lease_s)
            except PowerhallError as error:
                problems.append(texts.failed_plan(error))
        outcome = outcome_of(steps, target_w, leases=len(sent), seconds=seconds)
        confirmed, at_s = 0, None
        if within_s is not None and sent and self.store is not None:
            confirmed = self._confirmed(sent, begin_s + within_s, problems, must_yield)
            at_s = self.clock() - begin_s
        return msgspec.structs.replace(
            outcome,
            confirmed=confirmed,
            confirmed_seconds=at_s,
            problems=tuple(problems),
            met=outcome.met and not problems,
        )

    def _leases(self, plan: Plan, fresh: Mapping[str, str], modes: Mapping[str, str]) -> dict[str, int]:
        """Send leases to the nodes of jobs whose mode is new; return their numbers by node."""
        if self.ledger is None or self.store is None or self.site_key is None or not fresh:
            return {}
        now_s = self.clock()
        wanted = _of_jobs(plan, cap_requests(plan, now_s, now_s + 1.0, modes), fresh)
        leases = grant_leases(
            plan,
            wanted,
            self.ledger,
            None,
            site_key=self.site_key,
            now_s=now_s,
            until_s=now_s + self.lease_s,
            falls_s=known_falls_s(plan, now_s, now_s + self.lease_s),
        )
        publish_leases(self.store, plan.snapshot.site, leases)
        return {lease.node: lease.sequence for lease, _ in leases}

    def _hand_over(self, plan: Plan, steps: Ladder, target_w: float, until_s: float) -> list[str]:
        """Pass the shed plan to the scheduler and to its file; return the problems."""
        rungs = steps.rungs_to(target_w)
        ended = {action.job_id for action in steps.actions[:rungs] if action.kind is not ActionKind.LOWER}
        if self.writer is None and self.out is None:
            return [texts.no_scheduler(len(ended))] if ended else []
        after = with_frozen_budgets(shed_plan(plan, steps, rungs, target_w), target_w, steps.time_s, until_s)
        if self.out is not None:
            write_plan(after, self.out)
        if self.writer is None:
            return []
        report = self.writer.apply(after)
        name = report.scheduler
        left = [one for one in report.skipped if one.job_id in ended and one.why.code not in DRAWS_NOTHING]
        return [
            *(texts.failed_write(name, failed.subject, failed.error) for failed in report.failed),
            *(texts.not_stopped(name, one.subject, one.reason) for one in left),
        ]

    def _waited(self, until_s: float, must_yield: Callable[[], bool]) -> bool:
        """Wait until a time; False where another event has to act before."""
        while (left_s := until_s - self.clock()) > 0.0:
            self.sleep(min(left_s, _LOOK_S))
            if must_yield():
                return False
        return True

    def _confirmed(
        self, sent: Mapping[str, int], deadline_s: float, problems: list[str], must_yield: Callable[[], bool]
    ) -> int:
        """Wait until every node has confirmed its lease, or the deadline; return how many have."""
        assert self.store is not None
        assert self.site_key is not None
        while True:
            count = 0
            try:
                acks = read_acks(self.store, self.site_key, sent, self.clock()).sequences
                count = sum(acks.get(node, 0) >= sequence for node, sequence in sent.items())
            except PowerhallError as error:
                if self.clock() >= deadline_s:
                    problems.append(texts.unreadable_acks(error))
            if count == len(sent):
                return count
            if self.clock() >= deadline_s:
                problems.append(texts.missing_acks(len(sent) - count, len(sent)))
                return count
            if must_yield():
                problems.append(texts.gives_way(texts.missing_acks(len(sent) - count, len(sent))))
                return count
            self.sleep(_LOOK_S)


def _of_jobs(plan: Plan, wanted: list[CapRequest], jobs: Mapping[str, str]) -> list[CapRequest]:
    """Return the cap requests of nodes on which one of these jobs runs."""
    nodes = {
        node
        for entry in plan.assignments
        if entry.job_id in jobs
        for placement in entry.placements
        for node in expand(placement.nodes)
    }
    return [request for request in wanted if request.node in nodes]


def outcome_of(
    steps: Ladder, target_w: float, *, leases: int = 0, seconds: float = 0.0, dry_run: bool = False
) -> Outcome:
    """Return the outcome of taking the rungs to a target."""
    rungs = steps.rungs_to(target_w)
    taken = steps.actions[:rungs]
    after_w = taken[-1].left_w if taken else steps.power_w
    ended = {a.job_id for a in taken if a.kind is not ActionKind.LOWER}
    return Outcome(
        plan_id=steps.plan_id,
        before_w=steps.power_w,
        target_w=target_w,
        after_w=after_w,
        rungs=rungs,
        lowered=len({a.job_id for a in taken} - ended),
        paused=sum(a.kind is ActionKind.PAUSE for a in taken),
        stopped=sum(a.kind is ActionKind.STOP for a in taken),
        protected=len(steps.protected),
        leases=leases,
        met=after_w <= target_w,
        seconds=seconds,
        dry_run=dry_run,
    )
