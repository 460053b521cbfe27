"""The state of a node's capper as points in the store, so that an operator sees why a node holds its safe caps."""

from collections.abc import Sequence
from typing import Final

from powerhall.store.line_protocol import Point
from powerhall_agent.capper.capper import Status

__all__ = ["CapperReports"]

_EVERY_S: Final = 60.0
_CHANGED_S: Final = 5.0
_DETAIL_CHARS: Final = 1000


class CapperReports:
    """Makes a point per minute, and one at most every five seconds when something changed."""

    def __init__(self, node: str) -> None:
        self._node = node
        self._told: dict[str, float | str] = {}
        self._told_s: float | None = None

    def due(self, status: Status | None, problems: Sequence[str], wall_s: float, mono_s: float) -> Point | None:
        """Return the point to write now, or None.

        `status` is the capper's newest answer, None while it does not answer; `problems` are the carrier's own lines.
        """
        fields = _fields(status, problems)
        waits_s = _EVERY_S if fields == self._told else _CHANGED_S
        if self._told_s is not None and mono_s - self._told_s < waits_s:
            return None
        return Point("capper", {"node": self._node}, fields, round(wall_s * 1000))

    def told(self, point: Point, mono_s: float) -> None:
        """Record that the store took a point."""
        self._told, self._told_s = dict(point.fields), mono_s


def _fields(status: Status | None, problems: Sequence[str]) -> dict[str, float | str]:
    lines = [*problems, *(() if status is None else (*status.alarms, status.error))]
    lines = list(dict.fromkeys(line for line in lines if line))
    return {
        "up": float(status is not None),
        "leased": float(status is not None and status.state == "leased"),
        "alarms": float(len(lines)),
        "reason": "unreachable" if status is None else str(status.reason) or "lease",
        "detail": "; ".join(lines)[:_DETAIL_CHARS] or "-",
    }
