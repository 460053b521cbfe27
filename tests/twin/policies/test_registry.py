"""The registry of policies: every policy opens by its name, and the command line lists what the registry holds."""

import pytest
from twin_jobs import START_S, job

from powerhall.plan.plan import Plan, Snapshot
from powerhall.runtime.errors import Rejected
from powerhall_twin.cli import main
from powerhall_twin.policies.policy import PolicyInputs
from powerhall_twin.policies.recorded_plan import RecordedPlan
from powerhall_twin.policies.registry import BASELINES, DEFAULT_POLICY, POLICY_KINDS, policy_kind


def test_every_policy_opens_and_has_a_title(scenario):
    inputs = PolicyInputs(scenario(job("a", 8, 1.0)))
    for name in POLICY_KINDS:
        kind = policy_kind(name, inputs)
        assert kind.name == name
        assert kind.title
        assert callable(kind.open(inputs).decide)


def test_the_guide_has_an_entry_for_every_policy(root):
    text = (root / "docs/guide/twin.md").read_text()
    assert [kind.name for kind in BASELINES if f"\n- `{kind.name}`: " not in text] == []


def test_the_baselines_are_the_policies_without_a_solver():
    assert [kind.name for kind in BASELINES] == [
        "fcfs",
        "easy",
        "conservative",
        "density",
        "uniform",
        "lowcap",
        "tdp",
    ]
    assert DEFAULT_POLICY == "powerhall"


def test_a_recorded_plan_takes_the_place_of_rounds_and_of_nothing_else(scenario, site):
    jobs = (job("a", 8, 1.0),)
    snapshot = Snapshot(int(START_S), int(START_S), 300, 12, site, jobs)
    plan = Plan(1, "id", int(START_S), "feasible", 0, 0, 0.0, (), (), (), snapshot)
    inputs = PolicyInputs(scenario(*jobs), plan=plan)
    kind = policy_kind("powerhall", inputs)
    assert kind.name == "recorded plan"
    assert isinstance(kind.open(inputs), RecordedPlan)
    assert policy_kind("easy", inputs).name == "easy"


def test_an_unknown_policy_is_refused_by_option_and_choices(scenario):
    with pytest.raises(
        Rejected, match="--policies: 'fifo': must be one of powerhall, fcfs, easy, conservative, density, uniform"
    ):
        policy_kind("fifo", PolicyInputs(scenario(job("a", 8, 1.0))))


@pytest.mark.parametrize("command", ["replay", "whatif"])
def test_the_help_lists_every_policy(command, capsys):
    with pytest.raises(SystemExit):
        main([command, "--help"])
    text = capsys.readouterr().out
    assert all(name in text for name in POLICY_KINDS)
