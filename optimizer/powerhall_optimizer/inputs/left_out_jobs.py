"""Jobs that do not fit the site are left out of the plan; those that run stay in its power (`observed_nodes`)."""

from collections.abc import Iterable, Sequence

from powerhall.hostlist import expand
from powerhall.jobs import Job
from powerhall.jobs.left_out import JobList, LeftOut, left_out_job
from powerhall.runtime.errors import Rejected
from powerhall.site.index import SiteIndex
from powerhall.site.topology import Site
from powerhall_optimizer.inputs.snapshot import SiteFit, refused_code

__all__ = ["fitting_jobs", "home_of"]


def fitting_jobs(site: Site, jobs: Iterable[Job], source: str) -> JobList:
    """Return the jobs that fit the site; the others with the reason."""
    fit = SiteFit(site)
    kept: list[Job] = []
    left_out: list[LeftOut] = []
    for job in jobs:
        try:
            fit.check(job, source)
            kept.append(job)
        except Rejected as error:
            left_out.append(left_out_job(job, refused_code(job), error, source))
    return JobList(tuple(kept), tuple(left_out))


def _names(nodes: str | None) -> tuple[str, ...]:
    try:
        return expand(nodes) if nodes else ()
    except ValueError:
        return ()


def home_of(sites: Sequence[Site], entry: LeftOut) -> str:
    """Return the site in whose plan a job that is left out stands: where it runs, else the first."""
    for site in sites:
        index = SiteIndex.of(site)
        if entry.hall in index.halls or any(node in index.rack_of for node in _names(entry.nodes)):
            return site.name
    return sites[0].name
