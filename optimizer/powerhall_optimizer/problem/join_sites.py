"""Join the problems of several sites: resources side by side, every job with its options at all sites."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from powerhall_optimizer.problem.arrays import Ints, Problem, Schedule
from powerhall_optimizer.problem.builder import CapacityTable, JobTable, OptionTable, make_problem
from powerhall_optimizer.problem.meter import join_curves
from powerhall_optimizer.problem.no_option import NoOption, NoOptionCause
from powerhall_optimizer.problem.resources import name_at_site
from powerhall_optimizer.problem.site_problem import BuiltProblem

__all__ = ["JointProblem", "join_problems"]


@dataclass(frozen=True, slots=True)
class JointProblem:
    """The joint problem; `options[i]` gives for each option of site i its number in it."""

    names: tuple[str, ...]
    built: BuiltProblem
    options: tuple[Ints, ...]
    first_resource: tuple[int, ...]

    def schedule(self, parts: Sequence[Schedule]) -> Schedule:
        """Return the sites' schedules as one; a job that is scheduled at two sites keeps the first."""
        joint = Schedule.empty(self.built.problem.jobs)
        for part, numbers in zip(parts, self.options, strict=True):
            take = (part.option >= 0) & (joint.option < 0)
            joint.option[take], joint.start[take] = numbers[part.option[take]], part.start[take]
        return joint


def join_problems(names: Sequence[str], parts: Sequence[BuiltProblem]) -> JointProblem:
    """Join problems over the same jobs, slots and unit of value; resources and halls get their site's name in front."""
    problems = [part.problem for part in parts]
    first = problems[0]
    assert all((p.slots, p.slot_s, p.job_names) == (first.slots, first.slot_s, first.job_names) for p in problems)
    assert len({part.unit_usd for part in parts}) == 1, "values of the sites must have one unit"
    owner = np.concatenate([np.repeat(np.arange(p.jobs), np.diff(p.job_options)) for p in problems])
    order = np.argsort(owner, kind="stable")
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    bounds = np.cumsum([0, *(p.options for p in problems)])
    choices = [choice for part in parts for choice in part.choices]
    firsts = np.cumsum([0, *(p.resources for p in problems[:-1])]).tolist()
    capacities = CapacityTable(
        tuple(replace(r, site=name) for name, p in zip(names, problems, strict=True) for r in p.resource_keys),
        np.concatenate([p.capacity for p in problems]),
        np.concatenate([p.tariff for p in problems]),
        join_curves([p.curves for p in problems], firsts),
    )
    jobs = _jobs(first, np.bincount(owner, minlength=first.jobs))
    joint = make_problem(first.slots, first.slot_s, capacities, jobs, _options(names, problems, order))
    without = _without(names, parts, joint)
    built = BuiltProblem(joint, tuple(choices[i] for i in order.tolist()), parts[0].jobs, without, parts[0].unit_usd)
    return JointProblem(tuple(names), built, tuple(place[lo:hi] for lo, hi in pairwise(bounds)), tuple(firsts))


def _jobs(first: Problem, option_counts: Ints) -> JobTable:
    """Return the jobs of the first site, which are the same at all sites, with the options of all sites."""
    return JobTable(
        first.job_names,
        option_counts.astype(np.int64),
        first.job_wait_value,
        first.job_delay_cost,
        first.job_deadline,
        first.job_late_cost,
        first.job_late_fine,
        first.job_planned_start,
        first.job_shift_cost,
    )


def _options(names: Sequence[str], problems: Sequence[Problem], order: Ints) -> OptionTable:
    """Return the options of all sites, in `order`: those of the first job at all sites, then those of the second."""
    counts, resource, amount = _uses(problems, order)
    return OptionTable(
        tuple(
            (name_at_site(name, hall), mode)
            for name, p in zip(names, problems, strict=True)
            for hall, mode in p.option_labels
        ),
        _shifted([(p.option_label, len(p.option_labels)) for p in problems])[order],
        np.concatenate([p.option_duration for p in problems])[order],
        np.concatenate([p.option_earliest for p in problems])[order],
        np.concatenate([p.option_latest for p in problems])[order],
        np.concatenate([p.option_rate for p in problems])[order],
        np.concatenate([p.option_bonus for p in problems])[order],
        _shifted([(p.option_tariff, len(p.tariff)) for p in problems])[order],
        np.concatenate([p.option_energy for p in problems])[order],
        counts,
        resource,
        amount,
    )


def _shifted(columns: Sequence[tuple[Ints, int]]) -> Ints:
    """Return index columns with their sizes as one column, each moved behind those before it; -1 stays."""
    offsets = np.cumsum([0, *(size for _, size in columns[:-1])])
    moved = [np.where(c >= 0, c + offset, c) for (c, _), offset in zip(columns, offsets, strict=True)]
    result: Ints = np.concatenate(moved).astype(np.int64)
    return result


def _uses(problems: Sequence[Problem], order: Ints) -> tuple[Ints, Ints, Ints]:
    """Return the use counts of the options in `order`, and resources and amounts of their uses."""
    counts = np.concatenate([np.diff(p.option_uses) for p in problems])
    begins = np.cumsum(counts) - counts
    resource = _shifted([(p.use_resource, p.resources) for p in problems])
    amount = np.concatenate([p.use_amount for p in problems])
    sorted_counts = counts[order]
    ends = np.cumsum(sorted_counts)
    entry = np.repeat(begins[order] - (ends - sorted_counts), sorted_counts) + np.arange(
        int(ends[-1]) if len(ends) else 0
    )
    return sorted_counts, resource[entry], amount[entry]


def _without(names: Sequence[str], parts: Sequence[BuiltProblem], joint: Problem) -> dict[str, NoOption]:
    """Return, site by site, why jobs have no option at any site."""
    found: dict[str, NoOption] = {}
    for number in np.flatnonzero(np.diff(joint.job_options) == 0).tolist():
        job_id = joint.job_names[number]
        by_site = tuple((name, part.no_options[job_id]) for name, part in zip(names, parts, strict=True))
        found[job_id] = NoOption(NoOptionCause.AT_NO_SITE, by_site=by_site)
    return found
