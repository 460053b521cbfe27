"""A site of two halls, each with a node type of its own, plans made by hand, and where a pod template may run."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

from powerhall.hostlist import compress
from powerhall.jobs.model import Job
from powerhall.plan.plan import PLAN_VERSION, Assignment, Placement, Plan, Snapshot, ZonePlan, snapshot_hash
from powerhall.site.topology import Hall, Losses, Mode, NodeType, Rack, RackRow, Site

HALLS = {"hall1": tuple(f"gn{n:02d}" for n in range(1, 7)), "hall2": tuple(f"gn{n:02d}" for n in range(7, 13))}
TYPES = {"hall1": "hgx", "hall2": "old"}


def two_halls(rack_limit_w: float | None = None) -> Site:
    """Return the site; its racks of three nodes may have a limit."""

    def kind(name: str, gpu_w: float) -> NodeType:
        return NodeType(name, name, 8, 0.0, 8 * gpu_w, 4 * gpu_w, 0.8, (Mode("fast", "power_limit", gpu_w, 1.0),))

    halls = [
        Hall(
            zone,
            (RackRow(f"{zone}/r", tuple(_rack(zone, nodes, at, rack_limit_w) for at in (0, 3))),),
            (),
            Losses(),
            power_limit_w=30_000.0,
        )
        for zone, nodes in HALLS.items()
    ]
    return Site("plant", tuple(halls), {"hgx": kind("hgx", 1250.0), "old": kind("old", 750.0)}, power_limit_w=60_000.0)


def _rack(zone: str, nodes: Sequence[str], at: int, limit_w: float | None) -> Rack:
    return Rack(f"{zone}/r/k{at}", TYPES[zone], tuple(nodes[at : at + 3]), power_limit_w=limit_w)


def plan_on(site: Site, jobs: Sequence[Job], where: Mapping[str, Sequence[str]]) -> Plan:
    """Return a plan that starts jobs now on these nodes; the others are in no part of it."""
    now_s = int(time.time())
    snapshot = Snapshot(now_s, now_s, 60, 30, site, tuple(jobs))
    gpus = {job.job_id: job.gpus for job in jobs}
    starts = []
    for name, nodes in where.items():
        hall = next(zone for zone, its in HALLS.items() if nodes[0] in its)
        watts = site.node_types[TYPES[hall]].modes[0].gpu_power_w
        places = (Placement(f"{hall}/r/k0", compress(sorted(nodes)), -(-gpus[name] // len(nodes))),)
        end_s = now_s + 1800
        starts.append(Assignment(name, hall, TYPES[hall], "fast", gpus[name], watts, now_s, end_s, places))
    zones = tuple(ZonePlan(zone, (0,) * 30, (60_000,) * 30) for zone in (site.name, *HALLS))
    head = (PLAN_VERSION, snapshot_hash(snapshot), now_s, "feasible", 1, 1, 0.0)
    return Plan(*head, tuple(starts), (), zones, snapshot)


def lands_on(spec: Mapping[str, Any], labels: Mapping[str, Mapping[str, str]]) -> set[str]:
    """Return the nodes (their labels by name) on which the scheduler may put a pod of this specification."""
    found = set()
    required = (spec.get("affinity") or {}).get("nodeAffinity", {}).get(_REQUIRED)
    for node, its in labels.items():
        selected = all(its.get(key) == value for key, value in (spec.get("nodeSelector") or {}).items())
        named = spec.get("nodeName") in (None, node)
        terms = [_term(term, node, its) for term in (required or {}).get("nodeSelectorTerms", [])]
        if selected and named and (required is None or any(terms)):
            found.add(node)
    return found


_REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
_OPERATORS = {
    "In": lambda value, asked: value in asked,
    "NotIn": lambda value, asked: value not in asked,
    "Exists": lambda value, _: value is not None,
    "DoesNotExist": lambda value, _: value is None,
    "Gt": lambda value, asked: value is not None and value.isdigit() and int(value) > int(asked[0]),
    "Lt": lambda value, asked: value is not None and value.isdigit() and int(value) < int(asked[0]),
}


def _term(term: Mapping[str, Any], node: str, labels: Mapping[str, str]) -> bool:
    asked = [(labels.get(one["key"]), one) for one in term.get("matchExpressions") or ()]
    asked += [(node, one) for one in term.get("matchFields") or ()]
    return bool(asked) and all(_OPERATORS[one["operator"]](value, one.get("values") or []) for value, one in asked)
