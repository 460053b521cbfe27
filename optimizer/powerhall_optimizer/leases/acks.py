"""Acknowledgements of leases by nodes, read from the store and verified with each node's key."""

import base64
from collections.abc import Collection
from dataclasses import dataclass

import msgspec

from powerhall.lease import SignedConfirmation, node_key, open_confirmation
from powerhall.runtime.errors import Rejected
from powerhall.store import Query, Select, Store

__all__ = ["Acks", "read_acks"]

_AGE_S = 3600.0


@dataclass(frozen=True, slots=True)
class Acks:
    """The newest acknowledged sequence per node, and the number of refused acknowledgements."""

    sequences: dict[str, int]
    refused: int


def read_acks(store: Store, site_key: bytes, nodes: Collection[str], now_s: float) -> Acks:
    """Return the acknowledgements of these nodes in the last hour; damaged or forged ones are refused."""
    query = Query("lease_confirmation", (Select("signed", "last"),), group_by=("node",))
    found: dict[str, int] = {}
    refused = 0
    for row in store.query(query, now_s - _AGE_S, now_s + 60.0):
        node, text = row.tags["node"], row.values.get("signed")
        if node not in nodes:
            continue
        try:
            signed = msgspec.json.decode(base64.b64decode(str(text), validate=True), type=SignedConfirmation)
            found[node] = open_confirmation(signed, node_key(site_key, node), node).sequence
        except (ValueError, msgspec.DecodeError, Rejected):
            refused += 1
    return Acks(found, refused)
