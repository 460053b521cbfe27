"""What pods ask of their nodes: `nodeName`, `nodeSelector` and required node affinity, as the scheduler reads them.

A round narrows them down to the planned nodes (`confinement`). The annotation `powerhall.io/own-nodes` keeps what the
user wrote, which stays the condition of every later plan.
https://kubernetes.io/docs/concepts/scheduling-eviction/assign-pod-node/
"""

from collections.abc import Mapping
from contextlib import suppress

import msgspec

from powerhall.hostlist import count_names, expand
from powerhall.runtime.decode.json_data import decode_json
from powerhall.runtime.errors import Rejected
from powerhall_optimizer.schedulers.kubernetes.gangs import PodGroup, pod_groups
from powerhall_optimizer.schedulers.kubernetes.objects import Object, notes_of, objects, part

__all__ = [
    "OWN_NODES",
    "PREFERRED",
    "REFUSED",
    "REQUIRED",
    "OwnNodes",
    "check_size",
    "may_run_on",
    "own_nodes",
    "own_spec",
    "refused_nodes",
]

OWN_NODES = "own-nodes"
REFUSED = "refused"
"""Annotation with the nodes (host list) that took none of a job's pods when it was planned there."""
REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"
_MOST_REFUSED = 10_000
_MOST_CONDITIONS = 4_000
"""Each is looked at for every node: what a tenant writes must not keep a round busy."""


class OwnNodes(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    """What the user of a pod template asks of its node, of that which a round overwrites."""

    node_selector: dict[str, str] = {}
    required: list[dict[str, object]] = []
    """Terms of which one must hold; none: any node."""
    preferred: list[dict[str, object]] = []

    @staticmethod
    def of(spec: Object) -> "OwnNodes":
        """Return what a pod specification asks for now."""
        affinity = part(spec, "affinity", "nodeAffinity")
        selector = {key: str(value) for key, value in part(spec, "nodeSelector").items()}
        required = objects(part(affinity, REQUIRED).get("nodeSelectorTerms"))
        return OwnNodes(selector, required, objects(affinity.get(PREFERRED)))


def own_nodes(raw: Object) -> list[OwnNodes]:
    """Return what the user asks for, by the order of the job's groups of pods."""
    groups = pod_groups(raw)
    kept = notes_of(raw).get(OWN_NODES)
    if kept:
        with suppress(Rejected):
            found = decode_json(kept.encode(), list[OwnNodes], f"annotation {OWN_NODES}")
            if len(found) == len(groups):
                return found
    return [OwnNodes.of(group.spec) for group in groups]


def refused_nodes(raw: Object) -> frozenset[str]:
    """Return the nodes that took none of a job's pods before; none where the annotation is no host list."""
    text = notes_of(raw).get(REFUSED, "")
    try:
        return frozenset(expand(text)) if count_names(text) <= _MOST_REFUSED else frozenset()
    except ValueError:
        return frozenset()


def own_spec(raw: Object, group: PodGroup, own: OwnNodes) -> Object:
    """Return the part of a pod specification that chooses nodes, as the user wrote it.

    A round writes the node selector of JobSets and the affinity of others. What it does not write is as it is: an
    annotation that says otherwise changes nothing.
    """
    affinity: Object = {"nodeAffinity": part(group.spec, "affinity", "nodeAffinity")}
    spec: Object = {"nodeName": group.spec.get("nodeName"), "nodeSelector": part(group.spec, "nodeSelector")}
    if raw.get("kind") == "JobSet":
        return spec | {"nodeSelector": own.node_selector, "affinity": affinity}
    required = {REQUIRED: {"nodeSelectorTerms": own.required}} if own.required else {}
    return spec | {"affinity": {"nodeAffinity": required}}


def check_size(spec: Object) -> None:
    """Refuse a specification that asks more of its nodes than can be looked at for every node."""
    terms = objects(part(spec, "affinity", "nodeAffinity", REQUIRED).get("nodeSelectorTerms"))
    count = len(part(spec, "nodeSelector")) + len(terms)
    for term in terms:
        for one in (*objects(term.get("matchExpressions")), *objects(term.get("matchFields"))):
            values = one.get("values")
            count += 1 + (len(values) if isinstance(values, list) else 0)
    if count > _MOST_CONDITIONS:
        raise Rejected(f"nodeAffinity: {count} conditions: must be at most {_MOST_CONDITIONS}")


def may_run_on(spec: Object, node: Object) -> bool:
    """Return whether pods of a specification may run on a node, by its name and labels; Rejected if unreadable."""
    name, labels = str(part(node, "metadata").get("name")), part(node, "metadata", "labels")
    if spec.get("nodeName") not in (None, "", name):
        return False
    if any(labels.get(key) != value for key, value in part(spec, "nodeSelector").items()):
        return False
    required = part(spec, "affinity", "nodeAffinity", REQUIRED)
    terms = objects(required.get("nodeSelectorTerms"))
    return not required or any(_holds(term, labels, name) for term in terms)


def _holds(term: Object, labels: Object, name: str) -> bool:
    expressions, fields = objects(term.get("matchExpressions")), objects(term.get("matchFields"))
    if not expressions and not fields:
        return False  # an empty term matches no node
    return all(_is_met(one, labels) for one in expressions) and all(
        _is_met(one, {"metadata.name": name}) for one in fields
    )


def _is_met(asked: Object, labels: Mapping[str, object]) -> bool:
    values = asked.get("values")
    listed = [str(value) for value in values] if isinstance(values, list) else []
    found = labels.get(str(asked.get("key")))
    match asked.get("operator"):
        case "In":
            return found is not None and str(found) in listed
        case "NotIn":
            return found is None or str(found) not in listed
        case "Exists":
            return found is not None
        case "DoesNotExist":
            return found is None
        case "Gt" | "Lt" as operator:
            return found is not None and _compares(str(found), listed, operator)
    raise Rejected(f"nodeAffinity: operator: {str(asked.get('operator'))[:40]!r}: is not known")


def _compares(found: str, listed: list[str], operator: str) -> bool:
    try:
        (limit,) = map(int, listed)
        return int(found) > limit if operator == "Gt" else int(found) < limit
    except ValueError:
        return False
