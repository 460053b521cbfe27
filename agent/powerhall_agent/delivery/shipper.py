"""The shipper of one output: takes batches from its spool, delivers them, and acknowledges the delivered ones.

Invariants:
* a batch is acknowledged only after the store took it, or after every line of it is delivered or kept aside;
* live lines go first: the backlog is sent only after a live delivery of the same cycle succeeded, and at most
  `backlog_factor` times as many points as are produced meanwhile;
* a cycle makes at most one live and one backlog request, and cycles are at least an interval apart, so that a site
  of agents never exceeds twice its normal request rate when a store comes back;
* after a failure the next try waits a random time between 0 and min(backoff_max, 2 * interval * 2^failures) (full
  jitter), which is never more often, on average, than the normal rate.
"""

import random
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from powerhall.runtime.errors import Rejected, Retryable
from powerhall.runtime.log import Log
from powerhall_agent.delivery.bisection import Bisection
from powerhall_agent.delivery.dead_letter import DeadLetters
from powerhall_agent.delivery.errors import ForeignAnswerError, StoreBusy, StoreFault
from powerhall_agent.delivery.outputs.base import Output
from powerhall_agent.delivery.refused_series import RefusedSeries, newest_ms
from powerhall_agent.delivery.spool import Batch, Spool
from powerhall_agent.settings.agent_settings import ShipSettings

__all__ = ["ShipStats", "Shipper"]

_SUSPECT_REQUESTS = 32
"""Requests that one cycle spends on finding refused lines."""
_SUSPECTS = 4
_FAULTS = 4
"""Failures of the store itself (500) in a row after which a line of the batch is suspected."""
_AS_BEFORE = "not sent: the store refuses these fields of this series; they are tried again within ten minutes"
_HASTE = 0.9
"""Share of the interval after which new lines may go. Lines also arrive once per interval: with a share of 1, a
delivery that was late once would stay late; with 0.9 it catches up by a tenth of the interval each time."""
_MIN_RATE = 20.0
"""Lowest rate of points per second for the allowance of the backlog, so that it drains without live data."""
_ALLOWANCE_S = 30.0
_AWAY, _FOREIGN = "store_unreachable", "store_answer_foreign"


@dataclass(slots=True)
class ShipStats:
    """Counters since the start, and the outcome of the last try."""

    sent_points: int = 0
    retries: int = 0
    requests: int = 0
    foreign_answers: int = 0
    """Answers of something other than the store."""
    newest_ms: int = 0
    """Timestamp of the newest line that was acknowledged, 0 before the first."""
    problem: str = ""
    """Why the last try failed, "" when it succeeded."""


class Shipper:
    """Delivers one spool to one output; `step` is one cycle, `run` repeats it until told to stop."""

    def __init__(
        self,
        spool: Spool,
        output: Output,
        dead_letters: DeadLetters,
        settings: ShipSettings,
        log: Log,
        *,
        name: str = "store",
        clock: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
    ) -> None:
        self.spool, self.output, self.name = spool, output, name
        self.stats = ShipStats()
        self._dead_letters, self._settings, self._log, self._clock = dead_letters, settings, log, clock
        self._rng = rng or random.Random()  # noqa: S311 - jitter
        self._suspects: deque[Bisection] = deque()
        self._refused_series = RefusedSeries()
        self._failures = self._faults = 0
        self._allowance = 0.0
        self._points_per_s = 0.0
        self._last_s = clock()
        self._busy_since: float | None = None
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._deadline_s = 0.0

    @property
    def stopping(self) -> bool:
        """True from `stop` on."""
        return self._stop.is_set()

    def step(self) -> float:
        """Run one cycle; return after how many seconds the next one is due."""
        try:
            took_live = self._ship_live()
            self._ship_suspects()
            self._ship_backlog(took_live)
        except Retryable as error:
            return self._failed(error)
        if self._failures:
            for event in (_AWAY, _FOREIGN):
                self._log.forget(event, key=self.name)
            self._log.info("store_back", output=self.name, failures=self._failures)
        self._failures, self.stats.problem = 0, ""
        return self._settings.interval_s

    def run(self) -> None:
        """Repeat cycles until `stop`, then flush; a cycle begins when lines come in, at most once per interval."""
        delay_s = self._rng.uniform(0.0, self._settings.interval_s)
        while not self._stop.wait(max(0.0, delay_s)):
            begun_s = self._clock()
            delay_s = self.step()
            if self._failures:
                self.spool.pack_one()
                continue
            if not self.spool.backlog_points():
                self._wake.wait(10 * self._settings.interval_s)
                self._wake.clear()
            delay_s = _HASTE * delay_s - (self._clock() - begun_s)
        self.flush(self._deadline_s)

    def notify(self) -> None:
        """Wake the shipper: new lines were appended."""
        self._wake.set()

    def stop(self, deadline_s: float) -> None:
        """End `run` after the cycle under way and a last delivery, before the clock reaches `deadline_s`."""
        self._deadline_s = deadline_s
        self._stop.set()
        self._wake.set()

    def flush(self, deadline_s: float) -> bool:
        """Deliver live lines before the clock reaches `deadline_s`; False when something is left."""
        while self._clock() < deadline_s:
            batch = self.spool.live(self._settings.batch_bytes)
            if batch is None:
                return True
            try:
                self._deliver(batch)
            except Retryable as error:
                self._failed(error)
                return False
        return False

    def enforce_deadline(self) -> None:
        """Cut a request that exceeds its timeout (called from another thread)."""
        since = self._busy_since
        if since is not None and self._clock() - since > 1.5 * self._settings.timeout_s:
            self._busy_since = None
            self.output.cut()

    def _ship_live(self) -> bool:
        if len(self._suspects) >= _SUSPECTS:
            return False
        batch = self.spool.live(self._settings.batch_bytes)
        if batch is None:
            return False
        now_s = self._clock()
        self._learn_rate(batch.points, now_s)
        self._deliver(batch)
        return True

    def _learn_rate(self, points: int, now_s: float) -> None:
        passed_s = max(now_s - self._last_s, 1e-3)
        self._last_s = now_s
        if not self._failures:
            self._points_per_s += 0.2 * (points / passed_s - self._points_per_s)
        rate = self._settings.backlog_factor * max(self._points_per_s, _MIN_RATE)
        self._allowance = min(self._allowance + rate * min(passed_s, self._settings.interval_s), rate * _ALLOWANCE_S)

    def _ship_suspects(self) -> None:
        for suspect in self._suspects:
            suspect.cycle += 1
        for _ in range(_SUSPECT_REQUESTS):
            if not self._suspects:
                return
            first = self._suspects[0]
            if not first.done:
                try:
                    first.step(self._send)
                except ForeignAnswerError:
                    if first.shows_nothing:  # it goes again, with newer lines
                        self._suspects.popleft()
                        self.spool.release(first.batch)
                    raise
            if first.done:
                self._suspects.popleft()
                self._acknowledge(first.batch)
                held = self._refused_series.learn(first.delivered, first.refused, self._clock())
                if held:
                    self._log.warning("series_held_back", key=self.name, output=self.name, series=held)

    def _ship_backlog(self, took_live: bool) -> None:
        waiting = self.spool.backlog_points()
        if not waiting or self._suspects:
            return
        if not took_live:
            self._learn_rate(0, self._clock())
        if self._allowance < waiting and self._allowance < self._full_allowance():
            return
        batch = self.spool.backlog(self._batch_limit())
        if batch is not None:
            self._allowance -= batch.points
            self._deliver(batch)

    def _full_allowance(self) -> float:
        return self._settings.backlog_factor * max(self._points_per_s, _MIN_RATE) * _ALLOWANCE_S

    def _batch_limit(self) -> int:
        """Bytes of segments that the allowance covers, at about 200 bytes a point."""
        return int(min(self._settings.batch_bytes, 200 * max(self._allowance, 0.0)))

    def _deliver(self, batch: Batch) -> None:
        """Send a batch without the lines of series that are held back, which are set aside once the others are sent."""
        lines, held = self._refused_series.split(batch.lines, self._clock())
        try:
            if lines:
                self._send(lines)
        except Rejected as refusal:
            self._suspect(batch, lines, refusal)
        except StoreFault as fault:
            self._faults += 1
            if self._faults <= _FAULTS or lines.count(b"\n") < 2:
                self.spool.release(batch)
                raise
            self._suspect(batch, lines, fault)
        except BaseException:
            self.spool.release(batch)
            raise
        else:
            self._acknowledge(batch)
            self._refused_series.delivered(lines)
        if held:
            self._dead_letters.add(held, _AS_BEFORE)

    def _suspect(self, batch: Batch, lines: bytes, why: Rejected | StoreFault) -> None:
        self._suspects.append(Bisection(batch, lines, why, self._dead_letters.add))

    def _acknowledge(self, batch: Batch) -> None:
        self.spool.ack(batch)
        self.stats.sent_points += batch.points
        self.stats.newest_ms = max(self.stats.newest_ms, newest_ms(batch.lines))

    def _send(self, lines: bytes) -> None:
        self.stats.requests += 1
        self._busy_since = self._clock()
        try:
            self.output.send(lines)
            self._faults = 0
        finally:
            self._busy_since = None

    def _failed(self, error: Retryable) -> float:
        self._failures += 1
        self.stats.retries += 1
        self.stats.problem = str(error)
        is_foreign = isinstance(error, ForeignAnswerError)
        self.stats.foreign_answers += is_foreign
        self._log.warning(_FOREIGN if is_foreign else _AWAY, key=self.name, output=self.name, detail=error)
        highest_s = min(self._settings.backoff_max_s, 2 * self._settings.interval_s * 2.0 ** min(self._failures, 30))
        asked_s = error.after_s * self._rng.uniform(1.0, 1.5) if isinstance(error, StoreBusy) else 0.0
        return max(self._rng.uniform(0.0, highest_s), asked_s)
