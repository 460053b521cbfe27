"""This host's clock beside those of the store, of the nodes and of the last grant: leases must be valid by all of them.

A clock that is ahead would let leases run out that are still in force, and grant their power again. So the earliest of
the clocks decides what has run out, and a lease has to reach beyond the latest of them.

* The store's server tells its time with every answer. It decides where it agrees with this host.
* The ledger keeps this host's clock beside its time since boot: a step in between shows. It is forgotten once every
  lease from before the step has run out.
* Nodes write their reports and confirmations with their own clocks. The newest of them is as old as the time that it
  took to arrive; where nothing else confirms this host's clock, older ones count as a clock that is behind.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from powerhall.runtime.errors import PowerhallError
from powerhall.store import Query, Select, ServerClock, Store, what_answers
from powerhall_optimizer.leases import texts
from powerhall_optimizer.leases.ledger_file import ClockMark
from powerhall_optimizer.leases.spans import LONGEST_LEASE_S

__all__ = ["Clocks", "Host", "read_clocks"]

T = TypeVar("T")

_TOLERANCE_S = 3.0
"""The store's time comes in whole seconds, and clocks under NTP differ by far less."""
_REPORT_S = 60.0
"""A node reports every few seconds, a capper confirms every minute."""
_LOOK_S = 90_000.0
_DRIFT = 5e-4
"""A clock under NTP is slewed by at most this share of the time."""


@dataclass(frozen=True, slots=True)
class Host:
    """This host's clocks: wall clock, time since boot, and the name of the boot."""

    wall_s: float
    uptime_s: float
    boot: str

    @classmethod
    def now(cls, wall_s: float) -> "Host":
        """Read the clocks beside `wall_s`. Under a unit that hides /proc the boot has no name: see `_expected_s`."""
        try:
            uptime_s = float(Path("/proc/uptime").read_text(encoding="ascii").split()[0])
        except (OSError, ValueError, IndexError):
            uptime_s = time.clock_gettime(time.CLOCK_BOOTTIME)
        try:
            boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        except (OSError, ValueError):
            boot = ""
        return cls(wall_s, uptime_s, boot)

    @property
    def mark(self) -> ClockMark:
        """The clocks as the ledger keeps them."""
        return ClockMark(self.boot, self.wall_s, self.uptime_s)


@dataclass(frozen=True, slots=True)
class Clocks:
    """The earliest and the latest time that it may be, what is wrong, and how far this host's clock is ahead."""

    host: Host
    low_s: float
    high_s: float
    alarms: tuple[str, ...] = ()
    ahead_s: float = 0.0
    is_believed: bool = True
    """Nothing contradicts this host's clock: it may be remembered."""


def read_clocks(host: Host, mark: ClockMark | None, store: Store | None) -> Clocks:
    """Compare the clocks; one that cannot be read is left out and named in the alarms."""
    others: list[tuple[str, float]] = []
    alarms: list[str] = []
    server = _ask(lambda: _server_s(store), alarms)
    confirmed = server is not None and abs(host.wall_s - server) <= _TOLERANCE_S
    if server is not None and not confirmed:
        others.append(("the store", server))
        alarms.append(texts.clock_away("the store's", host.wall_s - server))
    expected = _expected_s(host, mark)
    if expected is not None:
        if abs(host.wall_s - expected) > _TOLERANCE_S + _DRIFT * abs(host.uptime_s - (mark.uptime_s if mark else 0.0)):
            alarms.append(texts.clock_stepped(host.wall_s - expected))
            if not confirmed:
                others.append(("the last grant", expected))
        elif server is None:
            confirmed = True
    reports = _ask(lambda: _reports_s(store, host.wall_s, alarms), alarms) or []
    _compare_reports(host.wall_s, reports, confirmed, others, alarms)
    times = [host.wall_s, *(time_s for _, time_s in others)]
    ahead_s = max((host.wall_s - time_s for _, time_s in others), key=abs, default=0.0)
    return Clocks(host, min(times), max(times), tuple(alarms), ahead_s, not others)


def _ask(question: Callable[[], T | None], alarms: list[str]) -> T | None:
    try:
        return question()
    except PowerhallError as error:
        alarms.append(str(error))
        return None


def _server_s(store: Store | None) -> float | None:
    time_s = store.server_time_s() if isinstance(store, ServerClock) else None
    return None if time_s is None else time_s + 0.5  # a whole second, cut off


def _expected_s(host: Host, mark: ClockMark | None) -> float | None:
    """Return the time that the last grant's clock would show now; None where nothing tells, or no longer matters.

    A boot without a name is taken for the same one while the time since boot has grown: after a boot that grew past it
    within the hour, a step may be seen that was none, and leases are shorter until that hour is over.
    """
    if mark is None or mark.boot != host.boot:
        return None
    passed_s = host.uptime_s - mark.uptime_s
    return mark.wall_s + passed_s if 0.0 <= passed_s <= LONGEST_LEASE_S else None


def _reports_s(store: Store | None, now_s: float, alarms: list[str]) -> list[float]:
    """Return the time of the newest report or confirmation of each node; a hall's silent store is an alarm."""
    if store is None:
        return []
    newest: dict[str, float] = {}
    silent: dict[str, str] = {}
    ask = what_answers(store, lambda hall, error: silent.update({hall: f"store of {hall or 'the site'}: {error}"}))
    for measurement, field in (("agent", "lag_s"), ("gpu_state", "up"), ("lease_confirmation", "sequence")):
        query = Query(measurement, (Select(field),), group_by=("node",), order="desc", limit=1)
        for row in ask(query, now_s - _LOOK_S, now_s + _LOOK_S):
            node = row.tags["node"]
            newest[node] = max(newest.get(node, 0.0), row.time_s)
    alarms += silent.values()
    return list(newest.values())


def _compare_reports(
    now_s: float, reports: Sequence[float], confirmed: bool, others: list[tuple[str, float]], alarms: list[str]
) -> None:
    """A majority ahead of this host says that it is behind; one node ahead says that the node's clock is wrong."""
    ahead = [time_s for time_s in reports if time_s > now_s + _TOLERANCE_S]
    if ahead and not confirmed and 2 * len(ahead) > len(reports):
        time_s = statistics.median(ahead)
        others.append(("the nodes", time_s))
        alarms.append(texts.clock_away("most nodes'", now_s - time_s))
    elif ahead:
        alarms.append(texts.nodes_ahead(len(ahead), len(reports), max(ahead) - now_s))
    past = [time_s for time_s in reports if time_s <= now_s + _TOLERANCE_S]
    if past and not ahead and not confirmed and now_s - max(past) > _REPORT_S:
        others.append(("the nodes", max(past)))
        alarms.append(texts.nodes_silent(now_s - max(past)))
