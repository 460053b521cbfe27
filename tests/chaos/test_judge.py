"""The judge on made-up episodes: what it must call a violation, and what it must not."""

import subprocess
import sys

import pytest

from chaos.judge import Facts, Grant, Step, Violation, Zone, judge
from chaos.observer import Sample, Starvation

SAFE_W, FULL_W = 250.0, 700.0
ALL = dict.fromkeys(range(2), FULL_W)


def grant(node="n1", begin_s=2.0, end_s=5.0, caps_w=ALL, plan="p", run_s=None, **more):
    return Grant(node, int(begin_s * 1000), plan, begin_s, end_s, begin_s if run_s is None else run_s, caps_w, **more)


def facts(limits, *, nodes=("n1",), grants=(), budget_w=10_000.0, steps=(), answers=None, starved=None, **more):
    """Ten samples a second over ten seconds; `limits(node, second)` are the limits of both GPUs."""
    samples = []
    for tenth in range(100):
        at_s = tenth / 10
        samples.append(
            Sample(
                at_s,
                {node: (limits(node, at_s),) * 2 for node in nodes},
                {node: (True, True) if answers is None else answers(at_s) for node in nodes},
                {node: 0.0 if starved is None else starved(at_s) for node in nodes},
            )
        )
    zone = Zone("site", nodes, (Step(0.0, budget_w, 0.0), *steps))
    order = {"p": 0, "q": 1}
    return Facts(samples, list(grants), (zone,), SAFE_W, 100.0, -5.0, 9.5, plan_order=order, **more)


def rules(found: list[Violation]) -> set[str]:
    return {violation.rule for violation in found}


def test_limits_that_follow_their_leases_break_nothing():
    assert judge(facts(lambda _, at_s: FULL_W if 2.1 <= at_s < 6.9 else SAFE_W, grants=[grant()])) == []


@pytest.mark.parametrize("until_s", [7.5, 9.0])
def test_a_limit_above_safe_two_seconds_after_its_lease_is_found(until_s):
    found = judge(facts(lambda _, at_s: FULL_W if 2.1 <= at_s < until_s else SAFE_W, grants=[grant()]))
    assert rules(found) == {"safe"}
    assert found[0].time_s == pytest.approx(7.2, abs=0.15)


def test_a_limit_above_safe_without_any_lease_is_found():
    assert rules(judge(facts(lambda _, at_s: 300.0 if at_s > 4 else SAFE_W))) == {"safe"}


def test_a_limit_above_its_lease_is_found():
    low = grant(caps_w=dict.fromkeys(range(2), 500.0))
    assert rules(judge(facts(lambda _, at_s: FULL_W if 2.5 <= at_s < 4 else SAFE_W, grants=[low]))) == {"safe"}


def test_a_gpu_that_does_not_answer_is_judged_two_seconds_after_it_came_back():
    def case(back_s):
        def limit_w(_, at_s):
            return FULL_W if 2.1 <= at_s < 9.0 else SAFE_W

        return judge(facts(limit_w, grants=[grant()], answers=lambda at_s: (at_s >= back_s,) * 2))

    assert case(7.2) == []
    assert rules(case(6.0)) == {"safe"}


def test_time_without_a_cpu_does_not_count_and_time_stopped_by_the_harness_does():
    def late(_, at_s):
        return FULL_W if 2.1 <= at_s < 8.0 else SAFE_W

    assert rules(judge(facts(late, grants=[grant()]))) == {"safe"}
    assert judge(facts(late, grants=[grant()], starved=lambda at_s: max(0.0, at_s - 5.0))) == []
    assert rules(judge(facts(late, grants=[grant()], frozen={"n1": [(5.2, 6.5)]}))) == {"safe"}
    back = facts(late, grants=[grant()], answers=lambda at_s: (at_s >= 6.0,) * 2, frozen={"n1": [(6.0, 7.5)]})
    assert judge(back) == [], "but for a GPU that comes back, which a stopped capper cannot see"


def test_a_wait_for_a_cpu_counts_while_it_lasts_and_only_once(tmp_path):
    task = tmp_path / "7" / "task" / "7"
    task.mkdir(parents=True)
    starvation = Starvation(tmp_path)

    def look(ran_ms, waited_ms, state):
        (task / "schedstat").write_text(f"{ran_ms}000000 {waited_ms}000000 1")
        (task / "stat").write_text(f"7 (a) b) {state} 1 1")
        return round(starvation.look([7], 0.0, 0.1), 3)

    assert look(50, 10, "S") == 0.01
    assert look(60, 10, "R") == 0.01, "it has run since"
    assert look(60, 10, "R") == 0.11
    assert look(60, 10, "R") == 0.21
    assert look(61, 260, "R") == 0.26, "the whole wait, of which 0.2 s were counted ahead"
    assert look(61, 260, "S") == 0.26


def test_leases_that_exceed_a_budget_together_are_found_whether_or_not_they_arrive():
    both = [grant("n1"), grant("n2", begin_s=3.0)]
    found = judge(facts(lambda *_: SAFE_W, nodes=("n1", "n2"), grants=both, budget_w=3000.0))
    assert rules(found) == {"granted"}
    void = [grant("n1", void_s=2.9), grant("n2", begin_s=3.0)]
    assert judge(facts(lambda *_: SAFE_W, nodes=("n1", "n2"), grants=void, budget_w=3000.0)) == []


def test_limits_that_exceed_a_budget_although_the_leases_fit_are_found():
    one_by_one = [grant("n1", 2.0, 5.0), grant("n2", 5.0, 8.0)]

    def slow(node, at_s):
        return FULL_W if (2.1 <= at_s < 5.6 if node == "n1" else 5.1 <= at_s < 8) else SAFE_W

    found = judge(facts(slow, nodes=("n1", "n2"), grants=one_by_one, budget_w=2500.0))
    assert rules(found) == {"limits"}
    hung = facts(
        slow, nodes=("n1", "n2"), grants=one_by_one, budget_w=2500.0, answers=lambda at_s: (not 4.5 < at_s < 5.5,) * 2
    )
    assert judge(hung) == []


def test_a_fall_binds_at_once_where_the_planner_knew_and_after_the_leases_of_before_where_it_did_not():
    low = 900.0

    def case(known_s):
        limit = [grant(run_s=2.0)]
        return judge(
            facts(
                lambda _, at_s: FULL_W if 2.1 <= at_s < 5.1 else SAFE_W,
                grants=limit,
                budget_w=1700.0,
                steps=(Step(3.0, low, known_s),),
            )
        )

    assert rules(case(1.0)) == {"granted", "limits"}
    assert case(2.5) == []


def test_leases_of_an_older_plan_of_another_site_and_beyond_the_plan_are_found():
    def case(*grants, **more):
        return {v.text.split(": ")[1] for v in judge(facts(lambda *_: SAFE_W, grants=grants, **more))}

    assert case(grant(plan="q"), grant(begin_s=3.0, plan="p")) == {"a lease of plan 0 after plan 1"}
    assert case(grant(plan="x")) == {"a lease of a plan of another site"}
    assert case(grant(), plan_end_s={"p": 4.0}) == {"ends 1.0 s after its plan"}


def test_observer_judge_and_books_import_nothing_of_the_product():
    code = (
        "import sys; from chaos import books, judge, observer; "
        "print([name for name in sys.modules if name.startswith('powerhall')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONPATH": "tests"}
    )
    assert done.stdout == "[]\n"
