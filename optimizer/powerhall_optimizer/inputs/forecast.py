"""Forecasts of draw and speed per class of jobs and mode.

Every forecast is a prior (the site file's published figures) corrected by telemetry: without samples the prior stands,
many samples replace it; a class never seen keeps the prior. Draw is learned as a factor on the mode's dynamic power
(above idle), speed as work done per second, one sample per job and mode. Both are made monotone and concave over the
modes: a higher limit never lowers draw or speed, and every further watt adds no more than the one before.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import msgspec
import numpy as np
import numpy.typing as npt

from powerhall.hostlist import expand
from powerhall.jobs import Job
from powerhall.site.topology import JobClass, NodeType, Site
from powerhall_optimizer.problem.eligibility import running_type

__all__ = [
    "Draw",
    "History",
    "Progress",
    "Sample",
    "finished",
    "fit_curve",
    "key_of",
    "learned_classes",
    "measured_draws",
]
__all__ += ["total_s"]

Floats = npt.NDArray[np.float64]
_PRIOR_JOBS = 5.0
"""The prior counts like this many jobs."""
_PRIOR_SPREAD = 0.15
"""Relative spread of draw between jobs of one class before any is seen."""
_MOST_SAMPLES = 400
_FACTOR = (0.05, 3.0)
_MOST_APART_S = 1800.0
"""Longest gap between two rounds after which the end of a job is still known well enough."""


class Sample(msgspec.Struct, frozen=True, array_like=True):
    """Draw (or speed) of one job in one mode, relative to the mode's planning figure."""

    time_s: float
    job_id: str
    factor: float


class Progress(msgspec.Struct, frozen=True, array_like=True):
    """Remaining work of a running job in seconds at the fastest mode's speed, its mode, declared work and class."""

    time_s: float
    left_s: float
    mode: str
    total_s: float = 0.0
    job_class: str = ""


Samples = Mapping[str, Sequence[Sample]]


class History(msgspec.Struct, frozen=True):
    """The learned samples, kept as a document in the store.

    Samples of draw and speed by "class mode", parts of the declared work that jobs took by class, last progress by job.
    """

    draws: dict[str, tuple[Sample, ...]] = {}
    speeds: dict[str, tuple[Sample, ...]] = {}
    progress: dict[str, Progress] = {}
    durations: dict[str, tuple[Sample, ...]] = msgspec.field(default={}, name="lengths")

    def updated(self, draws: Samples, jobs: Sequence[Job], now_s: float, days: float, *, speed: bool) -> "History":
        """Return the history with new samples (one per job and mode, the newest), old and surplus ones dropped."""
        running = {job.job_id: job for job in jobs if job.state == "running"}
        speeds = measured_speeds(self.progress, running, now_s) if speed else {}
        progress = {name: self._progress(job, now_s) for name, job in running.items()}
        oldest_s = now_s - days * 86_400
        durations = _merged(self.durations, finished(self.progress, jobs, now_s), oldest_s)
        return History(
            _merged(self.draws, draws, oldest_s), _merged(self.speeds, speeds, oldest_s), progress, durations
        )

    def _progress(self, job: Job, now_s: float) -> Progress:
        declared_s = total_s(job, self.progress.get(job.job_id), now_s)
        return Progress(now_s, job.duration_s, job.mode or "", declared_s, job.job_class)


def _merged(old: Samples, new: Samples, oldest_s: float) -> dict[str, tuple[Sample, ...]]:
    found: dict[str, tuple[Sample, ...]] = {}
    for key in sorted({*old, *new}):
        newest = {s.job_id: s for s in (*old.get(key, ()), *new.get(key, ())) if math.isfinite(s.factor)}
        kept = sorted((s for s in newest.values() if s.time_s >= oldest_s), key=lambda s: s.time_s)
        if kept:
            found[key] = tuple(kept[-_MOST_SAMPLES:])
    return found


def total_s(job: Job, last: Progress | None, now_s: float) -> float:
    """Return a running job's declared work in s: the first value seen, else remaining plus elapsed time."""
    if last is not None and last.total_s > 0:
        return last.total_s
    return job.duration_s + max(0.0, now_s - (now_s if job.start_s is None else job.start_s))


def finished(before: Mapping[str, Progress], jobs: Sequence[Job], now_s: float) -> dict[str, list[Sample]]:
    """Return per class the share of the declared work that each job took which left the queue since the last round."""
    there = {job.job_id for job in jobs}
    found: dict[str, list[Sample]] = {}
    for name, last in before.items():
        apart_s = now_s - last.time_s
        if name in there or not last.job_class or last.total_s <= 0 or not 0 < apart_s <= _MOST_APART_S:
            continue
        done_s = last.total_s - last.left_s + min(apart_s / 2, last.left_s)
        part = min(1.0, max(0.0, done_s / last.total_s))
        if math.isfinite(part) and part > 0:
            found.setdefault(last.job_class, []).append(Sample(now_s, name, part))
    return found


def measured_speeds(
    before: Mapping[str, Progress], running: Mapping[str, Job], now_s: float
) -> dict[str, list[Sample]]:
    """Return work done per second of every job that ran in one mode since its last reading at least a minute ago."""
    found: dict[str, list[Sample]] = {}
    for name, job in running.items():
        last = before.get(name)
        if last is None or last.mode != job.mode or now_s - last.time_s < 60:
            continue
        speed = (last.left_s - job.duration_s) / (now_s - last.time_s)
        if _FACTOR[0] <= speed <= 1.2:
            found.setdefault(key_of(job.job_class, last.mode), []).append(Sample(now_s, name, min(speed, 1.0)))
    return found


@dataclass(frozen=True, slots=True)
class Draw:
    """Mean and spread between jobs of a class's draw factor in one mode."""

    mean: float
    spread: float
    jobs: int

    def quantile(self, share: float) -> float:
        """Return the factor that this share of single jobs stays below."""
        return self.mean + NormalDist().inv_cdf(share) * self.spread


def key_of(job_class: str, mode: str) -> str:
    """Return the history's key of a class and a mode."""
    return f"{job_class} {mode}"


def measured_draws(
    site: Site, jobs: Sequence[Job], node_w: Mapping[str, float], now_s: float
) -> dict[str, list[Sample]]:
    """Return a sample for every running job that has its nodes for itself, from the mean power of those nodes in W.

    A job younger than ten minutes, a node without a reading, or a reading below idle or far above the maximum (real
    sensors do that) gives none.
    """
    users: dict[str, int] = {}
    for job in jobs:
        for node in expand(job.nodes) if job.state == "running" and job.nodes else ():
            users[node] = users.get(node, 0) + 1
    found: dict[str, list[Sample]] = {}
    for job in jobs:
        if job.state != "running" or not job.nodes or job.start_s is None or now_s - job.start_s < 600:
            continue
        kind = site.node_types.get(running_type(site, job) or "")
        nodes = expand(job.nodes)
        if kind is None or any(users[node] != 1 or node not in node_w for node in nodes):
            continue
        factor = _factor(kind, job, [node_w[node] for node in nodes])
        if factor is not None:
            found.setdefault(key_of(job.job_class, job.mode or ""), []).append(Sample(now_s, job.job_id, factor))
    return found


def _factor(kind: NodeType, job: Job, readings_w: Sequence[float]) -> float | None:
    mode = kind.find_mode(job.mode)
    if mode is None or not all(math.isfinite(w) and 0 < w <= 1.2 * kind.max_power_w for w in readings_w):
        return None
    due_w = job.gpus * (mode.gpu_power_w - kind.idle_gpu_power_w)
    drawn_w = sum(readings_w) - len(readings_w) * kind.idle_power_w
    factor = drawn_w / due_w if due_w > 0 else 0.0
    return factor if _FACTOR[0] <= factor <= _FACTOR[1] else None


def draw_of(samples: Sequence[Sample], prior: float) -> Draw:
    """Return mean and spread with the prior weighted like a few jobs; outliers are winsorised."""
    values = np.array([s.factor for s in samples])
    if len(values) >= 8:
        values = np.clip(values, *np.quantile(values, (0.05, 0.95)))
    weight = _PRIOR_JOBS + len(values)
    mean = (_PRIOR_JOBS * prior + float(values.sum())) / weight
    square = _PRIOR_JOBS * (_PRIOR_SPREAD * prior) ** 2 + float(((values - mean) ** 2).sum())
    return Draw(mean, math.sqrt(square / weight), len(values))


def fit_curve(x: Sequence[float], y: Sequence[float], weight: Sequence[float]) -> Floats:
    """Return the weighted least-squares values at `x` of a curve that never falls and bends only downwards.

    Such a curve is a constant and a sum of functions min(x, x_k) with weights >= 0, which non-negative least squares
    finds exactly.
    """
    from scipy.optimize import nnls  # half a second of a round, for a site that learns alone

    points = np.asarray(x, float)
    ones = np.ones((len(points), 1))
    basis = np.hstack([ones, -ones, np.minimum(points[:, None], points[None, :])])
    root = np.sqrt(np.asarray(weight, float))
    scale = max(1.0, float(np.abs(points).max()))
    basis[:, 2:] /= scale
    theta, _ = nnls(basis * root[:, None], np.asarray(y, float) * root)
    result: Floats = basis @ theta
    return result


def learned_classes(site: Site, history: History) -> tuple[dict[str, JobClass], dict[str, Draw]]:
    """Return the site's job classes with learned draws and speeds, and the draw per "class mode"."""
    classes = dict(site.job_classes)
    learned: dict[str, Draw] = {}
    for name in sorted({key.rpartition(" ")[0] for key in (*history.draws, *history.speeds)}):
        old = classes.get(name, JobClass(name))
        draw: dict[str, float] = {}
        speed: dict[str, float] = {}
        for kind in site.node_types.values():
            learned |= _learn_draw(kind, name, old, history, draw)
            _learn_speed(kind, name, old, history, speed)
        classes[name] = JobClass(name, old.draw | draw, old.speed | speed)
    return classes, learned


def _learn_draw(kind: NodeType, name: str, old: JobClass, history: History, draw: dict[str, float]) -> dict[str, Draw]:
    own = {m.name: history.draws.get(key_of(name, m.name), ()) for m in kind.modes}
    if not any(own.values()):
        return {}
    found = [draw_of(own[m.name], old.draw.get(m.name, 1.0)) for m in kind.modes]
    above_w = [m.gpu_power_w - kind.idle_gpu_power_w for m in kind.modes]
    means_w = [d.mean * w for d, w in zip(found, above_w, strict=True)]
    curve_w = fit_curve(above_w, means_w, [_PRIOR_JOBS + d.jobs for d in found])
    learned: dict[str, Draw] = {}
    for mode, one, watts, value in zip(kind.modes, found, above_w, curve_w, strict=True):
        mean = float(value) / watts if watts > 0 else one.mean
        factor = round(min(max(mean, _FACTOR[0]), _FACTOR[1]), 6)
        draw[mode.name] = max(factor, draw.get(mode.name, 0.0))  # node types that share a mode's name: the higher one
        learned[key_of(name, mode.name)] = Draw(draw[mode.name], one.spread, one.jobs)
    return learned


def _learn_speed(kind: NodeType, name: str, old: JobClass, history: History, speed: dict[str, float]) -> None:
    own = {m.name: history.speeds.get(key_of(name, m.name), ()) for m in kind.modes}
    if not any(own.values()):
        return
    found = [draw_of(own[m.name], old.speed.get(m.name, m.speed)) for m in kind.modes]
    power_w = [m.gpu_power_w for m in kind.modes]
    curve = fit_curve(power_w, [d.mean for d in found], [_PRIOR_JOBS + d.jobs for d in found])
    for mode, value in zip(kind.modes, curve, strict=True):
        speed[mode.name] = min(round(min(max(float(value), 0.05), 1.0), 6), speed.get(mode.name, 1.0))
