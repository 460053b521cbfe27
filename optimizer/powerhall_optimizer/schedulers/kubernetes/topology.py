"""The blocks that a Kubernetes Job asks for: Powerhall's own annotations, else those of Kueue on its pods.

Kueue names a level by the key of a node label; `label` of a level of the site file says which level that is. What is
only preferred (`podset-preferred-topology`) is no condition.
"""

from collections.abc import Mapping

from powerhall.runtime.decode.numbers_in import whole
from powerhall.runtime.errors import Rejected
from powerhall.site.topology import Site

__all__ = ["blocks_of"]

_KUEUE = "kueue.x-k8s.io/podset-"
_HOST = "kubernetes.io/hostname"


def blocks_of(
    notes: Mapping[str, str], pods: Mapping[str, object], pod_gpus: int, site: Site
) -> tuple[str | None, int | None]:
    """Return (level, nodes of each part) of a job; `notes` are Powerhall's annotations, `pods` those of its pods.

    ValueError or Rejected where a number is none, or a slice of pods is no whole number of nodes.
    """
    if "within" in notes:
        each = notes.get("block-nodes")
        return notes["within"], None if each is None else whole(each)
    slices = pods.get(f"{_KUEUE}slice-required-topology")
    label = str(slices or pods.get(f"{_KUEUE}required-topology") or "")
    if label in ("", _HOST):
        return None, None
    level = next((level.name for level in site.levels if label in (level.label, level.name)), label)
    if not slices:
        return level, None
    gpus = pod_gpus * whole(str(pods.get(f"{_KUEUE}slice-size", "")))
    sizes = {kind.gpus for kind in site.node_types.values()}
    if len(sizes) != 1 or gpus < 1 or gpus % min(sizes):
        allowed = "must be pods that fill whole nodes, all of one size"
        raise Rejected.field("Job", f"{_KUEUE}slice-size", pods.get(f"{_KUEUE}slice-size"), allowed)
    return level, gpus // min(sizes)
