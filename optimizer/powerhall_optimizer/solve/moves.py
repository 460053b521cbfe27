"""The compiled loop of the neighbourhood search: take jobs out of a few halls and a time window, put better ones in."""

# ruff: noqa: C901, PLR0912, PLR0915, PLR0917

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from powerhall_optimizer.problem.arrays import Ints
from powerhall_optimizer.solve.kernels import ProblemArrays, adapt, job_worth, occupy, place

Array = npt.NDArray[Any]


@njit(nogil=True, cache=True)
def search(
    t: ProblemArrays,
    seed: int,
    rounds: int,
    blocks: Ints,
    members: Ints,
    merit: Array,
    area: Array,
    block_profiles: tuple[Ints, Ints],
    price: Array,
    energy: Array,
    room: Array,
    free: Ints,
    option: Ints,
    start: Ints,
    heat: float,
    most_out: int,
    most_in: int,
) -> tuple[float, int]:
    """Runs `rounds` moves on the jobs in `members` and the halls in `blocks`; returns (value gained, moves accepted).

    `members` is sorted by falling merit; `block_profiles` (pointers, profiles) lists the profiles of each hall. `free`,
    `option` and `start` are changed in place. A losing move is accepted with the probability exp(-loss / heat).
    """
    np.random.seed(seed)
    slots = free.shape[1]
    most_options = 0
    for job in members:
        most_options = max(most_options, t.job_options[job + 1] - t.job_options[job])
    tops = np.empty(most_options, np.float64)
    blocked = np.zeros(slots, np.bool_)
    allowed = np.zeros(t.option_block.max() + 1, np.bool_)
    limit = 160
    touched = np.empty(limit, np.int64)
    old_option = np.empty(limit, np.int64)
    old_start = np.empty(limit, np.int64)
    key = np.empty(limit, np.float64)
    order = np.empty(limit, np.int64)
    flagged = np.zeros(len(option), np.bool_)
    guide = energy.copy()
    adapted = np.empty(free.shape, np.float64)
    gained = 0.0
    accepted = 0
    for _ in range(rounds):
        allowed[:] = False
        count = min(len(blocks), np.random.randint(1, 4))
        for _i in range(count):
            allowed[blocks[np.random.randint(0, len(blocks))]] = True
        width = np.random.randint(3, max(4, slots // 6))
        lo = np.random.randint(0, slots)
        hi = lo + width
        take = np.random.randint(1, most_out)
        # jobs that run in the window, from a random place in the list on
        n = 0
        offset = np.random.randint(0, len(members))
        for i in range(len(members)):
            job = members[(i + offset) % len(members)]
            o = option[job]
            if o >= 0 and allowed[t.option_block[o]] and start[job] < hi and start[job] + t.option_duration[o] > lo:
                touched[n] = job
                n += 1
                if n == take:
                    break
        out = n
        wanted = np.random.randint(2, most_in)
        for _i in range(4 * wanted):
            u = np.random.random()
            job = members[int(u * u * len(members))]
            if option[job] >= 0 or flagged[job]:
                continue
            flagged[job] = True
            touched[n] = job
            n += 1
            if n - out == wanted:
                break
        if n == 0:
            continue
        before = 0.0
        for i in range(n):
            job = touched[i]
            flagged[job] = False
            o, s = option[job], start[job]
            old_option[i], old_start[i] = o, s
            before += job_worth(t, job, o, s, energy, slots)
            if o >= 0:
                occupy(t, o, s, -1, free)
                option[job] = -1
                start[job] = -1
        weight = 0.2 * np.random.random() ** 2
        noise = 0.15 * np.random.random() ** 2
        for i in range(n):
            job = touched[i]
            rank = merit[job] + weight * area[job] + noise * np.random.randn()
            if t.job_value[job, 0] < 0:
                rank += 1e6
            at = i
            while at > 0 and key[at - 1] < rank:
                key[at] = key[at - 1]
                order[at] = order[at - 1]
                at -= 1
            key[at] = rank
            order[at] = i
        slope = 12.0 * np.random.random() ** 2
        scale = 1.05 - 0.5 * np.random.random() ** 2
        for block in range(len(allowed)):
            if allowed[block]:
                profiles = block_profiles[1][block_profiles[0][block] : block_profiles[0][block + 1]]
                adapt(t, profiles, price, energy, free, room, 1.0, slope, scale, guide, adapted)
        for prefix in (guide, energy):
            for k in range(n):
                job = touched[order[k]]
                if option[job] < 0:
                    place(t, job, prefix, free, allowed, t.job_value[job, 0], option, start, tops, blocked)
        after = 0.0
        for i in range(n):
            job = touched[i]
            after += job_worth(t, job, option[job], start[job], energy, slots)
        change = after - before
        if change >= 0 or change > heat * np.log(np.random.random()):
            gained += change
            accepted += 1
            continue
        for i in range(n):
            job = touched[i]
            if option[job] >= 0:
                occupy(t, option[job], start[job], -1, free)
            option[job] = old_option[i]
            start[job] = old_start[i]
        for i in range(n):
            job = touched[i]
            if option[job] >= 0:
                occupy(t, option[job], start[job], 1, free)
    return gained, accepted
