"""Write leases to the store: one point per node with its signed lease as text, in a single write; and the figures."""

import base64
from collections.abc import Iterable, Mapping

import msgspec

from powerhall.lease import Lease, SignedLease
from powerhall.runtime.errors import PowerhallError
from powerhall.runtime.log import Log
from powerhall.site.index import SiteIndex
from powerhall.site.topology import Site
from powerhall.store import Store
from powerhall.store.line_protocol import Point, encode
from powerhall.store.schema import MEASUREMENTS

__all__ = ["ROUND_FIELDS", "publish_leases", "publish_round"]

ROUND_FIELDS = frozenset(field.name for field in MEASUREMENTS["lease_round"].fields)


def publish_leases(store: Store, site: Site, leases: Iterable[tuple[Lease, SignedLease]]) -> int:
    """Write the leases and return how many; the node's carrier reads its newest one (`powerhall-agent lease`)."""
    index = SiteIndex.of(site)
    lines = []
    for lease, signed in leases:
        fields: dict[str, float | str] = {
            "cap_w": lease.node_cap_w,
            "safe_cap_w": index.node_type(lease.node).safe_cap_w,
            "expires_s": lease.expires_s,
            "plan_id": lease.plan_id,
            "signed": base64.b64encode(msgspec.json.encode(signed)).decode(),
        }
        tags = {"site": site.name, "hall": index.hall_of(lease.node).zone, "node": lease.node}
        lines.append(encode(Point("lease", tags, fields, int(lease.issued_s * 1000))))
    if lines:
        store.write(b"".join(lines))
    return len(lines)


def publish_round(store: Store | None, site: str, time_s: float, figures: Mapping[str, float], log: Log) -> None:
    """Write the figures of one grant, for dashboards and alerts; a store that fails is logged and stops nothing."""
    if store is None:
        return
    try:
        store.write(encode(Point("lease_round", {"site": site}, dict(figures), int(time_s * 1000))))
    except PowerhallError as error:
        log.warning("lease_round", detail=error)
