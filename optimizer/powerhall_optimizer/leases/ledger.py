"""The lease ledger grants node caps so that no zone can exceed its budget, whatever happens to leases in transit.

Invariants:

* A node's exposure at an instant is the highest cap that it may hold then: its safe cap, or the cap of any lease that
  was ever sent to it and has neither run out nor been replaced by a lease that the node confirmed.
* For every zone, at every instant until the last lease has run out, the sum of exposures stays within the zone's budget
  of that instant. So a lease that is lost, late, repeated or overtaken changes nothing: whatever subset arrives was
  counted. A lease ends before a fall of a budget that leaves no room for its cap.
* A lower cap frees nothing until the node confirms it or the higher lease runs out. A confirmation states that nothing
  older than its lease can come into force any more, which stays true: late, repeated or overtaken ones free too little,
  never too much. One of a lease that was never granted is ignored.
* The ledger is written to disk before a lease leaves; after a crash it counts what may have left. Several processes may
  use one ledger (a round's leases and an emergency shed): each change reads it anew under a lock.
* Sequences rise with time, so that a ledger that was lost does not lock itself out of every capper.
* While the ledger may lack leases (it was lost, damaged or is an old copy), each node counts at its highest power for
  as long as the longest lease lasts, or until it confirms a lease granted since. A confirmation of a lease with a
  number above every number of the ledger says that it is such a copy.
* A node counts at its highest power until its capper has confirmed a lease for the first time: before that nobody may
  hold its GPUs, and they may have any limit.
* Leases that have run out are kept for a day: a clock that was ahead forgets none of those that are still in force.

A node's clock may differ by `clock_skew_s`; a lease counts that much longer than its expiry.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from powerhall.lease import CLOCK_SKEW_S
from powerhall.runtime.errors import ConfigError, Rejected, Retryable
from powerhall.runtime.file_lock import FileLock, LockHeld, lock_path
from powerhall.units import format_power
from powerhall_optimizer.leases import texts
from powerhall_optimizer.leases.allocation import Allocation, Exposure, Granted
from powerhall_optimizer.leases.budget import Budget
from powerhall_optimizer.leases.ledger_file import (
    ClockMark,
    LedgerEntry,
    LedgerFile,
    PlanMark,
    State,
    newest_number,
    unknown_state,
)
from powerhall_optimizer.leases.spans import LONGEST_LEASE_S

__all__ = ["Budget", "Ledger", "LedgerEntry"]

_LOCK_WITHIN_S = 5.0
_LOCK_MODE = 0o600
"""Others read files of the ledger's folder: none of them must be able to hold its lock against a grant or a shed."""
_KEPT_S = 86_400.0
_SLACK_S = 60.0
_ARRIVES_S = 120.0
"""A lease reaches its node and is confirmed in seconds; the carrier confirms again every minute."""
_MOST_W = 10**9
"""Stands for the highest power of a node where none is named."""


class Ledger:
    """Grants caps within budgets and keeps the caps that each node may still hold."""

    def __init__(
        self,
        safe_caps_w: Mapping[str, int],
        path: Path | None = None,
        *,
        most_w: Mapping[str, int] | None = None,
        clock_skew_s: float = CLOCK_SKEW_S,
        dry_run: bool = False,
        site_key: bytes = b"",
        tell: Callable[[str], None] | None = None,
    ) -> None:
        """`safe_caps_w` names every node with its cap without a lease, `most_w` with its highest power.

        A node that `most_w` leaves out is taken to be held by its capper from the beginning, as in a model.
        `path` keeps the ledger over restarts, sealed with `site_key`. A dry run reads the ledger and never writes it.
        A damaged ledger is refused; with `tell`, one that is found damaged later is set aside and told, and nothing is
        known then. What makes the ledger doubt itself is told too.
        """
        self.safe_caps_w = dict(safe_caps_w)
        self.most_w = dict(most_w or {})
        self.path = path
        self.clock_skew_s = clock_skew_s
        self._file = None if path is None else LedgerFile(path, site_key)
        self._keep = dry_run
        self._tell = tell
        self._state = self._file.read() if self._file is not None and self._file.path.exists() else State()

    @property
    def state(self) -> State:
        """The state as of the last change; not to be changed."""
        return self._state

    def check(self, budgets: Sequence[Budget]) -> None:
        """Refuse a configuration in which safe caps alone exceed a budget: nothing could keep it."""
        for budget in budgets:
            least = budget.load_w(self.safe_caps_w)
            if least > budget.budget_w:
                raise Rejected(
                    f"safe caps: {budget.zone}: {format_power(least)}: "
                    f"must not exceed the zone's budget of {format_power(budget.budget_w)}"
                )

    def exposure_w(self, node: str, now_s: float) -> int:
        """Return the highest cap in W of this ledger that the node may hold at `now_s` or later."""
        held = self._state.entries.get(node, ())
        alive = (entry.cap_w for entry in held if entry.expires_s + self.clock_skew_s > now_s)
        return max(self.safe_caps_w[node], *alive, 0)

    def unknown(self, now_s: float) -> set[str]:
        """Return the nodes that may hold a lease that is not in the ledger."""
        if self._state.unknown_until_s <= now_s:
            return set()
        return self.safe_caps_w.keys() - set(self._state.known)

    def unconfirmed(self) -> set[str]:
        """Return the nodes whose capper has never confirmed a lease: nothing tells that it holds their GPUs."""
        return {node for node in self.most_w if node not in self._state.confirmed and node in self.safe_caps_w}

    def silent(self, confirmed: Mapping[str, int], now_s: float) -> set[str]:
        """Return the nodes with a lease in force that is minutes old and that they have not confirmed.

        `confirmed` has the newest number that each confirmed; numbers rise with the time in ms.
        """
        before = int((now_s - _ARRIVES_S) * 1000)

        def is_silent(node: str) -> bool:
            held, newest = self._state.entries.get(node, ()), confirmed.get(node, 0)
            return any(newest < entry.sequence < before and entry.expires_s > now_s for entry in held)

        return {node for node in self.safe_caps_w if is_silent(node)}

    def unasked(self, now_s: float) -> set[str]:
        """Return the nodes in doubt without a lease in force that was granted since: none of theirs can confirm yet."""
        state = self._state

        def is_asked(node: str) -> bool:
            held = state.entries.get(node, ())
            return any(entry.sequence > state.unknown_since and entry.expires_s > now_s for entry in held)

        return {node for node in self.unknown(now_s) | self.unconfirmed() if not is_asked(node)}

    def grant(
        self,
        wanted_w: Mapping[str, int],
        budgets: Sequence[Budget],
        now_s: float,
        expires_s: float,
        *,
        steps_w: Mapping[str, Sequence[int]] | None = None,
        must_fit: bool = True,
    ) -> dict[str, LedgerEntry]:
        """Grant caps until `expires_s`: to each node its request, or as much as every zone above it has left.

        Nodes come in the order of `wanted_w`: put the most valuable first. A cap may lie below the safe cap, but counts
        as the safe cap. With `steps_w` a node gets one of these caps, and every node its lowest before any gets more;
        one for which none fits is left out. A lease ends earlier where a budget falls too low for it. The ledger is on
        disk afterwards. Unless `must_fit`, budgets may lie below the safe caps: no cap there rises above them.
        """
        if must_fit:
            self.check(budgets)
        with self._alone(now_s):
            room = Allocation(budgets, self._exposure(now_s), wanted_w, now_s, expires_s + self.clock_skew_s)
            steps_w = steps_w or {}
            least: dict[str, Granted] = {}
            for node, steps in steps_w.items():
                if node in wanted_w and steps and (floor := room.offer(node, min(steps), steps)) is not None:
                    least[node] = floor
                    room.take(node, floor)
            given: dict[str, Granted] = {}
            for node, want_w in wanted_w.items():
                if node in least:
                    room.take(node, least[node], -1)
                granted = room.offer(node, want_w, steps_w.get(node, ()))
                if granted is not None:
                    given[node] = granted
                    room.take(node, granted)
            return self._enter(given, now_s, expires_s)

    def lower(
        self, wanted_w: Mapping[str, int], now_s: float, expires_s: float, falls_s: Sequence[float] = ()
    ) -> dict[str, LedgerEntry]:
        """Grant caps that raise no node's exposure, whatever the budgets are: each node gets the lower of both.

        Beyond the first of `falls_s`, when a budget falls, a lease lasts only as long as its node may hold that anyway.
        """
        with self._alone(now_s):
            exposure, until_s = self._exposure(now_s), expires_s + self.clock_skew_s
            fall_s = min((time_s for time_s in falls_s if time_s > now_s), default=until_s)
            given = {}
            for node, want_w in wanted_w.items():
                cap_w = min(want_w, exposure.known_w(node, now_s))
                own_s = until_s
                if cap_w > self.safe_caps_w[node]:
                    own_s = max((end_s for cap, end_s in exposure.held.get(node, ()) if cap >= cap_w), default=now_s)
                given[node] = Granted(cap_w, min(until_s, max(fall_s, own_s)))
            return self._enter(given, now_s, expires_s)

    def acknowledge(self, acknowledged: Mapping[str, int], now_s: float) -> int:
        """Drop the leases older than the acknowledged sequence of each node; return how many, unknown ones included.

        The first acknowledgement of a node counts too: it ends the doubt whether its capper holds its GPUs. One with a
        number that this ledger never gave frees nothing: leases are missing, and every node counts at its highest.
        """
        gone = 0
        with self._alone(now_s):
            newest = self._state.sequence
            is_behind = self._doubt_itself(acknowledged, now_s)
            state, unknown = self._state, self.unknown(now_s)
            for node, sequence in acknowledged.items():
                if sequence > newest:
                    continue
                if node in self.safe_caps_w and node not in state.confirmed:
                    state.confirmed.add(node)
                    gone += node in self.most_w
                if node in unknown and sequence > state.unknown_since:
                    state.known.append(node)
                    gone += 1
                held = state.entries.get(node, [])
                if held:
                    state.entries[node] = [entry for entry in held if entry.sequence >= sequence]
                    gone += len(held) - len(state.entries[node])
            if gone or is_behind:
                self._save(now_s)
        return gone

    def _doubt_itself(self, acknowledged: Mapping[str, int], now_s: float) -> bool:
        """Doubt a ledger that lacks a lease which a node confirmed; return whether that is new."""
        number, node = max(((n, node) for node, n in acknowledged.items() if node in self.safe_caps_w), default=(0, ""))
        if number <= self._state.sequence:
            return False
        if number > newest_number(now_s) and self._state.unknown_until_s > now_s:
            return False  # it stays above all numbers, and a doubt that begins anew each time would never end
        if self._tell is not None:
            self._tell(texts.missing_lease(self.path, number, node))
        self._state = unknown_state(self._state, now_s, now_s + LONGEST_LEASE_S, number)
        return True

    def admit(self, plan: PlanMark, site: str, now_s: float, latest_s: float) -> None:
        """Remember a plan as the newest; one that is older than that, from the future or of another site is refused.

        A plan is older when it was created earlier, or in the same second and begins earlier. Of two plans of one
        second that begin together, the one that is admitted second replaces the first for good. A newest plan that lies
        in the future was made by a clock that was ahead: it does not count. It is `latest_s` at the latest.
        """
        self._admitted(plan, site, latest_s)  # a refused one leaves no file behind
        with self._alone(now_s):
            state = self._state
            plan = self._admitted(plan, site, latest_s)
            if (plan, site) != (state.plan, state.site):
                state.plan, state.site = plan, site
                self._save(now_s)

    def _admitted(self, plan: PlanMark, site: str, latest_s: float) -> PlanMark:
        state = self._state
        if state.site not in ("", site):
            raise Rejected.field(str(self.path), "site", state.site, f"the plan is of {site!r}; one ledger a site")
        if plan.created_s > latest_s + _SLACK_S:
            allowed = f"lies {plan.created_s - latest_s:.0f} s in the future: the clock that made it was ahead"
            raise Rejected.field("plan", "created_s", plan.created_s, allowed)
        newest = state.plan
        return plan if newest is None or newest.created_s > latest_s + _SLACK_S else _newer(plan, newest)

    def distrust(self, now_s: float, until_s: float, sequence: int = 0) -> None:
        """Count every node at its highest power until `until_s`, or until it confirms a lease granted from now on.

        `sequence` is the highest number of a lease that was seen elsewhere: new ones are numbered above it.
        """
        with self._alone(now_s):
            self._state = unknown_state(self._state, now_s, until_s, sequence)
            self._save(now_s)

    def mark_clock(self, mark: ClockMark, now_s: float) -> None:
        """Remember a clock that is believed, so that the next command sees a step."""
        with self._alone(now_s):
            self._state.clock = mark
            self._save(now_s)

    def _exposure(self, now_s: float) -> Exposure:
        skew_s, state = self.clock_skew_s, self._state
        held = {
            node: [(e.cap_w, e.expires_s + skew_s) for e in entries if e.expires_s + skew_s > now_s]
            for node, entries in state.entries.items()
        }
        assumed = {node: (self.most_w.get(node, _MOST_W), state.unknown_until_s) for node in self.unknown(now_s)}
        assumed |= {node: (self.most_w[node], math.inf) for node in self.unconfirmed()}
        strangers = [lease for node, leases in held.items() if node not in self.safe_caps_w for lease in leases]
        return Exposure(self.safe_caps_w, held, assumed, strangers)

    def _enter(self, given: Mapping[str, Granted], now_s: float, expires_s: float) -> dict[str, LedgerEntry]:
        """Number the caps and put them on disk."""
        granted, state = {}, self._state
        state.sequence = max(state.sequence, int(now_s * 1000))
        state.longest_s = max(state.longest_s, expires_s - now_s)
        for node, one in given.items():
            cap_w, end_s = one.cap_w, one.until_s
            state.sequence += 1
            lease = LedgerEntry(state.sequence, cap_w, min(expires_s, end_s - self.clock_skew_s))
            granted[node] = lease
            held = state.entries.get(node, [])  # an older lease that is lower and ends sooner adds nothing
            above = [entry for entry in held if entry.cap_w > cap_w or entry.expires_s > lease.expires_s]
            state.entries[node] = [*above, lease]
        self._save(now_s)
        return granted

    @contextmanager
    def _alone(self, now_s: float) -> Iterator[None]:
        """Read the ledger as other processes left it, and let none of them change it meanwhile."""
        if self._file is None or self._keep:
            self._forget(now_s)
            yield
            return
        path = self._file.path
        try:
            lock = FileLock(lock_path(path), wait_s=_LOCK_WITHIN_S, mode=_LOCK_MODE)
        except LockHeld:
            raise Retryable(f"{path}: another process has held it for {_LOCK_WITHIN_S:g} s") from None
        except OSError as error:
            raise ConfigError(f"{path}: cannot lock: {error.strerror}") from None
        with lock:
            if path.exists():
                self._state = self._read(now_s)
            self._forget(now_s)
            yield

    def _read(self, now_s: float) -> State:
        """Read the file; a damaged one is set aside where that is wanted."""
        assert self._file is not None
        try:
            return self._file.read()
        except ConfigError:
            raise
        except Rejected as error:
            if self._tell is None:
                raise
            self._tell(texts.damaged_ledger(self._file.path, self._file.set_aside(now_s).name, error))
        return unknown_state(self._state, now_s, now_s + LONGEST_LEASE_S)

    def _forget(self, now_s: float) -> None:
        kept_s = now_s - (_KEPT_S if self._file is not None else 0.0) - self.clock_skew_s
        for node, held in list(self._state.entries.items()):
            alive = [entry for entry in held if entry.expires_s > kept_s]
            if alive:
                self._state.entries[node] = alive
            else:
                del self._state.entries[node]

    def _save(self, now_s: float) -> None:
        self._state.time_s = now_s
        if self._file is not None and not self._keep:
            self._file.write(self._state)  # before a lease leaves


def _newer(plan: PlanMark, newest: PlanMark) -> PlanMark:
    """Return the mark of a plan that is not older than the newest one; an older plan raises Rejected."""
    ages = (plan.created_s, plan.start_s), (newest.created_s, newest.start_s)
    if ages[0] < ages[1] or (ages[0] == ages[1] and plan.plan_id in newest.replaced):
        text = f"is older than plan {newest.plan_id[:12]}, for which leases were granted; run a round first"
        raise Rejected(f"plan: {plan.plan_id[:12]}: {text}")
    if plan.plan_id == newest.plan_id and ages[0] == ages[1]:
        return newest
    replaced = (*newest.replaced, newest.plan_id) if ages[0] == ages[1] else ()
    return msgspec.structs.replace(plan, replaced=replaced)
