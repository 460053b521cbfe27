"""Signed leases in the store, as evidence that a ledger lacks some.

A store can show that a lease was granted, never that none was: points may be lost, overwritten, buried under others, or
those of a backup. So what it shows adds doubt, and never ends one. Only a lease that the site's key signed counts.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from powerhall.lease import Lease, SignedLease, node_key, open_lease
from powerhall.runtime.decode.bytes_in import decode_base64
from powerhall.runtime.decode.json_data import decode_json
from powerhall.runtime.errors import PowerhallError, Rejected
from powerhall.store import Ask, Query, Row, Select, Store, what_answers
from powerhall_optimizer.leases.spans import LONGEST_LEASE_S

__all__ = ["Evidence", "find_evidence"]

_PAGES = (20, 200, 2000, 10_000)
"""Points per query: more only where none of those before is a lease in its place."""
_AHEAD_S = 5.0
"""Leases of a later time are of a clock that was ahead, and not in force yet: they hide none of the present."""
_IN_PLACE_S = 1.0
"""A lease is written at the time of its issue; a copy of an old one under a later time hides nothing."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """The highest number of a signed lease of the last hour.

    `raised_until_s` is the end of the last of those that were read which is above its node's safe cap.
    `buried` is the number of points that were looked at where none of them is a lease in its place and older ones may
    be; else 0.
    """

    sequence: int = 0
    buried: int = 0
    raised_until_s: float = 0.0


def find_evidence(
    store: Store | None, site: str, site_key: bytes, now_s: float, safe_caps_w: Mapping[str, int]
) -> Evidence:
    """Return what the store shows of the last hour; nothing where it does not answer. Silent halls are left out."""
    if store is None:
        return Evidence()
    ask = what_answers(store, lambda _hall, _error: None)
    present_s, highest, until_s, seen = now_s + _AHEAD_S, 0, 0.0, 0
    try:
        for row in ask(_newest(site, _PAGES[0]), present_s, now_s + LONGEST_LEASE_S):
            highest = max(highest, _sequence(_lease(row, site_key)))
        for rows, is_last in _pages(ask, site, now_s - LONGEST_LEASE_S, present_s):
            leases = [(row, lease) for row in rows if (lease := _lease(row, site_key)) is not None]
            highest, seen = max([highest, *(lease.sequence for _, lease in leases)]), seen + len(rows)
            raised = (lease for _, lease in leases if lease.node_cap_w > safe_caps_w.get(lease.node, 0))
            until_s = max([until_s, *(lease.expires_s for lease in raised)])
            if is_last or any(abs(row.time_s - lease.issued_s) <= _IN_PLACE_S for row, lease in leases):
                return Evidence(highest, 0, until_s)
    except PowerhallError:
        pass
    return Evidence(highest, seen, until_s)


def _pages(ask: Ask, site: str, start_s: float, end_s: float) -> Iterator[tuple[list[Row], bool]]:
    """Give the points, the newest first, and whether there are no older ones.

    A page begins at the last moment of the one before, whose points may not all have been in it.
    """
    for size in _PAGES:
        rows = ask(_newest(site, size), start_s, end_s)
        yield rows, len(rows) < size
        end_s = min(row.time_s for row in rows) + 0.001


def _newest(site: str, count: int) -> Query:
    return Query("lease", (Select("signed"),), where={"site": site}, order="desc", limit=count)


def _sequence(lease: Lease | None) -> int:
    return 0 if lease is None else lease.sequence


def _lease(row: Row, site_key: bytes) -> Lease | None:
    """Return the lease of a point where this site's key signed it."""
    try:
        signed = decode_json(decode_base64(str(row.values.get("signed")), "lease"), SignedLease, "lease")
        lease = decode_json(signed.body, Lease, "lease")
        return open_lease(signed, node_key(site_key, lease.node), lease.node, -1, lease.issued_s)
    except Rejected:
        return None
