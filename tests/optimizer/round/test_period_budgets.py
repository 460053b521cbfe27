"""Budgets of tenants in a round: what the bills say was used, what a tenant may still start, and how that is told."""

import json
from pathlib import Path

import pytest

from powerhall.jobs import Job
from powerhall.plan.plan import read_plan
from powerhall.runtime.errors import Rejected
from powerhall.runtime.log import Log
from powerhall.site.site_file import read_site
from powerhall_optimizer.cli import main
from powerhall_optimizer.inputs.horizon import Horizon
from powerhall_optimizer.inputs.round_settings import RoundSettings
from powerhall_optimizer.inputs.snapshot import site_snapshot
from powerhall_optimizer.planning.planner import make_plan
from powerhall_optimizer.round.period_budgets import site_per_it, with_period_budgets
from powerhall_optimizer.verify.plan import verify_plan
from rigs.billing import BillRig

NOON = 1_793_534_400  # 2026-11-01T12:00Z
HOUR = 3600
BUDGET = """
[billing]
owners = "owners.csv"
budgets = [{tenant = "acme", energy = "10 kWh"}, {tenant = "globex", cost_usd = 1000.0}]
"""


def rig_of(folder: Path) -> BillRig:
    """Acme has used 7.76 kWh of its 10 by a job that has ended, on eight GPUs for an hour."""
    (folder / "owners.csv").write_text("job,tenant\nold,acme\na*,acme\ng*,globex\n")
    rig = BillRig.made(folder, more=BUDGET)
    rig.meter("a", NOON - HOUR, NOON, it_power_w=9560.0, facility_power_w=9560.0)
    rig.meter("b", NOON - HOUR, NOON, it_power_w=1800.0, facility_power_w=1800.0)
    for gpu in range(8):
        rig.interval("old", "n1", gpu, (NOON - HOUR, NOON), 700.0 * HOUR)
    return rig


def test_what_was_used_comes_from_the_bill_of_the_month(tmp_path: Path) -> None:
    """2.24 kWh are left: for one of two jobs of two GPUs for an hour, 1.94 kWh each."""
    rig = rig_of(tmp_path)
    jobs = tuple(
        Job(name, 2, HOUR, NOON - 60.0, weight=weight) for name, weight in (("a1", 1.0), ("a2", 3.0), ("g1", 1.0))
    )
    snapshot = site_snapshot(rig.site, rig.planning, jobs, Horizon(NOON, 300, 2 * HOUR), RoundSettings().objective)
    snapshot = with_period_budgets(snapshot, rig.planning, rig.store, NOON, Log(quiet=True))
    acme, globex = snapshot.period_budgets
    assert (acme.name, acme.text) == ("acme.energy.2026-11", "10 kWh of 2026-11")
    assert acme.used == pytest.approx(7.76 * 3.6e6)
    assert globex.used == 0.0
    assert [job.tenant for job in snapshot.jobs] == ["acme", "acme", "globex"]
    plan = make_plan(snapshot, RoundSettings(workers=1), 0.3, created_s=0, log=Log(quiet=True))
    assert verify_plan(plan) == []
    assert {entry.job_id for entry in plan.assignments} == {"a2", "g1"}
    (waits,) = plan.waiting
    assert waits.code == "budget"
    assert "tenant acme has used 77.6 % of its 10 kWh of 2026-11" in waits.reason


def test_a_new_month_has_its_own_budget(tmp_path: Path) -> None:
    rig = rig_of(tmp_path)
    end_s = 1_796_079_600  # 2026-12-01T00:00+01:00
    snapshot = site_snapshot(
        rig.site, rig.planning, (), Horizon(end_s - HOUR, 300, 2 * HOUR), RoundSettings().objective
    )
    snapshot = with_period_budgets(snapshot, rig.planning, rig.store, end_s - HOUR, Log(quiet=True))
    assert [budget.name.rpartition(".")[2] for budget in snapshot.period_budgets] == ["2026-11"] * 2 + ["2026-12"] * 2
    assert [budget.used for budget in snapshot.period_budgets[2:]] == [0.0, 0.0]


def test_gaps_of_the_meter_count_as_used(tmp_path: Path) -> None:
    rig = rig_of(tmp_path)
    rig.interval("a9", "n2", 0, (NOON, NOON + HOUR), 700.0 * HOUR)
    snapshot = site_snapshot(rig.site, rig.planning, (), Horizon(NOON + HOUR, 300, HOUR), RoundSettings().objective)
    snapshot = with_period_budgets(snapshot, rig.planning, rig.store, NOON + HOUR, Log(quiet=True))
    assert snapshot.period_budgets[0].used == pytest.approx((7.76 + 0.97 * site_per_it(snapshot)) * 3.6e6)


def test_without_a_store_nothing_of_the_tenant_starts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rig_of(tmp_path).store.close()
    (tmp_path / "jobs.csv").write_text("job_id,gpus,duration_s,submit_s\na1,1,60,0\nx1,1,60,0\n")
    options = ["round", "--site", f"{tmp_path}/site.toml", "--jobs", f"{tmp_path}/jobs.csv", "--horizon", "1h"]
    assert main([*options, "--seconds", "1", "--out", f"{tmp_path}/plan.json", "--quiet"]) == 0
    plan = read_plan(tmp_path / "plan.json")
    assert [(entry.job_id, entry.code) for entry in plan.waiting] == [("a1", "budget")]
    capsys.readouterr()
    assert main(["verify", f"{tmp_path}/plan.json", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["violations"] == []
    assert main(["explain", "a1", "--plan", f"{tmp_path}/plan.json", "--seconds", "0"]) == 0
    assert "tenant acme has used 100 % of its 10 kWh" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('{tenant = "a"}', "billing.budgets[0]: None: must have one of energy, cost_usd and co2_kg"),
        ('{tenant = "a", energy = "1 MWh", co2_kg = 3}', "billing.budgets[0]: 'energy and co2'"),
        ('{tenant = "", energy = "1 MWh"}', "billing.budgets[0].tenant: '': must name a tenant"),
        ('{tenant = "a", co2_kg = 1}, {tenant = "a", co2_kg = 2}', "billing.budgets[1].tenant: 'a': must be once"),
        ('{tenant = "a", energy = "much"}', "must be a number and a unit"),
    ],
)
def test_a_wrong_budget_is_one_line(tmp_path: Path, text: str, line: str) -> None:
    BillRig.made(tmp_path)
    path = tmp_path / "site.toml"
    path.write_text(path.read_text() + f"[billing]\nbudgets = [{text}]\n")
    with pytest.raises(Rejected) as refused:
        read_site(path)
    assert line in str(refused.value)
