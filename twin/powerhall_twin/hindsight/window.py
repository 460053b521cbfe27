"""The stretch of time that is looked at, and the jobs as they were known afterwards: released when they were ready."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from powerhall.hostlist import expand
from powerhall.jobs.model import Job
from powerhall.jobs.readers.sacct_runs import Run
from powerhall.runtime.errors import Rejected
from powerhall.site.index import SiteIndex
from powerhall.site.topology import Site
from powerhall_optimizer.inputs.horizon import Horizon, floor_slot
from powerhall_optimizer.inputs.snapshot import SiteFit

__all__ = ["DoneJob", "Window", "choose_horizon", "window_of"]

_SLOTS_S = (300, 600, 900)
_FEW_SLOTS = 2016
_MOST_DAYS = 92


@dataclass(frozen=True, slots=True)
class DoneJob:
    """A job with its work inside the window, when it began there (None: after the window), and where.

    `halls` maps each hall to its share of the job's nodes that the site knows; empty where it is not known.
    """

    job: Job
    start_s: float | None
    halls: dict[str, float]
    node_type: str | None


@dataclass(frozen=True, slots=True)
class Window:
    """The jobs of the window, and lines on what was left out, cut or assumed."""

    horizon: Horizon
    jobs: tuple[DoneJob, ...]
    notes: tuple[str, ...]


def choose_horizon(
    runs: Sequence[Run], start_s: float | None = None, length_s: float | None = None, slot_s: int | None = None
) -> Horizon:
    """Return the window: from the first submission to the last end, unless given; slots of 5 to 15 minutes.

    A window of no time, or of more than 92 days, raises Rejected.
    """
    first_s = min(run.ready_s for run in runs) if start_s is None else start_s
    last_s = max(run.end_s for run in runs) if length_s is None else first_s + length_s
    if not 0 < last_s - first_s <= _MOST_DAYS * 86_400:
        allowed = f"must be above 0 and at most {_MOST_DAYS} days; choose a part by --start and --length"
        raise Rejected.field("hindsight", "length", f"{(last_s - first_s) / 86_400:.1f} days", allowed)
    few = (slot for slot in _SLOTS_S if (last_s - first_s) / slot <= _FEW_SLOTS)
    slot_s = next(few, _SLOTS_S[-1]) if slot_s is None else slot_s
    begin_s = floor_slot(first_s, slot_s)
    return Horizon(begin_s, slot_s, math.ceil((last_s - begin_s) / slot_s) * slot_s)


def window_of(site: Site, runs: Sequence[Run], horizon: Horizon) -> Window:
    """Return the jobs with work in the window that the site can run; none raises Rejected.

    Of a run that began before the window its rest counts, ready at its begin. One that began after the window, and
    was ready in it, did nothing in the window, and could have.
    """
    begin_s, end_s = float(horizon.start_s), float(horizon.start_s + horizon.length_s)
    fit = SiteFit(site)
    found: list[DoneJob] = []
    notes: list[str] = []
    refused: list[str] = []
    refused_gpu_s = cut = 0.0
    for run in runs:
        if run.end_s <= begin_s or run.ready_s >= end_s:
            continue
        done = _done_job(site, run, begin_s, end_s)
        try:
            fit.check(done.job, "sacct")
        except Rejected as error:
            refused.append(str(error))
            refused_gpu_s += run.gpus * (run.end_s - run.start_s)
            continue
        cut += run.start_s < begin_s
        found.append(done)
    if refused:
        hours = f"{refused_gpu_s / 3600:,.0f} GPU h"
        notes.append(
            f"left out: {len(refused)} jobs of {hours} that fit nowhere in the site file, such as {refused[0]}"
        )
    if cut:
        notes.append(f"{cut:.0f} jobs ran already when the window begins: what was left of them counts")
    if not found:
        why = notes[-1] if notes else "none ran in it"
        raise Rejected(f"hindsight: no job of the window fits the site: {why}")
    unknown = sum(done.start_s is not None and not done.halls for done in found)
    if unknown:
        notes.append(
            f"{unknown} jobs without known nodes: counted where their energy is cheapest, spread over all halls"
        )
    split = sum(len(done.halls) > 1 for done in found)
    if split:
        notes.append(f"{split} jobs ran over several halls: a plan keeps each job in one")
    return Window(horizon, tuple(found), (*notes, *_crowded(site, found)))


def _done_job(site: Site, run: Run, begin_s: float, end_s: float) -> DoneJob:
    start_s = max(run.start_s, begin_s)
    job = Job(
        run.job_id,
        run.gpus,
        run.end_s - start_s,
        submit_s=max(run.ready_s, begin_s),
        job_class=run.partition,
    )
    halls, node_type = _place(site, run)
    return DoneJob(job, start_s if start_s < end_s else None, halls, node_type)


def _place(site: Site, run: Run) -> tuple[dict[str, float], str | None]:
    index = SiteIndex.of(site)
    try:
        names = [node for node in expand(run.nodes) if node in index.rack_of] if run.nodes else []
    except ValueError:
        return {}, None
    halls: dict[str, float] = {}
    for node in names:
        zone = index.hall_of(node).zone
        halls[zone] = halls.get(zone, 0.0) + 1 / len(names)
    kinds = {index.rack_of[node].node_type for node in names}
    return halls, next(iter(kinds)) if len(kinds) == 1 else None


def _crowded(site: Site, found: Sequence[DoneJob]) -> list[str]:
    """Return a line where more GPUs were in use at once than the site file has."""
    changes = [(at, gpus) for done in found if done.start_s is not None for at, gpus in _changes(done)]
    most = now = 0
    for _, gpus in sorted(changes):
        now += gpus
        most = max(most, now)
    has = SiteIndex.of(site).gpus
    return [f"up to {most:,} GPUs were in use at once; the site file has {has:,}"] if most > has else []


def _changes(done: DoneJob) -> list[tuple[float, int]]:
    assert done.start_s is not None
    return [(done.start_s, done.job.gpus), (done.start_s + done.job.duration_s, -done.job.gpus)]
