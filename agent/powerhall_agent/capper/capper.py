"""The decisions of the capper, without sockets and clocks: which caps are in force, and why.

Invariants:

* The safe caps are in force before anything is read: neither memory nor key can keep a GPU from its safe cap.
* A cap is set only from a lease that is signed for this node, not older than any lease before, not run out, not issued
  in the future, and within the range of every GPU that answers: all of it is checked before the first GPU is touched.
  The newest lease may be offered again after the agent was silent or the capper restarted; it ends when it would have.
  After a boot it may not: how long the host was off is not known.
* Without a lease in force, without a message from the agent for `agent_timeout_s`, or while a GPU that answers holds
  more than it should, the safe caps hold. A GPU that does not answer costs itself alone.
* A lease's end is a moment of a clock that nobody sets, fixed when it is accepted: at most its span from issue to
  expiry after it was first seen, at most `max_lease_s` later. A step of the wall clock cannot prolong it. Time is
  never taken to be earlier than the newest issue time that was accepted, plus what has passed since, unless a newer
  lease proves that the planner's clock was ahead then.
* The newest sequence is on disk before its caps are set, and outlives crashes, orderly stops and boots. Without such a
  memory, leases that were issued before this start are refused: one of them might be older than what held before.
* A confirmation is given only while every GPU of the node reads back at its cap in force, or below.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Final, Literal

import msgspec

from powerhall.lease import (
    CLOCK_SKEW_S,
    Confirmation,
    GpuCap,
    Lease,
    RefusedForNow,
    SignedConfirmation,
    SignedLease,
    open_lease,
    sign_confirmation,
)
from powerhall.runtime.errors import Rejected
from powerhall_agent.capper.found_limits import FoundLimits, found_folders
from powerhall_agent.capper.lease_memory import LeaseMemory
from powerhall_agent.capper.limiter import Limiter
from powerhall_agent.capper.node_caps import NodeCaps
from powerhall_agent.capper.node_clock import AheadLeases, ClockSteps

__all__ = ["CapReason", "Capper", "Status"]

AGENT_TIMEOUT_S: Final = 1.5
MAX_LEASE_S: Final = 3600.0
RECHECK_S: Final = 0.5
_STEP_SHOWN_S: Final = 600.0
_FRESH_S: Final = 60.0
"""A lease comes within seconds of its issue."""


class CapReason(StrEnum):
    """Why the present caps are in force."""

    LEASE = ""
    START = "start"
    BOOT = "boot"
    """Since a boot; the newest lease is of before it and is not taken again."""
    EXPIRED = "expired"
    AGENT_SILENT = "agent_silent"
    WRITE_FAILED = "write_failed"
    STOPPED = "stopped"
    RESTORED = "restored"


class Status(msgspec.Struct, frozen=True):
    """Status message to the agent: the state, the lease in force and the caps read back from the GPUs.

    `alarms` are lines for a person: GPUs that do not answer, a damaged memory or key, steps of the clock.
    """

    state: Literal["safe", "leased", "restored"]
    reason: CapReason
    sequence: int
    plan_id: str
    caps: tuple[GpuCap, ...]
    error: str = ""
    alarms: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Held:
    lease: Lease
    until_mono_s: float


class Capper:
    """Holds the GPUs to the lease in force, or to the safe caps."""

    def __init__(
        self,
        limiter: Limiter,
        *,
        node: str,
        key: bytes | None,
        safe_limit_w: float,
        memory: Path,
        agent_timeout_s: float = AGENT_TIMEOUT_S,
        max_lease_s: float = MAX_LEASE_S,
        clock_skew_s: float = CLOCK_SKEW_S,
        started_s: float = 0.0,
        boot: str = "",
        found: FoundLimits | None = None,
        gpu_count: int = 0,
        troubles: Callable[[], Mapping[int, str]] = dict,
        guard: Callable[[float], None] = lambda _: None,
    ) -> None:
        """`safe_limit_w` is each GPU's power limit without a lease, brought into the range that the GPU accepts.

        `started_s` is the wall clock's time now, `boot` names this boot of the host. Without a key (None) every lease
        is refused. `gpu_count` is how many GPUs the driver lists; `troubles` says why some do not answer. `guard` is
        told the end of each lease before its caps are set, and 0 once the safe caps hold again.
        """
        self._limiter, self._node, self.key = limiter, node, key
        self._agent_timeout_s, self._max_lease_s, self._skew_s = agent_timeout_s, max_lease_s, clock_skew_s
        self._troubles, self._guard = troubles, guard
        self.found = found or FoundLimits(found_folders(memory, memory), boot)
        self._caps = NodeCaps(limiter, safe_limit_w, self.found, gpu_count=gpu_count)
        self._held: _Held | None = None
        self._heard_s: float | None = None
        self._reason = CapReason.START
        self._checked_s = 0.0
        self._steps, self._ahead = ClockSteps(), AheadLeases()
        self._step_alarm: tuple[float, str] = (0.0, "")
        self._floor_alarm = ""
        self.key_problem = self.socket_problem = ""
        """Why there is no key, and why those who should cannot connect; the caller sets both."""
        self._memory = LeaseMemory(
            memory, started_s=started_s, boot=boot, skew_s=clock_skew_s, ran_before=self.found.of_an_earlier_run
        )
        before = self._memory.found_before or ()
        self._caps.adopt_found({cap.gpu: cap.power_limit_w for cap in before if cap.power_limit_w is not None})
        kept = self._memory.kept
        if kept.until_s == 0.0:
            self._reason = CapReason.BOOT
        self.found.remember(kept.limits_w)
        kept.limits_w = self.found.known
        kept.gpus = self._caps.most_gpus = max(kept.gpus, self._caps.most_gpus)
        if self._memory.save():
            self.found.prune()

    @property
    def rewrites(self) -> int:
        """How often a cap was set again because another program had changed it."""
        return self._caps.rewrites

    def offer(self, signed: SignedLease, wall_s: float, mono_s: float) -> None:
        """Take a lease; one that is not sound raises Rejected and changes nothing.

        RefusedForNow: the same lease may be accepted later, when the clocks agree, or key or disk are mended.
        """
        self.heard(mono_s)
        lease, until_s = self._sound(signed, wall_s, mono_s)
        kept = self._memory.kept
        before = msgspec.structs.replace(kept)
        if lease.sequence > kept.sequence:
            floor_s = self._floor_s(mono_s)
            was_ahead = lease.expires_s <= floor_s  # see `_set_back`
            kept.since_s = min(kept.since_s, lease.issued_s)
            kept.issued_s, kept.heard_s = lease.issued_s if was_ahead else max(lease.issued_s, floor_s), mono_s
        kept.sequence, kept.until_s = lease.sequence, until_s
        if kept != before and not self._memory.save():
            self._memory.kept = before
            raise RefusedForNow(self._memory.unsaved)
        self._guard(until_s)
        if self._caps.want_lease(lease.caps):
            self._held = _Held(lease, until_s)
            self._reason = CapReason.LEASE
        else:
            error = self._caps.error
            self._to_safe(CapReason.WRITE_FAILED)
            self._caps.error = error

    def _sound(self, signed: SignedLease, wall_s: float, mono_s: float) -> tuple[Lease, float]:
        """Return a lease that may come into force, and when it ends by the monotonic clock; else raise Rejected."""
        if self.key is None:
            raise RefusedForNow(f"lease: no node key: {self.key_problem or 'none was given'}")
        if self._caps.safe_problem:
            raise RefusedForNow(f"lease: {self._caps.safe_problem}")
        kept = self._memory.kept
        now_s, since_s = max(wall_s, self._floor_s(mono_s)), kept.since_s
        newest = kept.sequence - (self._held is None)  # the newest may be offered again while it is not in force
        try:
            lease = open_lease(signed, self.key, self._node, newest, now_s, skew_s=self._skew_s)
        except RefusedForNow as error:
            self._ahead.note(error.sequence, error.issued_s, mono_s)
            raise
        except Rejected:
            set_back = self._set_back(signed, wall_s)
            if set_back is None:
                raise
            lease, now_s, since_s = set_back, wall_s, 0.0
        now_s = max(now_s, self._ahead.proven_s(lease.sequence, now_s + self._skew_s))
        if lease.issued_s < since_s:
            allowed = (
                "must not lie before this capper's memory, as which leases held before is not known: "
                "grant a new lease (`powerhall-optimizer lease`)"
            )
            raise Rejected.field("lease", "issued_s", lease.issued_s, allowed)
        for cap in lease.caps:
            self._caps.check(cap)
        seen_s = self._ahead.seen_s(lease.sequence, lease.issued_s, mono_s)
        lasts_s = min(lease.expires_s - now_s, self._max_lease_s)
        until_s = min(mono_s + lasts_s, seen_s + (lease.expires_s - lease.issued_s))
        if lease.sequence == kept.sequence and kept.until_s is not None:
            until_s = min(until_s, kept.until_s)
        if until_s <= mono_s:
            allowed = (
                "has run out: it was accepted before (or before a boot), was first seen as long ago as it lasts, or "
                "newer leases prove that this node's clock is slow"
            )
            raise Rejected.field("lease", "expires_s", lease.expires_s, allowed)
        return lease, until_s

    def _set_back(self, signed: SignedLease, wall_s: float) -> Lease | None:
        """Return a lease that proves that an accepted one was issued by a clock that was ahead; else None.

        It is newer by its number, was issued earlier, and just now by this node's clock; nothing but safe caps holds.
        """
        assert self.key is not None
        kept = self._memory.kept
        if self._held is not None or self._caps.error:
            return None
        try:
            lease = open_lease(signed, self.key, self._node, kept.sequence, wall_s, skew_s=self._skew_s)
        except Rejected:
            return None
        is_earlier = lease.issued_s < kept.issued_s - self._skew_s
        return lease if is_earlier and wall_s - lease.issued_s <= _FRESH_S else None

    def _floor_s(self, mono_s: float) -> float:
        """Return a time that has certainly passed: that of the newest accepted issue, plus what has passed since."""
        kept = self._memory.kept
        since_s = 0.0 if kept.heard_s is None else max(0.0, mono_s - kept.heard_s)
        return kept.issued_s + since_s

    def heard(self, mono_s: float) -> None:
        """Record a message of the agent."""
        self._heard_s = mono_s

    def note_clocks(self, wall_s: float, mono_s: float) -> float:
        """Compare the clocks; return how far the wall clock was set since the last call, in s (0: it was not)."""
        step_s = self._steps.step_s(wall_s, mono_s)
        self._floor_alarm = ""
        if self._held is None and self._floor_s(mono_s) > wall_s + _FRESH_S:
            self._floor_alarm = _ahead_text(self._memory.kept.issued_s)
        if step_s:
            self._step_alarm = (mono_s, f"clock: was set by {step_s:+.1f} s")
            if not self._memory.kept.sequence:
                self._memory.kept.since_s += step_s  # the same moment by the clock as it is now
                self._memory.save()
        return step_s

    def tick(self, mono_s: float) -> None:
        """Fall back to the safe caps when the lease has run out or the agent is silent; call it five times a second."""
        if self._held is not None and mono_s >= self._held.until_mono_s:
            self._to_safe(CapReason.EXPIRED)
        elif self._held is not None and (self._heard_s is None or mono_s - self._heard_s > self._agent_timeout_s):
            self._to_safe(CapReason.AGENT_SILENT)
        if mono_s - self._checked_s >= RECHECK_S:
            self._checked_s = mono_s
            self._caps.hold()
            self._keep_found()
        if self._step_alarm[1] and mono_s - self._step_alarm[0] > _STEP_SHOWN_S:
            self._step_alarm = (0.0, "")

    def restore(self) -> bool:
        """Put back the limits that were found, and keep the newest sequence; for an orderly stop.

        Returns whether every GPU that answers has its own limit again.
        """
        self._held = None
        self._guard(0.0)
        is_done = self._caps.restore()
        self._memory.kept.limits_w = self.found.known
        self._memory.save()
        if is_done:
            self._reason = CapReason.RESTORED
        return is_done

    def _keep_found(self) -> None:
        """Copy the limits found on GPUs that came later into the memory."""
        if self._memory.kept.limits_w != self.found.known:
            self._memory.kept.limits_w = self.found.known
            self._memory.save()

    def leave(self) -> bool:
        """Go to the safe caps and stay there; for an orderly stop of a node that must stay within its budget."""
        return self._to_safe(CapReason.STOPPED)

    def confirmation(self, wall_s: float) -> SignedConfirmation | None:
        """Return the signed statement that no older lease can come into force; None while that is not certain."""
        sequence = self._memory.kept.sequence
        if not self._caps.is_well or self._reason is CapReason.RESTORED or not sequence or self.key is None:
            return None
        return sign_confirmation(Confirmation(self._node, sequence, wall_s), self.key)

    @property
    def is_leased(self) -> bool:
        """Whether a lease is in force."""
        return self._held is not None

    @property
    def summary(self) -> str:
        """State, reason, caps and alarms without reading the GPUs; a change of it is logged."""
        plan = self._held.lease.plan_id if self._held else ""
        return f"{plan}/{self._reason}/{self.wanted}/{self._error}/{'; '.join(self.alarms)}"

    @property
    def wanted(self) -> str:
        """The caps that the GPUs should hold, such as `0-3 500 W, 4 300 W at 1200 MHz`."""
        return self._caps.wanted_text

    @property
    def alarms(self) -> tuple[str, ...]:
        """What needs a person, one line each."""
        lines = [f"GPU {gpu}: {text}" for gpu, text in sorted(self._troubles().items())]
        lines += [self.key_problem, self.socket_problem, self._memory.damaged, self._memory.unsaved]
        lines += [self._caps.safe_problem, self.found.problem, *self.found.alarms]
        lines += [self._step_alarm[1], self._floor_alarm]
        return tuple(line for line in lines if line)

    def status(self) -> Status:
        """Return the state with caps read back from the GPUs."""
        held = self._held
        state: Literal["safe", "leased", "restored"] = "leased" if held else "safe"
        if self._reason is CapReason.RESTORED:
            state = "restored"
        plan_id, sequence = held.lease.plan_id if held else "", self._memory.kept.sequence
        return Status(state, self._reason, sequence, plan_id, self._limiter.read(), self._error, self.alarms)

    @property
    def _error(self) -> str:
        return self._caps.error or self._memory.unsaved

    def _to_safe(self, reason: CapReason) -> bool:
        self._held = None
        self._reason = reason
        is_safe = self._caps.want_safe()
        if is_safe:
            self._guard(0.0)
        return is_safe


def _ahead_text(issued_s: float) -> str:
    stamp = datetime.fromtimestamp(min(issued_s, 253e9), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return (
        f"clock: a lease of {stamp} was accepted here, and that time has not come by this node's clock: look at "
        "`chronyc tracking` here and on the planner, set the wrong clock right, and grant anew "
        "(`powerhall-optimizer lease`): a newer lease is taken then"
    )
