"""Keep a round: its objects, then its entry, then the head, so that an interrupted round leaves the last one whole."""

import platform
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

import powerhall
from powerhall.plan.multi_site import MultiSitePlan
from powerhall.plan.plan import Plan
from powerhall.runtime.errors import PowerhallError, Rejected
from powerhall.runtime.file_lock import FileLock, LockHeld, lock_path
from powerhall.runtime.log import Log
from powerhall_optimizer.archive.entries import (
    HEAD,
    START,
    Entry,
    Head,
    RoundInputs,
    digest,
    entry_name,
    object_name,
    open_signed,
    pack,
    seal,
)
from powerhall_optimizer.archive.shelf import FolderShelf, Shelf

__all__ = ["Archive", "begin_archive", "keep_round", "versions_here"]

_LIBRARIES = ("numpy", "scipy", "numba", "llvmlite", "ortools", "msgspec")


@dataclass(frozen=True, slots=True)
class Archive:
    """A place for rounds, the site key that signs them if there is one, and the most bytes that it may take."""

    shelf: Shelf
    key: bytes | None = None
    most_bytes: float = 1e9


def versions_here() -> dict[str, str]:
    """Return the versions on which a plan depends to the last bit: software, libraries, kind of processor."""
    found = {"powerhall": powerhall.__version__, "python": platform.python_version(), "machine": platform.machine()}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def keep_round(
    archive: Archive | None,
    inputs: RoundInputs,
    plan: Plan | MultiSitePlan,
    last: Plan | MultiSitePlan | None,
    log: Log,
) -> None:
    """Keep a round. Where that fails (a full disk, a damaged archive) it is logged, and the round goes on."""
    if archive is None:
        return
    try:
        with _locked(archive):
            _append(archive, inputs, plan, last)
    except (OSError, PowerhallError) as error:
        log.error("not_archived", plan_id=plan.plan_id[:12], reason=error)


def begin_archive(archive: Archive | None, log: Log) -> None:
    """Begin an archive without a round where there is none, so that an audit finds it; a failure is logged."""
    if archive is None:
        return
    try:
        with _locked(archive):
            if _head(archive) is None:
                archive.shelf.put(HEAD, seal(Head(1, START, 0, START), archive.key))
    except (OSError, PowerhallError) as error:
        log.error("not_archived", reason=error)


@contextmanager
def _locked(archive: Archive) -> Iterator[None]:
    """Let no other round write to the archive's folder; a store needs no lock."""
    if not isinstance(archive.shelf, FolderShelf):
        yield
        return
    folder = archive.shelf.folder
    folder.mkdir(parents=True, exist_ok=True)
    try:
        lock = FileLock(lock_path(folder / HEAD))
    except LockHeld:
        raise PowerhallError(f"{folder}: another round is writing to this archive") from None
    with lock:
        yield


def _append(
    archive: Archive, inputs: RoundInputs, plan: Plan | MultiSitePlan, last: Plan | MultiSitePlan | None
) -> None:
    shelf = archive.shelf
    head = _head(archive)
    inputs_name, plan_name = _put(shelf, inputs), _put(shelf, plan)
    last_name = "" if last is None else _put(shelf, last)
    sites = tuple(snapshot.site.name for snapshot in inputs.snapshots)
    number = 1 if head is None else head.last + 1
    before = START if head is None else head.newest
    entry = Entry(
        number, before, inputs.created_s, sites, plan.plan_id, inputs_name, plan_name, last_name, versions_here()
    )
    raw = seal(entry, archive.key)
    shelf.put(entry_name(number), raw)
    kept = Head(1, START, number, digest(raw)) if head is None else Head(head.first, head.before, number, digest(raw))
    shelf.put(HEAD, seal(kept, archive.key))
    _prune(archive, kept)


def _put(shelf: Shelf, value: object) -> str:
    """Store an object unless it is there, and return its digest."""
    raw = pack(value)
    name = digest(raw)
    if shelf.get(object_name(name)) != raw:
        shelf.put(object_name(name), raw)
    return name


def _head(archive: Archive) -> Head | None:
    """Return the head; one that is damaged, or gone from beside entries, raises Rejected: nothing is written over."""
    raw = archive.shelf.get(HEAD)
    if raw is None:
        sizes = archive.shelf.sizes() or {}
        written = [name for name in sizes if name.startswith("entries/")]
        if len(written) > 1 or (written and written != [entry_name(1)]):  # one alone: its round was interrupted
            raise Rejected("archive: head.json: is missing beside entries: run `powerhall-optimizer audit`")
        return None
    try:
        head = open_signed(raw, Head, archive.key, HEAD)
    except Rejected as error:
        raise Rejected(f"archive: {error}; run `powerhall-optimizer audit`, or give a new folder") from None
    assert isinstance(head, Head)
    return head


def _prune(archive: Archive, head: Head) -> None:
    """Drop the oldest entries until the archive fits, never the newest one: first from the head, then their files."""
    shelf = archive.shelf
    sizes = shelf.sizes()
    if sizes is None:
        return
    total = sum(sizes.values())
    if total <= archive.most_bytes:
        return
    entries = _entries(archive, head)
    first, before, dropped = head.first, head.before, 0
    users = _users(entries)
    for entry in entries[:-1]:
        if total - dropped <= archive.most_bytes:
            break
        first, before = entry.sequence + 1, entries[entry.sequence - head.first + 1].before
        dropped += sizes.get(entry_name(entry.sequence), 0)
        for name in set(entry.objects().values()):
            users[name] -= 1
            dropped += sizes.get(object_name(name), 0) if users[name] == 0 else 0
    if first != head.first:
        shelf.put(HEAD, seal(Head(first, before, head.last, head.newest), archive.key))
    wanted = {HEAD} | {entry_name(number) for number in range(first, head.last + 1)}
    wanted |= {object_name(name) for name, count in users.items() if count > 0}
    for name in sizes.keys() - wanted:
        if name.startswith(("entries/", "objects/")):
            shelf.remove(name)


def _entries(archive: Archive, head: Head) -> list[Entry]:
    found: list[Entry] = []
    for number in range(head.first, head.last + 1):
        name = entry_name(number)
        raw = archive.shelf.get(name)
        if raw is None:
            raise Rejected(f"archive: {name}: is missing: run `powerhall-optimizer audit`; nothing is pruned")
        entry = open_signed(raw, Entry, archive.key, name)
        assert isinstance(entry, Entry)
        found.append(entry)
    return found


def _users(entries: Sequence[Entry]) -> dict[str, int]:
    users: dict[str, int] = {}
    for entry in entries:
        for name in set(entry.objects().values()):
            users[name] = users.get(name, 0) + 1
    return users
