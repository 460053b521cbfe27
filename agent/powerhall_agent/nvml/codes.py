"""NVML return codes and the agent's reaction to each."""

from enum import Enum, auto
from typing import Final

__all__ = ["UNKNOWN", "Action", "action", "reason"]

UNKNOWN: Final = 999
"""NVML_ERROR_UNKNOWN; it also stands for an exception that is no return code of the driver."""


class Action(Enum):
    """Reaction of the agent to a return code other than success."""

    UNSUPPORTED = auto()
    """Not read again in this driver session, unless it has succeeded before."""
    NO_PERMISSION = auto()
    """Logged once, read again after the next refresh."""
    NO_SAMPLE = auto()
    """Nothing to report this time."""
    QUARANTINE = auto()
    """Only this GPU is quarantined and tried again later."""
    REINIT = auto()
    """The driver session has ended: initialise again, with backoff."""
    RESPAWN = auto()
    """The loaded library does not fit the driver: only a new process can load another one."""
    STRIKE = auto()
    """Three in a row quarantine the GPU."""


_ACTIONS: Final = {
    1: Action.REINIT,
    2: Action.UNSUPPORTED,
    3: Action.UNSUPPORTED,
    4: Action.NO_PERMISSION,
    6: Action.NO_SAMPLE,
    9: Action.REINIT,
    10: Action.NO_SAMPLE,
    11: Action.QUARANTINE,
    13: Action.UNSUPPORTED,
    15: Action.QUARANTINE,
    16: Action.QUARANTINE,
    18: Action.RESPAWN,
    21: Action.NO_SAMPLE,
    25: Action.UNSUPPORTED,
    26: Action.UNSUPPORTED,
    27: Action.NO_SAMPLE,
    28: Action.QUARANTINE,
}
_REASONS: Final = {11: "irq_issue", 15: "lost", 16: "reset_required", 28: "not_found", UNKNOWN: "unknown_error"}


def action(code: int) -> Action:
    """Return the reaction to a return code; codes that the table does not have count as strikes."""
    return _ACTIONS.get(code, Action.STRIKE)


def reason(code: int) -> str:
    """Return the state of a GPU, as it is stored, for a return code."""
    return _REASONS.get(code, f"error_{code}")
