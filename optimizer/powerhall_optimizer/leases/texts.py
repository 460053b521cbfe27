"""Texts about grants. No code reads them back."""

from collections.abc import Sequence
from datetime import UTC, datetime

__all__ = [
    "buried_leases",
    "clock_away",
    "clock_stepped",
    "damaged_ledger",
    "lost_ledger",
    "missing_lease",
    "nodes_ahead",
    "nodes_silent",
    "not_first",
    "nothing_to_grant",
    "old_ledger",
    "only_lowered",
    "other_ledger",
    "shortened",
    "silent_nodes",
    "unconfirmed_nodes",
    "unknown_nodes",
]


def _time(time_s: float) -> str:
    return datetime.fromtimestamp(time_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _amount(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 600 else f"{seconds / 60:.0f} min"


def only_lowered(error: Exception) -> str:
    """Write the note of a grant in which an event or another budget leaves less than the safe caps."""
    return f"an event asks for less than the safe caps: nothing is raised ({error})"


def shortened(until_s: float, why: str) -> str:
    """Write that leases end earlier than asked for."""
    return f"leases end by {_time(until_s)} at the latest: {why}"


def unknown_nodes(count: int, until_s: float) -> str:
    """Write that nodes count at their highest power because the ledger may lack leases."""
    return f"{count} nodes count at their highest power until they confirm, at the latest until {_time(until_s)}"


def unconfirmed_nodes(nodes: Sequence[str], short: int) -> str:
    """Write that nodes count at their highest power because no capper there has ever confirmed a lease.

    That is so after every first grant, and no fault where no node is `short` of what it needs.
    """
    new = f"new to this ledger, and at their highest power in it until their capper confirms a lease: {_some(nodes)}"
    return new if short else f"every node got what it asked for; {new}"


def silent_nodes(nodes: Sequence[str]) -> str:
    """Write that leases do not arrive."""
    return f"{len(nodes)} nodes have not confirmed a lease of two minutes ago or earlier: {_some(nodes)}"


def _some(nodes: Sequence[str]) -> str:
    return ", ".join(nodes[:5]) + (", ..." if len(nodes) > 5 else "")


def damaged_ledger(path: object, kept: str, error: Exception) -> str:
    """Write that a ledger is damaged, and as what it was set aside; in a dry run it stays."""
    why = str(error).removeprefix(f"{path}: ")
    return f"{path}: damaged and kept as {kept}: {why}" if kept else f"{path}: damaged: {why}"


def lost_ledger(path: object) -> str:
    """Write that there is no ledger although leases may be in force."""
    return f"{path}: is lost: its leases may still be in force"


def not_first(path: object, until_s: float) -> str:
    """Write that leases are in force where somebody said that none is."""
    return f"{path}: --first: the store has a lease of this site until {_time(until_s)}: others may be in force too"


def old_ledger(path: object, age_s: float) -> str:
    """Write that the ledger is older than the longest lease, or (below 0) that its age is not known."""
    if age_s < 0:
        return f"{path}: was written {_amount(-age_s)} in the future: leases granted since may be in force"
    return f"{path}: is {_amount(age_s)} old, longer than its longest lease: leases granted since may be in force"


def other_ledger(path: object, sequence: int) -> str:
    """Write that leases were granted that the ledger does not have."""
    return f"{path}: lacks lease {sequence}: it is an old copy, or another ledger grants for this site"


def missing_lease(path: object, sequence: int, node: str) -> str:
    """Write that a node confirmed a lease that the ledger does not have."""
    return f"{path}: lacks lease {sequence}, which {node} confirmed: it is an old copy, or another ledger grants"


def buried_leases(path: object, count: int) -> str:
    """Write that the store cannot tell whether the ledger is the newest."""
    return (
        f"{path}: none of the newest {count} lease points in the store is signed: others may hide leases that it lacks"
    )


def clock_away(name: str, ahead_s: float) -> str:
    """Write that another clock differs from this host's."""
    way = "ahead of" if ahead_s > 0 else "behind"
    return f"this host's clock is {_amount(abs(ahead_s))} {way} {name}"


def clock_stepped(ahead_s: float) -> str:
    """Write that this host's clock was set."""
    return f"this host's clock was set {'forward' if ahead_s > 0 else 'back'} by {_amount(abs(ahead_s))}"


def nodes_ahead(count: int, of: int, ahead_s: float) -> str:
    """Write that the clocks of some nodes are ahead."""
    return f"the clocks of {count} of {of} nodes are ahead of this host's, by up to {_amount(ahead_s)}"


def nodes_silent(age_s: float) -> str:
    """Write that the newest report of all nodes is old: nobody reports, or this host's clock is ahead."""
    return f"the newest report of any node is {_amount(age_s)} old: this host's clock is ahead, or all agents are down"


def nothing_to_grant(alarms: Sequence[str]) -> str:
    """Write that clocks are so far apart that no lease would be valid by all of them."""
    return f"lease: nothing is granted: {'; '.join(alarms)}"
