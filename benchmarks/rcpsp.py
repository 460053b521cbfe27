"""PSPLIB projects: Powerhall's RCPSP solver beside OR-Tools CP-SAT on a plain model, same time, same cores, same run.

The plain model is what OR-Tools' own examples write down: one interval for each task, one cumulative for each
resource, precedence, minimise the makespan, default parameters. Each side solves each instance once, one after the
other, never at the same time. Every schedule of either side is judged by `powerhall_optimizer.rcpsp.check`.

Instances are `.sm` files or `.tar.xz` archives of them in DIR. The CSV of best knowns has the columns `instance` and
`ub` at least (`lb` where known); names are compared in lower case.

    benchmarks/rcpsp.py --instances PSPLIB --best-known best_known.csv --seconds 60 --json rcpsp.json

Mean gap is (makespan - best known) / best known, over all instances run. With --state FILE a run that was cut off goes
on where it stopped. Exit codes: 0 done, 1 refused input or a schedule that fails the check, 2 usage.
"""

import argparse
import csv
import json
import os
import platform
import random
import sys
import tarfile
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numba
import ortools
from ortools.sat.python import cp_model

from powerhall.errors import PowerhallError, Rejected
from powerhall_optimizer.rcpsp import psplib
from powerhall_optimizer.rcpsp.check import broken_rules
from powerhall_optimizer.rcpsp.instance import Instance, Schedule
from powerhall_optimizer.rcpsp.solve import solve

QUICK_INSTANCES = 12


@dataclass(frozen=True, slots=True)
class Best:
    """The literature's bounds of one instance; `lower` is 0 where none is given."""

    upper: int
    lower: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one side reached on one instance; -1 as makespan means that it found no schedule."""

    makespan: int
    lower_bound: int
    seconds: float


def main() -> int:
    """Run the benchmark and return the exit code."""
    arguments = parser().parse_args()
    try:
        return run(arguments)
    except PowerhallError as error:
        print(error, file=sys.stderr)
        return 1


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    top = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    top.add_argument(
        "--instances", type=Path, required=True, metavar="DIR", help=".sm files or .tar.xz archives of them"
    )
    top.add_argument(
        "--best-known", type=Path, required=True, metavar="CSV", help="columns instance, ub and, if known, lb"
    )
    top.add_argument("--seconds", type=float, default=60.0, help="limit for each side on each instance (default 60)")
    top.add_argument("--workers", type=int, default=2, help="threads of each side (default 2)")
    top.add_argument("--seed", type=int, default=1, help="seed of both sides and of the sample (default 1)")
    top.add_argument("--sets", default="", help="only these sets, for example j30,j60 (default: all that are there)")
    top.add_argument(
        "--limit", type=int, default=0, metavar="N", help="only N instances, drawn evenly from the sets by the seed"
    )
    top.add_argument(
        "--quick", action="store_true", help=f"at most {QUICK_INSTANCES} instances and 5 s each, unless given smaller"
    )
    top.add_argument("--no-peer", action="store_true", help="leave out the plain CP-SAT model")
    top.add_argument("--state", type=Path, metavar="FILE", help="keep finished instances here and go on from it")
    top.add_argument("--json", type=Path, metavar="FILE", help="write the figures here")
    return top


def run(arguments: argparse.Namespace) -> int:
    """Solve what the arguments name, print the table, write the figures."""
    seconds, limit = arguments.seconds, arguments.limit
    if arguments.quick:
        seconds, limit = min(seconds, 5.0), min(limit or QUICK_INSTANCES, QUICK_INSTANCES)
    if seconds <= 0 or limit < 0 or arguments.workers < 1:
        raise Rejected.field(
            "command line", "--seconds, --limit, --workers", (seconds, limit, arguments.workers), "too small"
        )
    best = read_best_known(arguments.best_known)
    texts = chosen(arguments.instances, best, arguments.sets, limit, arguments.seed)
    conditions = {"seconds": seconds, "workers": arguments.workers, "seed": arguments.seed, **machine()}
    state = State(arguments.state, conditions)
    sides = ["powerhall"] if arguments.no_peer else ["powerhall", "peer"]
    warm_up(arguments.workers)
    for at, (name, text) in enumerate(sorted(texts.items(), key=lambda item: natural(item[0])), 1):
        for side in sides:
            if state.outcome(side, name) is None:
                state.keep(side, name, solved(side, psplib.parse(text, f"{name}.sm"), seconds, arguments))
        print(f"\r{at}/{len(texts)} {name:<12}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    figures = report(sorted(texts, key=natural), sides, best, state)
    print_table(figures, conditions)
    if arguments.json:
        arguments.json.write_text(
            json.dumps({**figures["all"], "sets": figures, "conditions": conditions}, indent=1) + "\n"
        )
    return 0


def read_best_known(path: Path) -> dict[str, Best]:
    """Read the bounds of the literature by lower-case instance name."""
    try:
        with path.open(newline="", encoding="utf-8") as lines:
            rows = list(csv.DictReader(lines))
    except OSError as error:
        raise Rejected.field(str(path), "file", path.name, f"cannot be read: {error.strerror}") from error
    if not rows or not {"instance", "ub"} <= set(rows[0]):
        raise Rejected.field(str(path), "columns", list(rows[0]) if rows else [], "must have instance and ub")
    found = {}
    for row in rows:
        try:
            found[key_of(row["instance"])] = Best(int(row["ub"]), int(row.get("lb") or 0))
        except ValueError:
            raise Rejected.field(str(path), f"ub, lb of {row['instance']}", row, "must be whole numbers") from None
    return found


def key_of(name: str) -> str:
    """`J301_1.sm`, `j301_1` and `dir/j301_1.SM` are the same instance."""
    lower = Path(name).name.lower()
    return lower.removesuffix(".sm")


def set_of(name: str) -> str:
    """The PSPLIB set of an instance: j30, j60, j90 or j120; other names are their own set `other`."""
    return next((known for known in ("j120", "j30", "j60", "j90") if name.startswith(known)), "other")


def natural(name: str) -> list[tuple[int, str]]:
    """Sort j30 before j120 and j301_2 before j301_10."""
    digits = "".join(char if char.isdigit() else " " for char in name).split()
    return [
        (int(set_of(name)[1:]) if set_of(name) != "other" else 0, ""),
        *((int(part), "") for part in digits),
        (0, name),
    ]


def texts_in(folder: Path) -> Iterator[tuple[str, str]]:
    """Yield name and text of every `.sm` file in the folder and in its `.tar.xz` archives."""
    if not folder.is_dir():
        raise Rejected.field("command line", "--instances", str(folder), "must be a folder")
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() == ".sm":
            yield key_of(path.name), path.read_text(encoding="ascii", errors="replace")
        elif path.name.endswith(".tar.xz"):
            with tarfile.open(path) as archive:
                for member in archive:
                    content = archive.extractfile(member) if member.name.lower().endswith(".sm") else None
                    if content is not None:
                        yield key_of(member.name), content.read().decode("ascii", errors="replace")


def chosen(folder: Path, best: dict[str, Best], sets: str, limit: int, seed: int) -> dict[str, str]:
    """Return the instances to run: those with a best known, of the named sets, an even sample where limited."""
    wanted = {name.strip().lower() for name in sets.split(",") if name.strip()}
    found = {name: text for name, text in texts_in(folder) if name in best and (not wanted or set_of(name) in wanted)}
    if not found:
        raise Rejected.field("command line", "--instances", str(folder), "holds no .sm file that --best-known lists")
    if not limit or limit >= len(found):
        return found
    groups = defaultdict(list)
    for name in sorted(found):
        groups[set_of(name)].append(name)
    draw = random.Random(seed)
    for names in groups.values():
        draw.shuffle(names)
    picked: list[str] = []
    while len(picked) < limit:
        for names in groups.values():
            if names and len(picked) < limit:
                picked.append(names.pop())
    return {name: found[name] for name in picked}


class State:
    """Outcomes so far, one JSON line each; a file of a run under other conditions is refused."""

    def __init__(self, path: Path | None, conditions: dict[str, object]) -> None:
        self._path = path
        self._outcomes: dict[tuple[str, str], Outcome] = {}
        if path is None:
            return
        if path.exists() and path.stat().st_size:
            lines = path.read_text(encoding="utf-8").split("\n")[:-1]
            head = json.loads(lines[0])
            if head != conditions:
                raise Rejected.field(str(path), "conditions", head, f"must equal this run's: {conditions}")
            for line in lines[1:]:
                row = json.loads(line)
                key = (row.pop("side"), row.pop("instance"))
                self._outcomes[key] = Outcome(**row)
        else:
            path.write_text(json.dumps(conditions) + "\n", encoding="utf-8")

    def outcome(self, side: str, name: str) -> Outcome | None:
        return self._outcomes.get((side, name))

    def keep(self, side: str, name: str, outcome: Outcome) -> None:
        self._outcomes[side, name] = outcome
        if self._path is not None:
            with self._path.open("a", encoding="utf-8") as lines:
                lines.write(json.dumps({"side": side, "instance": name, **asdict(outcome)}) + "\n")


def warm_up(workers: int) -> None:
    """Compile or load the compiled code before any clock runs."""
    two = Instance("warm-up", (2, 2, 2), ((), (), ()), ((1,), (1,), (1,)), (2,))
    solve(two, 1.0, workers=workers)


def solved(side: str, instance: Instance, seconds: float, arguments: argparse.Namespace) -> Outcome:
    """Let one side solve the instance and judge its schedule."""
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


def plain_cp_sat(instance: Instance, seconds: float, workers: int, seed: int) -> tuple[Schedule | None, int]:
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
    return Schedule(tuple(int(solver.value(start)) for start in starts)), lower


def report(names: list[str], sides: list[str], best: dict[str, Best], state: State) -> dict[str, dict]:
    """Return the figures of every set and of all together."""
    groups = defaultdict(list)
    for name in names:
        groups[set_of(name)].append(name)
    if len(groups) > 1 or "all" not in groups:
        groups["all"] = names
    figures = {}
    for group, members in groups.items():
        by_side = {side: side_figures({name: state.outcome(side, name) for name in members}, best) for side in sides}
        figures[group] = {**by_side["powerhall"], **({"peer": by_side["peer"]} if "peer" in by_side else {})}
    return figures


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
        sides = [("Powerhall", entry), *([("CP-SAT, plain model", entry["peer"])] if "peer" in entry else [])]
        for label, side in sides:
            gap = "-" if side["mean_gap"] is None else f"{side['mean_gap']:.3%}"
            print(
                f"{group:<6}{label:<22}{side['instances']:>10}{side['proved']:>8}{side['best_known_matched']:>9}"
                f"{len(side['best_known_beaten']):>8}{gap:>10}{side['seconds_total']:>8.0f} s"
            )


if __name__ == "__main__":
    sys.exit(main())
