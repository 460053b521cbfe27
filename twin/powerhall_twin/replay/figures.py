"""The figures of outcomes: rows for machines, and results.json."""

from collections.abc import Mapping, Sequence

import msgspec

from powerhall.site.index import SiteIndex
from powerhall_twin.engine.outcome import SimulationOutcome
from powerhall_twin.engine.samples import Samples
from powerhall_twin.site.breach import Breach
from powerhall_twin.site.scenario import Scenario

__all__ = ["PolicyFigures", "ReplayResults", "figures_of", "results_of", "thin"]

_MOST_POINTS = 2000


class PolicyFigures(msgspec.Struct, frozen=True):
    """One policy's figures in SI units; `work_per_mwh` is weighted GPU hours per MWh at the meter.

    `cooling_margin` is per medium the least share of its capacity that was left, `curtailment_held` the share of
    curtailed time in which every limit held, `stored_mwh` what each store delivered, `fast_rises` and `fast_falls` how
    often power changed faster than the site's ramp limits, 0 without any. Water is in litres, and per kWh of
    IT.
    """

    name: str
    work_gpu_s: float
    weighted_work: float
    energy_j: float
    it_energy_j: float
    pue: float
    work_per_mwh: float
    cost: float
    peak_power_w: float
    jobs: int
    jobs_done: int
    stops: int
    mean_wait_s: float
    wait_p95_s: float
    deadlines: int
    deadlines_missed: int
    over_budget_s: float
    least_headroom: float
    lost_gpu_s: float = 0.0
    co2_kg: float = 0.0
    water_l: float = 0.0
    wue_l_per_kwh: float = 0.0
    cooling_margin: dict[str, float] = {}
    curtailed_s: float = 0.0
    curtailment_held: float = 1.0
    failures: int = 0
    interrupted: int = 0
    trips: int = 0
    throttled_s: float = 0.0
    stored_mwh: dict[str, float] = {}
    fast_rises: int = 0
    fast_falls: int = 0
    steepest_rise_w_per_s: float = 0.0
    steepest_fall_w_per_s: float = 0.0


class ReplayResults(msgspec.Struct, frozen=True):
    """Everything of a replay: `facility_w` per policy at `times_s`, `breaches` per policy."""

    version: int
    site: str
    inputs: str
    start_s: float
    end_s: float
    notes: tuple[str, ...]
    policies: tuple[PolicyFigures, ...]
    budget_w: dict[str, float]
    headroom: dict[str, dict[str, float]]
    breaches: dict[str, list[Breach]]
    power: dict[str, tuple[list[float], list[float]]]
    samples: dict[str, Samples] = {}


def figures_of(outcome: SimulationOutcome) -> PolicyFigures:
    """Return the figures of an outcome."""
    o = outcome
    return PolicyFigures(
        o.policy,
        o.work_gpu_s,
        o.weighted_work,
        o.energy_j,
        o.it_energy_j,
        o.energy_j / o.it_energy_j if o.it_energy_j > 0 else 0.0,
        o.weighted_work / o.energy_j * 1e6 if o.energy_j > 0 else 0.0,
        o.cost,
        o.peak_w,
        o.jobs,
        o.jobs_done,
        o.stops,
        o.wait_s,
        o.wait_p95_s,
        o.deadlines,
        o.deadlines_missed,
        o.over_budget_s,
        min(o.worst_headroom.values(), default=1.0),
        o.lost_gpu_s,
        o.co2_kg,
        o.water_l,
        o.water_l / (o.it_energy_j / 3.6e6) if o.it_energy_j > 0 else 0.0,
        _cooling_margin(o.worst_headroom),
        o.curtailed_s,
        1.0 - o.curtailed_over_s / o.curtailed_s if o.curtailed_s > 0 else 1.0,
        o.failures,
        o.interrupted,
        o.trips,
        o.throttled_s,
        {name: joules / 3.6e9 for name, joules in o.delivered_j.items()},
        o.fast_rises,
        o.fast_falls,
        o.steepest_rise_w_per_s,
        o.steepest_fall_w_per_s,
    )


def _cooling_margin(headroom: Mapping[str, float]) -> dict[str, float]:
    """Return the least headroom of the halls' plants by medium."""
    found: dict[str, float] = {}
    for name, share in headroom.items():
        _, is_cooling, medium = name.rpartition(" cooling")
        if is_cooling:
            medium = medium.strip(" ()") or "all"
            found[medium] = min(share, found.get(medium, 1.0))
    return found


def thin(times_s: Sequence[float], values: Sequence[float]) -> tuple[list[float], list[float]]:
    """Return at most 2,000 points: of equal stretches of points the time of the first and the highest value."""
    each = -(-len(times_s) // _MOST_POINTS)
    if each <= 1:
        return list(times_s), list(values)
    starts = range(0, len(times_s), each)
    return [times_s[i] for i in starts], [max(values[i : i + each]) for i in starts]


def results_of(
    scenario: Scenario, outcomes: Sequence[SimulationOutcome], notes: tuple[str, ...], inputs: str
) -> ReplayResults:
    """Return the results of a replay; `budget_w` maps the times at which the site's budget changes to it."""
    site, index = scenario.site, SiteIndex.of(scenario.site)
    series = site.budgets.get(site.name)
    steps = [] if series is None else [t for t in series.times_s if scenario.start_s < t < scenario.end_s]
    budget = {f"{t:.0f}": w for t in (scenario.start_s, *steps) if (w := index.budget_at(site.name, t)) is not None}
    return ReplayResults(
        1,
        site.name,
        inputs,
        scenario.start_s,
        scenario.end_s,
        notes,
        tuple(map(figures_of, outcomes)),
        budget,
        {o.policy: o.worst_headroom for o in outcomes},
        {o.policy: o.breaches for o in outcomes},
        {o.policy: thin(o.times_s, o.facility_w) for o in outcomes},
        {o.policy: o.samples for o in outcomes},
    )
