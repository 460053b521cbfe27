"""The solver's schedules are valid, its lower bounds are true, and small projects are solved to the optimum."""

import csv
import itertools
import json
import os
import tarfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from powerhall.runtime.errors import PowerhallError
from powerhall_optimizer import cli
from powerhall_optimizer.rcpsp import lower_bounds, psplib
from powerhall_optimizer.rcpsp.feasibility import broken_rules
from powerhall_optimizer.rcpsp.genetic_search import Population
from powerhall_optimizer.rcpsp.instance import Instance, ProjectSchedule, reversed_in_time
from powerhall_optimizer.rcpsp.makespan_model import MakespanModel, ProgressListener
from powerhall_optimizer.rcpsp.portfolio import solve
from powerhall_optimizer.rcpsp.project_arrays import arrays_of, mirror_of

DATA = Path(os.environ.get("POWERHALL_DATA", Path(__file__).parents[4] / "shared" / "data")) / "psplib"


@st.composite
def projects(draw: st.DrawFn, most: int = 12) -> Instance:
    size = draw(st.integers(1, most))
    resources = draw(st.integers(1, 2))
    capacities = tuple(draw(st.lists(st.integers(1, 6), min_size=resources, max_size=resources)))
    durations = tuple(draw(st.lists(st.integers(0, 5), min_size=size, max_size=size)))
    demands = tuple(tuple(draw(st.integers(0, capacity)) for capacity in capacities) for _ in range(size))
    pairs = list(itertools.combinations(range(size), 2))
    edges = set(draw(st.lists(st.sampled_from(pairs), max_size=size))) if pairs else set()
    names = draw(st.permutations(range(size)))
    successors: list[list[int]] = [[] for _ in range(size)]
    for one, other in edges:
        successors[names[one]].append(names[other])
    return Instance("drawn", durations, tuple(tuple(s) for s in successors), demands, capacities)


def shortest(instance: Instance) -> int:
    """Optimum by trying every order: serial generation over all task orders contains an optimal schedule."""
    best = sum(instance.durations)
    for order in itertools.permutations(range(instance.size)):
        starts: dict[int, int] = {}
        for task in order:
            before = [other for other in range(instance.size) if task in instance.successors[other]]
            if any(other not in starts for other in before):
                break
            start = max((starts[other] + instance.durations[other] for other in before), default=0)
            while not fits(instance, starts, task, start):
                start += 1
            starts[task] = start
        else:
            best = min(
                best, ProjectSchedule(tuple(starts[task] for task in range(instance.size))).makespan(instance.durations)
            )
    return best


def fits(instance: Instance, starts: dict[int, int], task: int, start: int) -> bool:
    for time in range(start, start + instance.durations[task]):
        active = [other for other, begun in starts.items() if begun <= time < begun + instance.durations[other]]
        for resource, capacity in enumerate(instance.capacities):
            if sum(instance.demands[other][resource] for other in [*active, task]) > capacity:
                return False
    return True


@settings(max_examples=15)
@given(projects(most=6))
def test_small_projects_are_solved_to_the_optimum_found_by_trying_every_order(instance: Instance) -> None:
    result = solve(instance, 5.0, workers=2, seed=3)
    assert result.proved
    assert result.makespan == result.lower_bound == shortest(instance)
    assert broken_rules(instance, result.schedule) == []


@settings(max_examples=60)
@given(projects(most=25), st.integers(0, 2**31))
def test_every_bred_schedule_is_valid_and_no_simple_bound_is_above_it(instance: Instance, seed: int) -> None:
    arrays = arrays_of(instance)
    population = Population(arrays, seed, capacity=10)
    lower = max(lower_bounds.critical_path(arrays), lower_bounds.resource_work(arrays))
    for _ in range(5):
        schedule = population.breed(20, 0)
        assert broken_rules(instance, schedule) == []
        assert schedule.makespan(instance.durations) >= lower


@given(projects(most=15))
def test_a_project_mirrored_twice_is_the_project(instance: Instance) -> None:
    arrays = arrays_of(instance)
    for field, there, back in zip(arrays._fields, arrays, mirror_of(mirror_of(arrays)), strict=True):
        assert (there == back).all(), field


def test_the_resource_bound_counts_heads_and_tails() -> None:
    chain = Instance("chain", (3, 4, 4, 2), ((1, 2), (3,), (3,), ()), ((0,), (2,), (2,), (0,)), (3,))
    arrays = arrays_of(chain)
    assert lower_bounds.critical_path(arrays) == 9
    assert lower_bounds.resource_work(arrays) == 3 + 6 + 2
    assert solve(chain, 10.0).makespan == 13


class Heard:
    """Keeps the reports of a solve."""

    def __init__(self) -> None:
        self.lower = 0
        self.schedules: list[ProjectSchedule] = []

    def bound(self, lower: int) -> None:
        self.lower = max(self.lower, lower)

    def schedule(self, schedule: ProjectSchedule) -> None:
        self.schedules.append(schedule)


@pytest.mark.parametrize("workers", [1, 2])
def test_the_exact_solve_of_a_project_and_of_its_mirror_agree_on_the_optimum(workers: int) -> None:
    instance = psplib.parse(HARD, "hard.sm")
    arrays = arrays_of(instance)
    optimum = solve(instance, 30.0).makespan
    for side in (arrays, mirror_of(arrays)):
        found, refuted = Heard(), Heard()
        MakespanModel(side, 0, optimum + 3, climb=True).solve(30.0, workers, 1, found)
        assert min(schedule.makespan(instance.durations) for schedule in found.schedules) == found.lower == optimum
        MakespanModel(side, 0, optimum, climb=True).solve(30.0, workers, 1, refuted)
        assert (refuted.lower, refuted.schedules) == (optimum, [])


def test_the_exact_solve_decides_whether_one_makespan_can_be_reached() -> None:
    instance = psplib.parse(HARD, "hard.sm")
    optimum = solve(instance, 30.0).makespan
    arrays = arrays_of(instance)
    for side in (arrays, mirror_of(arrays)):
        reached, refuted = Heard(), Heard()
        MakespanModel(side, 0, optimum + 1, climb=False).solve(30.0, 1, 1, reached)
        assert [schedule.makespan(instance.durations) for schedule in reached.schedules] == [optimum]
        assert reached.lower == 0
        MakespanModel(side, 0, optimum, climb=False).solve(30.0, 1, 1, refuted)
        assert (refuted.lower, refuted.schedules) == (optimum, [])


def test_a_schedule_of_the_mirror_reversed_is_one_of_the_project() -> None:
    instance = psplib.parse(HARD, "hard.sm")
    arrays = arrays_of(instance)
    lower = max(lower_bounds.critical_path(arrays), lower_bounds.resource_work(arrays))
    backwards = Population(mirror_of(arrays), seed=1, capacity=20).breed(300, lower)
    turned = reversed_in_time(backwards, instance.durations)
    assert broken_rules(instance, turned) == []
    assert broken_rules(instance, backwards) != []
    assert turned.makespan(instance.durations) == backwards.makespan(instance.durations)


def test_the_same_seed_breeds_the_same_schedule() -> None:
    instance = psplib.parse(HARD, "hard.sm")
    runs = [Population(arrays_of(instance), seed=7, capacity=20).breed(300, 0) for _ in range(2)]
    assert runs[0] == runs[1]


def test_one_worker_and_a_tiny_limit_still_give_a_checked_schedule() -> None:
    instance = psplib.parse(HARD, "hard.sm")
    result = solve(instance, 0.05, workers=1)
    assert broken_rules(instance, result.schedule) == []
    assert result.lower_bound <= result.makespan


def test_the_command_prints_json_with_a_valid_schedule(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "hard.sm"
    path.write_text(HARD)
    assert cli.main(["rcpsp", str(path), "--seconds", "10", "--seed", "2", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    instance = psplib.parse(HARD, "hard.sm")
    schedule = ProjectSchedule(tuple(answer["starts"]))
    assert broken_rules(instance, schedule) == []
    assert answer["makespan"] == schedule.makespan(instance.durations)
    assert answer["proved"] is (answer["lower_bound"] == answer["makespan"])


def test_the_command_refuses_a_damaged_file_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "bad.sm"
    path.write_text("hello")
    assert cli.main(["rcpsp", str(path)]) == 1
    assert "bad.sm" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--seconds=0", "--seconds=x", "--workers=0", "--workers=two"])
def test_the_command_names_a_wrong_option(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["rcpsp", "any.sm", option]) == 1, "a refused value, as on every command"
    assert "must be" in capsys.readouterr().err


def published(name: str) -> tuple[Instance, int]:
    """A project of PSPLIB and its best known makespan."""
    if not DATA.is_dir():
        pytest.skip("PSPLIB data absent: set POWERHALL_DATA")
    group = name[:3]
    with tarfile.open(DATA / f"{group}_dev.tar.xz") as archive, (DATA / "best_known_dev.csv").open() as lines:
        member = archive.extractfile(f"{name}.sm")
        assert member is not None
        best = next(int(row["ub"]) for row in csv.DictReader(lines) if row["instance"] == name)
        return psplib.parse(member.read().decode(), f"{name}.sm"), best


@pytest.mark.parametrize("name", ["j301_1", "j305_3", "j3017_2"])
def test_real_j30_projects_are_proved_at_the_best_known_makespan(name: str) -> None:
    instance, best = published(name)
    result = solve(instance, 60.0)
    assert broken_rules(instance, result.schedule) == []
    assert (result.makespan, result.lower_bound) == (best, best)


def test_a_climb_proves_no_bound_above_the_optimum() -> None:
    instance, best = published("j6037_3")
    for seed in range(60):
        heard = Heard()
        MakespanModel(mirror_of(arrays_of(instance)), best - 2, best + 3, climb=True).solve(10.0, 1, seed, heard)
        assert heard.lower <= best, f"seed {seed}: {best} is reachable, and was refuted"


def test_a_schedule_below_a_refuted_makespan_is_an_error_and_not_a_result(monkeypatch: pytest.MonkeyPatch) -> None:
    instance = psplib.parse(HARD, "hard.sm")
    shortest = solve(instance, 30.0).schedule
    one_by_one = ProjectSchedule(tuple(itertools.accumulate(instance.durations, initial=0))[:-1])
    monkeypatch.setattr(Population, "breed", lambda *_: one_by_one)

    def refute_what_is_found_next(
        self: MakespanModel, seconds: float, workers: int, seed: int, report: ProgressListener
    ) -> None:
        report.bound(one_by_one.makespan(instance.durations))
        report.schedule(shortest)

    monkeypatch.setattr(MakespanModel, "solve", refute_what_is_found_next)
    with pytest.raises(PowerhallError, match=r"hard: a schedule of .* though CP-SAT refuted all below"):
        solve(instance, 5.0, workers=1)


def _written(tasks: int) -> str:
    """A project of our own: a layered net, three resources, numbers by a fixed rule."""
    layers = [list(range(1 + 4 * at, min(1 + 4 * at + 4, tasks - 1))) for at in range((tasks - 2 + 3) // 4)]
    successors: dict[int, list[int]] = {0: layers[0], tasks - 1: []}
    for layer, following in itertools.zip_longest(layers, layers[1:], fillvalue=[tasks - 1]):
        for at, task in enumerate(layer):
            successors[task] = sorted({following[at % len(following)], following[(3 * at + 1) % len(following)]})
    lines = [
        f"jobs (incl. supersource/sink ):  {tasks}",
        "  - renewable                 :  3   R",
        "PRECEDENCE RELATIONS:",
    ]
    lines += [
        " ".join(str(number) for number in (task + 1, 1, len(successors[task]), *(s + 1 for s in successors[task])))
        for task in range(tasks)
    ]
    lines += ["*" * 72, "REQUESTS/DURATIONS:"]
    for task in range(tasks):
        busy = 0 if task in (0, tasks - 1) else 1
        numbers = (busy * (1 + task * 7 % 9), *(busy * (task * factor % 8) for factor in (3, 5, 7)))
        lines.append(" ".join(str(number) for number in (task + 1, 1, *numbers)))
    return "\n".join([*lines, "*" * 72, "RESOURCEAVAILABILITIES:", "9 10 11", "*" * 72, ""])


HARD = _written(26)
