"""Write leases to the store: one point per node with its signed lease as text, in a single write."""

import base64
from collections.abc import Iterable

import msgspec

from powerhall.lease import Lease, SignedLease
from powerhall.site.index import SiteIndex
from powerhall.site.topology import Site
from powerhall.store import Store
from powerhall.store.line_protocol import Point, encode

__all__ = ["publish_leases"]


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
