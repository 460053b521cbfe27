"""Benchmarks of the twin with many runs: growth of sites, thousands of curtailments."""

import argparse
import os
import random
import resource
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import msgspec

from powerhall.physics.plants.plant import Plant
from powerhall.site.curtailment import STEP_S, Event, Ramp, curtailed
from powerhall.site.index import SiteIndex
from powerhall.site.topology import Site
from powerhall.timeseries import Series
from powerhall_twin.engine.outcome import SimulationOutcome
from powerhall_twin.engine.simulate import simulate
from powerhall_twin.policies.policy import PolicyInputs, RoundTiming
from powerhall_twin.policies.registry import BASELINES, POLICY_KINDS
from powerhall_twin.site.breach import LimitKind
from powerhall_twin.site.scenario import Scenario

SiteMaker = Callable[..., Site]
JobMaker = Callable[..., tuple]

EVENT_MEAN_S = 2.1 * 3600
"""Mean length of a curtailment where large loads give way for 0.5 % of the year (Norris et al., "Rethinking Load
Growth", Duke University, 2025); of these hours 88, 60 and 29 % keep at least 50, 75 and 90 % of the load."""
DEPTHS = ((0.12, 0.50, 0.80), (0.28, 0.25, 0.50), (0.31, 0.10, 0.25), (0.29, 0.02, 0.10))
"""Share of the events, and the share of the load that they take, from and to."""
RAMP_W_PER_S_SHARE = 0.05 / 60
"""Ramp down of 5 % of the load a minute; up 2 %, as proposed for ERCOT (comments on NPRR1191)."""


def curtailed_case(seed: int, site_of: SiteMaker, jobs_of: JobMaker, start_s: float, hours: float) -> Scenario:
    """Return a small site with a random budget, random jobs and one to three curtailments with ramps."""
    rng = random.Random(seed)
    nodes = rng.choice((8, 16, 24, 40))
    load_w = rng.uniform(6e3, 11e3) * nodes
    end_s = start_s + hours * 3600
    idle_share = 1.45 * 1660.0 * nodes / load_w  # what an idle site draws at the meter, with a margin
    events = []
    for _ in range(rng.randint(1, 3)):
        begin_s = rng.uniform(start_s - 1800, end_s)
        length_s = min(4 * 3600.0, rng.expovariate(1 / EVENT_MEAN_S) + 300)
        _, low, high = rng.choices(DEPTHS, [share for share, _, _ in DEPTHS])[0]
        share = min(rng.uniform(low, high), max(0.0, 1.0 - idle_share))
        events.append(Event("site", begin_s, begin_s + length_s, share=share))
    ramp = Ramp(RAMP_W_PER_S_SHARE * load_w, 0.4 * RAMP_W_PER_S_SHARE * load_w)
    site = site_of(nodes, None, halls=rng.choice((1, 2)), rack_nodes=rng.choice((4, 8)))
    halls = tuple(
        msgspec.structs.replace(hall, plants=tuple(_smaller(plant, rng) for plant in hall.plants))
        for hall in site.halls
    )
    budget = curtailed(Series((0.0,), (load_w,)), events, ramp)
    site = msgspec.structs.replace(
        site,
        halls=halls,
        budgets={site.name: budget},
        ramp_up_w_per_s=ramp.up_w_per_s,
        ramp_down_w_per_s=ramp.down_w_per_s,
    )
    jobs = jobs_of(rng.randint(10, 60), nodes * 8, hours, seed, load=rng.uniform(0.5, 1.6))
    peak_c = rng.uniform(22.0, 44.0)
    times = tuple(start_s + 300.0 * i for i in range(int(12 * hours) + 1))  # in steps too small to be a ramp
    dry = tuple(peak_c - 8.0 * abs(i / hours / 12 - 0.5) for i in range(len(times)))
    return Scenario(site, jobs, start_s, end_s, Series(times, dry), Series(times, tuple(t - 12.0 for t in dry)))


def _smaller(plant: Plant, rng: random.Random) -> Plant:
    return msgspec.structs.replace(plant, capacity_w=plant.capacity_w * rng.uniform(0.7, 1.0))


def _one(work: tuple[int, str, float, SiteMaker, JobMaker, float]) -> dict[str, object]:
    seed, policy, start_s, site_of, jobs_of, solve_s = work
    case = curtailed_case(seed, site_of, jobs_of, start_s, 4.0)
    timing = RoundTiming(1800.0, 4 * 3600.0, solve_s, 300.0)
    outcome = simulate(case, POLICY_KINDS[policy].open(PolicyInputs(case, timing)), policy)
    return {
        "seed": seed,
        "policy": policy,
        "power": sum(one.limit is LimitKind.POWER for one in outcome.breaches),
        "cooling": sum(one.limit is LimitKind.COOLING for one in outcome.breaches),
        "ramps": _above_ramped(case, outcome) + _fast_rises(case, outcome) + outcome.fast_rises,
        "falls": outcome.fast_falls,
        "curtailed_s": outcome.curtailed_s,
        "done": outcome.jobs_done,
    }


def _fast_rises(case: Scenario, outcome: SimulationOutcome) -> int:
    """Count stretches of power above the lowest of the five minutes before by more than the ramp, by pairs of all."""
    most_w = (case.site.ramp_up_w_per_s or 0.0) * STEP_S + 1.0
    times, power = outcome.times_s, outcome.facility_w
    ends, first, found = [*times[1:], case.end_s], 0, 0
    for i in range(len(times)):
        while ends[first] <= times[i] - STEP_S:
            first += 1
        found += power[i] - min(power[first : i + 1]) > most_w
    return found


def _above_ramped(case: Scenario, outcome: SimulationOutcome) -> int:
    """Count events at which the meter is above the ramped limit, from the series alone, not by the engine's check."""
    index = SiteIndex.of(case.site)
    return sum(
        power_w > (index.budget_at(case.site.name, time_s) or 0.0) + 1.0
        for time_s, power_w in zip(outcome.times_s, outcome.facility_w, strict=True)
    )


def curtailments(args: argparse.Namespace, site_of: SiteMaker, jobs_of: JobMaker, start_s: float) -> dict[str, object]:
    """Replay thousands of curtailed afternoons under the baselines in turn, some also under Powerhall's rounds."""
    names = [kind.name for kind in BASELINES]
    seeds = range(args.first, args.first + args.replays)
    work = [(seed, names[seed % len(names)], start_s, site_of, jobs_of, args.solve_s) for seed in seeds]
    work += [(seed, "powerhall", start_s, site_of, jobs_of, args.solve_s) for seed in seeds[: args.ours]]
    began = time.monotonic()
    with ProcessPoolExecutor(args.workers, mp_context=get_context("spawn")) as pool:
        rows = list(pool.map(_one, work, chunksize=max(1, min(50, len(work) // (4 * args.workers)))))
    bad = [row for row in rows if row["power"] or row["cooling"] or row["ramps"]]
    return {
        "replays": len(rows),
        "first": args.first,
        "of_ours": args.ours,
        "violations": len(bad),
        "power": sum(row["power"] for row in rows),
        "cooling": sum(row["cooling"] for row in rows),
        "ramps": sum(row["ramps"] for row in rows),
        "fast_falls": sum(row["falls"] for row in rows),
        "curtailed_h": round(sum(row["curtailed_s"] for row in rows) / 3600, 1),
        "jobs_done": sum(row["done"] for row in rows),
        "first_bad": bad[:3],
        "seconds": round(time.monotonic() - began, 1),
        "load_of_machine": round(os.getloadavg()[0], 1),
    }


def growth(run: Callable[[int], tuple[float, SimulationOutcome]], sizes: list[int], picture: str | None) -> list[dict]:
    """Time one day at each size; with `picture` also as a plot of time over nodes (HTML, no network)."""
    rows = []
    for nodes in sizes:
        cpu_s, outcome = run(nodes)
        rows.append(
            {
                "nodes": nodes,
                "cpu_s": round(cpu_s, 3),
                "events": len(outcome.times_s),
                "rss_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
            }
        )
        print(rows[-1], file=sys.stderr)
    if picture:
        import plotly.graph_objects as go

        line = go.Scatter(x=[row["nodes"] for row in rows], y=[row["cpu_s"] for row in rows], mode="lines+markers")
        figure = go.Figure(line)
        figure.update_layout(
            template="simple_white", width=760, height=440, margin={"l": 70, "r": 20, "t": 20, "b": 60}
        )
        figure.update_xaxes(type="log", title="nodes of 8 GPUs")
        figure.update_yaxes(type="log", title="CPU seconds for a simulated day")
        figure.write_html(picture, include_plotlyjs=True)
    return rows
