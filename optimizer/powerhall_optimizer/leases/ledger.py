"""The lease ledger grants node caps so that no zone can exceed its budget, whatever happens to leases in transit.

Invariants:

* A node's exposure is the highest cap that it may hold now or later: its safe cap, or the cap of any lease that was
  ever sent to it and has neither run out nor been replaced by a lease that the node confirmed.
* For every zone, at every moment until the last lease runs out, the sum of exposures stays within the zone's budget.
  So a lease that is lost, late, repeated or overtaken changes nothing: whatever subset arrives was counted.
* A lower cap frees nothing until the node confirms it or the higher lease runs out. A confirmation states that nothing
  older than its lease can come into force any more, which stays true: late, repeated or overtaken ones free too little,
  never too much. One of a lease that was never granted is ignored.
* The ledger is written to disk before a lease leaves; after a crash it counts what may have left. Several processes may
  use one ledger (a round's leases and an emergency shed): each change reads it anew under a lock.
* Sequences rise with time, so that a ledger that was lost does not lock itself out of every capper.

A node's clock may differ by `clock_skew_s`; a lease counts that much longer than its expiry.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path

import msgspec

from powerhall.runtime.errors import ConfigError, Rejected, Retryable
from powerhall.runtime.file_lock import FileLock, LockHeld, lock_path
from powerhall.runtime.files import replace_file
from powerhall.runtime.settings import read_json
from powerhall.units import format_power

__all__ = ["Budget", "Ledger", "LedgerEntry"]


_LOCK_WITHIN_S = 5.0


class LedgerEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A lease that may still be in force on a node."""

    sequence: int
    cap_w: int
    expires_s: float


class _State(msgspec.Struct, forbid_unknown_fields=True):
    sequence: int = 0
    entries: dict[str, list[LedgerEntry]] = {}


@dataclass(frozen=True, slots=True)
class Budget:
    """Limit on the draw of a zone while the leases to be granted can be in force, and the nodes in it.

    `weights` (one per node, 1 where empty) are the watts of this budget per watt of the node: the share that
    goes to liquid, or a watt at the meter per watt of IT.
    """

    zone: str
    budget_w: float
    nodes: tuple[str, ...]
    weights: tuple[float, ...] = ()

    def shares(self) -> Iterator[tuple[str, float]]:
        """Yield each node with its weight."""
        return zip(self.nodes, self.weights or repeat(1.0), strict=bool(self.weights))

    def load_w(self, caps_w: Mapping[str, int]) -> float:
        """Return the part of the budget that these node caps use, in W."""
        return sum(caps_w[node] * weight for node, weight in self.shares())


class Ledger:
    """Grants caps within budgets and keeps the caps that each node may still hold."""

    def __init__(
        self,
        safe_caps_w: Mapping[str, int],
        path: Path | None = None,
        *,
        clock_skew_s: float = 1.0,
        dry_run: bool = False,
    ) -> None:
        """`safe_caps_w` names every node with its cap without a lease; `path` keeps the ledger over restarts.

        A dry run reads the ledger and never writes it.
        """
        self.safe_caps_w = dict(safe_caps_w)
        self.path = path
        self.clock_skew_s = clock_skew_s
        self._keep = dry_run
        self._state = read_json(path, _State) if path is not None and path.exists() else _State()

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
        """Return the highest cap in W that the node may hold at `now_s` or later, as of the last change."""
        held = self._state.entries.get(node, ())
        alive = (entry.cap_w for entry in held if entry.expires_s + self.clock_skew_s > now_s)
        return max(self.safe_caps_w[node], *alive, 0)

    def grant(
        self, wanted_w: Mapping[str, int], budgets: Sequence[Budget], now_s: float, expires_s: float
    ) -> dict[str, LedgerEntry]:
        """Grant caps until `expires_s`: to each node its request, or as much as every zone above it has left.

        Nodes come in the order of `wanted_w`: put the most valuable first. A cap may lie below the safe cap, but counts
        as the safe cap. Budgets must be the lowest until the leases have run out. The ledger is on disk afterwards.
        """
        self.check(budgets)
        with self._alone(now_s):
            exposure = {node: self.exposure_w(node, now_s) for node in self.safe_caps_w}
            zones: dict[str, list[tuple[int, float]]] = {}
            left = [budget.budget_w - budget.load_w(exposure) for budget in budgets]
            for index, budget in enumerate(budgets):
                for node, weight in budget.shares():
                    if weight > 0:
                        zones.setdefault(node, []).append((index, weight))
            caps: dict[str, int] = {}
            for node, want_w in wanted_w.items():
                room = min((left[i] / weight for i, weight in zones.get(node, ())), default=float(want_w))
                # A budget below the caps already granted leaves nothing; no cap may rise before it recovers.
                caps[node] = min(want_w, exposure[node] + max(0, int(room)))
                raised = max(0, caps[node] - exposure[node])
                for i, weight in zones.get(node, ()):
                    left[i] -= raised * weight
                exposure[node] += raised
            return self._enter(caps, now_s, expires_s)

    def lower(self, wanted_w: Mapping[str, int], now_s: float, expires_s: float) -> dict[str, LedgerEntry]:
        """Grant caps that raise no node's exposure, whatever the budgets are: each node gets the lower of both."""
        with self._alone(now_s):
            caps = {node: min(want_w, self.exposure_w(node, now_s)) for node, want_w in wanted_w.items()}
            return self._enter(caps, now_s, expires_s)

    def acknowledge(self, acknowledged: Mapping[str, int], now_s: float) -> int:
        """Drop the leases older than the acknowledged sequence of each node; return how many."""
        gone = 0
        with self._alone(now_s):
            for node, sequence in acknowledged.items():
                held = self._state.entries.get(node, [])
                if held and sequence <= self._state.sequence:
                    self._state.entries[node] = [entry for entry in held if entry.sequence >= sequence]
                    gone += len(held) - len(self._state.entries[node])
            if gone:
                self._save()
        return gone

    def _enter(self, caps_w: Mapping[str, int], now_s: float, expires_s: float) -> dict[str, LedgerEntry]:
        """Number the caps and put them on disk."""
        granted = {}
        self._state.sequence = max(self._state.sequence, int(now_s * 1000))
        for node, cap_w in caps_w.items():
            self._state.sequence += 1
            granted[node] = LedgerEntry(self._state.sequence, cap_w, expires_s)
            held = self._state.entries.get(node, [])  # an older lease that is lower and ends sooner adds nothing
            above = [entry for entry in held if entry.cap_w > cap_w or entry.expires_s > expires_s]
            self._state.entries[node] = [*above, granted[node]]
        self._save()
        return granted

    @contextmanager
    def _alone(self, now_s: float) -> Iterator[None]:
        """Read the ledger as other processes left it, and let none of them change it meanwhile."""
        if self.path is None or self._keep:
            self._forget(now_s)
            yield
            return
        try:
            lock = FileLock(lock_path(self.path), wait_s=_LOCK_WITHIN_S)
        except LockHeld:
            raise Retryable(f"{self.path}: another process has held it for {_LOCK_WITHIN_S:g} s") from None
        except OSError as error:
            raise ConfigError(f"{self.path}: cannot lock: {error.strerror}") from None
        with lock:
            if self.path.exists():
                self._state = read_json(self.path, _State)
            self._forget(now_s)
            yield

    def _forget(self, now_s: float) -> None:
        for node, held in list(self._state.entries.items()):
            alive = [entry for entry in held if entry.expires_s + self.clock_skew_s > now_s]
            if alive:
                self._state.entries[node] = alive
            else:
                del self._state.entries[node]

    def _save(self) -> None:
        if self.path is None or self._keep:
            return
        replace_file(self.path, msgspec.json.encode(self._state), durable=True)  # before a lease leaves
