"""The coarse grid is on the safe side of the fine one, decides far starts on long slots, and gives no false bound."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from powerhall.jobs import Job
from powerhall.plan.plan import Snapshot
from powerhall.runtime.errors import Rejected
from powerhall.runtime.log import Log
from powerhall_optimizer.inputs.round_settings import RoundSettings, read_settings
from powerhall_optimizer.planning import planner
from powerhall_optimizer.problem.arrays import Problem, Schedule
from powerhall_optimizer.problem.builder import ProblemBuilder
from powerhall_optimizer.problem.schedule_check import check_schedule, exact_bound, exact_value
from powerhall_optimizer.solve import coarse_grid as grid
from powerhall_optimizer.solve.pipeline import solve
from powerhall_optimizer.verify.plan import verify_plan

PAIRS = ((7200.0, 900.0), (43_200.0, 3600.0))
LEVELS = (grid.Level(24, 6), grid.Level(6, 3))


def some_problem(seed: int, jobs: int = 12, slots: int = 40) -> Problem:
    """One hall with nodes and watts that change from slot to slot, jobs with all terms of the value."""
    rng = np.random.default_rng(seed)
    builder = ProblemBuilder(slots=slots)
    nodes = builder.resource("h.nodes", int(rng.integers(4, 9)))
    watts = builder.resource("h.it_w", rng.integers(5, 60, slots))
    tariff = builder.tariff(rng.integers(0, 5, slots))
    for number in range(jobs):
        size = int(rng.integers(1, 4))
        job = builder.job(
            f"j{number}",
            delay_cost=int(rng.integers(0, 4)),
            deadline=int(rng.integers(3, slots)),
            late_cost=int(rng.integers(0, 9)),
            late_fine=int(rng.integers(0, 60)),
            planned_start=int(rng.integers(-1, slots)),
            shift_cost=int(rng.integers(0, 3)),
        )
        for mode, (power, slow) in enumerate(((10, 1.0), (7, 1.3))):
            builder.option(
                job,
                ("h", f"m{mode}"),
                duration=max(1, round(int(rng.integers(1, slots)) * slow)),
                uses={nodes: size, watts: size * power},
                rate=int(rng.integers(5, 60)) * size,
                earliest=int(rng.integers(0, slots // 2)),
                latest=slots - 1,
                tariff=tariff,
                energy=size * power // 5,
            )
    return builder.build()


def random_schedule(problem: Problem, rng: np.random.Generator) -> Schedule:
    """Any decisions within their windows, whether they fit together or not."""
    schedule = Schedule.empty(problem.jobs)
    for job in range(problem.jobs):
        options = problem.options_of(job)
        if len(options) and rng.random() < 0.7:
            option = int(rng.choice(options))
            schedule.option[job] = option
            schedule.start[job] = rng.integers(problem.option_earliest[option], problem.option_latest[option] + 1)
    return schedule


@settings(max_examples=100, suppress_health_check=list(HealthCheck), derandomize=True)
@given(seed=st.integers(0, 1 << 30), factor=st.integers(2, 13), slots=st.integers(13, 60))
def test_limits_held_on_the_coarse_grid_hold_on_the_fine_one(seed: int, factor: int, slots: int) -> None:
    problem = some_problem(seed, slots=slots)
    coarse = grid.coarsen(problem, factor)
    coarse.problem.check()
    schedule = random_schedule(coarse.problem, np.random.default_rng(seed))
    fine = coarse.fine(schedule)
    if not list(check_schedule(coarse.problem, schedule)):
        assert not list(check_schedule(problem, fine))
        rounding = int(problem.job_shift_cost.sum()) * factor  # of where the last plan had the starts
        assert exact_value(coarse.problem, schedule) <= exact_value(problem, fine) + rounding, "it promises no more"
    else:
        windows = [v for v in check_schedule(problem, fine) if v.constraint != "capacity"]
        assert not windows, "starts and options are allowed in any case"


@settings(max_examples=15, suppress_health_check=list(HealthCheck), derandomize=True)
@given(seed=st.integers(0, 1 << 30))
def test_a_plan_made_on_the_grid_holds_every_fine_slot_and_its_bound_is_of_the_fine_problem(seed: int) -> None:
    problem = some_problem(seed)

    def few(problem, *, seconds, warm, previous):
        del seconds
        return solve(problem, seconds=60.0, iterations=10, warm=warm, previous=previous)

    result = grid.solve_on_grid(problem, LEVELS, few, seconds=1.0, warm=None, previous=None)
    assert not list(check_schedule(problem, result.schedule))
    assert result.certificate.price.shape == problem.capacity.shape
    exact = solve(problem, seconds=2.0)
    assert exact_bound(problem, result.certificate) >= exact.value


def test_far_starts_lie_on_long_slots_before_the_refinement() -> None:
    seen: list[tuple[int, Problem]] = []

    def spy(problem, *, seconds, warm, previous):
        seen.append((problem.slots, problem))
        return solve(problem, seconds=60.0, iterations=5, warm=warm, previous=previous)

    problem = some_problem(3, slots=48)
    grid.solve_on_grid(problem, LEVELS, spy, seconds=1.0, warm=None, previous=None)
    assert [slots for slots, _ in seen] == [8, 16, 48]
    assert (seen[0][1].capacity == problem.capacity.reshape(2, 8, 6).min(axis=2)).all()
    middle = seen[1][1]
    free = middle.option_earliest < middle.option_latest
    assert (middle.option_latest[free] < 24 // 3).all(), "what starts later is decided already"


def test_a_narrowed_problem_keeps_what_was_decided_and_drops_other_far_starts() -> None:
    problem = some_problem(5)
    schedule = random_schedule(problem, np.random.default_rng(1))
    part = grid.narrowed(problem, schedule, 15)
    part.problem.check()
    own = part.own(schedule)
    far = (schedule.option >= 0) & (schedule.start >= 15)
    assert far.any()
    assert (own.start[far] == schedule.start[far]).all()
    back = part.whole(own)
    assert (back.option[own.option >= 0] == schedule.option[own.option >= 0]).all()
    late = part.problem.option_latest >= 15
    assert (part.problem.option_earliest[late] == part.problem.option_latest[late]).all()


def test_only_levels_within_the_horizon_count() -> None:
    assert grid.levels_of(576, 300, PAIRS) == (grid.Level(144, 12), grid.Level(24, 3))
    assert grid.levels_of(72, 300, PAIRS) == (grid.Level(24, 3),)
    assert grid.levels_of(12, 300, PAIRS) == ()


def test_a_round_on_the_grid_is_verified_at_five_minutes(site, capfd) -> None:
    jobs = tuple(Job(f"w{i:02d}", 8, 1800.0 + 900 * i, 1_700_000_000.0 + 700 * i) for i in range(40))
    snapshot = Snapshot(1_700_000_100, 1_700_000_100, 300, 288, site, jobs)
    with open(2, "w", encoding="utf-8", closefd=False) as stderr:  # the solver's process has no other files
        plan = planner.make_plan(
            snapshot, RoundSettings(target_gap=0.0, coarse=PAIRS), 3.0, created_s=0, log=Log(stderr)
        )
    assert verify_plan(plan) == []
    told = capfd.readouterr().err
    assert "slots=24 stage=search" in told, "the day was solved in hours first"
    assert "slots=96 stage=" in told
    assert "slots=288 stage=" in told
    assert plan.snapshot.slot_s == 300
    assert 0 <= plan.gap < 0.05


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("coarse = [[7200, 500]]", "coarse[0]: [7200.0, 500.0]: must be seconds, multiples of slot_s (300)"),
        ("coarse = [[7200, 900], [3600, 3600]]", "coarse[1]"),
        ("coarse = [[7200, 900], [14400, 600]]", "coarse[1]"),
        ("coarse = [[7100, 900]]", "coarse[0]"),
        ("coarse = [[0, 900]]", "coarse[0]"),
        ('coarse = "off"', "coarse"),
    ],
)
def test_a_grid_that_does_not_fit_is_refused(tmp_path, text, said) -> None:
    path = tmp_path / "settings.toml"
    path.write_text(text)
    with pytest.raises(Rejected, match=r"settings\.toml") as error:
        read_settings(path)
    assert said in str(error.value)


def test_the_grid_can_be_set_and_switched_off(tmp_path) -> None:
    path = tmp_path / "settings.toml"
    path.write_text("coarse = []")
    assert read_settings(path).coarse == ()
    path.write_text("coarse = [[3600, 600]]")
    assert read_settings(path).coarse == ((3600.0, 600.0),)
