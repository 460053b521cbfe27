"""PSPLIB projects: Powerhall's RCPSP solver beside OR-Tools CP-SAT on a plain model, same time, same cores, same run.

The plain model is that of the OR-Tools examples: one interval for each task, one cumulative for each
resource, precedence, minimise the makespan, default parameters. Each side solves each instance once, one after the
other, never at the same time. Every schedule of either side is checked by `powerhall_optimizer.rcpsp.feasibility`.

Instances are `.sm` files or `.tar.xz` archives of them in DIR. The CSV of best known makespans has at
least the columns `instance` and `ub` (`lb` where known); names are compared in lower case. With
--quick and no instances nothing is run.

    benchmarks/rcpsp.py --instances PSPLIB --best-known best_known.csv --seconds 60 --json rcpsp.json
    benchmarks/rcpsp.py ... --json rcpsp.json --resume                      go on with a run that was cut off
    benchmarks/rcpsp.py ... --sets j120 --sample 60 --plot gaps.svg         one instance of each of the 60 groups

Mean gap is (makespan - best known) / best known, over all instances finished. The file of --json is written anew after
every instance, so a run may be killed at any time; --resume takes the finished instances from it. Both --limit and
--sample draw evenly over the groups of a set (j605_* is one group: the same generator parameters), by the seed.

Exit codes: 0 done (or stopped by --stop-after), 1 refused input or a schedule that fails the check, 2 wrong usage.
"""

import argparse
import json
import os
import platform
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numba
import ortools
from ortools.sat.python import cp_model

from powerhall.runtime.errors import PowerhallError, Rejected
from powerhall_optimizer.commands.rcpsp import count, positive
from powerhall_optimizer.rcpsp.feasibility import broken_rules
from powerhall_optimizer.rcpsp.instance import Instance, ProjectSchedule
from powerhall_optimizer.rcpsp.portfolio import solve

sys.path.insert(0, str(Path(__file__).parent))
from rcpsp_files import Best, chosen, read_best_known, set_of
from rcpsp_plot import write_plot

QUICK_INSTANCES = 12
LABELS = {"powerhall": "Powerhall", "peer": "CP-SAT, plain model"}


@dataclass(frozen=True, slots=True)
class Outcome:
    """Result of one side on one instance; a makespan of -1 means that it found no schedule."""

    makespan: int
    lower_bound: int
    seconds: float

    def told(self, best: Best) -> str:
        """One progress line."""
        if self.makespan < 0:
            return f"no schedule, {self.seconds:.1f} s"
        proved = "proved" if self.makespan == self.lower_bound else f"bound {self.lower_bound}"
        return f"{self.makespan} (best known {best.upper}), {proved}, {self.seconds:.1f} s"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark and return the exit code."""
    top = parser()
    arguments = top.parse_args(argv)
    if arguments.quick and not arguments.instances and not arguments.best_known:
        print("rcpsp: skipped, PSPLIB is not part of this project: give --instances DIR --best-known CSV")
        return 0
    if not arguments.instances or not arguments.best_known:
        top.error("--instances DIR and --best-known CSV are required")
    if arguments.resume and not arguments.json:
        top.error("--resume needs --json FILE to go on with")
    try:
        return run(arguments)
    except PowerhallError as error:
        print(error, file=sys.stderr)
        return 1


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    top = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    top.add_argument("--instances", type=Path, metavar="DIR", help=".sm files or .tar.xz archives of them (required)")
    top.add_argument("--best-known", type=Path, metavar="CSV", help="columns instance, ub and, if known, lb (required)")
    top.add_argument("--seconds", type=positive, default=60.0, help="limit for each side on each instance (default 60)")
    top.add_argument("--workers", type=count, default=2, help="threads of each side (default 2)")
    top.add_argument("--seed", type=int, default=1, help="seed of both sides and of the sample (default 1)")
    top.add_argument("--sets", default="", help="only these sets, for example j30,j60 (default: all that are there)")
    top.add_argument("--limit", type=count, default=0, metavar="N", help="only N instances, evenly from all sets")
    top.add_argument("--sample", type=count, default=0, metavar="N", help="only N instances of each set")
    top.add_argument(
        "--quick", action="store_true", help=f"at most {QUICK_INSTANCES} instances and 5 s each, unless given smaller"
    )
    top.add_argument("--no-peer", action="store_true", help="leave out the plain CP-SAT model")
    top.add_argument("--json", type=Path, metavar="FILE", help="write the figures here, anew after every instance")
    top.add_argument("--resume", action="store_true", help="go on with the finished instances in the file of --json")
    top.add_argument(
        "--stop-after", type=positive, metavar="SECONDS", help="begin no further instance after this long; see --resume"
    )
    top.add_argument("--plot", type=Path, metavar="SVG", help="draw the share of instances within each gap, by set")
    return top


def run(arguments: argparse.Namespace) -> int:
    """Solve the named instances, print the table, write the figures."""
    seconds, limit = arguments.seconds, arguments.limit
    if arguments.quick:
        seconds, limit = min(seconds, 5.0), min(limit or QUICK_INSTANCES, QUICK_INSTANCES)
    best = read_best_known(arguments.best_known)
    instances = chosen(arguments, best, limit)
    conditions = {"seconds": seconds, "workers": arguments.workers, "seed": arguments.seed, **machine()}
    state = State(conditions, arguments.json if arguments.resume else None)
    sides = ["powerhall"] if arguments.no_peer else ["powerhall", "peer"]
    warm_up(arguments.workers)
    finished = solve_all(instances, sides, state, arguments, best)
    figures = report(instances, sides, best, state)
    if arguments.plot:
        write_plot(arguments.plot, curves_of(instances, sides, best, state))
    print_table(figures, conditions)
    if not finished:
        print(f"stopped after {arguments.stop_after:.0f} s; go on with --resume")
    return 0


def solve_all(
    instances: dict[str, Instance],
    sides: list[str],
    state: "State",
    arguments: argparse.Namespace,
    best: dict[str, Best],
) -> bool:
    """Solve the unfinished instances one by one; return whether all is finished."""
    begin = time.monotonic()
    for at, (name, instance) in enumerate(instances.items(), 1):
        for side in sides:
            if state.outcome(side, name) is not None:
                continue
            if arguments.stop_after and time.monotonic() - begin >= arguments.stop_after:
                return False
            outcome = solved(side, instance, state.seconds, arguments)
            state.keep(side, name, outcome)
            print(f"{at}/{len(instances)} {name} {side}: {outcome.told(best[name])}", file=sys.stderr, flush=True)
            if arguments.json:
                write_json(arguments.json, report(instances, sides, best, state), state)
    if arguments.json:
        write_json(arguments.json, report(instances, sides, best, state), state)
    return True


def write_json(path: Path, figures: dict[str, dict], state: "State") -> None:
    """Replace the file in one step, so that a kill leaves the old one or the new one."""
    content = {**figures["all"], "sets": figures, "conditions": state.conditions, "outcomes": state.rows()}
    part = path.with_name(path.name + ".part")
    try:
        part.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        part.replace(path)
    except OSError as error:
        raise Rejected.field("command line", "--json", str(path), f"cannot be written: {error.strerror}") from error


class State:
    """Outcomes so far; the file of a run under other conditions is refused."""

    def __init__(self, conditions: dict[str, object], path: Path | None) -> None:
        self.conditions = conditions
        self.seconds = float(str(conditions["seconds"]))
        self._outcomes: dict[tuple[str, str], Outcome] = {}
        if path is None or not path.exists():
            return
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            before, rows = content["conditions"], content["outcomes"]
            self._outcomes = {(row.pop("side"), row.pop("instance")): Outcome(**row) for row in rows}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise Rejected.field(str(path), "file", path.name, "must be a file that this benchmark wrote") from error
        for key, value in conditions.items():
            if before.get(key) != value:
                raise Rejected.field(
                    str(path), f"conditions: {key}", before.get(key), f"must equal this run's {value!r}"
                )

    def outcome(self, side: str, name: str) -> Outcome | None:
        return self._outcomes.get((side, name))

    def keep(self, side: str, name: str, outcome: Outcome) -> None:
        self._outcomes[side, name] = outcome

    def rows(self) -> list[dict[str, object]]:
        return [{"side": side, "instance": name, **asdict(outcome)} for (side, name), outcome in self._outcomes.items()]


def warm_up(workers: int) -> None:
    """Compile or load the compiled code before any clock runs."""
    two = Instance("warm-up", (2, 2, 2), ((), (), ()), ((1,), (1,), (1,)), (2,))
    solve(two, 1.0, workers=workers)


def solved(side: str, instance: Instance, seconds: float, arguments: argparse.Namespace) -> Outcome:
    """Solve the instance by one side and check its schedule."""
    begin = time.monotonic()
    if side == "powerhall":
        result = solve(instance, seconds, workers=arguments.workers, seed=arguments.seed)
        schedule, lower = result.schedule, result.lower_bound
    else:
        schedule, lower = plain_cp_sat(instance, seconds, arguments.workers, arguments.seed)
    spent = time.monotonic() - begin
    if schedule is None:
        return Outcome(-1, lower, spent)
    broken = broken_rules(instance, schedule)
    if broken:
        raise PowerhallError(f"{instance.name}: schedule of {side} is not valid: {broken[0]}")
    return Outcome(schedule.makespan(instance.durations), lower, spent)


def plain_cp_sat(instance: Instance, seconds: float, workers: int, seed: int) -> tuple[ProjectSchedule | None, int]:
    """The peer: CP-SAT with default parameters on the textbook model."""
    model = cp_model.CpModel()
    horizon = sum(instance.durations)
    starts = [model.new_int_var(0, horizon, f"start_{task}") for task in range(instance.size)]
    tasks = [
        model.new_fixed_size_interval_var(start, duration, f"task_{at}")
        for at, (start, duration) in enumerate(zip(starts, instance.durations, strict=True))
    ]
    for task, following in enumerate(instance.successors):
        for other in following:
            model.add(starts[other] >= starts[task] + instance.durations[task])
    for resource, capacity in enumerate(instance.capacities):
        model.add_cumulative(tasks, [demands[resource] for demands in instance.demands], capacity)
    makespan = model.new_int_var(0, horizon, "makespan")
    model.add_max_equality(
        makespan, [start + duration for start, duration in zip(starts, instance.durations, strict=True)]
    )
    model.minimize(makespan)
    solver = cp_model.CpSolver()
    solver.parameters.max_time_in_seconds = seconds
    solver.parameters.num_workers = workers
    solver.parameters.random_seed = seed
    status = solver.solve(model)
    lower = max(0, int(-(-solver.best_objective_bound // 1)))
    if status not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        return None, lower
    return ProjectSchedule(tuple(int(solver.value(start)) for start in starts)), lower


def report(names: Iterable[str], sides: list[str], best: dict[str, Best], state: State) -> dict[str, dict]:
    """Return the figures of every set and of all together."""
    groups = defaultdict(list)
    for name in names:
        groups[set_of(name)].append(name)
    groups["all"] = list(names)
    figures = {}
    for group, members in groups.items():
        by_side = {side: side_figures(finished_of(state, side, members), best) for side in sides}
        figures[group] = {**by_side["powerhall"], **({"peer": by_side["peer"]} if "peer" in by_side else {})}
    return figures


def finished_of(state: State, side: str, names: list[str]) -> dict[str, Outcome]:
    """Return the outcomes that the run has so far."""
    return {name: outcome for name in names if (outcome := state.outcome(side, name)) is not None}


def side_figures(outcomes: dict[str, Outcome], best: dict[str, Best]) -> dict[str, object]:
    """Count and average one side; an instance without a schedule counts as unmatched and is left out of the mean."""
    have = {name: outcome for name, outcome in outcomes.items() if outcome.makespan >= 0}
    for name, outcome in have.items():
        if outcome.lower_bound > best[name].upper or outcome.makespan < best[name].lower:
            raise PowerhallError(f"{name}: {outcome} contradicts the best known bounds {best[name]}")
    gaps = [(outcome.makespan - best[name].upper) / best[name].upper for name, outcome in have.items()]
    return {
        "instances": len(outcomes),
        "proved": sum(outcome.makespan == outcome.lower_bound for outcome in have.values()),
        "best_known_matched": sum(outcome.makespan <= best[name].upper for name, outcome in have.items()),
        "best_known_beaten": sorted(name for name, outcome in have.items() if outcome.makespan < best[name].upper),
        "mean_gap": sum(gaps) / len(gaps) if gaps else None,
        "without_schedule": len(outcomes) - len(have),
        "seconds_total": round(sum(outcome.seconds for outcome in outcomes.values()), 1),
    }


def curves_of(
    names: Iterable[str], sides: list[str], best: dict[str, Best], state: State
) -> list[tuple[str, list[float], bool]]:
    """Return the gaps in percent of every set and side for the plot; the peer is dashed."""
    curves = []
    for group in dict.fromkeys(set_of(name) for name in names):
        for side in ("powerhall", "peer"):
            outcomes = finished_of(state, side, [name for name in names if set_of(name) == group])
            gaps = [
                100 * (outcome.makespan / best[name].upper - 1)
                for name, outcome in outcomes.items()
                if outcome.makespan >= 0 and side in sides
            ]
            curves.append((f"{group} {LABELS[side]}", gaps, side == "peer"))
    return [curve for curve in curves if "peer" in sides or not curve[2]]


def machine() -> dict[str, object]:
    """Name the machine and the versions."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [
            line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")
        ]
        model = names[0] if names else model
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "ortools": ortools.__version__,
        "numba": numba.__version__,
    }


def print_table(figures: dict[str, dict], conditions: dict[str, object]) -> None:
    """Print the one table."""
    print(", ".join(f"{key} {value}" for key, value in conditions.items()))
    print(
        f"{'set':<6}{'solver':<22}{'instances':>10}{'proved':>8}{'matched':>9}{'beaten':>8}{'mean gap':>10}{'time':>10}"
    )
    for group, entry in figures.items():
        sides = [(LABELS["powerhall"], entry), *([(LABELS["peer"], entry["peer"])] if "peer" in entry else [])]
        for label, side in sides:
            gap = "-" if side["mean_gap"] is None else f"{side['mean_gap']:.3%}"
            print(
                f"{group:<6}{label:<22}{side['instances']:>10}{side['proved']:>8}{side['best_known_matched']:>9}"
                f"{len(side['best_known_beaten']):>8}{gap:>10}{side['seconds_total']:>8.0f} s"
            )


if __name__ == "__main__":
    sys.exit(main())
