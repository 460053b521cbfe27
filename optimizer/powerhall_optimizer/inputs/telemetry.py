"""State of the site from the store: nodes with fresh telemetry, and the job queue."""

import math
from dataclasses import dataclass

import msgspec

from powerhall.jobs import Job
from powerhall.jobs.job_files import decode_job_list
from powerhall.jobs.left_out import LeftOut, LeftOutCode
from powerhall.runtime.decode.json_data import decode_json
from powerhall.runtime.errors import Rejected
from powerhall.site.index import SiteIndex
from powerhall.site.topology import Site
from powerhall.store import Query, Select, Store, what_answers

__all__ = ["NodeState", "StoreQueue", "node_state", "store_queue"]

_EVER_S = 400 * 86_400.0
"""A site that has sent nothing for longer has no agents."""


@dataclass(frozen=True, slots=True)
class NodeState:
    """Nodes without fresh telemetry; `known` is false where the site has never sent any."""

    stale: tuple[str, ...]
    known: bool


def _heard(store: Store, site: str, start_s: float, end_s: float, silent: set[str]) -> set[str]:
    """Return the nodes that sent a finite reading in the range; NaN is no data. A hall's silent store is noted."""
    found: set[str] = set()
    ask = what_answers(store, lambda hall, _error: silent.add(hall))
    for field in ("gpus_up", "power_w"):
        query = Query("node", (Select(field, "last"),), {"site": site}, ("node",))
        for row in ask(query, start_s, end_s):
            value = row.number(field)
            if value is not None and math.isfinite(value):
                found.add(row.tags["node"])
    return found


def node_state(store: Store, site: Site, now_s: float, stale_after_s: float) -> NodeState:
    """Return the nodes of the site without telemetry for `stale_after_s`.

    A site that has never sent telemetry has no agents yet: its nodes are unknown, not stale. The nodes of a hall whose
    store is silent are stale.
    """
    silent: set[str] = set()
    fresh = _heard(store, site.name, now_s - stale_after_s, now_s + 1.0, silent)
    if not fresh and not silent and not _heard(store, site.name, now_s - _EVER_S, now_s + 1.0, silent):
        return NodeState((), known=False)
    return NodeState(tuple(node for node in SiteIndex.of(site).rack_of if node not in fresh), known=True)


class _Queue(msgspec.Struct, frozen=True):
    """The part of the document of `powerhall-optimizer queue --store` that a round needs."""

    jobs: tuple[msgspec.Raw, ...]
    down_nodes: tuple[str, ...] = ()
    left_out: dict[str, str] = {}
    taken_s: float | None = None
    off_nodes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class StoreQueue:
    """The queue of a site from the store; `taken_s` is None where the document does not say when it was read."""

    jobs: tuple[Job, ...]
    down_nodes: tuple[str, ...]
    left_out: tuple[LeftOut, ...]
    taken_s: float | None
    off_nodes: tuple[str, ...] = ()

    def too_old(self, now_s: float, stale_after_s: float) -> str:
        """Return why nothing may start, or nothing where the queue is fresh."""
        age_s = 0.0 if self.taken_s is None else now_s - self.taken_s
        return f"the queue was read {age_s / 60:.0f} min ago" if age_s > stale_after_s else ""


def _decoded(body: bytes, source: str) -> _Queue:
    if body.lstrip()[:1] == b"[":
        return _Queue(decode_json(body, tuple[msgspec.Raw, ...], source))
    return decode_json(body, _Queue, source)


def store_queue(store: Store, site: str) -> StoreQueue:
    """Return the site's newest queue document; a job that is wrong is left out with its reason.

    The document (kind "queue") is what `powerhall-optimizer queue --store` writes, or a plain JSON array of jobs.
    """
    source = f"store: queue of {site}"
    body = store.latest_document("queue", site)
    if body is None:
        raise Rejected(f"{source}: no document: run `powerhall-optimizer queue --store`, or give --jobs")
    queue = _decoded(body, source)
    found = decode_job_list(queue.jobs, source)
    counted = {job.job_id for job in found.jobs}
    told = (LeftOut(name, LeftOutCode.SCHEDULER, why) for name, why in queue.left_out.items() if name not in counted)
    return StoreQueue(found.jobs, queue.down_nodes, (*found.left_out, *told), queue.taken_s, queue.off_nodes)
