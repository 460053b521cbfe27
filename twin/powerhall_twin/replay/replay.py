"""Replay and what-if: simulates a trace or a recorded plan under several policies or other budgets."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import tzinfo
from functools import partial
from pathlib import Path
from typing import Final

import msgspec

from powerhall.forecasts.csv_series import CARBON, PRICES, read_forecast
from powerhall.hostlist import expand
from powerhall.jobs.model import Job
from powerhall.physics.weather_files import WeatherRules, read_weather
from powerhall.plan.plan import Plan, Snapshot
from powerhall.runtime.errors import Rejected
from powerhall.site.index import SiteIndex
from powerhall.site.site_file import Planning, read_site
from powerhall.site.topology import Site
from powerhall.timeseries import Series
from powerhall_optimizer.inputs.horizon import floor_slot
from powerhall_optimizer.inputs.snapshot import SiteFit
from powerhall_optimizer.inputs.what_if import what_if
from powerhall_optimizer.planning.shared_gpus import host_plan
from powerhall_twin.engine.outcome import SimulationOutcome
from powerhall_twin.engine.simulate import simulate
from powerhall_twin.jobs.trace import read_trace
from powerhall_twin.jobs.trace_window import busiest_start_s, window
from powerhall_twin.policies.policy import PolicyInputs, RoundTiming
from powerhall_twin.policies.registry import policy_kind
from powerhall_twin.replay.saved_runs import SavedRuns
from powerhall_twin.site.failures import FailureFile, failures_of, read_failures
from powerhall_twin.site.placed_runs import FreeGpus
from powerhall_twin.site.scenario import Scenario, Start

__all__ = ["ReplayCase", "from_plan", "from_trace", "run_policies", "run_what_ifs", "with_change", "with_failures"]

_SLOT_S: Final = 300


@dataclass(frozen=True, slots=True)
class ReplayCase:
    """A scenario, and the recorded plan where it was made from one.

    `notes` says in lines what was left out, put right or assumed. `failures` is the file whose failures are drawn anew
    for another seed.
    """

    scenario: Scenario
    plan: Plan | None = None
    notes: tuple[str, ...] = ()
    failures: FailureFile | None = None


def _outside(
    planning: Planning, start_s: float, end_s: float, notes: list[str]
) -> tuple[Series | None, Series | None, Series | None, Series | None]:
    """Return dry bulb, wet bulb, prices and carbon intensity of a window; what the files do not cover is noted."""
    dry = wet = prices = carbon = None
    if planning.weather is not None:
        rules = WeatherRules(planning.zone, planning.altitude_m, planning.outside)
        weather = read_weather(planning.weather, start_s, end_s, rules)
        dry, wet = weather.dry_bulb, weather.wet_bulb
    if planning.prices is not None:
        prices = read_forecast(planning.prices, PRICES, planning.zone, planning.outside).series
    else:
        notes.append("no prices: costs are 0")
    if planning.carbon is not None:
        carbon = read_forecast(planning.carbon, CARBON, planning.zone, planning.outside).series
    if dry is None:
        notes.append("no weather: a mild day of 20 degC, 15 degC wet bulb, is assumed")
    return dry, wet, prices, carbon


def from_trace(
    site_path: Path,
    jobs_path: Path,
    form: str | None,
    *,
    hours: float,
    start_s: float | None = None,
    at_s: float | None = None,
    preemptible: bool = False,
    zone: tzinfo | None = None,
    failures_path: Path | None = None,
    failure_seed: int = 1,
) -> ReplayCase:
    """Read a site and `hours` of a trace from `start_s`, or its busiest hours, shifted to begin at `at_s`.

    Parts of the site fail as the file of failures says; its rates are drawn by the seed.
    Times of the trace without an offset are local to `zone`, else to the site, else UTC.
    """
    site, planning = read_site(site_path)
    fit = SiteFit(site)
    found = read_trace(jobs_path, form, zone or planning.zone, lambda job: fit.check(job, str(jobs_path)))
    trace, notes = found.jobs, list(found.notes)
    length_s = hours * 3600.0
    begin_s = busiest_start_s(trace, length_s) if start_s is None else start_s
    here_s = float(floor_slot(begin_s if at_s is None else at_s, _SLOT_S))
    jobs = window(trace, begin_s, length_s, at_s=here_s, preemptible=preemptible)
    outside = _outside(planning, here_s, here_s + length_s, notes)
    dry, wet, prices, carbon = outside
    scenario = Scenario(site, jobs, here_s, here_s + length_s, dry, wet, prices, carbon_g_per_kwh=carbon)
    failures = None if failures_path is None else read_failures(failures_path, site)
    return with_failures(ReplayCase(scenario, notes=tuple(notes), failures=failures), failure_seed)


def with_failures(case: ReplayCase, seed: int) -> ReplayCase:
    """Return the case with the failures of its file drawn by a seed; unchanged without a file."""
    if case.failures is None:
        return case
    found = failures_of(case.failures, case.scenario.site, case.scenario.start_s, case.scenario.end_s, seed)
    return replace(case, scenario=replace(case.scenario, failures=found, rules=case.failures.rules))


def _series(snapshot: Snapshot, values: Sequence[float]) -> Series | None:
    times = tuple(float(snapshot.start_s + i * snapshot.slot_s) for i in range(len(values)))
    return Series(times, tuple(values)) if values else None


def from_plan(plan: Plan) -> ReplayCase:
    """Return the scenario in which a plan was made: its site, queue, running jobs, weather and prices.

    Jobs that share a GPU are one job of a whole GPU, as they are planned.
    """
    queued = len(plan.snapshot.jobs)
    plan = _of_whole_gpus(plan)
    s = plan.snapshot
    entries = {entry.job_id: entry for entry in plan.assignments}
    free = FreeGpus.of(s.site)
    running = [
        _resumed(s.site, free, job, entries[job.job_id].gpu_power_w if job.job_id in entries else 0.0)
        for job in s.jobs
        if job.state == "running"
    ]
    outside = (_series(s, s.dry_bulb_c), _series(s, s.wet_bulb_c), _series(s, s.price_per_mwh))
    end_s, carbon = float(s.start_s + s.slots * s.slot_s), _series(s, s.carbon_g_per_kwh)
    stores = tuple(
        msgspec.structs.replace(unit, start_j=s.stored_j.get(unit.name, unit.start_j)) for unit in s.site.storages
    )
    site = msgspec.structs.replace(s.site, storages=stores)
    scenario = Scenario(
        site, s.jobs, float(s.start_s), end_s, *outside, running=tuple(running), carbon_g_per_kwh=carbon
    )
    less = queued - len(s.jobs)
    notes = (f"left out: {less} jobs that take parts of GPUs; the twin simulates whole GPUs",) if less else ()
    return ReplayCase(scenario, plan, notes)


def _of_whole_gpus(plan: Plan) -> Plan:
    """Return a plan in which each shared GPU is one job, on nodes that give whole GPUs."""
    plan = host_plan(plan)
    jobs = tuple(msgspec.structs.replace(job, gpu_share=None, gpu_number=None) for job in plan.snapshot.jobs)
    kinds = {name: msgspec.structs.replace(kind, mig=False) for name, kind in plan.snapshot.site.node_types.items()}
    site = msgspec.structs.replace(plan.snapshot.site, node_types=kinds)
    return msgspec.structs.replace(plan, snapshot=msgspec.structs.replace(plan.snapshot, jobs=jobs, site=site))


def _resumed(site: Site, free: FreeGpus, job: Job, planned_gpu_w: float) -> Start:
    """Return the start that puts a running job on its nodes."""
    names = expand(job.nodes or "")
    if not names or job.hall is None:
        raise Rejected.field("plan", f"job {job.job_id}: nodes", job.nodes, "a running job must name its nodes")
    kind = SiteIndex.of(site).node_type(names[0])
    wanted = {node: min(kind.gpus, -(-job.gpus // len(names))) for node in names}
    slices = free.take(wanted)
    if slices is None:
        raise Rejected.field("plan", f"job {job.job_id}: nodes", job.nodes, "must not be held by another job")
    mode = kind.mode(job.mode or "")
    return Start(job, job.hall, kind, mode, slices, planned_gpu_w or mode.gpu_power_w, job.duration_s)


def run_policies(
    case: ReplayCase,
    names: Iterable[str],
    timing: RoundTiming,
    progress: Callable[[str, float], None] = lambda _name, _part: None,
    runs: SavedRuns | None = None,
) -> list[SimulationOutcome]:
    """Run the scenario under each policy; all names are checked before the first one runs.

    With `runs` each outcome is kept as it is done, and one that is kept already is not run again.
    """
    inputs = PolicyInputs(case.scenario, timing, case.plan)
    kinds = {kind.name: kind for kind in (policy_kind(name, inputs) for name in names)}
    outcomes = []
    for name, kind in kinds.items():
        outcome = None if runs is None else runs.read(name)
        if outcome is None:
            outcome = simulate(case.scenario, kind.open(inputs), name, progress=partial(progress, name))
            if runs is not None:
                runs.write(outcome)
        outcomes.append(outcome)
    return outcomes


def with_change(case: ReplayCase, text: str) -> ReplayCase:
    """Return the case after a what-if such as "grid=-20%,hall3.power=120 kW"; one that does not fit is refused."""
    scenario = case.scenario
    snapshot = Snapshot(int(scenario.start_s), int(scenario.start_s), _SLOT_S, 1, scenario.site, scenario.jobs)
    after = what_if(snapshot, text)
    site: Site = after.site
    return replace(case, scenario=replace(scenario, site=site, jobs=after.jobs))


def run_what_ifs(
    case: ReplayCase,
    texts: Iterable[str],
    name: str,
    timing: RoundTiming,
    progress: Callable[[str, float], None] = lambda _name, _part: None,
) -> list[SimulationOutcome]:
    """Run the scenario unchanged and after each change, all under one policy."""
    outcomes = []
    cases = {"as it is": case} | {text: with_change(case, text) for text in texts}
    for text, changed in cases.items():
        inputs = PolicyInputs(changed.scenario, timing)
        policy = policy_kind(name, inputs).open(inputs)
        outcomes.append(simulate(changed.scenario, policy, text, progress=partial(progress, text)))
    return outcomes
