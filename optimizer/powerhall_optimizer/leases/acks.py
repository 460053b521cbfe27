"""Acknowledgements of leases by nodes, read from the store and verified with each node's key.

Bad points, and copies of old confirmations under a later time, may lie beside a good one. Where the newest points of a
node hold none that was written when it was signed, older ones are read, up to a bound; past that the node is taken not
to have confirmed, and counts at its highest.
"""

from collections.abc import Collection
from dataclasses import dataclass, field

from powerhall.lease import Confirmation, SignedConfirmation, node_key, open_confirmation
from powerhall.runtime.decode.bytes_in import decode_base64
from powerhall.runtime.decode.json_data import decode_json
from powerhall.runtime.errors import PowerhallError, Rejected
from powerhall.store import Ask, Query, Row, Select, Store, what_answers

__all__ = ["Acks", "read_acks"]

_AGE_S = 3600.0
_AHEAD_S = 5.0
"""Points of a later time are of a clock that is, or was, ahead: they must not hide those of the present."""
_PAGES = (4, 24, 512)
"""Points of a node in each span: more only of nodes for which those before hold no good one in its place."""
_MOST_ROWS = 100_000
"""Points of all nodes in one of the later pages, which a flood alone can need; 4,000 nodes fit in the first of them."""
_IN_PLACE_S = 5.0
"""A confirmation is written within moments of its signing."""


@dataclass(frozen=True, slots=True)
class Acks:
    """The newest acknowledged sequence per node, and the number of nodes with refused ones."""

    sequences: dict[str, int]
    refused: int


def read_acks(store: Store, site_key: bytes, nodes: Collection[str], now_s: float) -> Acks:
    """Return the acknowledgements of these nodes in the last hour; damaged or forged ones are refused.

    The nodes of a hall whose store is silent have none: they count at their highest.
    """
    reader = _AckReader(what_answers(store, lambda _hall, _error: None), site_key, nodes)
    present_s = now_s + _AHEAD_S
    reader.read(now_s - _AGE_S, present_s)
    reader.read(present_s, now_s + _AGE_S)
    return Acks(reader.found, len(reader.refused))


@dataclass(slots=True)
class _AckReader:
    ask: Ask
    site_key: bytes
    nodes: Collection[str]
    found: dict[str, int] = field(default_factory=dict)
    refused: set[str] = field(default_factory=set)

    def read(self, start_s: float, end_s: float) -> None:
        """Read the points of a span; a later page that the store refuses tells nothing more."""
        open_nodes = self._page(self.ask(_newest(_PAGES[0]), start_s, end_s), _PAGES[0])
        for size in _PAGES[1:]:
            if not open_nodes:
                return
            some = tuple(sorted(open_nodes)[: _MOST_ROWS // size])
            try:
                open_nodes = self._page(self.ask(_newest(size, some), start_s, end_s), size)
            except PowerhallError:
                return

    def _page(self, rows: list[Row], size: int) -> set[str]:
        """Take in the points; return the nodes with a full page and no good point in its place."""
        counts: dict[str, int] = {}
        in_place = set()
        for row in rows:
            node = row.tags["node"]
            if node not in self.nodes:
                continue
            counts[node] = counts.get(node, 0) + 1
            try:
                confirmation = self._confirmation(row, node)
            except Rejected:
                self.refused.add(node)
                continue
            self.found[node] = max(self.found.get(node, 0), confirmation.sequence)
            if abs(row.time_s - confirmation.time_s) <= _IN_PLACE_S:
                in_place.add(node)
        return {node for node, count in counts.items() if count >= size} - in_place

    def _confirmation(self, row: Row, node: str) -> Confirmation:
        text = decode_base64(str(row.values.get("signed")), "confirmation")
        return open_confirmation(decode_json(text, SignedConfirmation, node), node_key(self.site_key, node), node)


def _newest(count: int, nodes: tuple[str, ...] = ()) -> Query:
    where = {"node": nodes} if nodes else {}
    return Query("lease_confirmation", (Select("signed"),), where, ("node",), order="desc", limit=count)
