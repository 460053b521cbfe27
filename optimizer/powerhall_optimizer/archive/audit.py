"""Audit an archive: every file as it was written, every plan verified, every round made again bit for bit."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import msgspec

from powerhall.plan.multi_site import MultiSitePlan
from powerhall.plan.plan import Plan
from powerhall.runtime.decode.json_data import decode_json
from powerhall.runtime.errors import PowerhallError, Rejected
from powerhall.runtime.log import Log
from powerhall_optimizer.archive.entries import (
    HEAD,
    Entry,
    Head,
    RoundInputs,
    digest,
    entry_name,
    object_name,
    open_signed,
    other_versions,
    read_plan_object,
    unpack,
)
from powerhall_optimizer.archive.keep import Archive, versions_here
from powerhall_optimizer.planning.demand import better_of_two
from powerhall_optimizer.planning.multi_site import make_multi_site_plan
from powerhall_optimizer.planning.planner import make_plan
from powerhall_optimizer.planning.round_clock import RoundClock
from powerhall_optimizer.verify.multi_site import verify_plans

__all__ = ["Audit", "Fault", "Seen", "audit"]

_PATIENCE = 20.0
"""A replay may take so many times as long as its round: deadlines must not cut what they did not cut then."""


class Fault(msgspec.Struct, frozen=True):
    """A file that is not as it was written (`tampered`, `missing`), or a plan that is not what it says."""

    file: str
    kind: str
    text: str
    sequence: int | None = None

    def __str__(self) -> str:
        """Return it as one line."""
        return f"{self.file}: {self.kind}: {self.text}"


class Seen(msgspec.Struct, frozen=True):
    """The newest entry of an archive, and the digest of its file."""

    sequence: int
    digest: str


@dataclass(slots=True)
class Audit:
    """What was found: counts, faults, notes on what could not be checked, and the newest entry."""

    entries: int = 0
    verified: int = 0
    replayed: int = 0
    faults: list[Fault] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    newest: Seen | None = None


def audit(
    archive: Archive,
    *,
    replay: bool = True,
    last: int | None = None,
    seen: Seen | None = None,
    progress: Callable[[int, int], None] = lambda _done, _all: None,
    stop: Callable[[], bool] = lambda: False,
) -> Audit:
    """Check an archive; `last` replays the newest rounds only, `seen` is the newest entry of the audit before.

    One without a head raises Rejected.
    """
    found = Audit()
    raw = archive.shelf.get(HEAD)
    if raw is None:
        raise Rejected(f"{HEAD}: missing: it is no archive of rounds, or its head was taken away")
    try:
        head = open_signed(raw, Head, archive.key, HEAD)
    except PowerhallError as error:
        found.faults.append(_fault(HEAD, error))
        return found
    assert isinstance(head, Head)
    entries = list(_chain(archive, head, found))
    found.entries = len(entries)
    from_number = head.last - last if last is not None else 0
    for done, entry in enumerate(reversed(entries), 1):
        if stop():
            found.notes.append(f"stopped after {done - 1} of {len(entries)} rounds")
            break
        _check_round(archive, entry, found, replay=replay and entry.sequence > from_number)
        progress(done, len(entries))
    _told(archive, head, entries, found)
    if head.last == 0:
        found.notes.append("no round is kept yet: one whose plan is unchanged keeps none")
    found.newest = Seen(head.last, head.newest)
    if seen is not None:
        _check_seen(archive, head, seen, found)
    return found


def _check_seen(archive: Archive, head: Head, seen: Seen, found: Audit) -> None:
    """Find an older state of the whole archive in its place: the entry that an audit saw before must still be there."""
    if head.last < seen.sequence:
        text = f"ends with entry {head.last}, after entry {seen.sequence} was seen: later ones were taken away"
        found.faults.append(Fault(HEAD, "tampered", text, seen.sequence))
    elif head.first <= seen.sequence:
        raw = archive.shelf.get(entry_name(seen.sequence))
        if raw is not None and digest(raw) != seen.digest:
            text = "is another entry than was seen before"
            found.faults.append(Fault(entry_name(seen.sequence), "tampered", text, seen.sequence))


def _fault(name: str, error: PowerhallError, sequence: int | None = None) -> Fault:
    text = str(error).removeprefix(f"{name}: ").removeprefix("tampered: ")
    return Fault(name, "tampered", text, sequence)


def _chain(archive: Archive, head: Head, found: Audit) -> Iterator[Entry]:
    """Yield the sound entries from the newest back: each is what the one after it, or the head, names."""
    expected: str | None = head.newest
    for number in range(head.last, head.first - 1, -1):
        name = entry_name(number)
        raw = archive.shelf.get(name)
        if raw is None:
            found.faults.append(Fault(name, "missing", "the chain has it", number))
            expected = None
            continue
        is_named = expected in (None, digest(raw))
        expected = None
        try:
            entry = open_signed(raw, Entry, archive.key, name)
        except PowerhallError as error:
            found.faults.append(_fault(name, error, number))
            continue
        assert isinstance(entry, Entry)
        if not is_named or entry.sequence != number:
            after = "the head" if number == head.last else f"entry {number + 1}"
            found.faults.append(Fault(name, "tampered", f"is not the entry that {after} names", number))
            continue
        expected = entry.before
        yield entry
    if expected not in (None, head.before):
        found.faults.append(Fault(HEAD, "tampered", f"names another beginning than entry {head.first}"))


def _check_round(archive: Archive, entry: Entry, found: Audit, *, replay: bool) -> None:
    raws: dict[str, bytes] = {}
    for what, name in entry.objects().items():
        path = object_name(name)
        raw = archive.shelf.get(path)
        if raw is None:
            found.faults.append(Fault(path, "missing", f"the {what} of entry {entry.sequence}", entry.sequence))
        elif digest(raw) != name:
            text = f"is not the {what} that entry {entry.sequence} names"
            found.faults.append(Fault(path, "tampered", text, entry.sequence))
        else:
            raws[what] = raw
    if len(raws) < len(entry.objects()):
        return
    try:
        inputs = decode_json(unpack(raws["inputs"], "inputs"), RoundInputs, "inputs")
        plan = read_plan_object(raws["plan"], "plan")
        last = raws.get("last plan")
        previous = None if last is None else read_plan_object(last, "last plan")
    except PowerhallError as error:
        found.faults.append(Fault(entry_name(entry.sequence), "unreadable", str(error), entry.sequence))
        return
    name = object_name(entry.plan)
    broken = verify_plans(plan)
    if broken or plan.plan_id != entry.plan_id:
        text = str(broken[0]) if broken else f"has another id than entry {entry.sequence} says"
        found.faults.append(Fault(name, "plan", text, entry.sequence))
        return
    found.verified += 1
    if replay:
        _replay(entry, inputs, plan, previous, found)


def _replay(
    entry: Entry, inputs: RoundInputs, plan: Plan | MultiSitePlan, last: Plan | MultiSitePlan | None, found: Audit
) -> None:
    name = object_name(entry.plan)
    if plan.cut_short:
        stages = ", ".join(plan.cut_short)
        found.notes.append(f"entry {entry.sequence}: not replayed: its deadline cut {stages} short")
        return
    try:
        again = _made_again(inputs, last)
    except PowerhallError as error:
        found.faults.append(Fault(name, "replay", f"the round cannot be made again: {error}", entry.sequence))
        return
    if again.cut_short:
        found.notes.append(f"entry {entry.sequence}: not replayed: this machine is {_PATIENCE:g} times as slow")
        return
    if _decisions(again) == _decisions(plan):
        found.replayed += 1
        return
    others = other_versions(entry.versions, versions_here())
    text = f"its inputs give another plan{f' ({others})' if others else ''}"
    found.faults.append(Fault(name, "replay", text, entry.sequence))


def _made_again(inputs: RoundInputs, last: Plan | MultiSitePlan | None) -> Plan | MultiSitePlan:
    log = Log(quiet=True)
    settings = msgspec.structs.replace(inputs.settings, scheduler="")  # a cluster changes no result
    created_s = inputs.created_s

    def clock(seconds: float) -> RoundClock:
        return RoundClock.start(seconds).later(_PATIENCE * seconds)

    if len(inputs.snapshots) > 1:
        before = last if isinstance(last, MultiSitePlan) else None
        sites, seconds = list(inputs.snapshots), inputs.seconds
        return make_multi_site_plan(
            sites, settings, seconds, created_s=created_s, log=log, previous=before, clock=clock(seconds)
        )
    own = last if isinstance(last, Plan) else None
    snapshot = inputs.snapshots[0]

    def make(seconds: float, keep_peaks: bool) -> Plan:
        return make_plan(
            snapshot,
            settings,
            seconds,
            created_s=created_s,
            log=log,
            previous=own,
            clock=clock(seconds),
            keep_peaks=keep_peaks,
        )

    return better_of_two(make, snapshot, inputs.seconds, log)


def _decisions(plan: Plan | MultiSitePlan) -> bytes:
    """Return a plan's bytes without what depends on the clock: how long it took, and notes on it."""
    if isinstance(plan, MultiSitePlan):
        parts = tuple(msgspec.structs.replace(part, solve_s=0.0, notes=(), cut_short=()) for part in plan.plans)
        return msgspec.json.encode(msgspec.structs.replace(plan, plans=parts, solve_s=0.0, notes=(), cut_short=()))
    return msgspec.json.encode(msgspec.structs.replace(plan, solve_s=0.0, notes=(), cut_short=()))


def _told(archive: Archive, head: Head, entries: list[Entry], found: Audit) -> None:
    if head.first > 1:
        found.notes.append(f"entries before {head.first} were dropped to keep the archive within its size")
    if archive.key is None:
        found.notes.append("signatures are not checked: give --site-key; whoever can write all files can make a chain")
    sizes = archive.shelf.sizes()
    if sizes is None:
        return
    used = {object_name(name) for entry in entries for name in entry.objects().values()}
    for name in sizes:
        if name.startswith("objects/") and name not in used:
            raw = archive.shelf.get(name) or b""
            if object_name(digest(raw)) != name:
                found.faults.append(Fault(name, "tampered", "its content is not what it is named after"))
    later = [name for name in sizes if name.startswith("entries/") and name > entry_name(head.last)]
    if later:
        found.notes.append(f"{later[0]}: its round was interrupted before the head named it")
    odd = [name for name in sizes if name != HEAD and not name.startswith(("entries/", "objects/"))]
    found.notes.extend(f"{name}: is no file of an archive" for name in odd[:5])
