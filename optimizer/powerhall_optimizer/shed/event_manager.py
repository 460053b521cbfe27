"""Registry and dispatcher of shed events: each acts once, holds until its end, and is passed to the rounds.

Invariants:

* An event is on disk before it acts, and its outcome after. A process that dies in between acts again after its
  restart, with the same rungs. The same event twice changes nothing.
* While events are active, the lowest limit of all of them holds: no event raises what another one lowered.
* Failures (an unreachable store, nodes that do not acknowledge) are retried with growing intervals. A full disk does
  not keep an event from acting.
* Rounds read the events file (`events` in site.toml), so that plans and leases keep the limit until the event ends and
  rise afterwards by the site's ramp. A cancelled event ends at that moment and is ramped the same way.
"""

import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

import msgspec

from powerhall.runtime.errors import ConfigError, PowerhallError
from powerhall.runtime.files import replace_file
from powerhall.runtime.log import Log
from powerhall.runtime.settings import read_json
from powerhall_optimizer.shed.shedder import Outcome
from powerhall_optimizer.shed.signals import Signal

__all__ = ["Act", "EventManager", "ShedEvent"]

_KEPT_AFTER_S = 86_400.0
_AGAIN_S = 10.0
_MOST_TRIES = 6

Act = Callable[[float | None, float, float, float], Outcome]
"""Act on (limit in W or None, share, end, within): returns the outcome; may raise PowerhallError."""


class ShedEvent(msgspec.Struct, forbid_unknown_fields=True):
    """One event with its state; `limit_w` is fixed when it acts."""

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


class EventManager:
    """Receives signals from any thread; `tick` starts and ends events and is called at least twice a second."""

    def __init__(
        self, state: Path, events: Path | None, act: Act, log: Log, clock: Callable[[], float] = time.time
    ) -> None:
        """`state` is the state file, `events` the events file of site.toml (None: rounds get no events)."""
        self._state, self._events, self._act, self._log, self._clock = state, events, act, log, clock
        self._lock = threading.Lock()
        self._acting = threading.Lock()
        self._tries: dict[str, tuple[int, float]] = {}
        self._known: dict[str, ShedEvent] = read_json(state, dict[str, ShedEvent]) if state.exists() else {}
        self._others = [] if events is None else _others(events, self._known)
        self._write()

    def receive(self, signal: Signal) -> ShedEvent:
        """Register a new event, or a change with a higher modification; ignore anything else."""
        now_s = self._clock()
        with self._lock:
            old = self._known.get(signal.event_id)
            if old is not None and not self._is_news(old, signal):
                return _copy(old)
            if signal.is_cancelled:
                known = old or _event(signal, now_s)
                known.modification = max(known.modification, signal.modification)
                known.state, known.end_s = "cancelled", min(known.end_s, now_s)
            else:
                known = _event(signal, now_s)
            self._known[signal.event_id] = known
            self._tries.pop(signal.event_id, None)
            self._save()
            self._log.info("shed_event", id=known.event_id, state=known.state, start_s=known.start_s, end_s=known.end_s)
            return _copy(known)

    @staticmethod
    def _is_news(old: ShedEvent, signal: Signal) -> bool:
        if signal.is_cancelled:
            return old.state in ("announced", "active")
        return signal.modification > old.modification

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
        now_s = self._clock()
        with self._lock:
            for known in list(self._known.values()):
                if known.state in ("announced", "active") and known.end_s <= now_s:
                    known.state = "ended"
                    self._log.info("shed_end", id=known.event_id)
                    self._save()
                if known.end_s + _KEPT_AFTER_S < now_s:
                    del self._known[known.event_id]
                    self._save()
            due = [k for k in self._known.values() if k.start_s <= now_s and self._is_due(k, now_s)]
        for known in due:
            self._perform(_copy(known))

    def _is_due(self, known: ShedEvent, now_s: float) -> bool:
        failed = known.outcome is not None and known.outcome.problems
        if known.state != "announced" and not (known.state == "active" and failed):
            return False
        tries, at_s = self._tries.get(known.event_id, (0, 0.0))
        return tries < _MOST_TRIES and (tries == 0 or now_s - at_s >= _AGAIN_S * 2.0 ** (tries - 1))

    def _perform(self, known: ShedEvent) -> None:
        """Act on one event outside the lock, so that status requests and signals are not blocked."""
        with self._acting:
            self._tries[known.event_id] = self._tries.get(known.event_id, (0, 0.0))[0] + 1, self._clock()
            outcome, problem = None, ""
            try:
                outcome = self._act(
                    self._lowest_w(known), known.share if known.limit_w is None else 0.0, known.end_s, known.within_s
                )
            except PowerhallError as error:
                problem = str(error)
            with self._lock:
                now = self._known.get(known.event_id)
                if now is None or now.modification != known.modification or now.state not in ("announced", "active"):
                    return  # changed or cancelled meanwhile
                now.problem = problem
                if outcome is not None:
                    now.state, now.outcome, now.limit_w = "active", outcome, outcome.target_w
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
        try:
            self._write()
        except ConfigError as error:
            self._log.error("shed_not_kept", detail=error)

    def _write(self) -> None:
        """Write the state file, then the events file for the rounds, each atomically."""
        _replace(self._state, msgspec.json.encode(self._known))
        if self._events is not None:
            rows = [row for known in self._known.values() if (row := _row(known)) is not None]
            _replace(self._events, msgspec.json.format(msgspec.json.encode([*self._others, *rows])))


def _event(signal: Signal, now_s: float) -> ShedEvent:
    s = signal
    return ShedEvent(s.event_id, s.modification, s.start_s, s.end_s, s.limit_w, s.share, s.within_s, now_s)


def _copy(known: ShedEvent) -> ShedEvent:
    return msgspec.structs.replace(known)


def _row(known: ShedEvent) -> dict[str, object] | None:
    """Return an event as site.toml's events file has it; None as long as it has no limit, or no time at all."""
    if known.end_s <= known.start_s or known.limit_w is None:
        return None
    limit = f"{known.limit_w:.0f} W"
    return {"event_id": known.event_id, "start": known.start_s, "end": known.end_s, "power_limit": limit}


def _others(path: Path, known: Mapping[str, ShedEvent]) -> list[dict[str, object]]:
    """Return the events of the file that this service does not own, such as manual ones; they stay unchanged."""
    if path.suffix != ".json":
        raise ConfigError(f"shed: --events: {str(path)!r}: must end in .json")
    rows = read_json(path, list[dict[str, object]]) if path.exists() else []
    return [row for row in rows if str(row.get("event_id", "")) not in known]


def _replace(path: Path, body: bytes) -> None:
    try:
        replace_file(path, body, durable=True)
    except OSError as error:
        raise ConfigError(f"{path}: cannot write: {error.strerror}") from None
