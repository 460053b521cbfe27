"""Nodes whose full power is off the licences already: who can run on no others holds none.

That is how GPUs are shared without a whole GPU's licences for each part: any part may be the last one on its GPU, so
that a charge by share would be too low as soon as others end. The pool pays for every GPU that may be opened instead,
once, and `PREPAID` of job_submit.lua charges nothing for it.
"""

from powerhall.hostlist import expand
from powerhall.runtime.errors import ConfigError
from powerhall.site.index import SiteIndex
from powerhall.site.topology import NodeType, Site
from powerhall_optimizer.schedulers.slurm.slurm_settings import SlurmSettings

__all__ = ["above_idle_w", "are_prepaid", "full_w", "prepaid_nodes"]


def prepaid_nodes(settings: SlurmSettings, site: Site) -> frozenset[str]:
    """Return the prepaid nodes; ConfigError where the site does not have one, since its power would not be kept."""
    found = frozenset(expand(settings.prepaid)) if settings.prepaid else frozenset()
    if unknown := sorted(found - SiteIndex.of(site).rack_of.keys()):
        raise ConfigError.field("settings", "slurm.prepaid", unknown[0], "must be a node of the site")
    return found


def full_w(kind: NodeType) -> float:
    """Return the power in W of a node with all of its GPUs at the fastest mode."""
    return kind.gpus * max(mode.gpu_power_w for mode in kind.modes)


def above_idle_w(site: Site, zone: str, prepaid: frozenset[str]) -> float:
    """Return what the prepaid nodes of a zone may draw above their idle power, in W."""
    index = SiteIndex.of(site)
    racks = [(index.rack_type(rack), prepaid.intersection(rack.nodes)) for rack in index.racks_under(zone)]
    return sum(len(nodes) * max(0.0, full_w(kind) - kind.idle_power_w) for kind, nodes in racks)


def are_prepaid(nodes: str, prepaid: frozenset[str]) -> bool:
    """Whether nodes (a host list) are prepaid, all of them."""
    return bool(nodes) and prepaid.issuperset(expand(nodes))
