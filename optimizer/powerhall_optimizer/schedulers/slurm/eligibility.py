"""Which nodes Slurm would let a waiting job start on, and why others are not the optimizer's to place.

A job that cannot start for a reason that no choice of nodes and time changes is left to Slurm. So is one whose request
a plan cannot keep: parts of GPUs, a range of node counts, GPUs spread over more nodes than they fill.
"""

import re
from collections.abc import Iterable

from powerhall.hostlist import expand
from powerhall.site.index import SiteIndex
from powerhall_optimizer.schedulers.skip_reasons import LeftOut, LeftOutCause
from powerhall_optimizer.schedulers.slurm.cluster import PlacementRules
from powerhall_optimizer.schedulers.slurm.ownership_mark import canonical, parse_mark
from powerhall_optimizer.schedulers.slurm.records import NodeRecord, Record
from powerhall_optimizer.schedulers.slurm.tres import parse_gres

__all__ = ["Candidates", "is_ours_to_hold", "left_to_slurm"]

_MAY_START = {
    "", "None", "Priority", "Resources", "BeginTime", "Licenses", "JobArrayTaskLimit", "ReqNodeNotAvail", "NodeDown",
    "Nodes_required_for_job_are_DOWN,_DRAINED_or_reserved_for_jobs_in_higher_priority_partitions", "Prolog",
    "Cleaning", "SchedDefer", "BadConstraints",
}  # fmt: skip
"""Reasons to wait that a plan decides on, or that another choice of nodes ends."""
_CAUSES = (
    ("Dependency", LeftOutCause.DEPENDENCY),
    ("Partition", LeftOutCause.PARTITION),
    ("Reservation", LeftOutCause.RESERVATION),
    ("QOS", LeftOutCause.ACCOUNT_LIMIT),
    ("Assoc", LeftOutCause.ACCOUNT_LIMIT),
    ("Max", LeftOutCause.ACCOUNT_LIMIT),
    ("Account", LeftOutCause.ACCOUNT_LIMIT),
    ("InvalidQOS", LeftOutCause.ACCOUNT_LIMIT),
    ("InvalidAccount", LeftOutCause.ACCOUNT_LIMIT),
)
_FEATURE = re.compile(r"[\w.:+-]+")


def is_ours_to_hold(record: Record) -> bool:
    """Whether a hold on the job is Powerhall's: written by it, or the outcome of nodes that it asked for."""
    mark = parse_mark(record.admin_comment)
    if mark is None:
        return False
    pinned = record.reason == "BadConstraints" and bool({"nodes", "feat"} & mark.values.keys())
    return pinned or mark.values.get("hold") == "1"


def left_to_slurm(record: Record) -> LeftOut | None:  # noqa: PLR0911
    """Return why a waiting job is not the optimizer's to place, whatever nodes are free; None where it may be."""
    if record.gpus == 0 and not record.is_part:
        return LeftOut(LeftOutCause.NO_GPUS, "GPU")
    if record.is_het:
        return LeftOut(LeftOutCause.HETEROGENEOUS)
    if record.is_held and not is_ours_to_hold(record):
        if record.reason == "BadConstraints":
            return LeftOut(LeftOutCause.REASON, value=record.reason)
        return LeftOut(LeftOutCause.HELD_BY_USER if record.reason == "JobHeldUser" else LeftOutCause.HELD_BY_ADMIN)
    if record.reason == "DependencyNeverSatisfied":
        return LeftOut(LeftOutCause.DEPENDENCY_FAILED)
    plain = re.split(r"[,( ]", record.reason)[0]
    if not {record.reason, plain} & _MAY_START and not record.is_held:
        cause = next((cause for begin, cause in _CAUSES if record.reason.startswith(begin)), LeftOutCause.REASON)
        return LeftOut(cause, value=record.reason[:80])
    if record.reservation:
        return LeftOut(LeftOutCause.RESERVATION, value=record.reservation[:80])
    if record.max_nodes > record.min_nodes:
        return LeftOut(LeftOutCause.NODE_RANGE, value=f"{record.min_nodes} to {record.max_nodes}")
    return None


def _has_features(wanted: str, features: frozenset[str] | None) -> bool | None:
    """Return whether a node has the features of `-C`; None where the expression or the node is not understood."""
    if features is None or re.search(r"[\[\]*()]", wanted):
        return None
    alternatives = [[word.strip() for word in part.split("&")] for part in wanted.split("|")]
    if not all(_FEATURE.fullmatch(word) for part in alternatives for word in part):
        return None
    return any(all(word in features for word in part) for part in alternatives)


def _names(text: str) -> frozenset[str] | None:
    try:
        return frozenset(expand(text))
    except ValueError:
        return None


class Candidates:
    """The nodes of a site on which each waiting job may start; jobs that ask for the same share one answer."""

    def __init__(self, nodes: Iterable[NodeRecord], index: SiteIndex, rules: PlacementRules, now_s: float) -> None:
        self._nodes = {node.name: node for node in nodes}
        self._site = tuple(index.rack_of)
        self._rules, self._now_s = rules, now_s
        self._known: dict[tuple[str | int | float, ...], frozenset[str] | LeftOut] = {}
        self._gres = {text: parse_gres(text) for text in {node.gres for node in self._nodes.values()}}

    @property
    def everywhere(self) -> frozenset[str]:
        """All nodes of the site."""
        return frozenset(self._site)

    def is_whole(self, record: Record) -> bool:
        """Whether Slurm may give the job whole nodes: it asks for them, or one of its partitions gives no others."""
        return record.is_exclusive or any(part.is_whole for part in self._rules.of(record.partition))

    def of(self, record: Record, duration_s: float) -> frozenset[str] | LeftOut:
        """Return the nodes on which Slurm would start the job now, were they free, or why none is known."""
        mark = parse_mark(record.admin_comment)
        asked = record.required_nodes
        if mark is not None and asked and mark.owns("nodes", canonical(asked)):
            asked = ""
        features = "" if mark is not None and mark.owns("feat", record.features) else record.features
        each = -(-record.gpus // record.node_count) if record.is_per_node or record.node_count == 1 else 1
        kind, each = ("", 0) if record.is_part else (record.gpu_type, each)  # parts of GPUs: `gpu_parts`
        key = (
            *(record.partition, asked, record.excluded_nodes, features, kind, each, record.min_nodes),
            duration_s if self._rules.reserved else 0.0,
        )
        if key not in self._known:
            self._known[key] = self._find(record, asked, features, (kind, each), duration_s)
        return self._known[key]

    def _overlaps(self, start_s: float, duration_s: float) -> bool:
        return start_s < self._now_s + duration_s

    def _find(
        self, record: Record, asked: str, features: str, gpus: tuple[str, int], duration_s: float
    ) -> frozenset[str] | LeftOut:
        found: set[str] = set(self._site)
        parts = self._rules.of(record.partition)
        if parts:
            found &= frozenset[str]().union(*(part.nodes for part in parts if part.is_up))
            if not any(part.is_up for part in parts):
                return LeftOut(LeftOutCause.PARTITION, value=f"{record.partition} is not up")
        excluded, wanted = _names(record.excluded_nodes), _names(asked)
        if excluded is None or wanted is None:
            return LeftOut(LeftOutCause.REASON, value="its host list is not understood")
        found -= excluded
        if wanted:
            if len(wanted) < record.min_nodes:
                return LeftOut(LeftOutCause.SOME_NODES, value=asked[:80])
            found &= wanted
        for reserved in self._rules.reserved:
            if reserved.end_s > self._now_s and self._overlaps(reserved.start_s, duration_s):
                found -= reserved.nodes
        if features:
            fits = {name: _has_features(features, self._features(name)) for name in found}
            if None in fits.values():
                return LeftOut(LeftOutCause.FEATURES, value=features[:80])
            found = {name for name, has in fits.items() if has}
        found = {name for name in found if self._has_gpus(name, *gpus)}
        if len(found) < record.min_nodes:
            return LeftOut(LeftOutCause.NO_NODES)
        return frozenset(found)

    def _features(self, name: str) -> frozenset[str] | None:
        return self._nodes[name].features if name in self._nodes else None

    def _has_gpus(self, name: str, kind: str, each: int) -> bool:
        """Whether a node has as many GPUs of a type; true where Slurm's answer does not say what it has."""
        gres = self._gres.get(self._nodes[name].gres) if name in self._nodes and self._nodes[name].gres else None
        if gres is None:
            return True
        has = gres.gpus.get(kind, 0) if kind and set(gres.gpus) != {""} else gres.whole
        return has >= each
