"""Assemble site, queue, weather and prices into one immutable snapshot; refuse invalid input in one line."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from powerhall.hostlist import expand
from powerhall.jobs import Job
from powerhall.jobs.left_out import JobList, LeftOut, LeftOutCode, left_out_job
from powerhall.plan.gpu_parts import offers
from powerhall.plan.plan import Objective, Snapshot
from powerhall.runtime.errors import Rejected
from powerhall.site.index import SiteIndex
from powerhall.site.site_file import Planning, read_site
from powerhall.site.topology import NodeType, Site
from powerhall_optimizer.inputs.forecast_files import forecast_inputs
from powerhall_optimizer.inputs.horizon import Horizon
from powerhall_optimizer.problem.eligibility import may_run_at, may_run_on, running_type, whole_gpus
from powerhall_optimizer.problem.gang_blocks import parts_of

__all__ = [
    "SiteFit",
    "SiteInputs",
    "check_fit",
    "multi_site_queue",
    "refused_code",
    "site_snapshot",
]


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
        self._blocks: dict[str, Mapping[tuple[str, str], Sequence[int]]] = {}
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
        if job.state == "waiting" and job.allowed_nodes is not None:
            self._check_allowed(job, source)
        if job.state == "running" and job.hall is None:
            allowed = "must be in one hall and of one node type to be planned with: counted as it runs"
            raise Rejected.field(source, f"{where}: nodes", job.nodes, allowed)
        fits = {key: gpus for key, gpus in self.room.items() if may_run_on(job, *key)}
        self._check_parts(job, {kind for _, kind in fits}, source)
        if all(whole_gpus(job.gpus, self.site.node_types[key[1]].gpus) > gpus for key, gpus in fits.items()):
            most = max(fits.values(), default=0)
            allowed = f"is larger than any hall that it may use; the largest has {most} GPUs of one type"
            raise Rejected.field(source, f"{where}: gpus", job.gpus, allowed)
        if job.state == "running":
            _check_running(self.site, job, source)
        elif job.within is not None:
            self._check_blocks(job, job.within, source)

    def _check_parts(self, job: Job, kinds: Collection[str], source: str) -> None:
        """Refuse a share of a GPU, or whole GPUs of a job that waits, where no node type that it may use has them."""
        if not kinds or (job.state == "running" and job.gpu_share is None):
            return
        if not any(offers(self.site.node_types[kind], job) for kind in kinds):
            field, value = ("gpus", job.gpus) if job.gpu_share is None else ("gpu_share", job.gpu_share)
            has = ", ".join(map(_parts_text, (self.site.node_types[kind] for kind in sorted(kinds))))
            allowed = f"must be had on a node type that it may use: {has}"
            raise Rejected.field(source, f"job {job.job_id}: {field}", value, allowed)

    def _check_blocks(self, job: Job, level: str, source: str) -> None:
        """Refuse a level that the site lacks, parts that do not divide the job, and a job that no block holds."""
        where = f"job {job.job_id}"
        index = SiteIndex.of(self.site)
        if level not in index.block_levels:
            raise Rejected.field(source, f"{where}: within", level, f"must be one of {', '.join(index.block_levels)}")
        kinds = {kind: self.site.node_types[kind].gpus for hall, kind in self.room if may_run_on(job, hall, kind)}
        nodes = sorted({-(-job.gpus // per_node) for per_node in kinds.values()})
        split = {kind: parts for kind, per_node in kinds.items() if (parts := parts_of(job, per_node)) is not None}
        if not split:
            allowed = f"must divide the {' or '.join(map(str, nodes))} nodes that the job takes"
            raise Rejected.field(source, f"{where}: block_nodes", job.block_nodes, allowed)
        held = {key: sizes for key, sizes in self._held(level).items() if may_run_on(job, *key)}
        if not any(kind in split and split[kind].fit(sizes) for (_, kind), sizes in held.items()):
            largest = max((size for sizes in held.values() for size in sizes), default=0)
            each = "" if job.block_nodes is None else f" in parts of {job.block_nodes}"
            allowed = f"no hall's blocks of this level hold its {nodes[0]} nodes{each}; the largest has {largest}"
            raise Rejected.field(source, f"{where}: within", level, allowed)

    def _held(self, level: str) -> Mapping[tuple[str, str], Sequence[int]]:
        """Return the nodes of each block of a level, per hall and node type."""
        if level not in self._blocks:
            index = SiteIndex.of(self.site)
            counts: dict[tuple[str, str], dict[str, int]] = {}
            for node, block in index.block_levels[level].items():
                rack = index.rack_of[node]
                pool = counts.setdefault((index.hall_of_rack[rack.zone].zone, rack.node_type), {})
                pool[block] = pool.get(block, 0) + 1
            self._blocks[level] = {key: tuple(sizes.values()) for key, sizes in counts.items()}
        return self._blocks[level]

    def _check_allowed(self, job: Job, source: str) -> None:
        """Refuse a waiting job whose allowed nodes are none of the site's."""
        known = SiteIndex.of(self.site).rack_of
        if not any(node in known for node in expand(job.allowed_nodes or "")):
            where = f"job {job.job_id}: allowed_nodes"
            raise Rejected.field(source, where, job.allowed_nodes, f"must be nodes of site {self.site.name}")


def _parts_text(kind: NodeType) -> str:
    """Write how the GPUs of a node type may be shared."""
    if kind.gpu_parts == 1:
        return f"{kind.name} gives whole GPUs"
    return f"{kind.name} gives {'MIG instances' if kind.mig else 'parts'} of 1/{kind.gpu_parts}"


def check_fit(site: Site, jobs: Sequence[Job], source: str) -> None:
    """Refuse jobs that the site can never run; jobs that may not run at the site are skipped."""
    fit = SiteFit(site)
    for job in jobs:
        fit.check(job, source)


def refused_code(job: Job) -> LeftOutCode:
    """Return why a job that fits nowhere is left out; one that runs over several halls or types is as it should be."""
    return LeftOutCode.COUNTED if job.state == "running" and job.hall is None else LeftOutCode.PLACE


def multi_site_queue(sites: Sequence[Site], jobs: Sequence[Job], source: str) -> JobList:
    """Return the jobs, running ones with their site; jobs that none of their sites can ever run are left out."""
    fits = {site.name: SiteFit(site) for site in sites}
    found: list[Job] = []
    left_out: list[LeftOut] = []
    for job in jobs:
        try:
            found.append(_homed(job, fits, source))
        except Rejected as error:
            left_out.append(left_out_job(job, refused_code(job), error, source))
    return JobList(tuple(found), tuple(left_out))


def _homed(job: Job, fits: Mapping[str, SiteFit], source: str) -> Job:
    """Return the job, a running one with its site; one that fits at none of its sites raises Rejected."""
    if job.state == "running":
        job = _with_site(job, fits, source)
    refused: Rejected | None = None
    for fit in (fit for name, fit in fits.items() if may_run_at(job, name)):
        try:
            fit.check(job, source)
        except Rejected as error:
            refused = error
        else:
            return job
    if refused is not None:
        raise refused
    return job


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
    if job.nodes is None:
        return
    names = expand(job.nodes)
    if job.gpus > kind.gpus * len(names):
        allowed = f"must be at most the {kind.gpus * len(names)} GPUs of its nodes"
        raise Rejected.field(source, f"{where}: gpus", job.gpus, allowed)
    if job.gpus_on_nodes and (len(job.gpus_on_nodes) != len(names) or max(job.gpus_on_nodes) > kind.gpus):
        allowed = f"must be one number for each of {len(names)} nodes, none above {kind.gpus}"
        raise Rejected.field(source, f"{where}: gpus_on_nodes", job.gpus_on_nodes, allowed)


def site_snapshot(
    site: Site, planning: Planning, jobs: tuple[Job, ...], horizon: Horizon, objective: Objective
) -> Snapshot:
    """Return the snapshot of a site and its queue, with weather, prices and carbon sampled on the slots."""
    outside = forecast_inputs(site, planning, horizon)
    return Snapshot(
        taken_s=horizon.start_s,
        start_s=horizon.start_s,
        slot_s=horizon.slot_s,
        slots=horizon.slots,
        site=site,
        jobs=jobs,
        dry_bulb_c=outside.dry_bulb_c,
        wet_bulb_c=outside.wet_bulb_c,
        price_per_mwh=outside.price_per_mwh,
        carbon_g_per_kwh=outside.carbon_g_per_kwh,
        objective=objective,
        stale_forecasts=outside.stale,
        timezone=planning.timezone or "",
    )
