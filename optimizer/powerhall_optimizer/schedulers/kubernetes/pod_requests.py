"""GPUs of pods: what a pod specification asks for, and what the pods of a cluster hold on its nodes."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from importlib import import_module
from typing import cast

from powerhall.runtime.errors import Rejected
from powerhall_optimizer.schedulers.kubernetes.objects import Object, objects, part

__all__ = [
    "SLICE_PREFIXES",
    "Holding",
    "asks_for_slices",
    "claims_devices",
    "gpus_of",
    "has_claims",
    "holdings",
    "quantity",
]

MOST_GPUS = 1_000_000
"""More GPUs than this in one field are a mistake, or a tenant's bad joke."""
_HIGHEST = 10**18
SLICE_PREFIXES = ("nvidia.com/mig-", "nvidia.com/gpu.shared", "deviceclass.resource.kubernetes.io/")
"""Resources of parts of GPUs, or of devices by their class (dynamic resource allocation behind a plain resource)."""
_OTHER_GPUS = frozenset(("nvidia.com/gpu", "amd.com/gpu", "gpu.intel.com/i915", "gpu.intel.com/xe", "habana.ai/gaudi"))
"""Accelerators that draw power beside those of the settings' `gpu_resource`: counted, and not planned with."""
_SETS = {
    "Job": ("JobSet", "jobset.sigs.k8s.io/jobset-name"),
    "StatefulSet": ("LeaderWorkerSet", "leaderworkerset.sigs.k8s.io/name"),
}
"""By the controller of a pod: the kind that made it, and the label with its name."""


@dataclass(frozen=True, slots=True)
class Holding:
    """GPUs that a pod holds on a node, 0 where they are not known: it claims devices, or asks for no number.

    `owner` is its controller (KIND NAMESPACE/NAME), the JobSet or LeaderWorkerSet that made that, or the pod where it
    has none.
    """

    owner: str
    node: str
    gpus: int


def quantity(value: object) -> int:
    """Return a quantity of Kubernetes (8, "8", "60k") as a whole number, rounded up; Rejected where it is none."""
    parse = import_module("kubernetes.utils.quantity").parse_quantity
    try:
        amount: Decimal = parse(str(value))
        if amount > _HIGHEST:
            raise Rejected(f"{str(value)[:40]!r}: must be at most 10^18")
        whole = int(amount) + (amount > int(amount))
    except (ValueError, ArithmeticError):
        raise Rejected(f"{str(value)[:40]!r}: must be a quantity such as 8 or 60k") from None
    if whole < 0:
        raise Rejected(f"{str(value)[:40]!r}: must not be negative")
    return whole


def _asked(container: Object, resource: str) -> int:
    """Return the GPUs of a container; slices of GPUs, and GPUs of another kind, count as a whole one each."""
    limits, asked = part(container, "resources", "limits"), part(container, "resources", "requests")
    total = quantity(limits.get(resource, asked.get(resource, 0)))
    slices = {name for name in (*limits, *asked) if _is_slice(name)} - {resource}
    total += sum(quantity(limits.get(name, asked.get(name, 0))) for name in slices)
    if total > MOST_GPUS:
        raise Rejected(f"{resource}: {total}: must be at most {MOST_GPUS}")
    return total


def _is_slice(name: str) -> bool:
    return name.startswith(SLICE_PREFIXES) or name in _OTHER_GPUS


def gpus_of(spec: Object, resource: str) -> int:
    """Return the GPUs that a pod with this specification holds.

    Containers and sidecars (init containers that restart always) run together; any other init container runs before
    them, beside the sidecars that are listed before it, and the pod holds the most of all steps.
    https://kubernetes.io/docs/concepts/workloads/pods/sidecar-containers/#resource-sharing-within-containers
    """
    sidecars, most = 0, 0
    for one in objects(spec.get("initContainers")):
        asked = _asked(one, resource)
        most = max(most, sidecars + asked)
        if one.get("restartPolicy") == "Always":
            sidecars += asked
    return max(most, sidecars + sum(_asked(one, resource) for one in objects(spec.get("containers"))))


def claims_devices(spec: Object) -> bool:
    """Return whether a pod claims devices (dynamic resource allocation): how many GPUs they are is not in it."""
    containers = (*objects(spec.get("containers")), *objects(spec.get("initContainers")))
    named = any(objects(part(one, "resources").get("claims")) for one in containers)
    return named or bool(objects(spec.get("resourceClaims")))  # what no container names is allocated as well


def has_claims(pod: Object) -> bool:
    """Return whether a pod claims devices, by itself or through an extended resource that its devices stand behind."""
    return claims_devices(part(pod, "spec")) or bool(part(pod, "status", "extendedResourceClaimStatus"))


def asks_for_slices(spec: Object, resource: str) -> bool:
    """Return whether a pod asks for slices of GPUs, or GPUs of another kind, which are not planned with."""
    for one in (*objects(spec.get("containers")), *objects(spec.get("initContainers"))):
        names = (*part(one, "resources", "limits"), *part(one, "resources", "requests"))
        if any(_is_slice(name) and name != resource for name in names):
            return True
    return False


def _not_known(_pod: Object, _gpus: int) -> int | None:
    return None


def holdings(
    pods: Iterable[Object], resource: str, claimed: Callable[[Object, int], int | None] = _not_known
) -> Iterator[Holding]:
    """Yield what pods that are bound to a node and have not ended hold there.

    `claimed` says what a pod that asks for so many GPUs holds together with its claims.
    """
    for pod in pods:
        node = part(pod, "spec").get("nodeName")
        if not node or part(pod, "status").get("phase") in ("Succeeded", "Failed"):
            continue
        try:
            asked = gpus_of(part(pod, "spec"), resource)
            gpus = claimed(pod, asked) if has_claims(pod) else asked
        except Rejected:
            gpus = None
        if gpus is None or gpus > 0:
            yield Holding(_owner(pod), str(node), gpus or 0)


def _owner(pod: Object) -> str:
    meta = part(pod, "metadata")
    namespace = meta.get("namespace")
    owners = objects(meta.get("ownerReferences"))
    of = next((one for one in owners if one.get("controller")), None)
    if of is None:
        return f"Pod {namespace}/{meta.get('name')}"
    kind, label = _SETS.get(cast("str", of.get("kind")), ("", ""))
    if name := part(meta, "labels").get(label):
        return f"{kind} {namespace}/{name}"
    return f"{of.get('kind')} {namespace}/{of.get('name')}"
