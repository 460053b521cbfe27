"""A queue of jobs from a seed; sizes follow the Philly trace: most jobs are small, most GPU time is in large gangs.

Sizes are powers of two; durations are lognormal and longer for larger gangs. A share of the jobs is queued at the
start, the others arrive as a Poisson process. `demand` is the work of all jobs over the capacity of all GPUs.
"""

import math
import random
from typing import Final

from powerhall.jobs.model import Job
from powerhall.site.index import SiteIndex
from powerhall.site.topology import Site

__all__ = ["generate"]

_SIZES: Final = ((1, 0.26), (2, 0.10), (4, 0.12), (8, 0.22), (16, 0.13), (32, 0.10), (64, 0.05), (128, 0.02))
_MEDIAN_S: Final = {1: 2400.0, 2: 3000.0, 4: 3600.0, 8: 5400.0, 16: 7200.0, 32: 9000.0, 64: 10800.0, 128: 12600.0}
_BACKLOG: Final = 0.40
_LAST: Final = 0.92
_CLASSES_SMALL: Final = (("research", 0.45), ("inference", 0.35), ("finetune", 0.20))
_CLASSES_LARGE: Final = (("pretrain", 0.60), ("finetune", 0.25), ("inference", 0.15))


def generate(site: Site, start_s: float, length_s: float, *, seed: int, demand: float = 1.4) -> tuple[Job, ...]:
    """Return jobs in the order of their submission; the same arguments give the same jobs."""
    rng = random.Random(seed)  # noqa: S311 - a repeatable workload, not a secret
    gpus = SiteIndex.of(site).gpus
    biggest = max(_hall_gpus(site).values()) // 2
    wanted_gpu_s = demand * gpus * length_s
    halls = [hall.zone for hall in site.halls]
    jobs: list[Job] = []
    total = 0.0
    while total < wanted_gpu_s:
        job = _job(rng, len(jobs), (start_s, length_s), biggest, halls)
        jobs.append(job)
        total += job.gpus * job.duration_s
    jobs.sort(key=lambda job: job.submit_s)
    return tuple(jobs)


def _hall_gpus(site: Site) -> dict[str, int]:
    index = SiteIndex.of(site)
    return {hall.zone: sum(map(index.rack_gpus, hall.racks())) for hall in site.halls}


def _job(rng: random.Random, number: int, span: tuple[float, float], biggest: int, halls: list[str]) -> Job:
    start_s, length_s = span
    gpus = min(biggest, rng.choices([s for s, _ in _SIZES], [w for _, w in _SIZES])[0])
    nearest = 2 ** round(math.log2(gpus))
    duration_s = min(0.7 * length_s, max(600.0, rng.lognormvariate(math.log(_MEDIAN_S[nearest]), 0.6)))
    classes = _CLASSES_LARGE if gpus >= 16 else _CLASSES_SMALL
    kind = rng.choices([c for c, _ in classes], [w for _, w in classes])[0]
    waits = rng.random() < _BACKLOG
    submit_s = start_s - rng.uniform(0, 1800) if waits else start_s + rng.uniform(0, _LAST * length_s)
    pinned = (rng.choice(halls),) if rng.random() < 0.15 else ()
    return Job(
        job_id=f"{kind}-{number:03d}",
        gpus=gpus,
        duration_s=round(duration_s),
        submit_s=round(submit_s),
        job_class=kind,
        weight={"inference": 2.0, "pretrain": 1.5, "finetune": 1.0, "research": 1.0}[kind]
        * rng.choice((1.0, 1.0, 2.0)),
        halls=pinned,
        preemptible=kind in ("research", "finetune") or gpus < 64,
        checkpoint_cost_s=120.0 if gpus >= 16 else 30.0,
    )
