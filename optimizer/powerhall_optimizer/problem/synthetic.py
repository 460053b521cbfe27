"""Two families of synthetic planning problems, fully specified by (family, jobs, slots, seed).

Both describe a site of 44,000 nodes of eight GPUs (10.2 kW each at the rating, DGX H100 user guide) on 5-minute slots.
Every job sits wholly in one hall; a hall limits nodes, IT watts and heat at every slot; the site limits watts at the
meter (IT x overhead of the hall). A job has `MODES` (power level, speed) x eligible halls as options. Work is
node-slots at full power times a weight; value is 10,000 x weight x work delivered inside the horizon, less energy at
a day/night tariff.

*open*: 10 halls x 4,400 nodes of two cooling types (overhead 1.08 and 1.22, five each); every job fits both types (40
%) or one of them (30 % each); gangs are lognormal (sigma 1.6), 1 .. 1,700 nodes, their scale chosen so that demand is
1.25 times the node capacity; half of the jobs are released later, uniformly over the first 90 % of the horizon; the
site's cap is cut by 25 % for three hours.

*pinned*: 20 halls x 2,200 nodes (types alternate); 30 % of the queued jobs are pinned to one hall and 30 % to a zone
of four neighbouring halls; gangs are powers of two, 1 .. 1,024; jobs that already run hold 70 % of every hall's
nodes, must go on in their hall and may only choose their mode; 15 % of the queued jobs carry a deadline whose miss
costs their whole value; the value falls by up to 40 % with completion time; two curtailments of 20 % (3 h) and 30 %
(2 h). Demand, running jobs included, is 1.25 times the node capacity. `jobs` counts running and queued jobs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from powerhall.runtime.errors import Rejected
from powerhall_optimizer.problem.arrays import MUST_RUN, NO_DEADLINE, Ints, Problem
from powerhall_optimizer.problem.builder import CapacityTable, JobTable, OptionTable, make_problem
from powerhall_optimizer.problem.resources import Resource, ResourceKind

__all__ = ["FAMILIES", "generate"]

SLOT_S = 300
SLOTS_PER_DAY = 288
NODES = 44_000
NODE_W = 10_200
DEMAND = 1.25
VALUE_UNIT = 10_000  # value of a node-slot at full speed and weight 1
ENERGY_UNIT_W = 100

# Node draw at full power by job class, and per class four modes as (share of that draw, speed); the shape of the curves
# follows measured A40/V100 sweeps (Zeus traces): flat at the top, steep below 60 % of the power.
CLASS_W = np.array([10_200, 9_400, 8_200])
CLASS_SHARE = (0.45, 0.35, 0.2)
MODES = ("100%", "86%", "74%", "62%")
POWER = np.array([[1.00, 0.86, 0.74, 0.62]] * 3)
SPEED = np.array([[1.00, 0.96, 0.88, 0.74], [1.00, 0.98, 0.93, 0.82], [1.00, 0.99, 0.97, 0.90]])
OVERHEAD = (1.08, 1.22)

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class _SyntheticSite:
    halls: int
    hall_type: Ints  # [H]
    capacity: Ints  # [3 H + 1, T] nodes, IT watts, heat watts of each hall in turn, then site watts
    tariff: Ints  # [1, T] value units per ENERGY_UNIT_W at the meter and slot


@dataclass(frozen=True, slots=True)
class _SyntheticJobs:
    nodes: Ints
    work: Ints  # slots at full power (remaining ones for running jobs)
    kind: Ints  # class index
    weight: Floats
    release: Ints
    eligible: npt.NDArray[np.bool_]  # [J, H]
    running: npt.NDArray[np.bool_]


def generate(family: str, jobs: int, slots: int, seed: int, halls: int | None = None) -> Problem:
    """Instance of a family; the same arguments give the same problem on every machine.

    `halls` cuts the site's 44,000 nodes into another number of halls (even; a multiple of four for *pinned*).
    """
    if family not in FAMILIES:
        raise Rejected.field("instance", "family", family, f"must be one of {', '.join(FAMILIES)}")
    if jobs < 1 or slots < 12:
        raise Rejected(f"instance: {jobs} jobs x {slots} slots: at least 1 job and 12 slots")
    build, usual, step = FAMILIES[family]
    if halls is not None and (halls < step or halls % step or NODES % halls):
        raise Rejected.field("instance", "halls", halls, f"must be a multiple of {step} that divides {NODES}")
    return build(jobs, slots, np.random.default_rng(seed), usual if halls is None else halls)


def _open(jobs: int, slots: int, rng: np.random.Generator, halls: int) -> Problem:
    site = _site(halls, slots, rng, np.repeat([0, 1], halls // 2), [(0.55, 36, 0.25)], 470e6)
    work = _durations(jobs, slots, rng)
    shape = np.exp(1.6 * rng.standard_normal(jobs))
    nodes = _scaled(lambda scale: np.clip(np.rint(scale * shape), 1, 1_700), work, DEMAND * NODES * slots)
    kind_of_hall = rng.choice(3, jobs, p=(0.4, 0.3, 0.3))  # both types, type 0 only, type 1 only
    fits = np.array([[True, True], [True, False], [False, True]])
    release = np.where(rng.random(jobs) < 0.5, rng.integers(1, max(2, int(0.9 * slots)), jobs), 0)
    queue = _SyntheticJobs(
        nodes,
        work,
        rng.choice(3, jobs, p=CLASS_SHARE),
        _weights(jobs, rng),
        release,
        fits[kind_of_hall][:, site.hall_type],
        np.zeros(jobs, bool),
    )
    return _problem(site, queue, falls=0.0, deadlines=0.0, rng=rng)


def _pinned(jobs: int, slots: int, rng: np.random.Generator, halls: int) -> Problem:
    site = _site(halls, slots, rng, np.arange(halls) % 2, [(0.25, 36, 0.20), (0.7, 24, 0.30)], 450e6)
    run_nodes, run_hall = _running(site, jobs // 2, rng)
    count = len(run_nodes)
    queued = jobs - count
    run_work = np.maximum(1, (_durations(count, slots, rng) * rng.random(count)).astype(np.int64))
    work = _durations(queued, slots, rng)
    level = rng.random(queued)
    spread = 11 * level**1.5
    target = DEMAND * NODES * slots - float((run_nodes * run_work).sum())
    nodes = _scaled(lambda scale: 2.0 ** np.clip(np.floor(spread + np.log2(scale)), 0, 10), work, target)
    own_hall, reach = rng.integers(0, halls, queued), rng.random(queued)
    hall = np.arange(halls)
    eligible = np.where((reach < 0.3)[:, None], hall == own_hall[:, None], hall // 4 == own_hall[:, None] // 4)
    eligible |= (reach >= 0.6)[:, None]
    release = np.where(rng.random(queued) < 0.5, rng.integers(1, max(2, int(0.9 * slots)), queued), 0)
    merged = _SyntheticJobs(
        np.concatenate((run_nodes, nodes)),
        np.concatenate((run_work, work)),
        rng.choice(3, jobs, p=CLASS_SHARE),
        _weights(jobs, rng),
        np.concatenate((np.zeros(count, np.int64), release)),
        np.concatenate((hall == run_hall[:, None], eligible)),
        np.arange(jobs) < count,
    )
    return _problem(site, merged, falls=0.4, deadlines=0.15, rng=rng)


# builder, usual number of halls, number that must divide it
FAMILIES: dict[str, tuple[Callable[[int, int, np.random.Generator, int], Problem], int, int]] = {
    "open": (_open, 10, 2),
    "pinned": (_pinned, 20, 4),
}


def _site(  # noqa: PLR0917
    halls: int,
    slots: int,
    rng: np.random.Generator,
    hall_type: npt.NDArray[np.int64],
    cuts: list[tuple[float, int, float]],
    site_w: float,
) -> _SyntheticSite:
    """Return capacities beside a diurnal inference base load; cuts are (begin as share of horizon, slots, depth)."""
    day = 2 * np.pi * np.arange(slots) / SLOTS_PER_DAY
    per_hall = NODES // halls
    base = np.floor(per_hall * (0.10 + 0.05 * np.sin(day[None, :] + rng.uniform(0, 0.5, halls)[:, None])))
    wet_bulb = np.sin(day - np.pi / 2)  # coldest at the start, warmest after half a day
    capacity = np.zeros((3 * halls + 1, slots))
    capacity[0 : 3 * halls : 3] = per_hall - base
    capacity[1 : 3 * halls : 3] = per_hall * NODE_W * 0.88 - base * NODE_W * 0.75
    tower = np.where(hall_type == 0, 0.03, 0.07)[:, None] * wet_bulb[None, :]
    capacity[2 : 3 * halls : 3] = per_hall * NODE_W * (0.87 - tower) - base * NODE_W * 0.75
    overhead = np.array(OVERHEAD)[hall_type]
    limit = np.full(slots, site_w)
    for begin, length, depth in cuts:
        limit[int(begin * slots) : int(begin * slots) + length] *= 1 - depth
    capacity[-1] = limit - (base * NODE_W * 0.75 * overhead[:, None]).sum(axis=0)
    tariff = np.rint(8 + 4 * np.sin(day - np.pi / 3)).astype(np.int64)
    return _SyntheticSite(halls, hall_type.astype(np.int64), np.floor(capacity).astype(np.int64), tariff[None, :])


def _durations(jobs: int, slots: int, rng: np.random.Generator) -> Ints:
    """Lognormal slots at full power: median 2.5 h, sigma 0.8, 15 min .. half of the horizon."""
    drawn = np.clip(np.rint(30 * np.exp(0.8 * rng.standard_normal(jobs))), 3, max(4, slots // 2))
    result: Ints = drawn.astype(np.int64)
    return result


def _weights(jobs: int, rng: np.random.Generator) -> Floats:
    result: Floats = rng.choice([1.0, 1.5, 2.0, 3.0, 4.0], jobs) * rng.uniform(0.9, 1.1, jobs)
    return result


def _scaled(sizes: Callable[[float], Floats], work: Ints, target: float) -> Ints:
    """Sizes at the scale, by bisection, at which demand first reaches the target (or the largest sizes there are)."""
    low, high = 1e-3, 1e5
    for _ in range(60):
        middle = (low * high) ** 0.5
        low, high = (low, middle) if float((sizes(middle) * work).sum()) >= target else (middle, high)
    result: Ints = sizes(high).astype(np.int64)
    return result


def _running(site: _SyntheticSite, most: int, rng: np.random.Generator) -> tuple[Ints, Ints]:
    """Gangs of powers of two that hold 70 % of each hall's nodes free of base load at slot 0, at most `most`."""
    sizes: list[int] = []
    halls: list[int] = []
    for hall in range(site.halls):
        room = int(0.7 * site.capacity[3 * hall, 0])
        share = most // site.halls
        while room > 0 and share > 0:
            size = 1 << int(min(np.floor(np.log2(room)), np.floor(11 * rng.random() ** 1.2)))
            sizes.append(size)
            halls.append(hall)
            room, share = room - size, share - 1
    return np.array(sizes, np.int64), np.array(halls, np.int64)


def _problem(
    site: _SyntheticSite, jobs: _SyntheticJobs, *, falls: float, deadlines: float, rng: np.random.Generator
) -> Problem:
    count, slots = len(jobs.nodes), site.capacity.shape[1]
    job, hall = np.nonzero(jobs.eligible)
    job, hall = np.repeat(job, 4), np.repeat(hall, 4)
    mode = np.tile(np.arange(4), len(job) // 4)
    kind, nodes = jobs.kind[job], jobs.nodes[job]
    node_w = np.rint(CLASS_W[kind] * POWER[kind, mode]).astype(np.int64)
    meter_w = np.rint(node_w * np.array(OVERHEAD)[site.hall_type[hall]]).astype(np.int64)
    duration = np.ceil(jobs.work[job] / SPEED[kind, mode] - 1e-9).astype(np.int64)
    value = VALUE_UNIT * jobs.weight * jobs.nodes * jobs.work
    running = jobs.running[job]
    earliest = np.where(running, 0, jobs.release[job])
    miss = (rng.random(count) < deadlines) & ~jobs.running
    deadline = jobs.release + np.ceil(jobs.work * rng.uniform(1.2, 4.0, count)).astype(np.int64)
    zeros = np.zeros(count, np.int64)
    options = len(job)
    uses = np.stack((3 * hall, 3 * hall + 1, 3 * hall + 2, np.full(options, 3 * site.halls)), axis=1)
    amounts = np.stack((nodes, nodes * node_w, nodes * node_w, nodes * meter_w), axis=1)
    kinds = (ResourceKind.NODES, ResourceKind.IT_POWER, ResourceKind.HEAT)
    resources = [Resource(f"hall{h + 1}", kind) for h in range(site.halls) for kind in kinds]
    capacities = CapacityTable((*resources, Resource("site", ResourceKind.SITE_POWER)), site.capacity, site.tariff)
    table = JobTable(
        names=tuple(f"job{j + 1}" for j in range(count)),
        option_counts=np.bincount(job, minlength=count).astype(np.int64),
        wait_value=np.where(jobs.running, MUST_RUN, 0).astype(np.int64),
        delay_cost=np.rint(falls * value / slots * ~jobs.running).astype(np.int64),
        deadline=np.where(miss, deadline, NO_DEADLINE).astype(np.int64),
        late_cost=zeros,
        late_fine=np.where(miss, np.rint(value), 0).astype(np.int64),
        planned_start=zeros - 1,
        shift_cost=zeros.copy(),
    )
    choices = OptionTable(
        labels=tuple((f"hall{h + 1}", m) for h in range(site.halls) for m in MODES),
        label=(4 * hall + mode).astype(np.int64),
        duration=duration,
        earliest=earliest.astype(np.int64),
        latest=np.where(running, 0, slots - 1).astype(np.int64),
        rate=np.rint(value[job] / duration).astype(np.int64),
        bonus=np.zeros(options, np.int64),
        tariff=np.zeros(options, np.int64),
        energy=nodes * np.rint(meter_w / ENERGY_UNIT_W).astype(np.int64),
        use_counts=np.full(options, 4, np.int64),
        use_resource=uses.reshape(-1).astype(np.int64),
        use_amount=amounts.reshape(-1).astype(np.int64),
    )
    return make_problem(slots, SLOT_S, capacities, table, choices)
