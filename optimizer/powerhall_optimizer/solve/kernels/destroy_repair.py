"""The moves of the large neighbourhood search (Shaw 1998): destroy a small part of a schedule, repair it greedily.

A move picks one to three halls and a time window, takes some jobs that run there out of the schedule, adds some waiting
jobs, and inserts all of them again in a randomly disturbed order of merit at randomly disturbed prices. It is kept when
it gains value, and at times when it loses some (simulated annealing), so that the search leaves local optima.

Random numbers come from numba's own generator, which is per thread and seeded at the start of `search`: the same seed,
schedule and number of moves give the same result. So the order of the draws is part of the behaviour.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from powerhall_optimizer.jit import inner_kernel, kernel
from powerhall_optimizer.problem.arrays import Ints
from powerhall_optimizer.solve.kernels.decision_value import priced_value
from powerhall_optimizer.solve.kernels.fill_prices import follow_fill
from powerhall_optimizer.solve.kernels.insertion import GIVE_BACK, TAKE, book, insert_job, insertion_scratch
from powerhall_optimizer.solve.kernels.kernel_arrays import (
    FillRule,
    Flags,
    Floats,
    GuidePrices,
    InsertionScratch,
    PriceBasis,
    ProblemArrays,
    WorkingSchedule,
)

__all__ = ["MoveSettings", "Neighbourhood", "SearchGuidance", "search"]


class SearchGuidance(NamedTuple):
    """Parameters of the moves that do not change during the search."""

    merit: Floats  # [J] value less price per unit of value: a job's rank for insertion
    area: Floats  # [J] logarithm of the price of the resources that a job takes: large gangs have much
    basis: PriceBasis
    hall_pointer: Ints  # [H + 1] hall h owns the entries hall_pointer[h] .. hall_pointer[h + 1] - 1 of hall_profile
    hall_profile: Ints  # profiles of the options in each hall


class Neighbourhood(NamedTuple):
    """The part of the problem that one thread may change; parts of different threads do not overlap."""

    halls: Ints
    jobs: Ints  # jobs that run in these halls and a share of the waiting ones, by falling merit


class MoveSettings(NamedTuple):
    """Number and size of the moves, and the loss that they accept."""

    seed: int
    moves: int
    heat: float  # value units; a loss is accepted with the probability exp(-loss / heat)
    most_out: int  # fewer than this many running jobs are taken out by one move
    most_in: int  # fewer than this many waiting jobs are offered by one move


class _Move(NamedTuple):
    """The jobs of one move, and their decisions before it; only the first n entries of each array are in use."""

    job: Ints
    old_option: Ints
    old_start: Ints
    rank: Floats  # falling
    order: Ints  # order[k] is the place in `job` of the job that is inserted as the k-th


@inner_kernel
def _draw_halls(halls: Ints, allowed: Flags) -> None:
    """Allow one to three halls, drawn with repetition, and no others."""
    allowed[:] = False
    count = min(len(halls), np.random.randint(1, 4))
    for _ in range(count):
        allowed[halls[np.random.randint(0, len(halls))]] = True


@inner_kernel
def _draw_window(slots: int) -> tuple[int, int]:
    """Draw a window of 3 slots up to a sixth of the horizon; it may reach behind the end."""
    width = np.random.randint(3, max(4, slots // 6))
    first = np.random.randint(0, slots)
    return first, first + width


@inner_kernel
def _pick_running(
    problem: ProblemArrays,
    schedule: WorkingSchedule,
    jobs: Ints,
    allowed: Flags,
    window: tuple[int, int],
    most: int,
    picked: Ints,
) -> int:
    """Pick jobs that run in an allowed hall at some time of the window; return how many.

    The list is read from a random place on, so that jobs of every merit have their turn.
    """
    wanted = np.random.randint(1, most)
    offset = np.random.randint(0, len(jobs))
    n = 0
    for i in range(len(jobs)):
        job = jobs[(i + offset) % len(jobs)]
        option = schedule.option[job]
        if option < 0 or not allowed[problem.option_hall[option]]:
            continue
        start = schedule.start[job]
        if start < window[1] and start + problem.option_duration[option] > window[0]:
            picked[n] = job
            n += 1
            if n == wanted:
                break
    return n


@inner_kernel
def _pick_waiting(schedule: WorkingSchedule, jobs: Ints, most: int, n: int, seen: Flags, picked: Ints) -> int:
    """Pick waiting jobs behind the first `n` picked ones; return how many are picked in all.

    The square of a uniform number prefers the front of the list, where merit is high. Draws that hit a running job or
    one seen before are lost, so there are more draws than jobs wanted, and a limit to them. `seen` [J] is all false
    before and after.
    """
    wanted = np.random.randint(2, most)
    first = n
    for _ in range(4 * wanted):
        u = np.random.random()
        job = jobs[int(u * u * len(jobs))]
        if schedule.option[job] >= 0 or seen[job]:
            continue
        seen[job] = True
        picked[n] = job
        n += 1
        if n - first == wanted:
            break
    for i in range(first, n):
        seen[picked[i]] = False
    return n


@inner_kernel
def _take_out(problem: ProblemArrays, schedule: WorkingSchedule, move: _Move, n: int) -> None:
    """Let the n jobs of the move wait, and record their decisions."""
    for i in range(n):
        job = move.job[i]
        option, start = schedule.option[job], schedule.start[job]
        move.old_option[i], move.old_start[i] = option, start
        if option >= 0:
            book(problem, option, start, GIVE_BACK, schedule.free)
            schedule.option[job] = -1
            schedule.start[job] = -1


@inner_kernel
def _value_of_move(problem: ProblemArrays, schedule: WorkingSchedule, move: _Move, n: int, energy: Floats) -> float:
    """Return the value of the present decisions of the n jobs; no other job's value changes by the move."""
    slots = schedule.free.shape[1]
    value = 0.0
    for i in range(n):
        job = move.job[i]
        value += priced_value(problem, job, schedule.option[job], schedule.start[job], energy, slots)
    return value


@inner_kernel
def _draw_order(guidance: SearchGuidance, move: _Move, n: int) -> None:
    """Sort the n jobs by falling rank: merit, more or less preference for large gangs, and noise.

    Both amounts are drawn for each move and mostly small (a square). Merit has what a job loses by waiting, so jobs
    that must run come first. Insertion sort: n is small, and equal ranks keep their order.
    """
    weight = 0.2 * np.random.random() ** 2
    noise = 0.15 * np.random.random() ** 2
    for i in range(n):
        job = move.job[i]
        rank = guidance.merit[job] + weight * guidance.area[job] + noise * np.random.randn()
        at = i
        while at > 0 and move.rank[at - 1] < rank:
            move.rank[at] = move.rank[at - 1]
            move.order[at] = move.order[at - 1]
            at -= 1
        move.rank[at] = rank
        move.order[at] = i


@inner_kernel
def _draw_prices(
    problem: ProblemArrays, guidance: SearchGuidance, free: Ints, allowed: Flags, guide: GuidePrices
) -> None:
    """Derive guide prices for the allowed halls, with a random slope (0 .. 12) and scale (0.55 .. 1.05).

    The level is a full resource: a nearly full resource costs its Lagrangian price, every other one less.
    """
    slope = 12.0 * np.random.random() ** 2
    scale = 1.05 - 0.5 * np.random.random() ** 2
    rule = FillRule(1.0, slope, scale)
    for hall in range(len(allowed)):
        if allowed[hall]:
            profiles = guidance.hall_profile[guidance.hall_pointer[hall] : guidance.hall_pointer[hall + 1]]
            follow_fill(problem, profiles, guidance.basis, free, rule, guide)


@inner_kernel
def _put_in(
    problem: ProblemArrays,
    schedule: WorkingSchedule,
    move: _Move,
    n: int,
    prefixes: tuple[Floats, Floats],
    allowed: Flags,
    scratch: InsertionScratch,
) -> None:
    """Insert the n jobs in the drawn order, once at each of the prices; jobs placed by the first pass stay.

    Prices keep room for jobs of more merit; the second pass, at energy cost alone, fills the rest.
    """
    for prefix in prefixes:
        for k in range(n):
            job = move.job[move.order[k]]
            if schedule.option[job] < 0:
                insert_job(problem, job, prefix, allowed, schedule, scratch)


@inner_kernel
def _undo(problem: ProblemArrays, schedule: WorkingSchedule, move: _Move, n: int) -> None:
    """Restore the schedule as it was before the move; the old decisions fit because they did before."""
    for i in range(n):
        job = move.job[i]
        if schedule.option[job] >= 0:
            book(problem, schedule.option[job], schedule.start[job], GIVE_BACK, schedule.free)
        schedule.option[job] = move.old_option[i]
        schedule.start[job] = move.old_start[i]
    for i in range(n):
        job = move.job[i]
        if schedule.option[job] >= 0:
            book(problem, schedule.option[job], schedule.start[job], TAKE, schedule.free)


@kernel
def search(
    problem: ProblemArrays,
    neighbourhood: Neighbourhood,
    guidance: SearchGuidance,
    schedule: WorkingSchedule,
    settings: MoveSettings,
) -> tuple[float, int]:
    """Run the moves on one part of the problem; return (value gained, moves accepted).

    The schedule stays feasible: jobs are only placed where they fit into the free amounts, and a move that is not
    accepted is undone. `schedule.free` holds this thread's share of the resources that halls have in common.
    """
    np.random.seed(settings.seed)
    slots = schedule.free.shape[1]
    energy = guidance.basis.energy
    scratch = insertion_scratch(problem, neighbourhood.jobs, slots)
    allowed = np.zeros(problem.option_hall.max() + 1, np.bool_)
    seen = np.zeros(len(schedule.option), np.bool_)
    guide = GuidePrices(energy.copy(), np.empty(schedule.free.shape, np.float64))
    most = settings.most_out + settings.most_in
    move = _Move(
        np.empty(most, np.int64),
        np.empty(most, np.int64),
        np.empty(most, np.int64),
        np.empty(most, np.float64),
        np.empty(most, np.int64),
    )
    gained = 0.0
    accepted = 0
    for _ in range(settings.moves):
        _draw_halls(neighbourhood.halls, allowed)
        window = _draw_window(slots)
        n = _pick_running(problem, schedule, neighbourhood.jobs, allowed, window, settings.most_out, move.job)
        n = _pick_waiting(schedule, neighbourhood.jobs, settings.most_in, n, seen, move.job)
        if n == 0:
            continue
        before = _value_of_move(problem, schedule, move, n, energy)
        _take_out(problem, schedule, move, n)
        _draw_order(guidance, move, n)
        _draw_prices(problem, guidance, schedule.free, allowed, guide)
        _put_in(problem, schedule, move, n, (guide.prefix, energy), allowed, scratch)
        change = _value_of_move(problem, schedule, move, n, energy) - before
        if change >= 0 or change > settings.heat * np.log(np.random.random()):
            gained += change
            accepted += 1
        else:
            _undo(problem, schedule, move, n)
    return gained, accepted
