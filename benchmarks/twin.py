"""The twin at scale: how fast it is, how many more nodes a budget carries, and what planning is worth.

    python benchmarks/twin.py speed --nodes 44000 --hours 24 --json speed.json
    python benchmarks/twin.py density --json density.json
    python benchmarks/twin.py value --json value.json
    python benchmarks/twin.py curtailments --json curtailments.json
    python benchmarks/twin.py scale --json scale.json

Scenarios are synthetic, from a seed, but for `value`, which reads ../shared/data (or $POWERHALL_DATA).
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import sys
import time
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
from twin_runs import curtailments, growth

from powerhall.forecasts.csv_series import PRICES, read_forecast
from powerhall.jobs.model import Job
from powerhall.jobs.readers.formats import read_job_file
from powerhall.physics.plants.plant import Plant
from powerhall.physics.weather_files import WeatherRules, read_weather
from powerhall.site.topology import Hall, JobClass, Losses, Mode, NodeType, Rack, RackRow, Site
from powerhall.timeseries import Series, parse_time
from powerhall_twin.engine.outcome import SimulationOutcome
from powerhall_twin.engine.simulate import simulate
from powerhall_twin.jobs.trace_window import busiest_start_s, window
from powerhall_twin.policies.policy import PolicyInputs, RoundTiming
from powerhall_twin.policies.registry import POLICY_KINDS
from powerhall_twin.replay.figures import figures_of
from powerhall_twin.replay.replay import ReplayCase
from powerhall_twin.replay.size import SizingGoal, most_nodes
from powerhall_twin.site.scenario import Scenario

START_S = 1_784_073_600.0
MODES = (
    Mode("p700", "power_limit", 977.0, 1.0, 700.0),
    Mode("p550", "power_limit", 794.0, 0.918, 550.0),
    Mode("p450", "power_limit", 672.0, 0.843, 450.0),
    Mode("p350", "power_limit", 550.0, 0.746, 350.0),
)
CLASSES = {
    "pretrain": JobClass("pretrain", {}, {"p700": 1.0, "p550": 0.908, "p450": 0.825, "p350": 0.722}),
    "finetune": JobClass("finetune", {"p700": 0.95}, {"p700": 1.0, "p550": 0.949, "p450": 0.878, "p350": 0.785}),
    "inference": JobClass(
        "inference", {"p700": 0.72, "p550": 0.95}, {"p700": 1.0, "p550": 1.0, "p450": 0.997, "p350": 0.941}
    ),
}
"""Figures of the demo's site: H100 nodes, classes by their share of time that waits for the clock."""


VALUE_KEYS = (
    "weighted_work", "work_gpu_s", "work_per_mwh", "energy_j", "cost", "jobs_done", "stops", "mean_wait_s",
    "peak_power_w", "over_budget_s",
)  # fmt: skip


def site_of(nodes: int, budget_w: float | None, *, halls: int = 10, rack_nodes: int = 8) -> Site:
    """Return a site of so many nodes of 8 GPUs in racks of 8, with towers, chillers and losses."""
    kind = NodeType("hgx-h100", "H100", 8, 1660.0, 10_200.0, 2950.0, 0.75, MODES)
    sizes = [nodes // halls + (h < nodes % halls) for h in range(halls)]
    made = []
    for h, size in enumerate(size for size in sizes if size):
        racks = tuple(
            Rack(
                f"h{h}/r/k{k}", kind.name, tuple(f"h{h}k{k}n{n}" for n in range(min(rack_nodes, size - k * rack_nodes)))
            )
            for k in range(-(-size // rack_nodes))
        )
        heat_w = size * 9e3
        plants = (
            Plant("tower", "tower_chiller", heat_w, "liquid", 32.0, fan_power_w=heat_w / 60, pump_power_w=heat_w / 80),
            Plant(
                "air", "tower_chiller", heat_w * 0.45, "air", 22.0, fan_power_w=heat_w / 90, pump_power_w=heat_w / 200
            ),
        )
        made.append(Hall(f"h{h}", (RackRow(f"h{h}/r", racks),), plants, Losses(20.0 * size, 0.025, 0.0)))
    return Site("site", tuple(made), {kind.name: kind}, CLASSES, power_limit_w=budget_w)


def jobs_of(
    count: int, gpus: int, hours: float, seed: int, *, load: float, slack: float | None = None, backlog: float = 0.3
) -> tuple[Job, ...]:
    """Return jobs of both kinds, training gangs and inference, that together ask for `load` times all GPU time.

    Sizes are powers of two, most jobs small and most GPU time in large gangs, as in the Philly trace; durations are
    lognormal. With `slack` a job is due after so many times its duration. `backlog` of the jobs wait at the start.
    """
    rng = np.random.default_rng(seed)
    sizes = np.array([1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024])
    share = np.array([0.20, 0.08, 0.10, 0.22, 0.12, 0.10, 0.07, 0.05, 0.03, 0.02, 0.01])
    largest = max(8, gpus // 40)
    usable = sizes <= largest
    picked = rng.choice(sizes[usable], count, p=share[usable] / share[usable].sum())
    hours_s = hours * 3600.0
    duration = np.clip(rng.lognormal(np.log(5400.0), 0.8, count) * (picked / 8.0) ** 0.15, 300.0, 0.6 * hours_s)
    waiting = rng.random(count) < backlog
    submit = START_S + np.where(waiting, -rng.random(count) * 600.0, rng.random(count) * 0.9 * hours_s)
    scale = load * gpus * hours_s / float((picked * duration).sum())
    if scale > 1.0:
        picked = np.minimum(largest, np.maximum(1, np.round(picked * scale / 8) * 8)).astype(int)
        duration *= load * gpus * hours_s / float((picked * duration).sum())
    else:
        duration *= scale
    duration = np.clip(duration, 60.0, hours_s)
    kinds = np.where(
        picked >= 16, rng.choice(["pretrain", "finetune"], count), rng.choice(["inference", "finetune"], count)
    )
    weight = np.where(kinds == "inference", 2.0, 1.0)
    due = [None if slack is None else float(s + slack * d) for s, d in zip(submit, duration, strict=True)]
    columns = (picked.tolist(), duration.tolist(), submit.tolist(), kinds.tolist(), weight.tolist())
    return tuple(
        Job(f"j{i}", *row, deadline_s=due[i], preemptible=True, checkpoint_cost_s=60.0)
        for i, row in enumerate(zip(*columns, strict=True))
    )


def hot_day(hours: float) -> tuple[Series, Series]:
    """Return dry and wet bulb of a summer day, by the hour."""
    times = tuple(START_S + 3600.0 * h for h in range(int(hours) + 1))
    wave = [np.sin((h - 9) / 24 * 2 * np.pi) for h in range(int(hours) + 1)]
    return Series(times, tuple(32.0 + 9.0 * w for w in wave)), Series(times, tuple(20.0 + 3.0 * w for w in wave))


def run(case: Scenario, policy: str):
    """Simulate one policy of the registry."""
    return simulate(case, POLICY_KINDS[policy].open(PolicyInputs(case)), policy)


def speed(args: argparse.Namespace) -> int:
    """Simulate a day of many nodes under EASY; the kernels are compiled before the clock starts."""
    gpus = 8 * args.nodes
    warm = Scenario(site_of(200, 2e6), jobs_of(200, 1600, 2, 1, load=1.2), START_S, START_S + 7200, *hot_day(2))
    run(warm, args.policy)
    site = site_of(args.nodes, 9.2e3 * args.nodes)
    jobs = jobs_of(args.jobs, gpus, args.hours, args.seed, load=args.load)
    case = Scenario(site, jobs, START_S, START_S + 3600 * args.hours, *hot_day(args.hours))
    spent, began = time.process_time(), time.monotonic()
    outcome = run(case, args.policy)
    seconds = time.monotonic() - began
    cpu_s = time.process_time() - spent
    sizes = [] if not args.growth else [100, 300, 1000, 3000, 10_000, 30_000, 100_000]
    out = {
        "nodes": args.nodes,
        "gpus": gpus,
        "jobs": args.jobs,
        "hours": args.hours,
        "policy": args.policy,
        "seconds": round(seconds, 3),
        "cpu_s": round(cpu_s, 3),
        "realtime_ratio": round(args.hours * 3600 / seconds, 1),
        "rss_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
        "events": len(outcome.times_s),
        "jobs_done": outcome.jobs_done,
        "energy_mwh": round(outcome.energy_j / 3.6e9, 3),
        "peak_mw": round(outcome.peak_w / 1e6, 3),
        "over_budget_s": outcome.over_budget_s,
        "load_of_machine": round(os.getloadavg()[0], 1),
    }
    if sizes:
        out["growth"] = growth(lambda nodes: _day(nodes, args), sizes, args.growth)
    return _show(out, args.json)


def _day(nodes: int, args: argparse.Namespace) -> tuple[float, SimulationOutcome]:
    """Return the CPU seconds of a day of so many nodes, with jobs in proportion, and its outcome."""
    jobs = jobs_of(max(20, round(args.jobs * nodes / 44_000)), 8 * nodes, args.hours, args.seed, load=args.load)
    case = Scenario(site_of(nodes, 9.2e3 * nodes), jobs, START_S, START_S + 3600 * args.hours, *hot_day(args.hours))
    spent = time.process_time()
    outcome = run(case, args.policy)
    return time.process_time() - spent, outcome


def many_curtailments(args: argparse.Namespace) -> int:
    """Replay curtailed afternoons; exit code 1 where a limit did not hold."""
    out = curtailments(args, site_of, jobs_of, START_S)
    return _show(out, args.json) or int(out["violations"] > 0)


def scaled(args: argparse.Namespace) -> int:
    """Run sweeps and prices on Dask workers; exit code 1 where results differ."""
    from twin_cluster import scale  # needs the extra cluster

    site = site_of(args.nodes, 9.2e3 * args.nodes)
    jobs = jobs_of(args.nodes * 4, args.nodes * 8, args.hours, 1, load=1.2)
    case = ReplayCase(Scenario(site, jobs, START_S, START_S + 3600 * args.hours, *hot_day(args.hours)))
    out = scale(args, case)
    runs = [one for part in out.values() if isinstance(part, dict) for one in part.values() if isinstance(one, dict)]
    return _show(out, args.json) or int(not all(one.get("same", True) for one in runs))


def density(args: argparse.Namespace) -> int:
    """Bisect the nodes that each policy carries under one budget; work grows with the nodes."""
    budget_w = args.budget_kw * 1e3
    own = max(2, round(budget_w / 11.2e3))  # what nameplate power with losses and cooling would allow
    goal = SizingGoal(args.misses, args.slack, 3.0)
    timing = RoundTiming(args.round_s, args.horizon_h * 3600.0, args.solve_s, args.event_s)
    blocks: dict[str, dict[str, object]] = {}
    for policy in (args.ours, *args.against):
        rows = []
        for seed in range(1, args.seeds + 1):
            jobs = jobs_of(own * 40, own * 8, args.hours, seed, load=args.load, backlog=0.0)
            site = site_of(own, budget_w, halls=max(1, own // 4400))
            case = Scenario(site, jobs, START_S, START_S + 3600 * args.hours, *hot_day(args.hours))
            nodes, outcome = most_nodes(case, policy, goal, seed, timing)
            if outcome is None:
                rows.append(
                    {"nodes": 0, "weighted_work": 0.0, "budget_use": 0.0, "peak_use": 0.0, "over_s": 0.0, "late": 1.0}
                )
                continue
            mean_w = outcome.energy_j / (3600 * args.hours)
            rows.append(
                {
                    "nodes": nodes,
                    "weighted_work": outcome.weighted_work,
                    "budget_use": mean_w / budget_w,
                    "peak_use": outcome.peak_w / budget_w,
                    "over_s": outcome.over_budget_s,
                    "late": outcome.deadlines_missed / max(1, outcome.deadlines),
                }
            )
        names = rows[0].keys()
        blocks[policy] = {name: statistics.median(row[name] for row in rows) for name in names}
        blocks[policy]["seeds"] = rows
        print(policy, {k: v for k, v in blocks[policy].items() if k != "seeds"}, file=sys.stderr)
    ours, tdp = blocks[args.ours], blocks["tdp"]
    out = {
        "budget_kw": args.budget_kw,
        "hours": args.hours,
        "load": args.load,
        "slack": args.slack,
        "admitted_ratio": _ratio(ours["nodes"], tdp["nodes"]),
        "work_ratio": _ratio(ours["weighted_work"], tdp["weighted_work"]),
        "budget_use": ours["budget_use"],
        "over_budget_s": max(row["over_s"] for block in blocks.values() for row in block["seeds"]),
        "admitted_ratio_to": {name: _ratio(ours["nodes"], one["nodes"]) for name, one in blocks.items()},
        "work_ratio_to": {name: _ratio(ours["weighted_work"], one["weighted_work"]) for name, one in blocks.items()},
        "policies": blocks,
        "load_of_machine": round(os.getloadavg()[0], 1),
    }
    return _show(out, args.json)


def _ratio(one, other) -> float:
    return one / other if other else 0.0


def value(args: argparse.Namespace) -> int:
    """Replay a window of the Philly trace under budgets below its demand, with and without curtailments."""
    data = Path(os.environ.get("POWERHALL_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not (data / "jobs" / "philly_jobs.csv.gz").exists():
        print(f"{data}: no data; set POWERHALL_DATA", file=sys.stderr)
        return 1
    trace = read_job_file(data / "jobs" / "philly_jobs.csv.gz", "philly")
    length_s = args.hours * 3600.0
    begin_s = busiest_start_s(trace, length_s) if args.start is None else parse_time(args.start)
    at_s = parse_time("2023-07-17T05:00:00Z")
    jobs = window(trace, begin_s, length_s, at_s=at_s, preemptible=True)
    site = msgspec.structs.replace(site_of(args.nodes, None, halls=2))
    air = read_weather(data / "weather" / args.weather, at_s, at_s + length_s, WeatherRules(None, 331.0))
    price = read_forecast(data / "prices" / args.prices, PRICES).series
    open_case = Scenario(site, jobs, at_s, at_s + length_s, air.dry_bulb, air.wet_bulb, price)
    demand_w = run(open_case, "easy").peak_w
    timing = RoundTiming(args.round_s, args.horizon_h * 3600.0, args.solve_s, args.event_s)
    out: dict[str, object] = {"demand_kw": demand_w / 1e3, "jobs": len(jobs), "hours": args.hours, "cases": {}}
    for share in args.budgets:
        for cut in (0.0, args.cut):
            case = replace(open_case, site=_limited(site, share * demand_w, cut, at_s, length_s))
            out["cases"][f"{share:.0%}{' curtailed' if cut else ''}"] = _values(case, args.policies, timing)
    out["load_of_machine"] = round(os.getloadavg()[0], 1)
    return _show(out, args.json)


def _limited(site: Site, budget_w: float, cut: float, at_s: float, length_s: float) -> Site:
    """Return the site under a budget; with a cut, that much less for two hours of every afternoon."""
    times, values = [0.0], [budget_w]
    for day in range(int(length_s // 86400) + 1 if cut else 0):
        times += [at_s + day * 86400 + 12 * 3600, at_s + day * 86400 + 14 * 3600]
        values += [budget_w * (1 - cut), budget_w]
    return msgspec.structs.replace(site, budgets={site.name: Series(tuple(times), tuple(values))})


def _values(case: Scenario, policies: list[str], timing: RoundTiming) -> dict[str, dict[str, float]]:
    blocks = {}
    for name in policies:
        began = time.monotonic()
        outcome = simulate(case, POLICY_KINDS[name].open(PolicyInputs(case, timing)), name)
        figures = figures_of(outcome)
        blocks[name] = {key: getattr(figures, key) for key in VALUE_KEYS} | {"seconds": time.monotonic() - began}
        print(name, {key: round(number, 3) for key, number in blocks[name].items()}, file=sys.stderr)
    return blocks


def _show(out: dict[str, object], path: str | None) -> int:
    text = json.dumps(out, indent=1)
    print(text)
    if path:
        Path(path).write_text(text + "\n")
    return 0


def main() -> int:
    """Run one of the benchmarks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    one = commands.add_parser("speed", help="time of a simulated day")
    one.add_argument("--nodes", type=int, default=44_000)
    one.add_argument("--hours", type=float, default=24.0)
    one.add_argument("--jobs", type=int, default=10_000)
    one.add_argument("--load", type=float, default=1.2, help="GPU time asked for over that there is (1.2)")
    one.add_argument("--policy", choices=[name for name, kind in POLICY_KINDS.items() if kind.baseline], default="easy")
    one.add_argument("--seed", type=int, default=1)
    one.add_argument("--growth", metavar="FILE", help="also a day of 100 to 100,000 nodes, with a plot")
    one.add_argument("--json", metavar="FILE")
    one.set_defaults(call=speed)
    two = commands.add_parser("density", help="nodes that fit under one budget, against planning at nameplate power")
    two.add_argument("--budget-kw", type=float, default=264.4)
    two.add_argument("--hours", type=float, default=12.0)
    two.add_argument("--load", type=float, default=0.7, help="GPU time asked for over that there is, per node (0.7)")
    two.add_argument("--misses", type=float, default=0.02)
    two.add_argument("--slack", type=float, default=2.0, help="deadline in durations after submission (2)")
    two.add_argument("--seeds", type=int, default=5)
    two.add_argument("--ours", default="powerhall")
    two.add_argument("--against", nargs="*", default=["tdp", "fcfs", "easy", "uniform", "lowcap", "density"])
    two.set_defaults(call=density)
    three = commands.add_parser("value", help="what planning is worth on the Philly trace")
    three.add_argument("--hours", type=float, default=168.0)
    three.add_argument("--start", help="begin of the window in the trace (its busiest)")
    three.add_argument("--nodes", type=int, default=312, help="nodes of 8 GPUs (312: as many GPUs as the cluster had)")
    three.add_argument("--budgets", type=float, nargs="*", default=[0.7, 0.8, 0.9], help="shares of the demand")
    three.add_argument("--cut", type=float, default=0.25, help="share that a curtailment takes (0.25)")
    three.add_argument("--policies", nargs="*", default=list(POLICY_KINDS))
    three.add_argument("--weather", default="USA_AZ_Phoenix-Sky.Harbor.epw.gz")
    three.add_argument("--prices", default="US-TEX-ERCO_2022_2023.csv.gz")
    three.set_defaults(call=value)
    four = commands.add_parser("curtailments", help="replays of curtailed afternoons; no limit may be exceeded")
    four.add_argument("--replays", type=int, default=10_000)
    four.add_argument("--first", type=int, default=0, help="first seed, to go on where a run ended (0)")
    four.add_argument("--ours", type=int, default=100, help="how many of them also under Powerhall's rounds (100)")
    four.add_argument("--solve-s", type=float, default=1.0)
    four.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    four.add_argument("--json", metavar="FILE")
    four.set_defaults(call=many_curtailments)
    five = commands.add_parser("scale", help="sweeps and prices on one and two Dask workers, also when one is killed")
    five.add_argument("--runs", type=int, default=64, help="runs of the sweep (64; 0: none)")
    five.add_argument("--nodes", type=int, default=2000)
    five.add_argument("--hours", type=float, default=24.0)
    five.add_argument("--price-jobs", type=int, default=300_000, help="jobs of the prices (300,000; 0: none)")
    five.add_argument("--price-sites", type=int, default=20)
    five.add_argument("--price-slots", type=int, default=72, help="slots of 5 min (72)")
    five.add_argument("--price-steps", type=int, default=20, help="evaluations (20)")
    five.add_argument("--json", metavar="FILE")
    five.set_defaults(call=scaled)
    for command in (two, three):
        command.add_argument("--round-s", type=float, default=1800.0)
        command.add_argument("--event-s", type=float, default=300.0, help="rounds also on events, so far apart (300)")
        command.add_argument("--solve-s", type=float, default=2.0)
        command.add_argument("--horizon-h", type=float, default=1.0, help="length of a plan (1); see docs/twin.md")
        command.add_argument("--json", metavar="FILE")
    args = parser.parse_args()
    return args.call(args)


if __name__ == "__main__":
    sys.exit(main())
