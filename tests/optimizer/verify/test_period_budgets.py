"""Budgets over a period: a plan never starts what could exceed one, and the bound holds against an exact model."""

import os
import random

import msgspec
import pytest

from powerhall.jobs import Job
from powerhall.plan.period_budget import PeriodBudget
from powerhall.plan.plan import Certificate, Plan, Snapshot, snapshot_hash
from powerhall.runtime.errors import Rejected
from powerhall.runtime.log import Log
from powerhall_optimizer.inputs.round_settings import RoundSettings
from powerhall_optimizer.planning.planner import make_plan
from powerhall_optimizer.verify.plan import verify_plan
from powerhall_optimizer.verify.value import proven_bound
from rigs.exact_site import START_S, exact_optimum, small_site

replace = msgspec.structs.replace
MONTH = (START_S - 86_400, START_S + 20 * 86_400)


def planned(snapshot: Snapshot) -> Plan:
    return make_plan(snapshot, RoundSettings(workers=1), 0.3, created_s=0, log=Log(quiet=True))


def with_budgets(draw: random.Random, s: Snapshot) -> Snapshot:
    """Half of the jobs are acme's, with one or two budgets that a part of them fits into; some periods end soon."""
    jobs = tuple(replace(job, tenant=draw.choice(["acme", "acme", "globex", None])) for job in s.jobs)
    s = replace(s, jobs=jobs, carbon_g_per_kwh=tuple(draw.uniform(0, 700) for _ in range(s.slots)))
    budgets = []
    for kind in draw.sample(["energy", "cost", "co2"], draw.randint(1, 2)):
        end_s = draw.choice([MONTH[1], START_S + draw.randint(100, 300 * s.slots)])
        whole = {"energy": 1.0, "cost": 100 / 3.6e9, "co2": 400 / 3.6e6}[kind]
        j_all = sum(job.gpus * 600.0 * job.duration_s for job in jobs if job.tenant == "acme")
        limit = max(1e-3, draw.uniform(0.1, 1.2) * j_all * whole)
        budget = PeriodBudget(f"acme.{kind}", "acme", kind, limit, draw.uniform(0, 0.6) * limit, MONTH[0], end_s, 1.2)
        budgets.append(budget)
    return replace(s, period_budgets=tuple(budgets))


@pytest.mark.parametrize("seed", range(int(os.environ.get("PROVE", "4"))))
def test_the_exact_optimum_lies_between_plan_and_bound(seed: int) -> None:
    draw = random.Random(seed)
    s = with_budgets(draw, small_site(draw))
    plan = planned(s)
    assert verify_plan(plan) == []
    optimum = exact_optimum(s)
    assert optimum is not None
    assert plan.value <= optimum <= plan.bound
    for _ in range(20):
        certificate = plan.certificate or Certificate(1, {})
        prices = {
            budget.name: draw.choice([0, draw.randrange(10**6), draw.randrange(10**14)]) for budget in s.period_budgets
        }
        assert optimum <= proven_bound([s], replace(certificate, budgets=prices), {})


def lone_hall(jobs: tuple[Job, ...], budget: PeriodBudget) -> Snapshot:
    """A site on which everything fits, so that only the budget binds."""
    for seed in range(100):
        s = small_site(random.Random(seed))
        if not s.stale_nodes and not s.margin_w:
            break
    site = replace(s.site, power_limit_w=None, feeds=())
    kind = replace(next(iter(site.node_types.values())), name="n", idle_power_w=800.0, max_power_w=8000.0)
    kind = replace(kind, modes=(replace(kind.modes[0], gpu_power_w=1000.0),), liquid_fraction=0.0)
    rack = replace(next(site.racks()), node_type="n", nodes=tuple(f"x{i}" for i in range(8)))
    row = replace(site.halls[0].rows[0], racks=(rack,), power_limit_w=None)
    hall = replace(site.halls[0], rows=(row,), plants=(), power_limit_w=None)
    return replace(
        s,
        site=replace(site, halls=(hall,), node_types={"n": kind}),
        jobs=jobs,
        price_per_mwh=(),
        period_budgets=(budget,),
    )


def job(name: str, weight: float, **fields: object) -> Job:
    return Job(name, 8, 600.0, START_S - 10, weight=weight, tenant="acme", **fields)  # type: ignore[arg-type]


def budget(limit_j: float, used_j: float) -> PeriodBudget:
    return PeriodBudget("acme.energy", "acme", "energy", limit_j, used_j, *MONTH, 1.25, "40 MWh of 2026-11")


RUN_J = 8 * 1000.0 * 600 * 1.25
"""What a job uses: 8 GPUs at 1 kW for ten minutes, at the meter."""


def test_jobs_of_most_value_get_what_is_left_and_the_others_are_told() -> None:
    s = lone_hall(tuple(job(f"j{n}", 1.0 + n) for n in range(4)), budget(100 * RUN_J, 97.5 * RUN_J))
    plan = planned(s)
    assert verify_plan(plan) == []
    assert {entry.job_id for entry in plan.assignments} == {"j2", "j3"}
    waits = {entry.job_id: entry for entry in plan.waiting}
    assert waits["j0"].code == "budget"
    assert "tenant acme has used 97.5 % of its 40 MWh of 2026-11" in waits["j0"].reason
    assert plan.gap < 0.2
    free = proven_bound([s], replace(plan.certificate or Certificate(1, {}), budgets={}), {})
    assert plan.bound < free


def test_running_jobs_count_first_and_alone_may_use_more() -> None:
    at = {"state": "running", "hall": "", "node_type": "n", "mode": "full", "nodes": "x0", "start_s": START_S - 60.0}
    s = lone_hall((job("waits", 9.0), job("runs", 1.0)), budget(RUN_J, 0.4 * RUN_J))
    at["hall"] = s.site.halls[0].zone
    s = replace(s, jobs=(s.jobs[0], replace(s.jobs[1], **at)))
    plan = planned(s)
    assert verify_plan(plan) == []
    assert [entry.job_id for entry in plan.assignments] == ["runs"]
    assert plan.value <= plan.bound


def test_a_plan_that_starts_more_than_is_left_is_refused() -> None:
    s = lone_hall((job("a", 1.0), job("b", 1.0)), budget(10 * RUN_J, 0.0))
    plan = planned(s)
    assert {entry.job_id for entry in plan.assignments} == {"a", "b"}
    tight = replace(s, period_budgets=(budget(10 * RUN_J, 8.5 * RUN_J),))
    changed = replace(plan, snapshot=tight, plan_id=snapshot_hash(tight))
    assert [violation.kind for violation in verify_plan(changed)] == ["period_budget"]


def test_prices_of_unknown_budgets_and_negative_ones_are_refused() -> None:
    s = lone_hall((job("a", 1.0),), budget(10 * RUN_J, 0.0))
    for prices in ({"other.energy": 3}, {"acme.energy": -1}):
        with pytest.raises(Rejected, match="must be a price >= 0 of a budget"):
            proven_bound([s], Certificate(1, {}, budgets=prices), {})


def test_plans_without_budgets_keep_their_ids() -> None:
    s = small_site(random.Random(3))
    assert snapshot_hash(s) == snapshot_hash(replace(s, period_budgets=()))
    assert snapshot_hash(s) != snapshot_hash(replace(s, period_budgets=(budget(1.0, 0.0),)))


def test_a_shared_gpu_counts_on_one_budget() -> None:
    """Halves of GPUs of two tenants: a GPU has jobs of one tenant alone, and counts as a whole on its budget."""
    parts = [
        Job(f"{tenant}{n}", 1, 600.0, START_S - 10, weight=1.0 + n, tenant=tenant, gpu_share="1/2")
        for tenant in ("acme", "globex")
        for n in range(4)
    ]
    s = lone_hall(tuple(parts), budget(100 * RUN_J, 99.8 * RUN_J))
    kinds = {name: replace(kind, gpu_parts=2, gpu_fill=True) for name, kind in s.site.node_types.items()}
    s = replace(s, site=replace(s.site, node_types=kinds))
    plan = planned(s)
    assert verify_plan(plan) == []
    assert {entry.job_id for entry in plan.assignments} == {"acme2", "acme3", *(f"globex{n}" for n in range(4))}
    for entry in plan.assignments:
        assert not entry.beside or entry.beside[:4] == entry.job_id[:4]
    assert {entry.code for entry in plan.waiting} == {"budget"}
