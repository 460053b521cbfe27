"""State of the site from the store: nodes with fresh telemetry, and the job queue."""

import math
from dataclasses import dataclass

import msgspec

from powerhall.jobs import Job, check_jobs
from powerhall.runtime.errors import Rejected
from powerhall.site.index import SiteIndex
from powerhall.site.topology import Site
from powerhall.store import Query, Select, Store

__all__ = ["NodeState", "node_state", "store_queue"]

_EVER_S = 86_400.0


@dataclass(frozen=True, slots=True)
class NodeState:
    """Nodes without fresh telemetry; `known` is false where the site has sent none within a day."""

    stale: tuple[str, ...]
    known: bool


def _heard(store: Store, site: str, start_s: float, end_s: float) -> set[str]:
    """Return the nodes that sent a finite reading in the range; NaN is no data."""
    found: set[str] = set()
    for field in ("gpus_up", "power_w"):
        query = Query("node", (Select(field, "last"),), {"site": site}, ("node",))
        for row in store.query(query, start_s, end_s):
            value = row.number(field)
            if value is not None and math.isfinite(value):
                found.add(row.tags["node"])
    return found


def node_state(store: Store, site: Site, now_s: float, stale_after_s: float) -> NodeState:
    """Return the nodes of the site without telemetry for `stale_after_s`.

    A site without telemetry for a day has no agents yet: its nodes are unknown, not stale.
    """
    fresh = _heard(store, site.name, now_s - stale_after_s, now_s + 1.0)
    if not fresh and not _heard(store, site.name, now_s - _EVER_S, now_s + 1.0):
        return NodeState((), known=False)
    return NodeState(tuple(node for node in SiteIndex.of(site).rack_of if node not in fresh), known=True)


class _Queue(msgspec.Struct, frozen=True):
    """The part of the document of `powerhall-optimizer queue --store` that a round needs."""

    jobs: tuple[Job, ...]
    down_nodes: tuple[str, ...] = ()


def store_queue(store: Store, site: str) -> tuple[tuple[Job, ...], tuple[str, ...]]:
    """Return the jobs and the unusable nodes of the site's newest queue document; both may be empty.

    The document (kind "queue") is what `powerhall-optimizer queue --store` writes, or a plain JSON array of jobs.
    """
    source = f"store: queue of {site}"
    body = store.latest_document("queue", site)
    if body is None:
        raise Rejected(f"{source}: no document: run `powerhall-optimizer queue --store`, or give --jobs")
    try:
        found = msgspec.json.decode(body, type=_Queue | list[Job])
    except msgspec.MsgspecError as error:
        raise Rejected(f"{source}: {error}") from None
    queue = found if isinstance(found, _Queue) else _Queue(tuple(found))
    return check_jobs(queue.jobs, source), queue.down_nodes
