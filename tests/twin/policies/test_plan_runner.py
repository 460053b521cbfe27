"""The runner of plans follows a plan, and never further than the budgets."""

import msgspec
import pytest
from twin_jobs import START_S, job

from powerhall.plan.plan import Assignment, Placement, Plan, Snapshot, Waiting
from powerhall_twin.engine.columns import ENDED, MODE, NODE_COUNT, NODE_FIRST, PLAN_NW
from powerhall_twin.engine.simulation import Simulation
from powerhall_twin.policies.plan_runner import PlanRunner


def entry(job_id: str, nodes: str, gpus: int, start_s: float, mode: str = "p700", **more) -> Assignment:
    each = min(8, gpus)
    place = Placement("hall1/a/k01", nodes, each)
    power_w = {"p700": 977.0, "p350": 550.0}[mode]
    span = int(start_s), int(start_s) + 3600
    return Assignment(job_id, "hall1", "hgx-h100", mode, gpus, power_w, *span, (place,), **more)


@pytest.fixture
def make_plan(site):
    def make(jobs, assignments, waiting=()):
        snapshot = Snapshot(int(START_S), int(START_S), 300, 12, site, tuple(jobs))
        return Plan(1, "id", int(START_S), "feasible", 0, 0, 0.0, tuple(assignments), tuple(waiting), (), snapshot)

    return make


class Followed:
    """A site that follows plans by the engine; `now` moves it to a moment."""

    def __init__(self, scenario):
        self.sim, self.runner = Simulation.of(scenario, "plan"), PlanRunner()
        self.state, self.jobs = self.sim.state, self.sim.state.world.jobs

    def now(self, now_s, budgets=None):
        """Do what is due at a moment; return the jobs that started."""
        before = self.running()
        while self.state.now_s < now_s:
            self.sim.advance(now_s)
        self.sim.put_moment()
        if budgets is not None:
            self.state.set_budgets(budgets)
        self.sim.arrive()
        self.runner.follow(self.state)
        return [name for name in self.running() if name not in before]

    def running(self):
        return [self.state.jobs[j].job_id for j in self.state.running.tolist()]

    def of(self, row, job_id):
        return self.jobs.ints[row, self.state.number_of[job_id]]

    def places(self, job_id):
        """Return the GPUs of a job by node."""
        first, count = int(self.of(NODE_FIRST, job_id)), int(self.of(NODE_COUNT, job_id))
        nodes, gpus = self.jobs.pool[:, first : first + count].tolist()
        return {self.state.arrays.node_names[n]: g for n, g in zip(nodes, gpus, strict=True)}

    def take(self, plan):
        """Adopt a plan; return the jobs that it stopped."""
        before = self.running()
        self.runner.take(plan, self.state)
        return [name for name in before if name not in self.running()]


@pytest.fixture
def followed(scenario):
    return lambda jobs: Followed(scenario(*jobs))


def test_a_job_starts_on_its_nodes_when_its_time_has_come(followed, make_plan):
    jobs = [job("a", 16, 1), job("b", 4, 1)]
    plan = make_plan(
        jobs, [entry("a", "hall1-a-k01-n[01-02]", 16, START_S), entry("b", "hall1-a-k01-n03", 4, START_S + 600)]
    )
    site = followed(jobs)
    assert site.take(plan) == []
    assert site.now(START_S) == ["a"]
    assert site.places("a") == {"hall1-a-k01-n01": 8, "hall1-a-k01-n02": 8}
    assert site.now(START_S + 300) == []
    assert site.now(START_S + 600) == ["b"]


def test_a_job_whose_predecessor_runs_late_waits_for_the_gpus(followed, make_plan):
    jobs = [job("a", 8, 0.25), job("b", 8, 1)]
    plan = make_plan(jobs, [entry("a", "hall1-a-k01-n01", 8, START_S), entry("b", "hall1-a-k01-n01", 8, START_S + 300)])
    site = followed(jobs)
    site.take(plan)
    assert site.now(START_S) == ["a"]
    assert site.now(START_S + 600) == []
    assert [one.job_id for one in site.runner.late] == ["b"]
    assert site.now(START_S + 950) == ["b"]
    assert START_S + 899 < site.jobs.floats[ENDED, site.state.number_of["a"]] < START_S + 950


def test_a_start_that_would_break_a_budget_is_held_back(followed, make_plan):
    jobs = [job("a", 8, 1), job("b", 8, 1)]
    plan = make_plan(jobs, [entry("a", "hall1-a-k01-n01", 8, START_S), entry("b", "hall1-a-k01-n02", 8, START_S)])
    site = followed(jobs)
    site.take(plan)
    tight = {"hall1/a/k01": 8 * 1660.0 + 1.5 * (8 * 977.0 - 1660.0)}
    assert site.now(START_S, tight) == ["a"]
    rack = site.state.arrays.zones.index("hall1/a/k01")
    assert 8 * 1660.0 < site.state.world.now.zone_nw[rack] / 1e9 <= tight["hall1/a/k01"]


def test_a_new_plan_stops_slows_and_continues_jobs(followed, make_plan):
    jobs = [job(name, 8, 1) for name in "abc"]
    first = make_plan(jobs, [entry(n, f"hall1-a-k01-n0{i}", 8, START_S) for i, n in enumerate("abc", 1)])
    site = followed(jobs)
    site.take(first)
    site.now(START_S)
    kept_nw = site.of(PLAN_NW, "c")
    slower = entry("b", "hall1-a-k01-n02", 8, START_S, "p350", running=True)
    kept = entry("c", "hall1-a-k01-n03", 8, START_S, running=True)
    assert site.take(make_plan(jobs, [slower, kept])) == ["a"]
    modes = site.state.arrays.types[0].modes
    assert modes[site.of(MODE, "b")] == modes[-1]
    assert site.of(PLAN_NW, "b") == site.state.arrays.added_nw(0, 550.0)
    assert (modes[site.of(MODE, "c")], site.of(PLAN_NW, "c")) == (modes[0], kept_nw)


def test_a_job_outside_the_plan_is_left_alone(followed, make_plan):
    jobs = [job("a", 8, 1)]
    site = followed(jobs)
    site.take(make_plan(jobs, [entry("a", "hall1-a-k01-n01", 8, START_S)]))
    site.now(START_S)
    assert site.take(make_plan([job("other", 8, 1)], [])) == []


def test_a_job_shed_at_a_coming_curtailment_stops_then(followed, make_plan):
    jobs = [job("a", 8, 9)]
    site = followed(jobs)
    site.take(make_plan(jobs, [entry("a", "hall1-a-k01-n01", 8, START_S)]))
    site.now(START_S)
    goes_on = msgspec.structs.replace(entry("a", "hall1-a-k01-n01", 8, START_S), running=True)
    assert site.take(make_plan(jobs, [goes_on], [Waiting("a", "shed", "curtailment")])) == []
    site.now(START_S + 3599)
    assert site.running() == ["a"]
    site.now(START_S + 3600)
    assert site.running() == []


def test_a_gang_that_is_no_multiple_of_a_node_gets_exactly_its_gpus(followed, make_plan):
    jobs = [job("a", 12, 1)]
    site = followed(jobs)
    site.take(make_plan(jobs, [entry("a", "hall1-a-k01-n[01-02]", 12, START_S)]))
    assert site.now(START_S) == ["a"]
    assert site.places("a") == {"hall1-a-k01-n01": 8, "hall1-a-k01-n02": 4}
