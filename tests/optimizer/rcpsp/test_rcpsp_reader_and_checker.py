"""The PSPLIB reader refuses invalid files; the checker catches every broken rule."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from powerhall.runtime.errors import Rejected
from powerhall_optimizer.rcpsp import psplib
from powerhall_optimizer.rcpsp.feasibility import broken_rules
from powerhall_optimizer.rcpsp.instance import Instance, ProjectSchedule, topological_order

TEXT = """\
************************************************************************
file with basedata            : tiny.bas
initial value random generator: 1
************************************************************************
projects                      :  1
jobs (incl. supersource/sink ):  5
horizon                       :  9
RESOURCES
  - renewable                 :  2   R
  - nonrenewable              :  0   N
  - doubly constrained        :  0   D
************************************************************************
PROJECT INFORMATION:
pronr.  #jobs rel.date duedate tardcost  MPM-Time
    1      3      0        5        1        5
************************************************************************
PRECEDENCE RELATIONS:
jobnr.    #modes  #successors   successors
   1        1          2           2   3
   2        1          1           4
   3        1          1           5
   4        1          1           5
   5        1          0
************************************************************************
REQUESTS/DURATIONS:
jobnr. mode duration  R 1  R 2
------------------------------------------------------------------------
  1      1     0       0    0
  2      1     3       2    0
  3      1     4       2    1
  4      1     2       1    1
  5      1     0       0    0
************************************************************************
RESOURCEAVAILABILITIES:
  R 1  R 2
    3    1
************************************************************************
"""


def test_a_file_becomes_the_project_it_describes() -> None:
    instance = psplib.parse(TEXT, "J301_1.sm")
    assert instance == Instance(
        "j301_1",
        durations=(0, 3, 4, 2, 0),
        successors=((1, 2), (3,), (4,), (4,), ()),
        demands=((0, 0), (2, 0), (2, 1), (1, 1), (0, 0)),
        capacities=(3, 1),
    )


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ("   2        1          1           4", "   2        2          1           4", "modes of job 2"),
        ("nonrenewable              :  0", "nonrenewable              :  2", "only renewable"),
        ("   4        1          1           5", "   4        1          2           5", "number of successors"),
        ("   4        1          1           5", "   4        1          1           2", "cycle"),
        ("   4        1          1           5", "   4        1          1           9", "must be 1..5"),
        ("  4      1     2       1    1", "  4      1     2       1    x", "whole number"),
        ("  4      1     2       1    1", "  4      1     2       1", "2 demands"),
        ("  4      1     2       1    1", "  4      1     2       4    1", "must be 0..3"),
        ("  4      1     2       1    1", "  4      1    -2       1    1", "must be >= 0"),
        ("  4      1     2       1    1\n", "", "jobs 1..5"),
        ("    3    1\n", "    3\n", "one line of 2 numbers"),
        ("RESOURCEAVAILABILITIES:", "NOTHING:", "RESOURCEAVAILABILITIES"),
        ("jobs (incl. supersource/sink ):  5", "", "jobs"),
    ],
)
def test_a_damaged_file_is_refused_in_one_line_naming_file_and_field(before: str, after: str, words: str) -> None:
    assert before in TEXT
    with pytest.raises(Rejected) as refusal:
        psplib.parse(TEXT.replace(before, after), "bad.sm")
    line = str(refusal.value)
    assert "bad" in line
    assert words in line
    assert "\n" not in line


def test_a_missing_file_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(Rejected, match=r"none\.sm"):
        psplib.read(tmp_path / "none.sm")


@given(st.text(alphabet=TEXT, max_size=300), st.integers(0, len(TEXT)), st.integers(0, 60))
def test_any_damage_is_read_or_refused_and_nothing_else(noise: str, at: int, cut: int) -> None:
    try:
        instance = psplib.parse(TEXT[:at] + noise + TEXT[at + cut :], "noise.sm")
    except Rejected:
        return
    assert sorted(topological_order(instance)) == list(range(instance.size))


PROJECT = psplib.parse(TEXT, "tiny.sm")


def test_a_valid_schedule_breaks_no_rule() -> None:
    assert broken_rules(PROJECT, ProjectSchedule((0, 0, 3, 7, 9))) == []


@pytest.mark.parametrize(
    ("starts", "words"),
    [
        ((0, 0, 3, 7), "4 starts for 5 tasks"),
        ((-1, 0, 3, 7, 9), "before 0"),
        ((0, 0, 3, 7, 8), "before task 4 finishes"),
        ((0, 0, 0, 4, 6), "resource 1 carries 4 of 3 at time 0"),
        ((0, 0, 3, 4, 7), "resource 2 carries 2 of 1 at time 4"),
    ],
)
def test_each_broken_rule_is_named(starts: tuple[int, ...], words: str) -> None:
    assert any(words in rule for rule in broken_rules(PROJECT, ProjectSchedule(starts)))
