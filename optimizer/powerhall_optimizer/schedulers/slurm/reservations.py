"""Curtailments as licence reservations: units of the power licence that no job may take while a budget is low.

A reservation is used because shrinking the licence's total would make Slurm refuse jobs at submission. Slurm counts a
reservation against every job whose time limit reaches into it, so a job that would still run then does not start.

The name of a reservation tells the plan that made it, so that an older one does not lift the cut. Slurm renames none:
a plan that changes or deletes one leaves a note, a reservation of one unit in the year 2099, far beyond every job.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime

from powerhall.plan.plan import Plan
from powerhall_optimizer.schedulers.allowed import allowed_units, budget_zone
from powerhall_optimizer.schedulers.slurm.commands import time_text
from powerhall_optimizer.schedulers.slurm.prepaid import above_idle_w, prepaid_nodes
from powerhall_optimizer.schedulers.slurm.slurm_settings import SlurmSettings

__all__ = ["Curtailment", "changes", "parse_reservations", "wanted", "writer_of"]

_PREFIX = "powerhall_"
_WRITER = re.compile(r"_at([0-9]{1,12})_([\w.-]+)")
_NOTE_S = 4_070_908_800
"""Start of notes: 2099-01-01 UTC."""


@dataclass(frozen=True, slots=True)
class Curtailment:
    """`reserved` units that jobs may not take from `start_s` to `end_s`; `name` in Slurm, "" for one to make.

    `at_s` and `site` are of the plan that made it, 0 and "" where its name does not say so.
    """

    start_s: int
    end_s: int
    reserved: int
    name: str = ""
    at_s: int = 0
    site: str = ""

    @property
    def is_note(self) -> bool:
        """Whether it tells only which plan was the newest."""
        return self.start_s >= _NOTE_S


def wanted(plan: Plan, settings: SlurmSettings, total: int, now_s: float) -> list[Curtailment]:
    """Return the reservations that hold the zone's budget: one per run of slots with the same budget."""
    zone = budget_zone(plan, settings.zone, "slurm.zone")
    if zone is None:
        return []
    snapshot = plan.snapshot
    prepaid = prepaid_nodes(settings, snapshot.site)
    room = allowed_units(plan, zone, settings.licence_w, prepaid, above_idle_w(snapshot.site, zone.zone, prepaid))
    found: list[Curtailment] = []
    first = 0
    for slot in range(1, snapshot.slots + 1):
        if slot < snapshot.slots and zone.budget_w[slot] == zone.budget_w[first]:
            continue
        run = room[first:slot]
        busiest = max(used for _, used in run)
        allowed = max(busiest, min(allowed for allowed, _ in run))
        start_s, end_s = snapshot.start_s + first * snapshot.slot_s, snapshot.start_s + slot * snapshot.slot_s
        if allowed < total and end_s > now_s:
            found.append(Curtailment(start_s, end_s, total - allowed))
        first = slot
    return found


def writer_of(plan: Plan) -> tuple[int, str]:
    """Return when a plan's snapshot was taken, and its site's name as a reservation's name has it."""
    return plan.snapshot.taken_s, re.sub(r"[^\w.-]", "_", plan.snapshot.site.name, flags=re.ASCII)


def parse_reservations(text: str, licence: str) -> list[Curtailment]:
    """Read `scontrol -o show reservation` (in UTC); only Powerhall's own."""
    found = []
    for line in text.splitlines():
        pairs = dict(part.split("=", 1) for part in line.split() if "=" in part)
        name = pairs.get("ReservationName", "")
        if name.startswith((f"{_PREFIX}{licence}_", f"{_PREFIX}newest_{licence}_")):
            times = [datetime.fromisoformat(pairs[key]).replace(tzinfo=UTC) for key in ("StartTime", "EndTime")]
            count = re.search(rf"(?:^|,){re.escape(licence)}[:=]([0-9]{{1,9}})", pairs.get("Licenses", ""))
            start_s, end_s = (int(time.timestamp()) for time in times)
            by = _WRITER.search(name)
            writer = (int(by[1]), by[2]) if by else (0, "")
            found.append(Curtailment(start_s, end_s, int(count[1]) if count else 0, name, *writer))
    return found


def changes(
    want: list[Curtailment], have: list[Curtailment], licence: str, now_s: float, by: tuple[int, str] = (0, "")
) -> tuple[list[str], list[str]]:
    """Return the scontrol commands that tighten (to issue first) and those that loosen (to issue last).

    `by` is `writer_of` the plan: names of new reservations and notes have it, so that no older plan deletes them.
    """
    mark = f"_at{by[0]}_{by[1]}" if by[1] else ""
    tighten: list[str] = []
    loosen: list[str] = []
    left = [one for one in have if not one.is_note]
    for one in want:
        match = next((h for h in left if h.start_s < one.end_s and h.end_s > one.start_s), None)
        start = "now" if one.start_s <= now_s else time_text(one.start_s)
        span = f"EndTime={time_text(one.end_s)} Licenses={licence}:{one.reserved}"
        if match is None:
            name = f"{_PREFIX}{licence}_{one.start_s}{mark}"
            tighten.append(
                f"create reservation ReservationName={name} StartTime={start} {span} Flags=LICENSE_ONLY Users=root"
            )
            continue
        left.remove(match)
        is_started = match.start_s <= now_s and one.start_s <= now_s
        if (is_started or match.start_s == one.start_s) and (match.end_s, match.reserved) == (one.end_s, one.reserved):
            continue
        head = f"update reservation ReservationName={match.name}"
        if not is_started and match.start_s != one.start_s:
            head += f" StartTime={start}"
        (tighten if one.reserved >= match.reserved else loosen).append(f"{head} {span}")
    loosen.extend(f"delete ReservationName={gone.name}" for gone in left)
    note = f"{_PREFIX}newest_{licence}{mark}"
    forgets = any(not line.startswith("create ") for line in (*tighten, *loosen))
    if mark and forgets and note not in {one.name for one in have}:
        span = f"StartTime={time_text(_NOTE_S)} EndTime={time_text(_NOTE_S + 60)} Licenses={licence}:1"
        tighten.insert(0, f"create reservation ReservationName={note} {span} Flags=LICENSE_ONLY Users=root")
    elif mark:
        return tighten, loosen
    gone_notes = (one for one in have if one.is_note and (not mark or one.site == by[1]))
    loosen.extend(f"delete ReservationName={gone.name}" for gone in gone_notes)
    return tighten, loosen
