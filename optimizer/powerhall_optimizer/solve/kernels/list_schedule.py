"""Annealing over a permutation decoder: jobs in an order, each in the option that its gene names, at its earliest fit.

A solution is an order of the jobs and one option per job; decoding it books one job after the other at the first start
from which its option fits to its end. A move changes the place of a job in the order, its option, or both. The decoder
goes on from a snapshot of the free amounts before the first changed place, and stops once the jobs that are left, at
their best starts, cannot lift the value above what the move needs to be accepted.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from powerhall_optimizer.jit import inner_kernel, kernel
from powerhall_optimizer.problem.arrays import Ints
from powerhall_optimizer.solve.kernels.decision_value import priced_value
from powerhall_optimizer.solve.kernels.kernel_arrays import LOWEST, WAIT_VALUE, Floats, ProblemArrays
from powerhall_optimizer.solve.kernels.meter_steps import MeterSteps, book_by_steps, last_blocked_by_steps

__all__ = ["AnnealSettings", "Chain", "anneal", "decode"]

_NEAR = 8
"""Places to the next few jobs."""
_REORDER, _NEW_OPTION = 0.6, 0.85
"""Part of the moves that only reorder; up to the second number they only change an option; the others do both."""


class Chain(NamedTuple):
    """One chain: the present solution and what it decodes to, and the best that it has met.

    Invariant: `option` and `start` are what `order` and `gene` decode to, worth `value[0]`; `best_value[0]` is the
    value of `best_option` and `best_start`.
    """

    order: Ints  # [J] jobs
    gene: Ints  # [J] option of each job, -1 for a job without options
    option: Ints  # [J] decision, -1 while it waits
    start: Ints  # [J]
    value: Floats  # [1]
    best_option: Ints  # [J]
    best_start: Ints  # [J]
    best_order: Ints  # [J]
    best_gene: Ints  # [J]
    best_value: Floats  # [1]


class AnnealSettings(NamedTuple):
    """Settings of one round of a chain; `heat` is the loss of value that is accepted with probability 1/e."""

    seed: int
    decodes: int
    heat: float
    stride: int  # places from one snapshot of the free amounts to the next


class _Decoder(NamedTuple):
    """The present solution, decoded: values and decisions of the jobs, and free amounts before every `stride` places.

    There are two sets of snapshots, so that a new solution can be refused; `side` says which one is of the present.
    """

    kept: Ints  # [2, S, R, T]
    side: Ints  # [S] 0 or 1
    gained: Floats  # [2, S] value of the places before
    worth: Floats  # [J] value of each job's decision
    mine: Floats  # [J] the same of the new solution
    option: Ints  # [J]
    start: Ints  # [J]
    free: Ints  # [R, T] scratch


@inner_kernel
def _book(problem: ProblemArrays, steps: MeterSteps, option: int, start: int, free: Ints) -> None:
    """Take the usage of one decision from `free` [R, T]."""
    end = min(free.shape[1], start + problem.option_duration[option])
    profile = problem.option_profile[option]
    for use in range(problem.profile_uses[profile], problem.profile_uses[profile + 1]):
        amount = problem.profile_amount[use] * problem.option_multiple[option]
        pool = problem.curves.row_pool[problem.profile_resource[use]]
        if pool >= 0:
            book_by_steps(problem.curves, steps, pool, amount, free, (start, end))
        row = free[problem.profile_resource[use]]
        for slot in range(start, end):
            row[slot] -= amount


@inner_kernel
def _last_blocked(problem: ProblemArrays, steps: MeterSteps, option: int, free: Ints, first: int, stop: int) -> int:
    """Return the last slot of first .. stop - 1 in which some resource has too little left; -1: none."""
    profile = problem.option_profile[option]
    multiple = problem.option_multiple[option]
    last = -1
    for use in range(problem.profile_uses[profile], problem.profile_uses[profile + 1]):
        amount = problem.profile_amount[use] * multiple
        pool = problem.curves.row_pool[problem.profile_resource[use]]
        if pool >= 0:
            last = max(last, last_blocked_by_steps(problem.curves, steps, pool, amount, free, (first, stop)))
            first = max(first, last + 1)
        row = free[problem.profile_resource[use]]
        short = 0
        for slot in range(first, stop):  # a sum, not an early exit: it runs on vectors
            short += row[slot] < amount
        if short == 0:
            continue
        slot = stop - 1
        while slot > last and row[slot] >= amount:
            slot -= 1
        last = max(last, slot)
        first = max(first, last + 1)
    return last


@inner_kernel
def _earliest_fit(problem: ProblemArrays, steps: MeterSteps, option: int, free: Ints) -> int:
    """Return the first start at which the option fits to its end or the horizon; -1: none. Looks at a slot once."""
    slots = free.shape[1]
    duration = problem.option_duration[option]
    latest = problem.option_latest[option]
    start = problem.option_earliest[option]
    checked = start
    while start <= latest:
        stop = min(slots, start + duration)
        if checked >= stop:
            return int(start)
        last = _last_blocked(problem, steps, option, free, checked, stop)
        checked = stop
        if last < 0:
            return int(start)
        start = last + 1
    return -1


@inner_kernel
def _place(
    problem: ProblemArrays, steps: MeterSteps, job: int, gene: int, free: Ints, energy: Floats
) -> tuple[float, int, int]:
    """Book a job at its earliest fit if that is worth more than waiting; return (value, option, start)."""
    wait = problem.job_value[job, WAIT_VALUE]
    if gene < 0:
        return wait, -1, -1
    start = _earliest_fit(problem, steps, gene, free)
    if start < 0:
        return wait, -1, -1
    value = priced_value(problem, job, gene, start, energy, free.shape[1])
    if value <= wait:
        return wait, -1, -1
    _book(problem, steps, gene, start, free)
    return value, gene, start


@kernel
def decode(problem: ProblemArrays, steps: MeterSteps, chain: Chain, energy: Floats, capacity: Ints) -> None:
    """Decode the present solution of a chain, and take it as the best where it is; `energy` is [P, T + 1]."""
    free = capacity.copy()
    total = 0.0
    for job in chain.order:
        value, chain.option[job], chain.start[job] = _place(problem, steps, job, chain.gene[job], free, energy)
        total += value
    chain.value[0] = total
    if total > chain.best_value[0]:
        _keep(chain)


@inner_kernel
def _keep(chain: Chain) -> None:
    chain.best_value[0] = chain.value[0]
    chain.best_option[:] = chain.option
    chain.best_start[:] = chain.start
    chain.best_order[:] = chain.order
    chain.best_gene[:] = chain.gene


@inner_kernel
def _shift(order: Ints, old: int, new: int) -> None:
    """Move the job at place `old` to place `new`; those between move by one."""
    job = order[old]
    step = 1 if new > old else -1
    at = old
    while at != new:
        order[at] = order[at + step]
        at += step
    order[new] = job


@inner_kernel
def _resume(
    problem: ProblemArrays, steps: MeterSteps, chain: Chain, energy: Floats, capacity: Ints, stride: int
) -> _Decoder:
    """Decode the present solution of a chain once, with snapshots."""
    jobs = len(chain.order)
    snapshots = jobs // stride + 1
    decoder = _Decoder(
        np.empty((2, snapshots, *capacity.shape), np.int64),
        np.zeros(snapshots, np.int64),
        np.zeros((2, snapshots)),
        np.zeros(jobs),
        np.zeros(jobs),
        chain.option.copy(),
        chain.start.copy(),
        capacity.copy(),
    )
    total = 0.0
    for place in range(jobs):
        if place % stride == 0:
            decoder.kept[0, place // stride] = decoder.free
            decoder.gained[0, place // stride] = total
        job = chain.order[place]
        decoder.worth[job], _, _ = _place(problem, steps, job, chain.gene[job], decoder.free, energy)
        total += decoder.worth[job]
    return decoder


@inner_kernel
def _draw_place(place: int, jobs: int) -> int:
    """Draw another place of the order: any, or as often one of the next few."""
    if np.random.random() < 0.5:
        return int(np.random.random() * jobs)
    reach = 1 + int(np.random.random() * min(_NEAR, jobs))
    new = place + reach if np.random.random() < 0.5 else place - reach
    return min(jobs - 1, max(0, new))


@inner_kernel
def _decode_from(
    problem: ProblemArrays,
    steps: MeterSteps,
    chain: Chain,
    decoder: _Decoder,
    changed: int,
    highest: Floats,
    energy: Floats,
    stride: int,
    wanted: float,
) -> float:
    """Decode from the first changed place; return the value, or LOWEST once `wanted` cannot be reached any more."""
    first = changed // stride
    free = decoder.free
    free[:] = decoder.kept[decoder.side[first], first]
    total = decoder.gained[decoder.side[first], first]
    rest = 0.0
    for place in range(first * stride, len(chain.order)):
        rest += highest[chain.order[place]]
    for place in range(first * stride, len(chain.order)):
        if total + rest < wanted:
            return LOWEST
        at = place // stride
        if place % stride == 0 and at > first:
            decoder.kept[1 - decoder.side[at], at] = free
            decoder.gained[1 - decoder.side[at], at] = total
        job = chain.order[place]
        if place >= changed:
            decoder.mine[job], chain.option[job], chain.start[job] = _place(
                problem, steps, job, chain.gene[job], free, energy
            )
        else:
            decoder.mine[job] = decoder.worth[job]
            if decoder.option[job] >= 0:
                _book(problem, steps, decoder.option[job], decoder.start[job], free)
        total += decoder.mine[job]
        rest -= highest[job]
    return total if total >= wanted else LOWEST


@inner_kernel
def _accept(chain: Chain, decoder: _Decoder, changed: int, stride: int, value: float) -> None:
    chain.value[0] = value
    first = changed // stride
    for at in range(first + 1, (len(chain.order) - 1) // stride + 1):
        decoder.side[at] = 1 - decoder.side[at]
    for place in range(first * stride, len(chain.order)):
        job = chain.order[place]
        decoder.worth[job] = decoder.mine[job]
        decoder.option[job], decoder.start[job] = chain.option[job], chain.start[job]
    if value > chain.best_value[0]:
        _keep(chain)


@kernel
def anneal(
    problem: ProblemArrays,
    steps: MeterSteps,
    chain: Chain,
    ranked: Ints,
    highest: Floats,
    energy: Floats,
    capacity: Ints,
    settings: AnnealSettings,
) -> None:
    """Run one round of a chain.

    `ranked` [O] holds each job's options by falling value less price, `highest` [J] what a job is worth at most.
    """
    np.random.seed(settings.seed)
    jobs = len(chain.order)
    decoder = _resume(problem, steps, chain, energy, capacity, settings.stride)
    for _ in range(settings.decodes):
        kind = np.random.random()
        old = int(np.random.random() * jobs)
        new = old
        job = chain.order[old]
        gene = chain.gene[job]
        if kind < _REORDER or kind >= _NEW_OPTION:
            new = _draw_place(old, jobs)
        if kind >= _REORDER and gene >= 0:
            lo, count = problem.job_options[job], problem.job_options[job + 1] - problem.job_options[job]
            chain.gene[job] = ranked[lo + int(count * np.random.random() ** 2)]
        if new == old and chain.gene[job] == gene:
            continue
        _shift(chain.order, old, new)
        wanted = chain.value[0] + settings.heat * np.log(1.0 - np.random.random())
        changed = min(old, new)
        value = _decode_from(problem, steps, chain, decoder, changed, highest, energy, settings.stride, wanted)
        if value > LOWEST:
            _accept(chain, decoder, changed, settings.stride, value)
        else:
            chain.gene[job] = gene
            _shift(chain.order, new, old)
            chain.option[:] = decoder.option
            chain.start[:] = decoder.start
