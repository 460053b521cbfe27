"""Where a job may run: sites, halls and node types, and the GPUs that it takes away from a node."""

from powerhall.hostlist import expand
from powerhall.jobs import Job
from powerhall.site.index import SiteIndex
from powerhall.site.topology import Site

__all__ = ["may_run_at", "may_run_on", "running_type", "whole_gpus"]


def whole_gpus(gpus: int, per_node: int) -> int:
    """Return the GPUs that a job takes away: a job larger than a node takes whole nodes."""
    return gpus if gpus <= per_node else -(-gpus // per_node) * per_node


def may_run_on(job: Job, hall: str, node_type: str) -> bool:
    """Whether the job may run on this node type in this hall: a filter, never a preference."""
    return (not job.halls or hall in job.halls) and (not job.node_types or node_type in job.node_types)


def may_run_at(job: Job, site: str) -> bool:
    """Whether a site comes into question for a job: it runs there, or it waits and its data may be there."""
    if job.state == "running" and job.site not in (None, site):
        return False
    return not job.sites or site in job.sites


def running_type(site: Site, job: Job) -> str | None:
    """Return the node type of a running job: its own field, else the type of the rack that its first node is in."""
    if job.node_type is not None:
        return job.node_type
    return SiteIndex.of(site).type_in_hall(job.hall, expand(job.nodes)[0] if job.nodes else None)
