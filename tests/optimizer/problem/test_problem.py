"""The integer problem refuses a broken invariant, naming the field."""

from dataclasses import replace

import numpy as np
import pytest

from powerhall.runtime.errors import Rejected
from powerhall_optimizer.problem.arrays import Problem, Schedule
from powerhall_optimizer.problem.builder import ProblemBuilder
from powerhall_optimizer.problem.synthetic import generate


@pytest.fixture
def problem() -> Problem:
    builder = ProblemBuilder(slots=4)
    nodes = builder.resource("nodes", 8)
    job = builder.job("train")
    builder.option(job, ("hall1", "full"), duration=2, uses={nodes: 8}, rate=10, tariff=builder.tariff(1), energy=1)
    return builder.build()


@pytest.mark.parametrize(
    ("field", "number", "words"),
    [
        ("capacity", -1, "capacity[0, 0]"),
        ("capacity", 1 << 46, "capacity[0, 0]"),
        ("option_duration", 0, "option_duration[0]"),
        ("option_earliest", -1, "option_earliest[0]"),
        ("option_earliest", 3, "option_latest[0]"),
        ("option_latest", 4, "option_latest[0]"),
        ("option_tariff", 1, "option_tariff[0]"),
        ("option_label", 7, "option_label[0]"),
        ("use_resource", 1, "use_resource[0]"),
        ("use_amount", 0, "use_amount[0]"),
        ("job_options", 5, "job_options"),
        ("option_rate", 1 << 55, "2**52"),
        ("job_wait_value", -(1 << 53), "2**52"),
    ],
)
def test_a_bad_number_is_refused_by_name(problem: Problem, field: str, number: int, words: str) -> None:
    with pytest.raises(Rejected, match="problem: ") as refusal:
        replace(problem, **{field: np.full_like(getattr(problem, field), number)}).check()
    assert words in str(refusal.value)


def test_a_wrong_shape_or_type_is_refused(problem: Problem) -> None:
    with pytest.raises(Rejected, match="option_rate: shape"):
        replace(problem, option_rate=np.zeros(3, np.int64)).check()
    with pytest.raises(Rejected, match="option_rate: dtype"):
        replace(problem, option_rate=np.zeros(1, np.int32)).check()  # type: ignore[arg-type]


def test_a_resource_named_twice_by_an_option_is_refused(problem: Problem) -> None:
    twice = {"option_uses": np.array([0, 2]), "use_resource": np.array([0, 0]), "use_amount": np.array([1, 1])}
    with pytest.raises(Rejected, match="each resource once"):
        replace(problem, **twice).check()


def test_different_problems_have_different_digests(problem: Problem) -> None:
    other = replace(problem, option_rate=problem.option_rate + 1)
    assert problem.digest() == replace(problem).digest() != other.digest()


def test_the_value_of_a_schedule_is_the_sum_of_its_decisions(problem: Problem) -> None:
    assert Schedule(np.array([0]), np.array([1])).value(problem) == 18
    assert Schedule.empty(1).value(problem) == 0


@pytest.mark.parametrize("family", ["open", "pinned"])
def test_a_family_repeats_itself_and_differs_between_seeds(family: str) -> None:
    first, same, other = (generate(family, 120, 48, seed) for seed in (3, 3, 4))
    assert first.digest() == same.digest() != other.digest()
    assert first.jobs == 120


def test_the_pinned_family_matches_its_description() -> None:
    problem = generate("pinned", 2_000, 288, 1)
    running = problem.job_wait_value < 0
    halls = np.array([len({problem.option_label[o] // 4 for o in problem.options_of(j)}) for j in range(2_000)])
    nodes = np.array([problem.uses_of(problem.options_of(j)[0])[0][1] for j in range(2_000)])
    held = nodes[running].sum() / problem.capacity[0:60:3, 0].sum()
    assert 0.68 <= held <= 0.70
    assert (halls[running] == 1).all()
    assert {1, 4, 20} == set(halls[~running].tolist())
    assert (nodes & (nodes - 1) == 0).all()
    assert nodes.max() <= 1024


def test_a_family_can_be_cut_into_other_halls() -> None:
    problem = generate("open", 120, 48, 3, halls=4)
    assert problem.resources == 3 * 4 + 1
    assert generate("open", 120, 48, 3).digest() == generate("open", 120, 48, 3, halls=10).digest()
    with pytest.raises(Rejected, match=r"halls.*must be a multiple of 4"):
        generate("pinned", 120, 48, 3, halls=6)


def test_an_unknown_family_is_refused() -> None:
    with pytest.raises(Rejected, match="must be one of"):
        generate("closed", 10, 48, 1)
