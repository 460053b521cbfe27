"""The decisions of the capper, without sockets and clocks: which caps are in force, and why.

Invariants:

* A cap is set only from a lease that is signed for this node, not older than any lease before, not run out, and within
  the range of every GPU it names: all of it is checked before the first GPU is touched. The newest lease may be
  offered again after the agent was silent or the capper restarted.
* Without a lease in force, without a message from the agent for `agent_timeout_s`, or after a failed write, the safe
caps hold. A lease's end is a moment of the monotonic clock, fixed when it is accepted: a step of the wall clock cannot
prolong it.
* Once a second the caps are read back; a GPU whose limit was changed by another program is set again, and a write that
  failed is tried again. A clock lock cannot be read back: it is set again when the clock is seen above it.
* The caps found at the first start are written to disk before the first change, and restored on an orderly stop; after
  a crash the next start reads them from there, not from the GPUs. After a boot they are read afresh, because no limit
  survives one.
* The newest sequence is on disk before its caps are set, and outlives crashes, orderly stops and boots. Without such a
  memory, leases that were issued before this start are refused: one of them might be older than what held before.
* A confirmation is given only while the caps in force read back as set.
"""

from collections.abc import Set
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Literal

import msgspec

from powerhall.lease import (
    Confirmation,
    GpuCap,
    Lease,
    SignedConfirmation,
    SignedLease,
    open_lease,
    sign_confirmation,
)
from powerhall.runtime.errors import PowerhallError, Rejected
from powerhall.runtime.files import replace_file
from powerhall.runtime.settings import read_json
from powerhall_agent.capper.limiter import Limiter, Range

__all__ = ["CapReason", "Capper", "Status"]

AGENT_TIMEOUT_S = 1.5
RECHECK_S = 1.0
_CLOCK_STEP_MHZ = 15.0
"""GPUs set clocks in steps of this size."""


class CapReason(StrEnum):
    """Why the present caps are in force."""

    LEASE = ""
    START = "start"
    EXPIRED = "expired"
    AGENT_SILENT = "agent_silent"
    WRITE_FAILED = "write_failed"
    STOPPED = "stopped"
    RESTORED = "restored"


class Status(msgspec.Struct, frozen=True):
    """Status message to the agent: the state, the lease in force and the caps read back from the GPUs."""

    state: Literal["safe", "leased", "restored"]
    reason: CapReason
    sequence: int
    plan_id: str
    caps: tuple[GpuCap, ...]
    error: str = ""


class _Memory(msgspec.Struct, forbid_unknown_fields=True):
    """State that outlives a restart; `since_s` is when it begins.

    `found` are the caps at the first start; None after an orderly stop, which restores them.
    """

    found: tuple[GpuCap, ...] | None
    sequence: int = 0
    boot: str = ""
    since_s: float = 0.0


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
        key: bytes,
        safe_limit_w: float,
        memory: Path,
        agent_timeout_s: float = AGENT_TIMEOUT_S,
        started_s: float = 0.0,
        boot: str = "",
    ) -> None:
        """`safe_limit_w` is each GPU's power limit without a lease, brought into the range that the GPU accepts.

        `started_s` is the wall clock's time now, `boot` names this boot of the host.
        """
        self._limiter = limiter
        self._node = node
        self._key = key
        self._path = memory
        self._agent_timeout_s = agent_timeout_s
        self._held: _Held | None = None
        self._heard_s: float | None = None
        self._reason = CapReason.START
        self._error = ""
        self._ranges = limiter.ranges()
        self._safe_limit_w = safe_limit_w
        self._safe = tuple(_safe_cap(gpu, safe_limit_w, span) for gpu, span in sorted(self._ranges.items()))
        self._memory = read_json(memory, _Memory) if memory.exists() else _Memory(None, since_s=started_s)
        if self._memory.found is None or self._memory.boot != boot:
            self._memory.found, self._memory.boot = limiter.read(), boot
        self._is_well = True
        unsaved = self._try_save()
        self._wanted: tuple[GpuCap, ...] = ()
        self._checked_s = 0.0
        self.rewrites = 0
        self._to_safe(CapReason.START)
        self._error = self._error or unsaved

    def offer(self, signed: SignedLease, wall_s: float, mono_s: float) -> None:
        """Take a lease; one that is not sound raises Rejected and changes nothing."""
        self.heard(mono_s)
        newest = self._memory.sequence - (
            self._held is None
        )  # the newest may be offered again while it is not in force
        lease = open_lease(signed, self._key, self._node, newest, wall_s)
        if lease.issued_s < self._memory.since_s:
            allowed = "must not lie before this capper's first start: which leases held before is not known"
            raise Rejected.field("lease", "issued_s", lease.issued_s, allowed)
        for cap in lease.caps:
            self._check(cap)
        if lease.sequence > self._memory.sequence:
            before, self._memory.sequence = self._memory.sequence, lease.sequence
            if unsaved := self._try_save():
                self._memory.sequence = before
                raise Rejected(unsaved)
        # GPUs that the lease does not name keep the safe cap: a lease covers the whole node.
        named = {cap.gpu for cap in lease.caps}
        self._wanted = (
            *(self._whole(cap) for cap in lease.caps),
            *(cap for cap in self._safe if cap.gpu not in named),
        )
        if self._write(self._wanted):
            self._held = _Held(lease, mono_s + (lease.expires_s - wall_s))
            self._reason = CapReason.LEASE
        else:
            self._to_safe(CapReason.WRITE_FAILED, keep_error=True)

    def heard(self, mono_s: float) -> None:
        """Record a message of the agent."""
        self._heard_s = mono_s

    def tick(self, mono_s: float) -> None:
        """Fall back to the safe caps when the lease has run out or the agent is silent; call it five times a second."""
        if self._held is not None and mono_s >= self._held.until_mono_s:
            self._to_safe(CapReason.EXPIRED)
        elif self._held is not None and (self._heard_s is None or mono_s - self._heard_s > self._agent_timeout_s):
            self._to_safe(CapReason.AGENT_SILENT)
        if mono_s - self._checked_s >= RECHECK_S:
            self._checked_s = mono_s
            self._hold()

    def _hold(self) -> None:
        read = {cap.gpu: cap.power_limit_w for cap in self._limiter.read()}
        locked = [cap.gpu for cap in self._wanted if cap.sm_clock_mhz is not None]
        clocks = self._limiter.clocks_mhz(locked) if locked else {}
        strayed = tuple(
            cap
            for cap in self._wanted
            if (cap.power_limit_w is not None and abs((read.get(cap.gpu) or 0.0) - cap.power_limit_w) > 1.0)
            or (cap.sm_clock_mhz is not None and clocks.get(cap.gpu, 0.0) > cap.sm_clock_mhz + _CLOCK_STEP_MHZ)
        )
        if strayed:
            self.rewrites += 1
            self._write(strayed)
        elif not self._is_well:
            self._write(self._wanted)
        if unmanaged := read.keys() - self._ranges.keys():
            self._take_in(unmanaged)

    def _take_in(self, gpus: Set[int]) -> None:
        """Apply the safe cap to GPUs that answer now and did not at the start."""
        ranges = self._limiter.ranges()
        new = tuple(_safe_cap(gpu, self._safe_limit_w, ranges[gpu]) for gpu in sorted(gpus) if gpu in ranges)
        self._ranges |= {cap.gpu: ranges[cap.gpu] for cap in new}
        self._safe += new
        self._wanted += new
        if new:
            self._write(new)

    def restore(self) -> None:
        """Put back the caps that were found, and keep the newest sequence; for an orderly stop."""
        self._held = None
        self._wanted = ()
        if self._write(self._memory.found or ()):
            self._memory.found = None
            self._error = self._try_save()
            self._reason = CapReason.RESTORED

    def leave(self) -> None:
        """Go to the safe caps and stay there; for an orderly stop of a node that must stay within its budget."""
        self._to_safe(CapReason.STOPPED)

    def confirmation(self, wall_s: float) -> SignedConfirmation | None:
        """Return the signed statement that no older lease can come into force; None while that is not certain."""
        if not self._is_well or self._reason is CapReason.RESTORED or not self._memory.sequence:
            return None
        return sign_confirmation(Confirmation(self._node, self._memory.sequence, wall_s), self._key)

    def _whole(self, cap: GpuCap) -> GpuCap:
        """Return a lock of the clock with the power limit that was found: the safe limit must not stay beside it."""
        if cap.power_limit_w is not None:
            return cap
        found = {old.gpu: old.power_limit_w for old in self._memory.found or ()}
        return GpuCap(cap.gpu, found.get(cap.gpu), cap.sm_clock_mhz)

    @property
    def summary(self) -> str:
        """State and reason without reading the GPUs; a change of it is logged."""
        plan = self._held.lease.plan_id if self._held else ""
        return f"{plan}/{self._reason}/{self._error}"

    def status(self) -> Status:
        """Return the state with caps read back from the GPUs."""
        held = self._held
        state: Literal["safe", "leased", "restored"] = "leased" if held else "safe"
        if self._reason is CapReason.RESTORED:
            state = "restored"
        plan_id = held.lease.plan_id if held else ""
        return Status(state, self._reason, self._memory.sequence, plan_id, self._limiter.read(), self._error)

    def _check(self, cap: GpuCap) -> None:
        span = self._ranges.get(cap.gpu)
        if span is None:
            raise Rejected.field("lease", "caps.gpu", cap.gpu, f"must be one of {sorted(self._ranges)}")
        limit = cap.power_limit_w
        if limit is not None and not span.min_w <= limit <= span.max_w:
            allowed = f"must be from {span.min_w:.0f} to {span.max_w:.0f} W on GPU {cap.gpu}"
            raise Rejected.field("lease", "caps.power_limit_w", limit, allowed)
        if cap.sm_clock_mhz is not None and not 100 <= cap.sm_clock_mhz <= 10_000:
            raise Rejected.field("lease", "caps.sm_clock_mhz", cap.sm_clock_mhz, "must be from 100 to 10000 MHz")

    def _to_safe(self, reason: CapReason, *, keep_error: bool = False) -> None:
        self._held = None
        self._reason = reason
        error = self._error
        self._wanted = self._safe
        self._write(self._safe)
        if keep_error:
            self._error = error

    def _write(self, caps: tuple[GpuCap, ...]) -> bool:
        try:
            self._limiter.apply(caps)
        except PowerhallError as error:
            self._error, self._is_well = str(error), False
            return False
        self._error, self._is_well = "", True
        return True

    def _try_save(self) -> str:
        """Replace the memory in one step, on disk when this returns; return why that failed, or ""."""
        try:
            replace_file(self._path, msgspec.json.encode(self._memory), durable=True)
        except OSError as error:
            return f"capper: memory: {self._path}: cannot write: {error.strerror}"
        return ""


def _safe_cap(gpu: int, limit_w: float, span: Range) -> GpuCap:
    """Return the safe cap of a GPU, brought into the range that it accepts."""
    return GpuCap(gpu, min(max(limit_w, span.min_w), span.max_w))
