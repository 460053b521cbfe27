"""Registry and dispatcher of shed events: each acts once, holds until its end, and is passed to the rounds.

Invariants:

* An event is on disk before it acts, and its outcome after. A process that dies in between acts again after its
  restart, with the same rungs. The same event twice changes nothing.
* A wall clock that is set, or was wrong for a while, ends and forgets nothing: see `event_clock`. An event that was
  ended by a time that turns out not to have come is in force again.
* The highest modification of an event counts, in whatever order, by whichever way and how often they come, also
  across restarts. Of one modification the first counts, except that its cancellation counts over it. A cancellation is
  remembered for as long as the event could still be sent again.
* A state file that cannot be read is set aside with an alarm; the limits in the events file stay as they are.
* No event waits long behind another: one that is due interrupts the waiting of an earlier one (`must_yield`), which
  goes on after it. One that was changed or cancelled while it waited acts as it is then.
* A defect in acting on one event is an alarm and a problem of that event; it is tried again like a failure.
* While events are active, the lowest limit of all of them holds: no event raises what another one lowered. Each keeps
  its own limit, which holds again alone after the lower one of another event has ended.
* Failures (an unreachable store, nodes that do not acknowledge) are retried with growing intervals. A full disk does
  not keep an event from acting.
* Rounds read the events file (`events` in site.toml), so that plans and leases keep the limit until the event ends and
  rise afterwards by the site's ramp. A cancelled event ends at that moment and is ramped the same way. Events of others
  in that file stay, also those of after the start; a file that cannot be read is not written over.
"""

import math
import threading
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Literal

import msgspec

from powerhall.runtime.errors import ConfigError, PowerhallError, Rejected
from powerhall.runtime.files import replace_file
from powerhall.runtime.log import Log
from powerhall.runtime.settings import read_json
from powerhall_optimizer.shed.event_clock import SKEW_S, EventClock, EventTimes, boot_s
from powerhall_optimizer.shed.shedder import Outcome
from powerhall_optimizer.shed.signals import LONGEST_S, Reduction, Signal

__all__ = ["Act", "EventManager", "ShedEvent"]

_KEPT_AFTER_S = 86_400.0
_CANCELLED_S = 2 * LONGEST_S
"""An event begins within the longest time and lasts as long at most: after both its signal is refused anyway."""
_MOST_KNOWN = 1000
_SAVE_AGAIN_S = 5.0
_AGAIN_S = 10.0
_MOST_TRIES = 6
_PATIENCE = 0.25
"""Part of its own deadline for which an event lets an earlier one wait for confirmations or for a step of a ramp."""

Act = Callable[[float | None, Reduction | None, float, float], Outcome]
"""Act on (limit in W or None, reduction or None, end, within): returns the outcome; may raise PowerhallError."""


class ShedEvent(msgspec.Struct, forbid_unknown_fields=True):
    """One event with its state; `limit_w` is its own limit, which for a reduction is fixed when it acts."""

    event_id: str
    modification: int
    start_s: float
    end_s: float
    limit_w: float | None
    share: float
    within_s: float
    taken_s: float
    state: Literal["announced", "active", "ended", "cancelled"] = "announced"
    outcome: Outcome | None = None
    problem: str = ""
    reduce_w: float = 0.0


class EventManager:
    """Receives signals from any thread; `tick` starts and ends events and is called at least twice a second."""

    def __init__(
        self,
        state: Path,
        events: Path | None,
        act: Act,
        log: Log,
        clock: Callable[[], float] = time.time,
        *,
        steady: Callable[[], float] = boot_s,
    ) -> None:
        """`state` is the state file, `events` the events file of site.toml (None: rounds get no events).

        `clock` is the wall clock; `steady` counts seconds and is never set.
        """
        self._state, self._events, self._act, self._log, self._steady = state, events, act, log, steady
        self._clock = EventClock(state.with_name(f"{state.name}.clock"), log, clock, steady)
        self._lock = threading.Lock()
        self._acting = threading.Lock()
        self._acts_on: ShedEvent | None = None
        self._gives_way = False
        self._tries: dict[str, tuple[int, float]] = {}
        self._unsaved_s: float | None = None
        self._known = self._read_state(clock())
        self._own: set[str] = set()
        """Ids of all events that were ever in the events file through this service."""
        if events is not None and events.suffix != ".json":
            raise ConfigError(f"shed: --events: {str(events)!r}: must end in .json")
        try:
            self._write()
        except ConfigError:
            raise
        except Rejected as error:  # an events file that a person has damaged, and will mend
            self._not_kept(error)

    def _read_state(self, at_s: float) -> dict[str, ShedEvent]:
        """Read the events of an earlier process; a file that is damaged is set aside, so that the service starts."""
        if not self._state.exists():
            return {}
        try:
            return read_json(self._state, dict[str, ShedEvent])
        except Rejected as error:
            aside = self._state.with_name(f"{self._state.name}.damaged-{int(at_s)}")
            self._log.error("shed_state_damaged", detail=error, kept_as=aside)
            try:
                self._state.replace(aside)
            except OSError as failed:
                raise ConfigError(f"{self._state}: damaged, and cannot be set aside: {failed.strerror}") from None
            return {}

    def now_s(self) -> float:
        """Return the time as events count it, in s since 1970: the wall clock's while nothing contradicts it."""
        return self._clock.read().now_s

    @property
    def clock_problem(self) -> str:
        """One line while the wall clock is not believed, else ""."""
        return self._clock.problem

    @property
    def is_saved(self) -> bool:
        """False while the newest state is in memory alone: the disk refused it, or the events file cannot be read."""
        return self._unsaved_s is None

    def receive(self, signal: Signal) -> ShedEvent:
        """Register a new event, or a higher modification; ignore anything else. Too many events raise Rejected."""
        now_s = self.now_s()
        with self._lock:
            old = self._known.get(signal.event_id)
            if old is not None and not _is_news(old, signal):
                return _copy(old)
            known = _storable(_changed(old, signal, now_s))
            if old is None and len(self._known) >= _MOST_KNOWN:
                self._forget_one()
            self._known[signal.event_id] = known
            self._tries.pop(signal.event_id, None)
            self._save()
            times = {"start_s": int(known.start_s), "end_s": int(known.end_s)}
            self._log.info("shed_event", id=known.event_id, state=known.state, **times)
            return _copy(known)

    def _forget_one(self) -> None:
        over = [known for known in self._known.values() if known.state in ("ended", "cancelled")]
        if not over:
            raise Rejected(f"{len(self._known)} events are announced or active: no more can be registered")
        del self._known[min(over, key=lambda known: (known.state == "cancelled", known.end_s)).event_id]

    def events(self) -> list[ShedEvent]:
        """Return all events, the newest first."""
        with self._lock:
            return [_copy(known) for known in sorted(self._known.values(), key=lambda k: -k.taken_s)]

    def event(self, event_id: str) -> ShedEvent | None:
        """Return one event."""
        with self._lock:
            found = self._known.get(event_id)
            return None if found is None else _copy(found)

    def tick(self) -> None:
        """End events that are over, drop old ones, and act on those that are due."""
        doubted = self.clock_problem
        now, at_s = self._clock.read(), self._steady()
        with self._lock:
            if self.clock_problem != doubted:
                self._tries.clear()  # what failed by a wrong clock is tried again by a right one
            for known in list(self._known.values()):
                self._age(known, now)
            if self._unsaved_s is not None and at_s - self._unsaved_s >= _SAVE_AGAIN_S:
                self._save()
            due = [known.event_id for known in self._known.values() if self._is_due(known, now, at_s)]
        for event_id in due:
            self._perform(event_id)

    def must_yield(self) -> bool:
        """Return whether the event that is acted on now has to give way: it was changed, or another one is in need."""
        now, at_s = self._clock.read(), self._steady()
        with self._lock:
            acts_on = self._acts_on
            if acts_on is None:
                return False
            others = (known for known in self._known.values() if known.event_id != acts_on.event_id)
            is_changed = _is_changed(self._known.get(acts_on.event_id), acts_on)
            self._gives_way = is_changed or any(self._is_in_need(known, now, at_s) for known in others)
            return self._gives_way

    def _is_in_need(self, known: ShedEvent, now: EventTimes, at_s: float) -> bool:
        """Return whether an event has been due for a good part of its deadline."""
        if not self._is_due(known, now, at_s):
            return False
        tries, tried_s = self._tries.get(known.event_id, (0, 0.0))
        waits_s = at_s - tried_s - _pause_s(tries) if tries else now.starts_s - max(known.start_s, known.taken_s)
        return waits_s > _PATIENCE * known.within_s

    def _age(self, known: ShedEvent, now: EventTimes) -> None:
        """End an event that is over, forget an old one, and take back an end that has not come."""
        if known.state in ("announced", "active") and known.end_s <= now.ends_s:
            known.state = "ended"
            self._log.info("shed_end", id=known.event_id)
            self._save()
        elif known.state == "ended" and known.end_s > now.over_s + SKEW_S:
            known.state = "announced" if known.outcome is None else "active"
            self._log.warning("shed_again", id=known.event_id, detail="its end has not come: the clock was set back")
            self._save()
        kept_s = _KEPT_AFTER_S + (_CANCELLED_S if known.state == "cancelled" else 0.0)
        if now.may_forget and max(known.end_s, known.taken_s) + kept_s < now.ends_s:
            del self._known[known.event_id]
            self._tries.pop(known.event_id, None)
            self._save()

    def _is_due(self, known: ShedEvent, now: EventTimes, at_s: float) -> bool:
        if known.start_s > now.starts_s:
            return False
        failed = known.outcome is not None and known.outcome.problems
        if known.state != "announced" and not (known.state == "active" and failed):
            return False
        tries, tried_s = self._tries.get(known.event_id, (0, 0.0))
        is_time = tries == 0 or at_s - tried_s >= _pause_s(tries)
        return known.end_s > now.over_s and tries < _MOST_TRIES and is_time

    def _perform(self, event_id: str) -> None:
        """Act on one event outside the lock, so that status requests and signals are not blocked."""
        with self._acting:
            with self._lock:
                found, at_s = self._known.get(event_id), self._steady()
                if found is None or not self._is_due(found, self._clock.read(), at_s):
                    return  # changed or cancelled while another one acted
                known = _copy(found)
                self._acts_on, self._gives_way = known, False
                tries = self._tries.get(event_id, (0, 0.0))[0] + 1
                self._tries[event_id] = tries, at_s
            outcome, problem = None, ""
            try:
                less = Reduction(known.share, known.reduce_w) if known.limit_w is None else None
                outcome = self._act(self._lowest_w(known), less, known.end_s, known.within_s)
            except PowerhallError as error:
                problem = str(error)
            except Exception as error:  # noqa: BLE001 - a defect of one event must not end the service
                problem = f"defect: {error!r}"
            with self._lock:
                now = self._known.get(known.event_id)
                if now is None or _is_changed(now, known):
                    return
                now.problem = problem
                if self._gives_way:  # its next try is not one more
                    self._tries[event_id] = max(1, tries - 1), self._steady()
                if outcome is not None:
                    now.state, now.outcome = "active", outcome
                    if now.limit_w is None:
                        now.limit_w = outcome.target_w if outcome.own_w is None else outcome.own_w
                self._save()
            if outcome is None:
                self._log.error("shed_failed", id=known.event_id, detail=problem)
            else:
                fields = msgspec.to_builtins(outcome)
                (self._log.info if outcome.met else self._log.error)("shed", id=known.event_id, **fields)

    def _lowest_w(self, known: ShedEvent) -> float | None:
        """Return the lowest limit of this event and of all that are active."""
        limits = [known.limit_w] if known.limit_w is not None else []
        with self._lock:
            limits += [k.limit_w for k in self._known.values() if k.state == "active" and k.limit_w is not None]
        return min(limits, default=None)

    def _save(self) -> None:
        """Write both files; a write failure is logged and does not stop a shed."""
        self._unsaved_s = None
        try:
            self._write()
        except Rejected as error:
            self._not_kept(error)

    def _not_kept(self, error: Rejected) -> None:
        self._unsaved_s = self._steady()
        self._log.error("shed_not_kept", detail=error)

    def _write(self) -> None:
        """Write the state file, then the events file for the rounds, each atomically.

        Others may have written into the events file since; one that cannot be read stays as it is.
        """
        _replace(self._state, msgspec.json.encode(self._known))
        if self._events is not None:
            self._own |= self._known.keys()
            rows = [row for known in self._known.values() if (row := _row(known)) is not None]
            others = _others(self._events, self._own)
            _replace(self._events, msgspec.json.format(msgspec.json.encode([*others, *rows])))


def _pause_s(tries: int) -> float:
    """Return the time from one try to the next."""
    return _AGAIN_S * 2.0 ** (tries - 1)


def _is_changed(now: ShedEvent | None, known: ShedEvent) -> bool:
    """Return whether an event was changed, cancelled or forgotten since `known` was copied of it."""
    return now is None or now.modification != known.modification or now.state not in ("announced", "active")


def _is_news(old: ShedEvent, signal: Signal) -> bool:
    if signal.modification != old.modification:
        return signal.modification > old.modification
    return signal.is_cancelled and old.state in ("announced", "active")


def _changed(old: ShedEvent | None, signal: Signal, now_s: float) -> ShedEvent:
    """Return the event after this signal."""
    if not signal.is_cancelled:
        return _event(signal, now_s)
    known = _event(signal, now_s) if old is None else _copy(old)
    known.modification = signal.modification
    if known.state in ("announced", "active"):
        known.state, known.end_s = "cancelled", min(known.end_s, now_s)
    return known


def _storable(known: ShedEvent) -> ShedEvent:
    """Return the event as the state file gives it back; one that the file cannot hold raises Rejected."""
    try:
        return msgspec.json.decode(msgspec.json.encode(known), type=ShedEvent)
    except (msgspec.MsgspecError, ValueError, OverflowError) as error:
        raise Rejected(f"event {known.event_id}: cannot be kept: {error}") from None


def _event(signal: Signal, now_s: float) -> ShedEvent:
    s = signal
    times = s.start_s, s.end_s
    return ShedEvent(s.event_id, s.modification, *times, s.limit_w, s.share, s.within_s, now_s, reduce_w=s.reduce_w)


def _copy(known: ShedEvent) -> ShedEvent:
    return msgspec.structs.replace(known)


def _row(known: ShedEvent) -> dict[str, object] | None:
    """Return an event as site.toml's events file has it; None as long as it has no limit, or no time at all."""
    if known.end_s <= known.start_s or known.limit_w is None:
        return None
    limit = f"{math.floor(known.limit_w)} W"  # never above the event's own
    return {"event_id": known.event_id, "start": known.start_s, "end": known.end_s, "power_limit": limit}


def _others(path: Path, own: Collection[str]) -> list[dict[str, object]]:
    """Return the events of the file that this service does not own, such as manual ones; they stay unchanged."""
    rows = read_json(path, list[dict[str, object]]) if path.exists() else []
    return [row for row in rows if str(row.get("event_id", "")) not in own]


def _replace(path: Path, body: bytes) -> None:
    try:
        replace_file(path, body, durable=True)
    except OSError as error:
        raise ConfigError(f"{path}: cannot write: {error.strerror}") from None
