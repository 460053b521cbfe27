"""Who held which GPU when, and what of the IT power that was: the intervals of the agents, GPU by GPU.

An interval has the energy of the board alone. The rest of the node (CPUs, fans, power supplies) comes on top as the
roll-up has it: by the node type's modes, each of which pairs a GPU's own power with its planned part of the node. A
held GPU draws at least its part of the idle node. Holders of one GPU share what comes on top as they share its energy.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from powerhall.site.topology import NodeType
from powerhall.store import Filter, Query, Row, Select, Store
from powerhall_optimizer.billing.buckets import Floats
from powerhall_optimizer.rollup.node_power import share_points, with_share_w

__all__ = ["Held", "HeldParts", "held_parts", "mean_board_w", "read_held"]

_FIELDS = ("job", "user_hash", "start_s", "end_s", "energy_j", "energy_split")
_PLAUSIBLE = 1.5
"""Energy above this many times the most that the GPU's part of the node can draw is not believed."""


@dataclass(frozen=True, slots=True)
class Held:
    """A job on a GPU of a node from `start_s` to `end_s`, with its part of the board's energy."""

    job: str
    user_hash: str
    node: str
    gpu: str
    start_s: float
    end_s: float
    energy_j: float
    whole: bool = True
    """Whether the GPU was its alone."""
    open: bool = False
    """Whether it had not ended when it was written last."""


@dataclass(frozen=True, slots=True)
class HeldParts:
    """Spans in which the holders of a GPU stay the same, one for each holder, as columns.

    `interval` is the number in `held`, `it_w` the part of the IT power, `board_w` that of the board,
    `gpus` the part of the GPU. `doubted` are intervals whose energy nothing could draw: they count as idle.
    """

    held: tuple[Held, ...]
    interval: npt.NDArray[np.int64]
    start_s: Floats
    end_s: Floats
    it_w: Floats
    board_w: Floats
    gpus: Floats
    doubted: int


def read_held(store: Store, site: str, hall: str, span: tuple[float, float], now_s: float) -> list[Held]:
    """Read the intervals of a hall that overlap a span; one without an end goes on until the next takes its place."""
    start_s, end_s = span
    select, where = tuple(Select(name) for name in _FIELDS), {"site": site, "hall": hall}
    found: list[Held] = []
    for condition in (Filter("end_s", ">", start_s), Filter("end_s", "=", 0.0)):
        query = Query("job_interval", select, where, ("node", "gpu"), filters=(condition,))
        found += [held for row in store.query(query, 0.0, end_s) if (held := _held(row, now_s)) is not None]
    by_gpu: defaultdict[tuple[str, str], list[Held]] = defaultdict(list)
    for held in found:
        by_gpu[held.node, held.gpu].append(held)
    return [
        held
        for _, group in sorted(by_gpu.items())
        for held in _closed(sorted(group, key=lambda held: held.start_s))
        if held.end_s > max(start_s, held.start_s) and held.start_s < end_s
    ]


def _held(row: Row, now_s: float) -> Held | None:
    job, user = row.values.get("job"), row.values.get("user_hash")
    start_s, end_s, energy_j = row.number("start_s"), row.number("end_s"), row.number("energy_j")
    if not isinstance(job, str) or start_s is None or end_s is None:
        return None
    is_open, whole = end_s == 0.0, row.values.get("energy_split") in (None, "", "whole")
    tags = row.tags.get("node", ""), row.tags.get("gpu", "")
    user_hash = user if isinstance(user, str) else ""
    return Held(job, user_hash, *tags, start_s, now_s if is_open else end_s, energy_j or 0.0, whole, is_open)


def _closed(held: Sequence[Held]) -> Iterator[Held]:
    """Yield the intervals of a GPU; an agent that started anew left some open, which ended before their successor."""
    for number, one in enumerate(held):
        if not one.open:
            yield one
            continue
        after = (later.start_s for later in held[number + 1 :] if later.job == one.job or later.whole)
        yield replace(one, end_s=min([one.end_s, *after]))


def held_parts(held: Sequence[Held], kinds: Mapping[str, NodeType]) -> HeldParts:
    """Return the parts of the intervals; `kinds` are the types of the nodes that the site has."""
    by_gpu: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
    for number, one in enumerate(held):
        by_gpu[one.node, one.gpu].append(number)
    rows: list[tuple[int, float, float, float, float, float]] = []
    doubted = 0
    for (node, _), numbers in by_gpu.items():
        kind = kinds.get(node)
        powers = {number: mean_board_w(held[number], kind) for number in numbers}
        doubted += sum(power_w is None for power_w in powers.values())
        rows += _parts(held, numbers, {number: power_w or 0.0 for number, power_w in powers.items()}, kind)
    table = np.array(rows, np.float64).reshape(len(rows), 6)
    start_s, end_s, it_w, board_w, gpus = (table[:, column].copy() for column in range(1, 6))
    return HeldParts(tuple(held), table[:, 0].astype(np.int64), start_s, end_s, it_w, board_w, gpus, doubted)


def mean_board_w(one: Held, kind: NodeType | None) -> float | None:
    """Return the mean power of an interval's part of the board; None where it cannot be."""
    power_w = one.energy_j / (one.end_s - one.start_s) if one.end_s > one.start_s else 0.0
    most_w = np.inf if kind is None else _PLAUSIBLE * kind.max_power_w / max(1, kind.gpus)
    return power_w if 0.0 <= power_w <= most_w else None


def _parts(
    held: Sequence[Held], numbers: Iterable[int], powers: Mapping[int, float], kind: NodeType | None
) -> Iterator[tuple[int, float, float, float, float, float]]:
    """Yield (interval, start, end, IT power, board power, GPUs) between the moments at which holders change."""
    points = [] if kind is None else share_points(kind)
    least_w = 0.0 if kind is None else kind.idle_gpu_power_w
    changes = sorted((at_s, n) for n in numbers for at_s in (held[n].start_s, held[n].end_s))
    now: set[int] = set()
    for (low_s, changed), (high_s, _) in pairwise(changes):
        now ^= {changed}
        if high_s <= low_s or not now:
            continue
        total_w = sum(powers[n] for n in now)
        it_w = max(with_share_w(total_w, points), least_w)
        for n in sorted(now):
            share = powers[n] / total_w if total_w > 0 else 1.0 / len(now)
            yield n, low_s, high_s, it_w * share, powers[n], 1.0 / len(now)
