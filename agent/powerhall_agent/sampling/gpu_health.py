"""The health of one GPU: quarantine with a reason, strikes, and retries with backoff."""

from dataclasses import dataclass
from typing import Final

from powerhall_agent.nvml.codes import Action, action, reason

__all__ = ["HUNG", "OK", "RETRY", "GpuHealth"]

OK, HUNG, RETRY = "ok", "hung", "retry"
"""Reasons beside those of return codes (nvml.codes.reason): healthy; a call does not return; retry after that."""
_STRIKES: Final = 3
_FIRST_RETRY_S: Final = 5.0
_LAST_RETRY_S: Final = 60.0


@dataclass(slots=True)
class GpuHealth:
    """The state of one GPU; times are of the monotonic clock."""

    reason: str = OK
    retry_ns: int = 0
    strikes: int = 0
    backoff_s: float = 0.0

    @property
    def up(self) -> bool:
        """True while the GPU answers."""
        return self.reason == OK

    def fault(self, code: int, now_ns: int) -> bool:
        """Count a failed call; True when that quarantines the GPU."""
        if action(code) is Action.STRIKE:
            self.strikes += 1
            if self.strikes < _STRIKES:
                return False
        return self.quarantine(reason(code), now_ns)

    def quarantine(self, why: str, now_ns: int) -> bool:
        """Quarantine the GPU; True when it was up or the reason is new. A further fault doubles the wait."""
        changed = why != self.reason
        self.backoff_s = _FIRST_RETRY_S if self.up else min(_LAST_RETRY_S, self.backoff_s * 2)
        self.reason = why
        self.retry_ns = now_ns + int(self.backoff_s * 1e9)
        return changed

    def recover(self) -> bool:
        """Count a good call; True when that ends a quarantine."""
        was_up = self.up
        self.reason, self.strikes = OK, 0
        return not was_up

    def due(self, now_ns: int) -> bool:
        """Return whether a quarantined GPU is to be tried again."""
        return not self.up and now_ns >= self.retry_ns
