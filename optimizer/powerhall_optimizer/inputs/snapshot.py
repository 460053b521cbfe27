"""Assemble site, queue, weather and prices into one immutable snapshot; refuse invalid input in one line."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from powerhall.hostlist import expand
from powerhall.jobs import Job
from powerhall.physics.plants.kinds import kind_of
from powerhall.physics.weather import read_weather
from powerhall.plan.plan import Objective, Snapshot
from powerhall.runtime.errors import Rejected
from powerhall.site.index import SiteIndex
from powerhall.site.site_file import Planning, read_site
from powerhall.site.topology import Site
from powerhall.timeseries import read_series
from powerhall_optimizer.problem.eligibility import may_run_at, may_run_on, running_type, whole_gpus

__all__ = [
    "Horizon",
    "SiteFit",
    "SiteInputs",
    "check_fit",
    "floor_slot",
    "multi_site_queue",
    "site_snapshot",
]


@dataclass(frozen=True, slots=True)
class Horizon:
    """When the plan begins, in seconds since the epoch, and how long its slots and it are in seconds."""

    start_s: int
    slot_s: int
    length_s: int

    @property
    def slots(self) -> int:
        """Number of slots."""
        return max(1, self.length_s // self.slot_s)


@dataclass(frozen=True, slots=True)
class SiteInputs:
    """A site and the files that its plans read: weather, prices, carbon intensity."""

    site: Site
    planning: Planning

    @staticmethod
    def read(path: str | Path) -> "SiteInputs":
        """Read site.toml; a wrong file raises Rejected or ConfigError with one line."""
        return SiteInputs(*read_site(path))


class SiteFit:
    """Halls, node types and GPUs of a site, to refuse jobs that it can never run."""

    def __init__(self, site: Site) -> None:
        self.site = site
        index = SiteIndex.of(site)
        self.halls = set(index.halls)
        self.room: dict[tuple[str, str], int] = {}
        for rack in site.racks():
            key = index.hall_of_rack[rack.zone].zone, rack.node_type
            self.room[key] = self.room.get(key, 0) + index.rack_gpus(rack)

    def check(self, job: Job, source: str) -> None:
        """Refuse a job that names halls, node types or nodes that the site does not have, or that fits into no hall."""
        where = f"job {job.job_id}"
        kinds = set(self.site.node_types)
        for field, values, known in (("halls", job.halls, self.halls), ("node_types", job.node_types, kinds)):
            for value in values:
                if value not in known:
                    allowed = f"must be one of {', '.join(sorted(known))}"
                    raise Rejected.field(source, f"{where}: {field}", value, allowed)
        if not may_run_at(job, self.site.name):
            return
        fits = {key: gpus for key, gpus in self.room.items() if may_run_on(job, *key)}
        if all(whole_gpus(job.gpus, self.site.node_types[key[1]].gpus) > gpus for key, gpus in fits.items()):
            most = max(fits.values(), default=0)
            allowed = f"is larger than any hall that it may use; the largest has {most} GPUs of one type"
            raise Rejected.field(source, f"{where}: gpus", job.gpus, allowed)
        if job.state == "running":
            _check_running(self.site, job, source)


def check_fit(site: Site, jobs: Sequence[Job], source: str) -> None:
    """Refuse jobs that the site can never run; jobs that may not run at the site are skipped."""
    fit = SiteFit(site)
    for job in jobs:
        fit.check(job, source)


def multi_site_queue(sites: Sequence[Site], jobs: Sequence[Job], source: str) -> tuple[Job, ...]:
    """Return the jobs, running ones with their site; refuse jobs that none of their sites can ever run."""
    fits = {site.name: SiteFit(site) for site in sites}
    found: list[Job] = []
    for job in jobs:
        if job.state == "running":
            job = _with_site(job, fits, source)  # noqa: PLW2901
        refused: Rejected | None = None
        homes = [fit for name, fit in fits.items() if may_run_at(job, name)]
        for fit in homes:
            try:
                fit.check(job, source)
                break
            except Rejected as error:
                refused = error
        else:
            if refused is not None:
                raise refused
        found.append(job)
    return tuple(found)


def _with_site(job: Job, fits: Mapping[str, SiteFit], source: str) -> Job:
    if job.site in fits:
        return job
    homes = [name for name, fit in fits.items() if job.hall in fit.halls]
    if job.site is None and len(homes) == 1:
        return msgspec.structs.replace(job, site=homes[0])
    allowed = f"a running job must give its site, one of {', '.join(fits)}"
    raise Rejected.field(source, f"job {job.job_id}: site", job.site, allowed)


def _check_running(site: Site, job: Job, source: str) -> None:
    where = f"job {job.job_id}"
    index = SiteIndex.of(site)
    halls = sorted(index.halls)
    if job.hall not in halls:
        raise Rejected.field(source, f"{where}: hall", job.hall, f"must be one of {', '.join(halls)}")
    if job.nodes is not None:
        try:
            names = expand(job.nodes)
        except ValueError as error:
            raise Rejected.field(source, f"{where}: nodes", job.nodes, str(error)) from None
        for name in names:
            if name not in index.rack_of or index.hall_of(name).zone != job.hall:
                raise Rejected.field(source, f"{where}: nodes", name, f"must be a node of hall {job.hall}")
        if len(names) != len(set(names)):
            raise Rejected.field(source, f"{where}: nodes", job.nodes, "must not repeat a node")
    kind = site.node_types.get(running_type(site, job) or "")
    if kind is None:
        raise Rejected.field(source, f"{where}: node_type", job.node_type, "must be a node type of the job's hall")
    if kind.find_mode(job.mode) is None:
        allowed = f"must be one of {', '.join(mode.name for mode in kind.modes)}"
        raise Rejected.field(source, f"{where}: mode", job.mode, allowed)
    if job.nodes is not None and job.gpus > kind.gpus * len(expand(job.nodes)):
        allowed = f"must be at most the {kind.gpus * len(expand(job.nodes))} GPUs of its nodes"
        raise Rejected.field(source, f"{where}: gpus", job.gpus, allowed)


def site_snapshot(
    site: Site, planning: Planning, jobs: tuple[Job, ...], horizon: Horizon, objective: Objective
) -> Snapshot:
    """Return the snapshot of a site and its queue, with weather, prices and carbon sampled on the slots."""
    grid = horizon.start_s, horizon.slot_s, horizon.slots
    dry: tuple[float, ...] = ()
    wet: tuple[float, ...] = ()
    if planning.weather is not None:
        dry_series, wet_series = read_weather(planning.weather, horizon.start_s)
        dry, wet = dry_series.slots(*grid, "max"), wet_series.slots(*grid, "max")
    elif plants := sorted({p.name for h in site.halls for p in h.plants if kind_of(p).needs_weather}):
        raise Rejected.field(
            "site", "planning.weather", None, f"the cooling plants {', '.join(plants)} need weather data"
        )
    prices: tuple[float, ...] = ()
    carbon: tuple[float, ...] = ()
    if planning.prices is not None:
        columns = {"usd_per_mwh": 1.0, "price_per_mwh": 1.0, "price": 1.0, "usd_per_kwh": 1e3}
        prices = read_series(planning.prices, columns).slots(*grid, "mean")
    if planning.carbon is not None:
        carbon = read_series(planning.carbon, {"g_per_kwh": 1.0, "carbon_g_per_kwh": 1.0}).slots(*grid, "mean")
    return Snapshot(
        taken_s=horizon.start_s,
        start_s=horizon.start_s,
        slot_s=horizon.slot_s,
        slots=horizon.slots,
        site=site,
        jobs=jobs,
        dry_bulb_c=dry,
        wet_bulb_c=wet,
        price_per_mwh=prices,
        carbon_g_per_kwh=carbon,
        objective=objective,
    )


def floor_slot(time_s: float, slot_s: int) -> int:
    """Return the start of the slot that holds a time."""
    return math.floor(time_s / slot_s) * slot_s
