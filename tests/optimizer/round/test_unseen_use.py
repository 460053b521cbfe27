"""Budgets count what neither the bill nor the plan shows: silent nodes, jobs outside the plan, owners in the queue."""

import random
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from powerhall.jobs import Job
from powerhall.jobs.left_out import LeftOut
from powerhall.plan.plan import Snapshot
from powerhall.runtime.errors import Rejected
from powerhall.runtime.log import Log
from powerhall.site.site_file import read_site
from powerhall_optimizer.inputs.horizon import Horizon
from powerhall_optimizer.inputs.observed_nodes import observed_nodes
from powerhall_optimizer.inputs.round_settings import RoundSettings
from powerhall_optimizer.inputs.snapshot import site_snapshot
from powerhall_optimizer.problem.site_problem import build_problem
from powerhall_optimizer.round.period_budgets import with_period_budgets
from powerhall_optimizer.round.single_site import note_owners
from powerhall_optimizer.round.unseen_use import _unseen_gpu_s
from rigs.billing import HOUR, NOON, BillRig

BUDGET = '[billing]\nowners = "owners.csv"\nbudgets = [{tenant = "acme", energy = "100 kWh"}]\n'
WORST_W = 10_200.0 / 8
"""The most that a GPU of the rig can draw with its part of the node."""


def rig_of(folder: Path, owners: str = "job,tenant\na*,acme\n", budget: str = BUDGET) -> BillRig:
    (folder / "owners.csv").write_text(owners)
    rig = BillRig.made(folder, more=budget)
    for hall in "ab":
        rig.meter(hall, NOON - HOUR, NOON, it_power_w=9560.0, facility_power_w=9560.0)
    return rig


def observed(rig: BillRig, jobs: Sequence[Job], left_out: Sequence[LeftOut] = ()) -> Snapshot:
    horizon = Horizon(NOON, 300, 2 * HOUR)
    snapshot = site_snapshot(rig.site, rig.planning, tuple(jobs), horizon, RoundSettings().objective)
    snapshot = observed_nodes(msgspec.structs.replace(snapshot, left_out=tuple(left_out)), (), ())
    return with_period_budgets(snapshot, rig.planning, rig.store, NOON, Log(quiet=True))


def barred(snapshot: Snapshot) -> set[str]:
    """Return the jobs that a budget keeps from starting."""
    found = build_problem(snapshot).no_options
    return {job for job, why in found.items() if why.cause.name == "BUDGET"}


def running(name: str, nodes: str, since_s: float, **fields: object) -> Job:
    at = {"hall": "a", "node_type": "h100", "mode": "p700", "state": "running", "nodes": nodes, "start_s": since_s}
    return Job(name, 8, submit_s=since_s, **({"duration_s": float(HOUR)} | at | fields))  # type: ignore[arg-type]


NEXT = Job("a1", 1, HOUR, NOON - 60.0)


def test_a_running_job_that_no_plan_has_counts(tmp_path: Path) -> None:
    rig = rig_of(tmp_path)
    spread = running("a0", "n1,n3", NOON - 60.0, hall=None, gpus_on_nodes=(4, 4), duration_s=10.0 * HOUR)
    for jobs, left_out in (
        ((msgspec.structs.replace(spread, duration_s=10.0 * HOUR), NEXT), ()),
        ((NEXT,), (LeftOut("a0", "field", "no mode", running=True, gpus=8, nodes="n1"),)),
    ):
        snapshot = observed(rig, jobs, left_out)
        assert snapshot.period_budgets[0].held >= 8 * WORST_W * 10 * HOUR
        assert barred(snapshot) == {"a1"}
    assert (
        barred(observed(rig, (NEXT,), (LeftOut("b0", "field", "no mode", running=True, gpus=8, nodes="n1"),))) == set()
    )


def test_a_job_on_a_silent_node_counts_at_its_worst(tmp_path: Path) -> None:
    rig = rig_of(tmp_path)
    for gpu in range(4):
        rig.interval("a0", "n1", gpu, (NOON - HOUR, 0), 400.0 * HOUR)
    snapshot = observed(rig, (running("a0", "n1", NOON - 10.0 * HOUR),))
    seen = 4 * 601.0 * HOUR
    unseen = (8 * 9 + 4) * WORST_W * HOUR
    assert snapshot.period_budgets[0].used == pytest.approx(seen + unseen)


def test_an_energy_that_cannot_be_counts_at_its_worst(tmp_path: Path) -> None:
    rig = rig_of(tmp_path)
    rig.interval("a0", "n1", 0, (NOON - HOUR, NOON), 1e9 * HOUR)
    used = observed(rig, ()).period_budgets[0].used
    assert used == pytest.approx(WORST_W * HOUR + 1800.0 / 8 * HOUR)


@pytest.mark.parametrize("seed", range(20))
def test_unseen_gpus_are_those_of_every_second(seed: int) -> None:
    draw = random.Random(seed)
    spans = [(draw.choice("ab"), low := draw.randrange(20), low + draw.randrange(20)) for _ in range(5)]
    jobs = [(draw.randrange(30), draw.randint(1, 3)) for _ in range(2)]
    changes = [(float(since), gpus, "") for since, gpus in jobs]
    changes += [c for gpu, low, high in spans for c in ((float(low), 1, gpu), (float(high), -1, gpu))]
    total = 0
    for second in range(25):
        have = sum(gpus for since, gpus in jobs if since <= second)
        total += max(0, have - len({gpu for gpu, low, high in spans if low <= second < high}))
    assert _unseen_gpu_s(changes, 25.0) == total


def test_the_meter_of_the_month_rules_over_the_model(tmp_path: Path) -> None:
    rig = rig_of(tmp_path)
    rig.meter("a", NOON - HOUR, NOON, it_power_w=9560.0, facility_power_w=2 * 9560.0)
    assert observed(rig, ()).period_budgets[0].site_per_it == pytest.approx(2.0)


def test_a_run_counts_in_every_month_that_it_reaches(tmp_path: Path) -> None:
    snapshot = observed(rig_of(tmp_path), (Job("a1", 1, 40 * 86_400.0, NOON - 60.0),))
    assert [budget.name for budget in snapshot.period_budgets] == ["acme.energy.2026-11", "acme.energy.2026-12"]


def test_the_queue_says_who_pays_where_no_row_does(tmp_path: Path) -> None:
    """The account of a Slurm job, a tenant of the job file, a namespace; a task of an array by Slurm's number."""
    rig = rig_of(tmp_path, "job,project,tenant\n,vision,acme\n,team-a,acme\nz9,,globex\n")
    jobs = (
        running("7_3", "n1", NOON - 60.0, project="vision", billed_as="9"),
        Job("x1", 1, HOUR, NOON - 60.0, tenant="acme"),
        Job("z9", 1, HOUR, NOON - 60.0, tenant="acme"),
    )
    snapshot = observed(rig, jobs)
    assert [job.tenant for job in snapshot.jobs] == ["acme", "acme", "globex"]
    note_owners(rig.store, snapshot, None)
    for job in ("9", "x1", "z9", "team-a/pod-3"):
        rig.interval(job, "n2", 0, (NOON - HOUR, NOON), 100.0 * HOUR)
    lines = {line.job: line.owner.tenant for line in rig.bill(NOON - HOUR, NOON + 1, NOON + 1).lines}
    assert lines == {"9": "acme", "x1": "acme", "z9": "globex", "team-a/pod-3": "acme"}


def test_rows_of_users_cannot_keep_a_budget(tmp_path: Path) -> None:
    rig = rig_of(tmp_path, "user_hash,project,tenant\nu1,batch,\n,batch,acme\n")
    with pytest.raises(Rejected, match=r"owners\.csv: tenant: 'acme': must stand in rows of jobs or projects"):
        observed(rig, ())


def test_a_budget_of_cost_needs_prices(tmp_path: Path) -> None:
    rig = rig_of(tmp_path)
    path = rig.folder / "site.toml"
    path.write_text(path.read_text().replace('energy = "100 kWh"', "cost_usd = 5.0"))
    read_site(path)
    path.write_text(path.read_text().replace('prices = "prices.csv"', ""))
    with pytest.raises(Rejected, match=r"billing\.budgets\[0\]: '5 USD': needs planning\.prices"):
        read_site(path)
