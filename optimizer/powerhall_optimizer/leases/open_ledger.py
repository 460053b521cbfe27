"""Open a ledger, and find out whether it may lack leases that are in force.

It may when it is damaged, absent although it was there before, older than its longest lease, or when the store has a
signed lease with a higher number, or too many points without one to tell. The file's lock, which stays beside it, and
the leases in the store tell a lost ledger from one that has never been. Nothing tells when the last of the missing
leases ends, so all of them count for as long as the longest lease lasts.
"""

from collections.abc import Callable
from pathlib import Path

from powerhall.runtime.errors import ConfigError, Rejected
from powerhall.runtime.file_lock import lock_path
from powerhall.site.topology import Site
from powerhall.store import Store
from powerhall_optimizer.leases import texts
from powerhall_optimizer.leases.caps import most_powers_w, safe_caps_w
from powerhall_optimizer.leases.evidence import Evidence, find_evidence
from powerhall_optimizer.leases.ledger import Ledger
from powerhall_optimizer.leases.ledger_file import MOST_AHEAD_S, LedgerFile, State, newest_number
from powerhall_optimizer.leases.spans import LONGEST_LEASE_S

__all__ = ["open_ledger"]

_SLACK_S = 60.0


def open_ledger(
    site: Site,
    path: Path,
    now_s: float,
    tell: Callable[[str], None],
    *,
    store: Store | None,
    site_key: bytes,
    is_first: bool = False,
    dry_run: bool = False,
) -> Ledger:
    """Open the ledger of a site; what is wrong with it is told in one line, and counted at its worst.

    With `is_first` an absent ledger begins empty: no lease of this site is in force, unless the store shows one above a
    safe cap. A ledger that cannot be read for another reason than its contents raises ConfigError, one of another site
    Rejected.
    """
    caps_w, most_w = safe_caps_w(site), most_powers_w(site)

    def opened(path: Path | None) -> Ledger:
        return Ledger(caps_w, path, most_w=most_w, dry_run=dry_run, site_key=site_key, tell=tell)

    seen = find_evidence(store, site.name, site_key, now_s, caps_w)  # before the ledger, which has leases first
    was_here, is_there = lock_path(path).exists(), path.exists()
    try:
        ledger = opened(path)
        _check_ahead(path, ledger.state, now_s)
        why = _doubt(path, ledger.state, seen, now_s) if is_there else ""
    except ConfigError:
        raise
    except Rejected as error:
        kept = "" if dry_run else LedgerFile(path).set_aside(now_s).name
        ledger, why = opened(None if dry_run else path), texts.damaged_ledger(path, kept, error)
    if ledger.state.site not in ("", site.name):
        allowed = f"the plan is of {site.name!r}: each site has a ledger of its own"
        raise Rejected.field(str(path), "site", ledger.state.site, allowed)
    if not is_there and is_first and seen.raised_until_s + ledger.clock_skew_s > now_s:
        why = texts.not_first(path, seen.raised_until_s)
    elif not is_there and not is_first and (was_here or seen.sequence or seen.buried):
        why = texts.lost_ledger(path)
    newest = seen.sequence + len(ledger.safe_caps_w)  # the lease that was seen may be the first of a grant to all nodes
    if why:
        tell(why)
        ledger.distrust(now_s, now_s + LONGEST_LEASE_S, newest)
    elif is_first and not is_there:
        ledger.distrust(now_s, now_s, newest)  # of nothing: numbers begin above those of leases that have ended
    return ledger


def _doubt(path: Path, state: State, seen: Evidence, now_s: float) -> str:
    """Return why a ledger may lack leases; nothing where all speaks for it."""
    age_s = now_s - state.time_s
    if seen.sequence > state.sequence:
        return texts.other_ledger(path, seen.sequence)
    if not -_SLACK_S <= age_s <= min(state.longest_s or LONGEST_LEASE_S, LONGEST_LEASE_S):
        return texts.old_ledger(path, age_s)
    return texts.buried_leases(path, seen.buried) if seen.buried else ""


def _check_ahead(path: Path, state: State, now_s: float) -> None:
    """Refuse a ledger with an end or a number that no clock explains: nobody would get a lease."""
    ends = [entry.expires_s for held in state.entries.values() for entry in held]
    if max([*ends, state.unknown_until_s], default=0.0) > now_s + MOST_AHEAD_S:
        raise Rejected(f"{path}: counts leases that end in more than a day")
    if state.sequence > newest_number(now_s + MOST_AHEAD_S):
        raise Rejected(f"{path}: sequence: {state.sequence}: is days ahead of the time: the numbers would be used up")
