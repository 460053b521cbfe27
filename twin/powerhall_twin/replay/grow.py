"""A larger or smaller version of a scenario: more nodes and as much more work, under the same budgets and plants."""

import random
from collections.abc import Sequence
from dataclasses import replace

import msgspec

from powerhall.jobs.model import Job
from powerhall.site.index import SiteIndex
from powerhall.site.topology import Hall, Rack, Site
from powerhall_twin.site.failures import FailureKind
from powerhall_twin.site.scenario import Scenario

__all__ = ["grown_scenario", "node_count", "resampled_jobs", "with_nodes"]

_JITTER_S = 900.0


def node_count(site: Site) -> int:
    """Return the number of nodes of a site."""
    return sum(len(rack.nodes) for rack in site.racks())


def with_nodes(site: Site, nodes: int) -> Site:
    """Return the site with so many nodes, each hall in proportion.

    Racks are taken away from the end of a hall or added to its last row as copies of its racks in turn; a rack keeps
    its limit, and budgets, feeds, rows, halls and plants stay what they are.
    """
    had = node_count(site)
    halls, given = [], 0
    before = 0
    for hall in site.halls:
        before += sum(len(rack.nodes) for rack in hall.racks())
        upto = round(nodes * before / had)
        halls.append(_with_nodes(hall, upto - given))
        given = upto
    return msgspec.structs.replace(site, halls=tuple(halls))


def _with_nodes(hall: Hall, nodes: int) -> Hall:
    left, rows = nodes, []
    for row in hall.rows:
        racks = []
        for rack in row.racks:
            kept = rack.nodes[:left]
            left -= len(kept)
            if kept:
                racks.append(msgspec.structs.replace(rack, nodes=kept))
        rows.append(msgspec.structs.replace(row, racks=tuple(racks)))
    patterns, more, number = list(hall.racks()), [], 0
    while left > 0:
        pattern = patterns[number % len(patterns)]
        number += 1
        names = tuple(f"{hall.zone}+{number}n{i}" for i in range(min(left, len(pattern.nodes))))
        more.append(Rack(f"{rows[-1].zone}/+{number}", pattern.node_type, names, pattern.power_limit_w))
        left -= len(names)
    rows[-1] = msgspec.structs.replace(rows[-1], racks=(*rows[-1].racks, *more))
    return msgspec.structs.replace(hall, rows=tuple(row for row in rows if row.racks) or rows[:1])


def resampled_jobs(jobs: Sequence[Job], factor: float, seed: int) -> tuple[Job, ...]:
    """Return `factor` times the jobs: whole copies, and a random part of them for the rest; seed 0 keeps their times.

    With another seed submissions move by up to 15 minutes, and which jobs are in is drawn with replacement.
    """
    rng = random.Random(f"{seed} {factor:.9f}")  # noqa: S311 - a repeatable workload, not a secret
    count = round(len(jobs) * factor)
    if seed == 0:
        order = list(range(len(jobs)))
        rng.shuffle(order)
        picked = [i for _ in range(count // len(jobs)) for i in range(len(jobs))] + order[: count % len(jobs)]
    else:
        picked = [rng.randrange(len(jobs)) for _ in range(count)]
    found = []
    for number, i in enumerate(sorted(picked)):
        move_s = 0.0 if seed == 0 else rng.uniform(-_JITTER_S, _JITTER_S)
        job = jobs[i]
        due_s = None if job.deadline_s is None else job.deadline_s + move_s
        found.append(
            msgspec.structs.replace(
                job, job_id=f"{job.job_id}#{number}", submit_s=job.submit_s + move_s, deadline_s=due_s
            )
        )
    return tuple(found)


def grown_scenario(scenario: Scenario, nodes: int, seed: int, slack: float) -> Scenario:
    """Return the scenario with so many nodes and work in proportion; a job without a deadline gets one.

    It is due `slack` times its duration after its submission.
    """
    factor = nodes / node_count(scenario.site)
    jobs = resampled_jobs(scenario.jobs, factor, seed)
    due = tuple(
        job
        if job.deadline_s is not None
        else msgspec.structs.replace(job, deadline_s=job.submit_s + slack * job.duration_s)
        for job in jobs
    )
    site = with_nodes(scenario.site, nodes)
    known = {FailureKind.NODE, FailureKind.GPU}
    names = SiteIndex.of(site).rack_of
    failures = tuple(one for one in scenario.failures if one.kind not in known or one.name in names)
    return replace(scenario, site=site, jobs=due, failures=failures)
