"""Presolve: profiles, columns, halls and price groups, which make a problem smaller for the numerical stages.

* A *profile* is the usage (and energy) of an option divided by the greatest common divisor of its amounts: all gangs of
  one job class in one hall and mode share one profile, whatever their size. Priced once per profile, an option costs
  its multiple of the difference of two prefix sums.
* A *hall* is the first name of the option's label. A resource used by one hall only is local to it.
* A *price group* holds the resources that carry one common price. Halls whose options are the same job by job share
  prices: the bound stays valid for any prices, and by symmetry and convexity nothing is lost when capacities agree too.
* A *column* is one representative of all options of a job that are equal under common prices.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from powerhall_optimizer.problem.arrays import Ints, Problem
from powerhall_optimizer.solve.kernels.kernel_arrays import ProblemArrays
from powerhall_optimizer.solve.kernels.meter_price import MeterGrid, meter_grid
from powerhall_optimizer.solve.kernels.profile_price import ProfileTariffs, sum_profile_prices

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class PresolvedProblem:
    """Arrays derived from a problem; J jobs, O options, P profiles, R resources, H halls."""

    problem: Problem
    arrays: ProblemArrays
    profile_tariff: Ints  # [P]
    profile_energy: Ints  # [P]
    resource_hall: Ints  # [R] hall a resource is local to, -1 when shared (or unused)
    resource_group: Ints  # [R] price group, numbered from 0
    halls: int
    groups: int
    column_option: Ints  # options that represent columns, job by job
    job_columns: Ints  # [J + 1]
    meter_grid: MeterGrid


def presolve(problem: Problem) -> PresolvedProblem:
    """Derives profiles, halls, groups and columns; linear in the number of options."""
    tables = _profiles(problem)
    hall_names = {name: i for i, name in enumerate(dict.fromkeys(hall for hall, _ in problem.option_labels))}
    label_hall = np.array([hall_names[hall] for hall, _ in problem.option_labels], np.int64)
    option_hall = label_hall[problem.option_label] if problem.options else np.zeros(0, np.int64)
    halls = max(1, len(hall_names))
    resource_hall = _resource_halls(problem, option_hall)
    group = _groups(problem, option_hall, resource_hall, halls)
    job = np.repeat(np.arange(problem.jobs), np.diff(problem.job_options))
    column_option = _columns(problem, tables, group, job)
    p = problem
    return PresolvedProblem(
        problem=problem,
        arrays=ProblemArrays(
            job_options=p.job_options,
            job_value=_job_value(p),
            option_profile=tables[0],
            option_multiple=tables[1],
            option_hall=option_hall,
            option_duration=p.option_duration,
            option_earliest=p.option_earliest,
            option_latest=p.option_latest,
            option_value=np.stack((p.option_rate, p.option_bonus), axis=1).astype(float),
            profile_uses=tables[2],
            profile_resource=tables[3],
            profile_amount=tables[4],
            curves=p.curves,
        ),
        profile_tariff=tables[5],
        profile_energy=tables[6],
        resource_hall=resource_hall,
        resource_group=group,
        halls=halls,
        groups=int(group.max()) + 1 if len(group) else 0,
        column_option=column_option,
        job_columns=np.searchsorted(job[column_option], np.arange(problem.jobs + 1)).astype(np.int64),
        meter_grid=meter_grid(p.curves),
    )


def profile_prices(presolved: PresolvedProblem, price: Floats) -> Floats:
    """Prefix sums [P, T + 1] of the price of one unit of each profile, energy included; `price` is [R, T]."""
    prefix = np.empty((len(presolved.profile_tariff), presolved.problem.slots + 1))
    tariffs = ProfileTariffs(presolved.profile_tariff, presolved.profile_energy, presolved.problem.tariff)
    sum_profile_prices(presolved.arrays, tariffs, price, prefix)
    return prefix


def _job_value(p: Problem) -> Floats:
    terms = (p.job_wait_value, p.job_delay_cost, p.job_deadline, p.job_late_cost, p.job_late_fine)
    return np.stack((*terms, p.job_planned_start, p.job_shift_cost), axis=1).astype(float)


def _mix(columns: list[Ints]) -> npt.NDArray[np.uint64]:
    """64-bit hash of rows given by columns; equal rows have equal hashes."""
    total = np.zeros(len(columns[0]), np.uint64)
    for column in columns:
        total = (total ^ column.astype(np.uint64)) * np.uint64(0x9E3779B97F4A7C15)
        total ^= total >> np.uint64(29)
    return total


def _padded_uses(problem: Problem) -> tuple[Ints, Ints]:
    """Resources (-1 pads) and amounts (0 pads) as [width, O], each option's entries in order of resource."""
    counts = np.diff(problem.option_uses)
    width = int(counts.max(initial=0))
    resource = np.full((width, len(counts)), -1, np.int64)
    amount = np.zeros((width, len(counts)), np.int64)
    for position in range(width):
        has = counts > position
        entry = problem.option_uses[:-1][has] + position
        resource[position, has] = problem.use_resource[entry]
        amount[position, has] = problem.use_amount[entry]
    rising = np.all((resource[1:] > resource[:-1]) | (resource[1:] < 0)) if width > 1 else True
    if not rising:
        order = np.argsort(np.where(resource < 0, np.iinfo(np.int64).max, resource), axis=0, kind="stable")
        resource, amount = np.take_along_axis(resource, order, 0), np.take_along_axis(amount, order, 0)
    return resource, amount


def _profiles(problem: Problem) -> tuple[Ints, Ints, Ints, Ints, Ints, Ints, Ints]:
    resource, amount = _padded_uses(problem)
    energy = np.where(problem.option_tariff >= 0, problem.option_energy, 0)
    row = np.where(energy != 0, problem.option_tariff, -1)
    multiple = np.gcd.reduce(np.vstack((amount, energy[None, :])), axis=0)
    multiple = np.maximum(multiple, 1)
    unit = amount // multiple
    key = _mix([*resource, *unit, row, energy // multiple])
    _, first, profile = np.unique(key, return_index=True, return_inverse=True)
    used = unit[:, first].T > 0
    uses = np.concatenate(([0], np.cumsum(used.sum(axis=1)))).astype(np.int64)
    flat_resource, flat_amount = resource[:, first].T[used], unit[:, first].T[used]
    return (
        profile.astype(np.int64),
        multiple,
        uses,
        np.ascontiguousarray(flat_resource),
        np.ascontiguousarray(flat_amount),
        row[first],
        (energy // multiple)[first],
    )


def _resource_halls(problem: Problem, option_hall: Ints) -> Ints:
    owner = np.repeat(option_hall, np.diff(problem.option_uses))
    low = np.full(problem.resources, np.iinfo(np.int64).max)
    high = np.full(problem.resources, -1)
    np.minimum.at(low, problem.use_resource, owner)
    np.maximum.at(high, problem.use_resource, owner)
    result: Ints = np.where(low == high, low, -1).astype(np.int64)
    return result


def _groups(problem: Problem, option_hall: Ints, resource_hall: Ints, halls: int) -> Ints:
    """Price group per resource: the k-th local resource of equal halls form one group."""
    job = np.repeat(np.arange(problem.jobs), np.diff(problem.job_options))
    rank = np.full(problem.resources, -1, np.int64)
    for hall in range(halls):
        local = np.flatnonzero(resource_hall == hall)
        rank[local] = np.arange(len(local))
    resource, amount = _padded_uses(problem)
    shown = np.where(resource < 0, -1, np.where(rank[resource] >= 0, rank[resource], problem.resources + resource))
    p = problem
    key = _mix(
        [
            job,
            p.option_duration,
            p.option_earliest,
            p.option_latest,
            p.option_rate,
            p.option_bonus,
            p.option_tariff,
            p.option_energy,
            *shown,
            *amount,
        ]
    )
    kinds: dict[bytes, int] = {}
    kind = [kinds.setdefault(np.sort(key[option_hall == b]).tobytes(), b) for b in range(halls)]
    name = [(-1, r) if b < 0 else (kind[b], int(rank[r])) for r, b in enumerate(resource_hall.tolist())]
    numbers = {pair: i for i, pair in enumerate(dict.fromkeys(name))}
    return np.array([numbers[pair] for pair in name], np.int64)


def _columns(problem: Problem, tables: tuple[Ints, ...], group: Ints, job: Ints) -> Ints:
    profile, multiple, uses, resource, amount, row, energy = tables
    counts = np.diff(uses)
    parts = [row, energy]
    for position in range(int(counts.max(initial=0))):
        has = counts > position
        part = np.full((2, len(counts)), -1, np.int64)
        entry = uses[:-1][has] + position
        part[0, has], part[1, has] = group[resource[entry]], amount[entry]
        parts += [part[0], part[1]]
    like = _mix(parts)[profile].astype(np.int64)
    p = problem
    key = _mix(
        [job, like, multiple, p.option_duration, p.option_earliest, p.option_latest, p.option_rate, p.option_bonus]
    )
    _, first = np.unique(key, return_index=True)
    result: Ints = np.sort(first).astype(np.int64)
    return result
