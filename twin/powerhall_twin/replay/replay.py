"""Replay and what-if: simulates a trace or a recorded plan under several policies or other budgets."""

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
from powerhall_twin.policies.engine import SimulationOutcome, simulate
from powerhall_twin.policies.policy import PolicyInputs, RoundTiming
from powerhall_twin.policies.registry import policy_kind
from powerhall_twin.policies.scenario import Scenario
from powerhall_twin.site.actions import Start
from powerhall_twin.site.cluster import Cluster

__all__ = ["ReplayCase", "from_plan", "from_trace", "run_policies", "run_what_ifs", "with_change"]

PRICE_COLUMNS: Final = {"usd_per_mwh": 1.0, "price_per_mwh": 1.0, "price": 1.0, "usd_per_kwh": 1e3}
_SLOT_S: Final = 300


@dataclass(frozen=True, slots=True)
class ReplayCase:
    """A scenario, and the recorded plan where it was made from one."""

    scenario: Scenario
    plan: Plan | None = None


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
) -> ReplayCase:
    """Read a site and `hours` of a trace from `start_s`, or its busiest hours, shifted to begin at `at_s`."""
    site, planning = read_site(site_path)
    site = msgspec.structs.replace(site, storages=())  # the twin simulates no storage
    trace = read_job_file(jobs_path, form)
    length_s = hours * 3600.0
    begin_s = busiest_start_s(trace, length_s) if start_s is None else start_s
    here_s = float(floor_slot(begin_s if at_s is None else at_s, _SLOT_S))
    jobs = window(trace, begin_s, length_s, at_s=here_s, preemptible=preemptible)
    check_fit(site, jobs, str(jobs_path))
    return ReplayCase(Scenario(site, jobs, here_s, here_s + length_s, *_outside(planning, here_s)))


def _series(snapshot: Snapshot, values: Sequence[float]) -> Series | None:
    times = tuple(float(snapshot.start_s + i * snapshot.slot_s) for i in range(len(values)))
    return Series(times, tuple(values)) if values else None


def from_plan(plan: Plan) -> ReplayCase:
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
    return ReplayCase(scenario, plan)


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


def run_policies(
    case: ReplayCase, names: Iterable[str], timing: RoundTiming, progress: Callable[[str], None] = lambda _: None
) -> list[SimulationOutcome]:
    """Run the scenario under each policy; all names are checked before the first one runs."""
    inputs = PolicyInputs(case.scenario, timing, case.plan)
    kinds = {kind.name: kind for kind in (policy_kind(name, inputs) for name in names)}
    outcomes = []
    for name, kind in kinds.items():
        progress(name)
        outcomes.append(simulate(case.scenario, kind.open(inputs), name))
    return outcomes


def with_change(case: ReplayCase, text: str) -> ReplayCase:
    """Return the case after a what-if such as "grid=-20%,hall3.power=120 kW"; one that does not fit is refused."""
    scenario = case.scenario
    snapshot = Snapshot(int(scenario.start_s), int(scenario.start_s), _SLOT_S, 1, scenario.site, scenario.jobs)
    after = what_if(snapshot, text)
    site: Site = after.site
    return ReplayCase(replace(scenario, site=site, jobs=after.jobs))


def run_what_ifs(
    case: ReplayCase,
    texts: Iterable[str],
    name: str,
    timing: RoundTiming,
    progress: Callable[[str], None] = lambda _: None,
) -> list[SimulationOutcome]:
    """Run the scenario unchanged and after each change, all under one policy."""
    outcomes = []
    cases = {"as it is": ReplayCase(case.scenario)} | {text: with_change(case, text) for text in texts}
    for text, changed in cases.items():
        progress(text)
        inputs = PolicyInputs(changed.scenario, timing)
        outcomes.append(simulate(changed.scenario, policy_kind(name, inputs).open(inputs), text))
    return outcomes
