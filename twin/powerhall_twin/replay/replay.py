"""Replay and what-if: a trace or a recorded plan through the event-driven engine, under other policies or budgets."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import msgspec

from powerhall.hostlist import expand
from powerhall.jobs.model import Job
from powerhall.jobs.readers.formats import read_job_file
from powerhall.physics.weather import read_weather
from powerhall.plan.plan import Plan, Snapshot
from powerhall.runtime.errors import Rejected
from powerhall.site.site_file import Planning, read_site
from powerhall.site.topology import Site
from powerhall.timeseries import Series, read_series
from powerhall_optimizer.inputs.snapshot import check_fit, floor_slot
from powerhall_optimizer.inputs.what_if import what_if
from powerhall_twin.jobs.trace_window import busiest_start_s, window
from powerhall_twin.policies.baselines import POLICIES, Policy
from powerhall_twin.policies.engine import Outcome, Scenario, simulate
from powerhall_twin.policies.optimizer import PlannedRounds, RecordedPlan
from powerhall_twin.site.actions import Start
from powerhall_twin.site.cluster import Cluster

__all__ = ["NAMES", "Pace", "Source", "changed", "from_plan", "from_trace", "run_policies", "run_what_ifs"]

PRICE_COLUMNS: Final = {"usd_per_mwh": 1.0, "price_per_mwh": 1.0, "price": 1.0, "usd_per_kwh": 1e3}
NAMES: Final = ("powerhall", *POLICIES)
_SLOT_S: Final = 300


@dataclass(frozen=True, slots=True)
class Source:
    """A scenario, and the plan that it was recorded with, if any."""

    scenario: Scenario
    plan: Plan | None = None


@dataclass(frozen=True, slots=True)
class Pace:
    """How often the plans of a simulation are made, how far they look, and how long each may be solved for."""

    round_s: float = 1800.0
    horizon_s: float = 6 * 3600.0
    solve_s: float = 2.0


def _outside(planning: Planning, start_s: float) -> tuple[Series | None, Series | None, Series | None]:
    dry, wet = read_weather(planning.weather, start_s) if planning.weather is not None else (None, None)
    return dry, wet, None if planning.prices is None else read_series(planning.prices, PRICE_COLUMNS)


def from_trace(
    site_path: Path,
    jobs_path: Path,
    form: str | None,
    *,
    hours: float,
    start_s: float | None = None,
    at_s: float | None = None,
    preemptible: bool = False,
) -> Source:
    """Read a site and a window of a trace: `hours` from `start_s`, or the busiest ones; laid to begin at `at_s`."""
    site, planning = read_site(site_path)
    site = msgspec.structs.replace(site, storages=())  # the simulated building has no stores to count on
    trace = read_job_file(jobs_path, form)
    length_s = hours * 3600.0
    begin_s = busiest_start_s(trace, length_s) if start_s is None else start_s
    here_s = float(floor_slot(begin_s if at_s is None else at_s, _SLOT_S))
    jobs = window(trace, begin_s, length_s, at_s=here_s, preemptible=preemptible)
    check_fit(site, jobs, str(jobs_path))
    return Source(Scenario(site, jobs, here_s, here_s + length_s, *_outside(planning, here_s)))


def _series(snapshot: Snapshot, values: Sequence[float]) -> Series | None:
    times = tuple(float(snapshot.start_s + i * snapshot.slot_s) for i in range(len(values)))
    return Series(times, tuple(values)) if values else None


def from_plan(plan: Plan) -> Source:
    """Return the scenario in which a plan was made: its site, queue, running jobs, weather and prices."""
    s = plan.snapshot
    if plan.storages:
        names = ", ".join(entry.name for entry in plan.storages)
        raise Rejected.field("plan", "storages", names, "the twin simulates no stores; replay the site and its jobs")
    entries = {entry.job_id: entry for entry in plan.assignments}
    cluster = Cluster.of(s.site)
    running = []
    for job in s.jobs:
        if job.state == "running":
            start = _resumed(cluster, job, entries[job.job_id].gpu_power_w if job.job_id in entries else 0.0)
            cluster.start(start.run(job.start_s or s.start_s))
            running.append(start)
    outside = (_series(s, s.dry_bulb_c), _series(s, s.wet_bulb_c), _series(s, s.price_per_mwh))
    end_s = float(s.start_s + s.slots * s.slot_s)
    scenario = Scenario(s.site, s.jobs, float(s.start_s), end_s, *outside, running=tuple(running))
    return Source(scenario, plan)


def _resumed(cluster: Cluster, job: Job, planned_gpu_w: float) -> Start:
    """Return the start that puts a running job on its nodes."""
    names = expand(job.nodes or "")
    if not names or job.hall is None:
        raise Rejected.field("plan", f"job {job.job_id}: nodes", job.nodes, "a running job must name its nodes")
    kind = cluster.index.node_type(names[0])
    wanted = {node: min(kind.gpus, -(-job.gpus // len(names))) for node in names}
    slices = cluster.take(wanted)
    if slices is None:
        raise Rejected.field("plan", f"job {job.job_id}: nodes", job.nodes, "must not be held by another job")
    mode = kind.mode(job.mode or "")
    return Start(job, job.hall, kind, mode, slices, planned_gpu_w or mode.gpu_power_w, job.duration_s)


def _policies(source: Source, names: Iterable[str], pace: Pace) -> dict[str, Policy]:
    made: dict[str, Policy] = {}
    for name in names:
        if name == "powerhall" and source.plan is not None:
            made["recorded plan"] = RecordedPlan(source.plan)
        elif name == "powerhall":
            made[name] = PlannedRounds(source.scenario, pace.round_s, pace.horizon_s, pace.solve_s)
        elif name in POLICIES:
            made[name] = POLICIES[name]()
        else:
            raise Rejected.field("command line", "--policies", name, f"must be one of {', '.join(NAMES)}")
    return made


def run_policies(
    source: Source, names: Iterable[str], pace: Pace, said: Callable[[str], None] = lambda _: None
) -> list[Outcome]:
    """Run the scenario under each policy."""
    outcomes = []
    for name, policy in _policies(source, names, pace).items():
        said(name)
        outcomes.append(simulate(source.scenario, policy, name))
    return outcomes


def changed(source: Source, text: str) -> Source:
    """Return the scenario after a what-if such as "grid=-20%,hall3.power=120 kW"; what does not fit is refused."""
    scenario = source.scenario
    snapshot = Snapshot(int(scenario.start_s), int(scenario.start_s), _SLOT_S, 1, scenario.site, scenario.jobs)
    after = what_if(snapshot, text)
    site: Site = after.site
    return Source(replace(scenario, site=site, jobs=after.jobs))


def run_what_ifs(
    source: Source, texts: Iterable[str], name: str, pace: Pace, said: Callable[[str], None] = lambda _: None
) -> list[Outcome]:
    """Run the scenario as it is and after each change, all under one policy."""
    outcomes = []
    cases = {"as it is": Source(source.scenario)} | {text: changed(source, text) for text in texts}
    for text, case in cases.items():
        said(text)
        (policy,) = _policies(case, (name,), pace).values()
        outcomes.append(simulate(case.scenario, policy, text))
    return outcomes
