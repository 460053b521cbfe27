"""The newest plan of a site that a round has written: noted beside it, `plan.json.newest`, and in the store.

The ledger knows a plan once leases of it were granted. Where that command is ended before, or the ledger is lost or
another one, these still tell a plan that is older (a restored backup, the file of an earlier round) or of another site,
whose budgets are not those in force. All notes of the folder count, whatever the names of their plans.
"""

import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from powerhall.plan.plan import Plan
from powerhall.runtime.decode.bytes_in import read_file
from powerhall.runtime.decode.json_data import decode_json
from powerhall.runtime.errors import PowerhallError, Rejected
from powerhall.runtime.files import replace_file
from powerhall.store import Query, Select, Store

__all__ = ["NewestPlan", "note_newest", "refuse_older_than_stored", "refuse_replaced"]

_ENDING = ".newest"
_SLACK_S = 60.0
_MOST_BYTES = 4096
_MOST_TIME_S = 1 << 40


class NewestPlan(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The plan that a round wrote last."""

    site: str
    plan_id: str
    created_s: int
    start_s: int


def note_newest(plan: Plan, path: Path) -> None:
    """Note a plan that was just written to `path`, on disk when this returns; raises OSError."""
    note = NewestPlan(plan.snapshot.site.name, plan.plan_id, plan.created_s, plan.snapshot.start_s)
    replace_file(_note_of(path), msgspec.json.encode(note), durable=True)


def refuse_replaced(plan: Plan, path: Path, now_s: float, tell: Callable[[str], None], *, keep: bool = False) -> None:
    """Raise Rejected for a plan that is older than one that a round wrote beside it, or took the place of another site.

    `tell` gets a line for each note that does not count: it is of a time to come (a clock was ahead), or damaged, and
    is set aside then unless `keep`.
    """
    for note_path in _notes_beside(path):
        try:
            note = _read(note_path)
        except Rejected as error:
            tell(_set_aside(note_path, error, keep=keep))
            continue
        if note.created_s > now_s + _SLACK_S:
            tell(f"{note_path}: is of a time to come: it does not count")
        else:
            _compare(plan, path, note, is_own=note_path == _note_of(path))


def refuse_older_than_stored(plan: Plan, path: Path, store: Store, now_s: float, tell: Callable[[str], None]) -> None:
    """Raise Rejected for a plan that is older than one that a round wrote to the store; a store that fails is told."""
    s = plan.snapshot
    newest = Query("plan", (Select("plan_id"),), where={"site": s.site.name}, order="desc", limit=1)
    try:
        rows = store.query(newest, s.taken_s + 0.5, now_s + _SLACK_S) if s.taken_s < now_s else []
    except PowerhallError as error:
        tell(f"its newest plan is not known: {error}")
        return
    for row in rows:
        if row.values.get("plan_id") != plan.plan_id:
            raise Rejected(_older(plan, path, str(row.values.get("plan_id")), "to the store"))


def _compare(plan: Plan, path: Path, note: NewestPlan, *, is_own: bool) -> None:
    if note.site != plan.snapshot.site.name:
        if not is_own:
            return
        allowed = f"the plan that the last round wrote there is of {note.site!r}"
        raise Rejected.field(str(path), "site", plan.snapshot.site.name, allowed)
    if (plan.created_s, plan.snapshot.start_s) < (note.created_s, note.start_s):
        raise Rejected(_older(plan, path, note.plan_id, "there"))


def _older(plan: Plan, path: Path, newest: str, where: str) -> str:
    text = f"is older than plan {newest[:12]}, which the last round wrote {where}; run a round first"
    return f"{path}: plan {plan.plan_id[:12]}: {text}"


def _read(path: Path) -> NewestPlan:
    note = decode_json(read_file(path, _MOST_BYTES), NewestPlan, str(path))
    if not 0 <= note.created_s < _MOST_TIME_S or not note.site:
        raise Rejected(f"{path}: a time or a name is out of range")
    return note


def _set_aside(path: Path, error: Rejected, *, keep: bool) -> str:
    why = str(error).removeprefix(f"{path}: ")
    kept = path.with_name(f"{path.name}.damaged-{int(time.time())}")
    try:
        if not keep and not kept.exists():
            path.rename(kept)
            return f"{path}: damaged and kept as {kept.name}: {why}"
    except OSError:
        pass  # a folder of others: it stays, and is told each time
    return f"{path}: damaged, and does not count: {why}"


def _notes_beside(path: Path) -> list[Path]:
    try:
        return sorted(found for found in path.parent.iterdir() if found.name.endswith(_ENDING))
    except OSError:
        return []


def _note_of(path: Path) -> Path:
    return path.with_name(f"{path.name}{_ENDING}")
