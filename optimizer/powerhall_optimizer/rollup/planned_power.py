"""Planned power per zone and time of the newest plan, and the rows of its Gantt chart."""

from collections.abc import Iterator

import msgspec

from powerhall.plan.plan import Assignment, ZonePlan
from powerhall.runtime.decode.json_data import decode_json
from powerhall.runtime.errors import Rejected
from powerhall.store.line_protocol import Point

__all__ = ["GANTT_ROWS", "PlannedPower", "gantt_points", "read_planned"]

GANTT_ROWS = 24
"""Gantt rows of each hall; the jobs with the most GPUs get one."""
_FREE = "-"


class _Horizon(msgspec.Struct):
    """The slots of the plan's snapshot."""

    start_s: int
    slot_s: int
    slots: int


class PlannedPower(msgspec.Struct):
    """The part of a plan document that is shown; the rest is not decoded."""

    plan_id: str
    snapshot: _Horizon
    zones: list[ZonePlan] = []
    assignments: list[Assignment] = []

    def planned_w(self, zone: str, time_s: float) -> float | None:
        """Return the planned power of a zone at a time; None outside the plan."""
        slot = int((time_s - self.snapshot.start_s) // self.snapshot.slot_s)
        for entry in self.zones:
            if entry.zone == zone and 0 <= slot < len(entry.planned_w):
                return float(entry.planned_w[slot])
        return None


def read_planned(body: bytes | None) -> PlannedPower | None:
    """Decode a plan document; None where there is none, or one of another version."""
    if body is None:
        return None
    try:
        return decode_json(body, PlannedPower, "store: plan")
    except Rejected:
        return None


def gantt_points(plan: PlannedPower, site: str, halls: tuple[str, ...]) -> Iterator[Point]:
    """Yield every Gantt row in every slot, free ones too, so that a new plan replaces all points of the old one."""
    horizon = plan.snapshot
    for hall in halls:
        lanes = _gantt_rows([entry for entry in plan.assignments if entry.hall == hall])
        for lane in range(GANTT_ROWS):
            jobs = lanes[lane] if lane < len(lanes) else []
            for slot in range(horizon.slots):
                time_s = horizon.start_s + slot * horizon.slot_s
                held = next((job for job in jobs if job.start_s <= time_s < job.end_s), None)
                fields: dict[str, float | str] = {
                    "job": held.job_id if held else _FREE,
                    "gpus": float(held.gpus) if held else 0.0,
                }
                yield Point("plan_slot", {"site": site, "hall": hall, "lane": f"{lane:02d}"}, fields, time_s * 1000)


def _gantt_rows(jobs: list[Assignment]) -> list[list[Assignment]]:
    """Assign the largest jobs to rows in which they do not overlap, earliest first."""
    lanes: list[list[Assignment]] = []
    for job in sorted(jobs, key=lambda entry: (-entry.gpus, entry.start_s, entry.job_id)):
        free = next((lane for lane in lanes if all(_apart(job, other) for other in lane)), None)
        if free is not None:
            free.append(job)
        elif len(lanes) < GANTT_ROWS:
            lanes.append([job])
    return lanes


def _apart(one: Assignment, other: Assignment) -> bool:
    return one.end_s <= other.start_s or other.end_s <= one.start_s
