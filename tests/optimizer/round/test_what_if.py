"""What-if: intervals of both columns, one start, and no claim that the intervals do not carry."""

import json
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from powerhall.jobs import write_jobs
from powerhall.plan.plan import Plan
from powerhall.runtime.log import Log
from powerhall_optimizer.cli import main
from powerhall_optimizer.inputs.round_settings import RoundSettings
from powerhall_optimizer.inputs.what_if import what_if
from powerhall_optimizer.planning.difference import Difference, Direction, difference, interval
from powerhall_optimizer.planning.planner import make_plan
from powerhall_optimizer.verify.plan import verify_plan

replace = msgspec.structs.replace
ROUND = ("round", "--site", "site.toml", "--jobs", "jobs.csv", "--start", "1700000100", "--horizon", "12h", "--quiet")


@pytest.fixture
def folder(tmp_path, monkeypatch, site_text, snapshot) -> Path:
    """A folder with the site and its queue, in which the commands run."""
    (tmp_path / "site.toml").write_text(site_text)
    (tmp_path / "jobs.csv").write_text(write_jobs(snapshot.jobs[:40]))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def told(capsys, change: str, *more: str, seconds: str = "2") -> dict:
    assert main([*ROUND, "--seconds", seconds, "--what-if", change, "--json", *more]) == 0
    return json.loads(capsys.readouterr().out)


def test_json_has_both_columns_with_their_intervals_and_nothing_is_published(folder, capsys):
    before = sorted(folder.iterdir())
    url = f"sqlite:///{folder}/store.db"
    found = told(capsys, "grid=-30%", "--store", url, "--out", "plan.json")
    assert sorted(path for path in folder.iterdir() if "store.db" not in path.name) == before
    one, two = found["what_if"]["as_it_is"], found["what_if"]["what_if"]
    assert one["plan_id"] != two["plan_id"] == found["plan_id"]
    for column in (one, two):
        assert column["value"] <= column["bound"]
        assert column["value_usd"] == pytest.approx(column["value"] * one["value_usd"] / one["value"])
    low, high = found["what_if"]["difference_usd"]
    assert low == pytest.approx(two["value_usd"] - one["bound_usd"])
    assert high == pytest.approx(min(0.0, two["bound_usd"] - one["value_usd"]))
    assert found["what_if"]["limits"] == "tightened"
    assert found["what_if"]["proven"] == "less"
    assert "proven: the best plan is worth" in found["what_if"]["statement"]


def test_a_small_loosening_is_not_called_a_gain_and_is_no_loss(folder, capsys):
    found = told(capsys, "grid=+0.5%")["what_if"]
    assert found["limits"] == "loosened"
    assert found["difference_usd"][0] >= 0.0
    assert found["what_if"]["value"] >= found["as_it_is"]["value"], "the plan of the tighter limit holds here, too"
    if found["what_if"]["value_usd"] <= found["as_it_is"]["bound_usd"]:
        assert found["proven"] is None
        assert "no difference provable" in found["statement"]
        assert "a raised limit is never worse" in found["statement"]


def test_another_weight_is_no_measure_of_the_same_value(folder, capsys):
    found = told(capsys, "j1.weight=40")["what_if"]
    assert found["proven"] is None
    assert "another weight" in found["statement"]


def test_the_table_has_value_bound_and_gap_and_the_statement(folder, capsys):
    assert main([*ROUND, "--seconds", "1", "--what-if", "grid=-30%"]) == 0
    lines = capsys.readouterr().out.splitlines()
    names = ("value of the plan, USD", "best value at most, USD", "gap, %", "jobs that start", "GPU hours of work")
    for name in names:
        assert sum(line.startswith(name) for line in lines) == 1
    assert any(line.startswith(("proven:", "no difference provable")) for line in lines)
    assert lines[-1].startswith("not published") or any("not published" in line for line in lines)


def test_a_start_from_a_plan_of_a_tighter_limit_is_never_lost(snapshot):
    """However little the search does, the plan under the looser limit is worth what the given plan is worth there."""
    log, good = Log(quiet=True), RoundSettings(target_gap=0.0, work_rate=0.01)
    tight = make_plan(snapshot, good, 100.0, created_s=1, log=log)
    loose = what_if(snapshot, "grid=+1%,a.power=+1%")
    poor = RoundSettings(target_gap=0.0, work_rate=0.001)
    without = make_plan(loose, poor, 100.0, created_s=1, log=log)
    having = make_plan(loose, poor, 100.0, created_s=1, log=log, starts=(tight,))
    assert not verify_plan(having)
    assert having.value >= tight.value
    assert having.plan_id == without.plan_id != tight.plan_id


def test_a_start_that_does_not_hold_is_left(snapshot):
    log, settings = Log(quiet=True), RoundSettings(target_gap=0.0, work_rate=0.002)
    loose = make_plan(what_if(snapshot, "grid=+40%,a.power=+40%"), settings, 100.0, created_s=1, log=log)
    plan = make_plan(snapshot, settings, 100.0, created_s=1, log=log, starts=(loose,))
    assert not verify_plan(plan)


def made(plan: Plan, value: int, bound: int, change: str = "") -> Plan:
    """The plan with other figures, of a site with a change."""
    snapshot = what_if(plan.snapshot, change) if change else plan.snapshot
    return replace(plan, value=value, bound=bound, snapshot=snapshot)


@given(st.lists(st.integers(1, 10**12), min_size=4, max_size=4), st.sampled_from(["grid=+5%", "grid=-5%", "mixed"]))
def test_intervals_say_what_two_best_values_can_differ_by(plan, numbers, change):
    """Every pair of best values within the two intervals lies in the difference; its ends are reached by one."""
    (one_low, one_high), (two_low, two_high) = sorted(numbers[:2]), sorted(numbers[2:])
    text = "grid=+5%,a.power=-5%" if change == "mixed" else change
    found = difference(made(plan, one_low, one_high), made(plan, two_low, two_high, text))
    unit = interval(made(plan, 1, 1)).value_usd
    ends = [(two - one) * unit for one in (one_low, one_high) for two in (two_low, two_high)]
    low, high = min(ends), max(ends)
    assert found.direction == {"grid=+5%": "loosened", "grid=-5%": "tightened"}.get(change, "other")
    assert found.low_usd == pytest.approx(max(0.0, low) if change == "grid=+5%" else low)
    assert found.high_usd == pytest.approx(min(0.0, high) if change == "grid=-5%" else high)
    apart = two_low > one_high or two_high < one_low
    assert bool(found.proven) == apart or (found.proven == "" and low == high == 0)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("grid=+1%", Direction.LOOSENED),
        ("a.power=-1%,grid=+1%", Direction.OTHER),
        ("a.power=-1%", Direction.TIGHTENED),
        ("b.power=1MW", Direction.TIGHTENED),
        ("grid=1MW", Direction.LOOSENED),
        ("a.cooling=+5%", Direction.OTHER),
        ("grid=+0%", Direction.SAME),
    ],
)
def test_only_limits_of_power_have_a_direction(plan, change, expected):
    """Hall b has no limit, so any limit tightens it; plants change the power at the meter, too."""
    assert difference(plan, made(plan, plan.value, plan.bound, change)).direction == expected


def test_proven_texts_name_the_interval():
    assert "2.00 to 5.00 USD more" in Difference(2.0, 5.0, Direction.LOOSENED).statement
    assert "2.00 to 5.00 USD less" in Difference(-5.0, -2.0, Direction.OTHER).statement
    assert "nor can it be more" in Difference(-5.0, 0.0, Direction.TIGHTENED).statement
    assert Difference(0.0, 0.0, Direction.SAME).statement == "no difference: the change changes nothing"
