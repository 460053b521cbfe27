"""Several sites' problems as one: their resources side by side, and every job with its options at all sites."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np

from powerhall_optimizer.problem.arrays import Ints, Problem, Schedule
from powerhall_optimizer.problem.build import Built

__all__ = ["Joined", "join"]


@dataclass(frozen=True, slots=True)
class Joined:
    """The joint problem; `options[i]` gives for each option of site i its number in it."""

    names: tuple[str, ...]
    built: Built
    options: tuple[Ints, ...]
    first_resource: tuple[int, ...]

    def schedule(self, parts: Sequence[Schedule]) -> Schedule:
        """Return the sites' schedules as one; a job that is scheduled at two sites keeps the first."""
        joint = Schedule.empty(self.built.problem.jobs)
        for part, numbers in zip(parts, self.options, strict=True):
            take = (part.option >= 0) & (joint.option < 0)
            joint.option[take], joint.start[take] = numbers[part.option[take]], part.start[take]
        return joint


def join(names: Sequence[str], parts: Sequence[Built]) -> Joined:
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
    plain: dict[str, Any] = {f: np.concatenate([getattr(p, f) for p in problems])[order] for f in _PLAIN}
    plain |= _uses(problems, order)
    joint = replace(
        first,
        resource_names=tuple(f"{name}:{r}" for name, p in zip(names, problems, strict=True) for r in p.resource_names),
        capacity=np.concatenate([p.capacity for p in problems]),
        tariff=np.concatenate([p.tariff for p in problems]),
        job_options=np.concatenate(([0], np.cumsum(np.bincount(owner, minlength=first.jobs)))).astype(np.int64),
        option_labels=tuple(
            (f"{name}:{hall}", mode) for name, p in zip(names, problems, strict=True) for hall, mode in p.option_labels
        ),
        option_label=_shifted(problems, "option_label", [len(p.option_labels) for p in problems])[order],
        option_tariff=_shifted(problems, "option_tariff", [len(p.tariff) for p in problems])[order],
        **plain,
    )
    joint.check()
    without = _without(names, parts, joint)
    built = Built(joint, tuple(choices[i] for i in order.tolist()), parts[0].jobs, without, parts[0].unit_usd)
    firsts = np.cumsum([0, *(p.resources for p in problems[:-1])]).tolist()
    return Joined(tuple(names), built, tuple(place[lo:hi] for lo, hi in pairwise(bounds)), tuple(firsts))


_PLAIN = tuple(f"option_{name}" for name in ("duration", "earliest", "latest", "rate", "bonus", "energy"))


def _shifted(problems: Sequence[Problem], field: str, sizes: Sequence[int]) -> Ints:
    """Return an index column of all problems, moved behind those of the problems before; -1 stays."""
    offsets = np.cumsum([0, *sizes[:-1]])
    columns = [getattr(p, field) for p in problems]
    moved = [np.where(c >= 0, c + offset, c) for c, offset in zip(columns, offsets, strict=True)]
    result: Ints = np.concatenate(moved).astype(np.int64)
    return result


def _uses(problems: Sequence[Problem], order: Ints) -> dict[str, Ints]:
    counts = np.concatenate([np.diff(p.option_uses) for p in problems])
    begins = np.cumsum(counts) - counts
    resource = _shifted(problems, "use_resource", [p.resources for p in problems])
    amount = np.concatenate([p.use_amount for p in problems])
    sorted_counts = counts[order]
    ends = np.cumsum(sorted_counts)
    entry = np.repeat(begins[order] - (ends - sorted_counts), sorted_counts) + np.arange(
        int(ends[-1]) if len(ends) else 0
    )
    pointers = np.concatenate(([0], ends)).astype(np.int64)
    return {"option_uses": pointers, "use_resource": resource[entry], "use_amount": amount[entry]}


def _without(names: Sequence[str], parts: Sequence[Built], joint: Problem) -> dict[str, tuple[str, str]]:
    """Say of the jobs that have no option at any site why, site by site."""
    found: dict[str, tuple[str, str]] = {}
    for number in np.flatnonzero(np.diff(joint.job_options) == 0).tolist():
        job_id = joint.job_names[number]
        reasons = [part.without[job_id] for part in parts]
        text = "; ".join(f"{name}: {reason}" for name, (_, reason) in zip(names, reasons, strict=True))
        codes = [code for code, _ in reasons if code != "ineligible"]
        found[job_id] = (codes or ["ineligible"])[0], text
    return found
