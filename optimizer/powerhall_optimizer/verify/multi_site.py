"""The checker for plans of several sites: each plan by itself, and the rules between them.

Every job stands in one plan, where its data may be; value and bound of all sites are recomputed from the whole queue.
"""

from collections.abc import Iterator

from powerhall.plan.multi_site import MultiSitePlan, multi_site_hash
from powerhall.plan.plan import Plan, Snapshot
from powerhall.runtime.errors import PowerhallError
from powerhall_optimizer.verify.case import claims
from powerhall_optimizer.verify.plan import Violation, verify_plan
from powerhall_optimizer.verify.value import multi_site_value_and_bound

__all__ = ["verify_multi_site", "verify_plans"]


def _identity(plan: MultiSitePlan) -> Iterator[Violation]:
    digest = multi_site_hash([p.snapshot for p in plan.plans], plan.jobs)
    if plan.plan_id != digest:
        yield Violation("identity", "plan_id", f"{plan.plan_id[:12]}... is not the hash of the inputs {digest[:12]}...")


def _grid(plan: MultiSitePlan) -> Iterator[Violation]:
    """The sites have different names and share start, slots, objective and the decisions of the last plan."""
    names = [p.snapshot.site.name for p in plan.plans]
    if len(set(names)) != len(names) or not names:
        yield Violation("sites", ", ".join(names), "must be at least one site, each once")

    def grid(s: Snapshot) -> object:
        return s.start_s, s.slot_s, s.slots, s.objective, s.planned

    for other in plan.plans[1:]:
        if grid(other.snapshot) != grid(plan.plans[0].snapshot):
            yield Violation("sites", other.snapshot.site.name, "has another start, slots or objective than the first")


def _queue(plan: MultiSitePlan) -> Iterator[Violation]:
    """Every job of the queue stands, as it is in the queue, in exactly one plan."""
    queue = {job.job_id: job for job in plan.jobs}
    seen: dict[str, str] = {}
    for part in plan.plans:
        site = part.snapshot.site.name
        for job in part.snapshot.jobs:
            if job != queue.get(job.job_id):
                yield Violation("jobs", job.job_id, f"is in the plan of {site} but differs from the queue")
            elif job.job_id in seen:
                yield Violation("jobs", job.job_id, f"is in the plans of {seen[job.job_id]} and {site}")
            seen[job.job_id] = site
    for job_id in queue.keys() - seen.keys():
        yield Violation("jobs", job_id, "is in no plan")
    if len(queue) != len(plan.jobs):
        yield Violation("jobs", "queue", "a job is in the queue twice")


def _residency(plan: MultiSitePlan) -> Iterator[Violation]:
    """No job is planned where its data may not be, and none that runs is planned at another site."""
    queue = {job.job_id: job for job in plan.jobs}
    for part in plan.plans:
        site = part.snapshot.site.name
        for entry in part.assignments:
            job = queue.get(entry.job_id)
            if job is not None and job.sites and site not in job.sites:
                yield Violation("residency", job.job_id, f"may run only at {', '.join(job.sites)}, not at {site}")
            if job is not None and job.state == "running" and job.site not in (None, site):
                yield Violation("running", job.job_id, f"runs at {job.site} now, but is planned at {site}")


def _value(plan: MultiSitePlan) -> Iterator[Violation]:
    if plan.version == 1:
        return
    try:
        value, bound = multi_site_value_and_bound(plan)
    except (ValueError, ArithmeticError, PowerhallError) as error:
        yield Violation("certificate", "all sites", str(error))
        return
    if value != plan.value:
        yield Violation("value", "all sites", f"is {plan.value} in the plan; its assignments give {value}")
    if bound > plan.bound:
        yield Violation("bound", "all sites", f"is {plan.bound} in the plan; its certificate proves only {bound}")
    if value == plan.value and bound <= plan.bound:
        yield from claims(plan, "all sites")


def verify_multi_site(plan: MultiSitePlan) -> list[Violation]:
    """Return everything that is broken in the plans of several sites; an empty list is a verified plan."""
    found = [v for check in (_identity, _grid, _queue, _residency) for v in check(plan)]
    for part in plan.plans:
        site = part.snapshot.site.name
        found += [_at(v, site) for v in verify_plan(part)]
    return found + (list(_value(plan)) if not found else [])


def verify_plans(plan: Plan | MultiSitePlan) -> list[Violation]:
    """Return everything that is broken in a plan of one site or of several."""
    return verify_multi_site(plan) if isinstance(plan, MultiSitePlan) else verify_plan(plan)


def _at(violation: Violation, site: str) -> Violation:
    """Return a violation with the site in front of where it is."""
    where = violation.where if violation.where == site else f"{site}:{violation.where}"
    return Violation(violation.kind, where, violation.text)
