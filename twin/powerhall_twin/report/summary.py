"""The figures of a demo: printed as a table, written as summary.json, and shown as tiles of the report."""

import statistics
from collections.abc import Sequence

import msgspec

from powerhall.site.index import SiteIndex
from powerhall.units import format_power
from powerhall_twin.demo.demo_result import DemoResult
from powerhall_twin.engine.outcome import SimulationOutcome
from powerhall_twin.engine.simulate import simulate
from powerhall_twin.policies.policy import PolicyInputs
from powerhall_twin.policies.registry import BASELINES
from powerhall_twin.site.scenario import Scenario

__all__ = ["Baseline", "Summary", "baselines", "summarise", "table"]


class Baseline(msgspec.Struct, frozen=True):
    """Totals of another policy on the same jobs, budgets and weather; a ratio is the demo's figure over this one's."""

    policy: str
    energy_j: float
    cost: float
    work_gpu_s: float
    weighted_work: float
    jobs_done: int
    stops: int
    over_budget_s: float
    work_ratio: float
    weighted_work_ratio: float
    work_per_energy_ratio: float


class Summary(msgspec.Struct, frozen=True):
    """Flat figures in SI units; headrooms are shares of the budget."""

    ok: bool
    simulated_s: float
    wall_s: float
    speedup: float
    seed: int
    halls: int
    racks: int
    nodes: int
    gpus: int
    samples: int
    breaches: int
    peak_power_w: float
    budget_w: float
    curtailed_budget_w: float
    curtailed_s: float
    curtailed_peak_w: float
    curtailed_work_share: float
    worst_headroom: dict[str, float]
    energy_j: float
    it_energy_j: float
    pue: float
    cost: float
    work_gpu_s: float
    weighted_work: float
    gpu_share: float
    jobs: int
    jobs_done: int
    jobs_running: int
    jobs_queued: int
    stops: int
    mode_changes: int
    rounds: int
    rounds_verified: int
    rounds_refused: int
    gap_median: float
    gap_worst: float
    round_s_median: float
    agent_points: int
    agent_points_lost: int
    agents_against_meters: float | None
    planned_over_actual: float | None
    realtime: tuple[str, ...]
    interrupted: bool
    baselines: tuple[Baseline, ...]


def baselines(result: DemoResult) -> list[SimulationOutcome]:
    """Run the same jobs, budgets and weather under the policies that need no plan."""
    scenario = result.run.scenario
    same = Scenario(
        scenario.site,
        scenario.jobs,
        result.start_s,
        result.end_s,
        scenario.dry_bulb_c,
        scenario.wet_bulb_c,
        scenario.price_per_mwh,
    )
    inputs = PolicyInputs(same)
    return [simulate(same, kind.open(inputs), kind.name) for kind in BASELINES]


def _ratio(ours: float, theirs: float) -> float:
    return ours / theirs if theirs > 0 else 0.0


def _baseline(result: DemoResult, other: SimulationOutcome) -> Baseline:
    totals = result.run.outcome
    return Baseline(
        other.policy,
        other.energy_j,
        other.cost,
        other.work_gpu_s,
        other.weighted_work,
        other.jobs_done,
        other.stops,
        other.over_budget_s,
        _ratio(totals.work_gpu_s, other.work_gpu_s),
        _ratio(totals.weighted_work, other.weighted_work),
        _ratio(_ratio(totals.weighted_work, totals.energy_j), _ratio(other.weighted_work, other.energy_j)),
    )


def summarise(
    result: DemoResult,
    others: Sequence[SimulationOutcome],
    *,
    agents_against_meters: float | None,
    planned_over_actual: float | None,
) -> Summary:
    """Return the figures; `ok` means that every budget held at every sample and every plan was verified."""
    run, rounds = result.run, result.rounds
    totals, site = run.outcome, run.site
    simulated_s = result.end_s - result.start_s
    gpus = SiteIndex.of(site).gpus
    gaps = [entry.gap for entry in rounds.log]
    verified = sum(entry.verified for entry in rounds.log)
    work_share = _ratio(run.curtailed_work_gpu_s, gpus * totals.curtailed_s)
    return Summary(
        ok=not run.breaches and verified == len(rounds.log) > 0 and not rounds.refusals,
        simulated_s=simulated_s,
        wall_s=result.wall_s,
        speedup=_ratio(simulated_s, result.wall_s),
        seed=result.settings.seed,
        halls=len(site.halls),
        racks=sum(1 for _ in site.racks()),
        nodes=len(run.measured.nodes.states),
        gpus=gpus,
        samples=run.samples,
        breaches=run.breaches,
        peak_power_w=totals.peak_w,
        budget_w=run.full_budget_w,
        curtailed_budget_w=run.full_budget_w * (1 - result.curtailment.cut),
        curtailed_s=totals.curtailed_s,
        curtailed_peak_w=run.curtailed_peak_w,
        curtailed_work_share=work_share,
        worst_headroom=totals.worst_headroom,
        energy_j=totals.energy_j,
        it_energy_j=totals.it_energy_j,
        pue=_ratio(totals.energy_j, totals.it_energy_j),
        cost=totals.cost,
        work_gpu_s=totals.work_gpu_s,
        weighted_work=totals.weighted_work,
        gpu_share=_ratio(totals.work_gpu_s, gpus * simulated_s),
        jobs=totals.jobs,
        jobs_done=totals.jobs_done,
        jobs_running=run.running,
        jobs_queued=run.waiting,
        stops=totals.stops,
        mode_changes=run.mode_changes,
        rounds=len(rounds.log),
        rounds_verified=verified,
        rounds_refused=len(rounds.refusals),
        gap_median=statistics.median(gaps) if gaps else 0.0,
        gap_worst=max(gaps, default=0.0),
        round_s_median=statistics.median(entry.wall_s for entry in rounds.log) if rounds.log else 0.0,
        agent_points=result.agent_points,
        agent_points_lost=result.agent_points_lost,
        agents_against_meters=agents_against_meters,
        planned_over_actual=planned_over_actual,
        realtime=tuple(result.realtime),
        interrupted=result.interrupted,
        baselines=tuple(_baseline(result, other) for other in others),
    )


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def _rows(s: Summary) -> list[tuple[str, str]]:
    lowest = sorted(s.worst_headroom.items(), key=lambda item: item[1])
    headroom = ", ".join(f"{zone} {value:.1%}" for zone, value in lowest[:5])
    return [
        ("simulated", f"{s.simulated_s / 3600:.1f} h in {s.wall_s:.0f} s, {s.speedup:.0f} times as fast"),
        ("power", f"peak {format_power(s.peak_power_w)} of {format_power(s.budget_w)}"),
        (
            "curtailment",
            f"{s.curtailed_s / 3600:.1f} h at {format_power(s.curtailed_budget_w)}, peak "
            f"{format_power(s.curtailed_peak_w)}, {s.curtailed_work_share:.0%} of full work kept",
        ),
        ("over budget", f"{s.breaches} of {s.samples} samples, every zone and every cooling plant"),
        ("least headroom", headroom),
        ("energy", f"{s.energy_j / 3.6e9:.2f} MWh, PUE {s.pue:.2f}, {s.cost:.0f} USD"),
        ("work", f"{s.work_gpu_s / 3600:.0f} GPU h at full speed, {s.gpu_share:.0%} of all GPU time"),
        ("jobs", f"{s.jobs_done} done, {s.jobs_running} run, {s.jobs_queued} queued; {s.stops} stops"),
        (
            "rounds",
            f"{s.rounds}, {s.rounds_verified} verified, {s.rounds_refused} refused; gap {s.gap_median:.1%} median, "
            f"{s.gap_worst:.1%} worst; {s.round_s_median:.1f} s each",
        ),
        (
            "agents",
            f"{s.agent_points} points stored, {s.agent_points_lost} lost; GPUs against meters "
            f"{_percent(s.agents_against_meters)} apart",
        ),
        ("planned/actual", _percent(s.planned_over_actual)),
        *(("real time", line) for line in s.realtime),
    ]


def table(s: Summary) -> str:
    """Return the summary as text."""
    lines = [f"{name:<15} {text}" for name, text in _rows(s)]
    if s.baselines:
        lines.append("")
        lines.append(
            f"{'compared with':<15} {'work':>8} {'weighted':>9} {'per energy':>11} {'MWh':>7} {'done':>5} {'stops':>6}"
        )
        lines += [
            f"{b.policy:<15} {b.work_ratio - 1:>+8.1%} {b.weighted_work_ratio - 1:>+9.1%} "
            f"{b.work_per_energy_ratio - 1:>+11.1%} {b.energy_j / 3.6e9:>7.2f} {b.jobs_done:>5} {b.stops:>6}"
            for b in s.baselines
        ]
    lines.append("")
    lines.append("every budget held at every sample" if s.ok else "FAILED: see summary.json (breaches, rounds)")
    return "\n".join(lines) + "\n"
