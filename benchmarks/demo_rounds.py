"""Rounds of the demo's day in a closed loop: gap and changes of each, work done by the site, beside plans made freely.

The day is the demo's: its site, jobs, weather and prices, and a curtailment announced ten minutes ahead. Work is
counted; with `--patience` deadlines are so many times later, so that a busy machine gives the plans of an idle one.

    python benchmarks/demo_rounds.py --patience 10 --json demo.json
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path

import msgspec

from powerhall.forecasts.csv_series import PRICES, read_forecast
from powerhall.jobs.model import Job
from powerhall.physics.weather_files import read_weather
from powerhall.plan.plan import Plan, Snapshot
from powerhall.site.index import SiteIndex
from powerhall.site.site_file import read_site
from powerhall.site.topology import Site
from powerhall.timeseries import Series, parse_time
from powerhall_optimizer.inputs.round_settings import RoundSettings
from powerhall_twin.demo.demo import HORIZON_S, START
from powerhall_twin.demo.demo_result import Curtailment, DemoSettings
from powerhall_twin.engine.sim_state import SimState
from powerhall_twin.engine.simulate import simulate
from powerhall_twin.jobs.generator import generate
from powerhall_twin.policies.planned_rounds import PlannedRounds
from powerhall_twin.policies.policy import RoundTiming
from powerhall_twin.site.scenario import Scenario


@dataclass(slots=True)
class DemoRounds(PlannedRounds):
    """Rounds that learn of the curtailment when it is announced, and plan at once then."""

    cut: Curtailment | None = None
    uncut: Site | None = None
    rows: list[dict[str, object]] = field(default_factory=list)

    def decide(self, state: SimState) -> None:
        """Run a round when one is due, or when the curtailment is announced."""
        assert self.cut is not None
        if self.last_s < self.cut.announced_s <= state.now_s:
            self.next_s = state.now_s
        before = self.runner.plan
        PlannedRounds.decide(self, state)
        if self.runner.plan is not None and self.runner.plan is not before:
            self._note(self.runner.plan)

    def snapshot(self, site: Site, jobs: tuple[Job, ...], now_s: float) -> Snapshot:
        """Return the input of a round; before the announcement it has the whole budget."""
        assert self.cut is not None
        known = site if self.uncut is None or now_s >= self.cut.announced_s else self.uncut
        return PlannedRounds.snapshot(self, known, jobs, now_s)

    def _note(self, plan: Plan) -> None:
        changes = plan.changes
        self.rows.append(
            {
                "start_s": plan.snapshot.start_s,
                "jobs": len(plan.snapshot.jobs),
                "gap": plan.gap,
                "solve_s": plan.solve_s,
                "decisions": changes.decisions if changes else 0,
                "changed": changes.changed if changes else 0,
                "near_changed": changes.forced if changes else 0,
                "cut_short": plan.cut_short,
            }
        )
        print(" ".join(f"{key}={value}" for key, value in self.rows[-1].items()), flush=True)


def main() -> int:
    """Run the day and print a row for each round."""
    args = _arguments()
    scenario, site, cut = _scenario(args)
    settings = RoundSettings(target_gap=args.target_gap, work_rate=0.85 / args.patience)
    if args.free:
        settings = msgspec.structs.replace(settings, keep_s=0.0, move_gain=0.0)
    timing = RoundTiming(1800.0, HORIZON_S, args.seconds * args.patience)
    rounds = DemoRounds(scenario, timing, settings, cut=cut, uncut=site)
    outcome = simulate(scenario, rounds, "ours", tick_s=60.0)
    gaps = [float(str(row["gap"])) for row in rounds.rows]
    out = {
        "gap_median": statistics.median(gaps),
        "gap_worst": max(gaps),
        "changed_share": sum(int(str(row["changed"])) for row in rounds.rows)
        / max(1, sum(int(str(row["decisions"])) for row in rounds.rows)),
        "gpu_h": outcome.work_gpu_s / 3600,
        "weighted_gpu_h": outcome.weighted_work / 3600,
        "over_budget_s": outcome.over_budget_s,
        "free": args.free,
        "seconds": args.seconds,
        "patience": args.patience,
        "load": os.getloadavg()[0],
        "rounds": rounds.rows,
    }
    print(
        f"{len(gaps)} rounds: gap median {out['gap_median']:.2%}, worst {out['gap_worst']:.2%}, "
        f"{out['changed_share']:.0%} of decisions changed; {out['gpu_h']:.0f} GPU h, "
        f"{out['weighted_gpu_h']:.0f} weighted, over a budget for {out['over_budget_s']:.0f} s; load {out['load']:.1f}"
    )
    if args.json:
        Path(args.json).write_text(json.dumps(out, indent=1) + "\n")
    return 0 if outcome.over_budget_s == 0 else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=float, default=8.0, help="length of the day (default: 8)")
    parser.add_argument("--seconds", type=float, default=3.0, help="time of each round (default: 3, as the demo's)")
    parser.add_argument("--patience", type=float, default=1.0, help="deadlines so many times later, for the same work")
    parser.add_argument("--target-gap", type=float, default=0.02, help="as the demo's (default: 0.02)")
    parser.add_argument("--free", action="store_true", help="plan each round without regard to the one before")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="one hour, the curtailment in it")
    parser.add_argument("--json", metavar="FILE")
    args = parser.parse_args()
    if args.quick:
        args.hours = 1.0
    return args


def _scenario(args: argparse.Namespace) -> tuple[Scenario, Site, Curtailment]:
    """Return the demo's day with its curtailment, the site as it is known before that, and the curtailment."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for entry in resources.files("powerhall_twin.demo").joinpath("demo_site").iterdir():
            (folder / entry.name).write_bytes(entry.read_bytes())
        site, planning = read_site(folder / "site.toml")
        start_s, length_s = parse_time(START), args.hours * 3600.0
        weather = read_weather(planning.weather, start_s, start_s + length_s)
        prices = read_forecast(planning.prices, PRICES).series
    jobs = generate(site, start_s, max(length_s, 6 * 3600.0), seed=args.seed)
    cut = Curtailment.half_way(start_s, length_s, DemoSettings(Path("unused")).cut)
    full_w = SiteIndex.of(site).budgets_at(start_s)[site.name]
    budget = Series((0.0, cut.start_s, cut.end_s), (full_w, full_w * (1 - cut.cut), full_w))
    known = msgspec.structs.replace(site, budgets={**site.budgets, site.name: budget})
    scenario = Scenario(known, jobs, start_s, start_s + length_s, weather.dry_bulb, weather.wet_bulb, prices)
    uncut = msgspec.structs.replace(site, budgets={**site.budgets, site.name: Series((0.0,), (full_w,))})
    return scenario, uncut, cut


if __name__ == "__main__":
    sys.exit(main())
