"""The capper's decisions, without sockets and clocks: which caps hold now, and why.

Invariants:

* A cap is set only from a lease that is signed for this node, newer than every lease before, not run out, and within
  the range of every GPU it names: all of it is checked before the first GPU is touched.
* Without a lease in force, without word from the agent for `agent_timeout_s`, or after a failed write, the safe caps
  hold. A lease's end is a moment of the monotonic clock, fixed when it is accepted: no step of the wall clock can make
  it live longer than it said.
* Once a second the caps are read back; a GPU whose limit was changed by somebody else gets it again, and a write that
  failed is tried again.
* The caps found at the first start are written to disk before the first change, and restored on an orderly stop; after
  a crash the next start reads them from there, not from the GPUs. The newest sequence is kept the same way.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

from powerhall.errors import PowerhallError, Rejected
from powerhall.lease import GpuCap, Lease, SignedLease, open_lease
from powerhall.settings import read_json
from powerhall_agent.capper.limiter import Limiter

__all__ = ["Capper", "Status"]

AGENT_TIMEOUT_S = 1.5
RECHECK_S = 1.0


class Status(msgspec.Struct, frozen=True):
    """What the capper tells the agent: the state, the lease in force and the caps read back from the GPUs."""

    state: Literal["safe", "leased", "restored"]
    reason: str
    sequence: int
    plan_id: str
    caps: tuple[GpuCap, ...]
    error: str = ""


class _Memory(msgspec.Struct, forbid_unknown_fields=True):
    found: tuple[GpuCap, ...]
    sequence: int = 0


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
    ) -> None:
        """`safe_limit_w` is each GPU's power limit without a lease, brought into the range that the GPU accepts."""
        self._limiter = limiter
        self._node = node
        self._key = key
        self._path = memory
        self._agent_timeout_s = agent_timeout_s
        self._held: _Held | None = None
        self._heard_s: float | None = None
        self._reason = "start"
        self._error = ""
        self._ranges = limiter.ranges()
        self._safe = tuple(
            GpuCap(gpu, min(max(safe_limit_w, span.min_w), span.max_w)) for gpu, span in sorted(self._ranges.items())
        )
        self._memory = read_json(memory, _Memory) if memory.exists() else _Memory(limiter.read())
        self._save()
        self._wanted: tuple[GpuCap, ...] = ()
        self._checked_s = 0.0
        self.rewrites = 0
        self._to_safe("start")

    def offer(self, signed: SignedLease, wall_s: float, mono_s: float) -> None:
        """Take a lease; one that is not sound raises Rejected and changes nothing."""
        self.heard(mono_s)
        lease = open_lease(signed, self._key, self._node, self._memory.sequence, wall_s)
        for cap in lease.caps:
            self._check(cap)
        self._memory.sequence = lease.sequence
        self._save()
        # GPUs that the lease does not name keep the safe cap: a lease speaks for the whole node.
        named = {cap.gpu for cap in lease.caps}
        self._wanted = (*lease.caps, *(cap for cap in self._safe if cap.gpu not in named))
        if self._write(self._wanted):
            self._held = _Held(lease, mono_s + (lease.expires_s - wall_s))
            self._reason = ""
        else:
            self._to_safe("write_failed", keep_error=True)

    def heard(self, mono_s: float) -> None:
        """The agent gave a sign of life."""
        self._heard_s = mono_s

    def tick(self, mono_s: float) -> None:
        """Fall back to the safe caps when the lease has run out or the agent is silent; call it five times a second."""
        if self._held is not None and mono_s >= self._held.until_mono_s:
            self._to_safe("expired")
        elif self._held is not None and (self._heard_s is None or mono_s - self._heard_s > self._agent_timeout_s):
            self._to_safe("agent_silent")
        if mono_s - self._checked_s >= RECHECK_S:
            self._checked_s = mono_s
            self._hold()

    def _hold(self) -> None:
        read = {cap.gpu: cap.power_limit_w for cap in self._limiter.read()}
        strayed = tuple(
            cap
            for cap in self._wanted
            if cap.power_limit_w is not None and abs((read.get(cap.gpu) or 0.0) - cap.power_limit_w) > 1.0
        )
        if strayed:
            self.rewrites += 1
            self._write(strayed)

    def restore(self) -> None:
        """Put back the caps that were found; for an orderly stop."""
        self._held = None
        self._wanted = ()
        if self._write(self._memory.found):
            self._path.unlink(missing_ok=True)
            self._reason = "restored"

    @property
    def summary(self) -> str:
        """State and reason without touching the GPUs: changes when there is something to say."""
        plan = self._held.lease.plan_id if self._held else ""
        return f"{plan}/{self._reason}/{self._error}"

    def status(self) -> Status:
        """Return the state with caps read back from the GPUs."""
        held = self._held
        state: Literal["safe", "leased", "restored"] = "leased" if held else "safe"
        if self._reason == "restored":
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

    def _to_safe(self, reason: str, *, keep_error: bool = False) -> None:
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
            self._error = str(error)
            return False
        self._error = ""
        return True

    def _save(self) -> None:
        part = self._path.with_name(f".{self._path.name}.part")
        part.write_bytes(msgspec.json.encode(self._memory))
        part.replace(self._path)
