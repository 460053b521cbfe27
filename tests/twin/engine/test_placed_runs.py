"""GPUs are held by one run at a time, by number; what is stopped goes on with its work less the checkpoint."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twin_jobs import START_S, job

from powerhall.hostlist import expand
from powerhall_optimizer.inputs.snapshot import check_fit
from powerhall_twin.engine.placed_runs import PlacedRuns
from powerhall_twin.engine.simulation import Simulation
from powerhall_twin.site.placed_runs import FreeGpus
from powerhall_twin.site.scenario import Scenario

NODES = tuple(f"hall1-{row}-k0{k}-n0{n}" for row in "ab" for k in (1, 2) for n in range(1, 9))


def begun(site, *jobs):
    sim = Simulation.of(Scenario(site, jobs, START_S, START_S + 7200), "x")
    sim.put_moment()
    sim.arrive()
    return sim


def test_a_gpu_cannot_be_taken_twice(site):
    free = FreeGpus.of(site)
    first = free.take({NODES[0]: 5})
    assert first[0].gpus == (0, 1, 2, 3, 4)
    assert free.take({NODES[1]: 1, NODES[0]: 4}) is None
    assert free.numbers[NODES[1]] == set(range(8)), "nothing is taken where a node has too few"
    assert free.take({NODES[0]: 3})[0].gpus == (5, 6, 7)
    free.give_back(first)
    assert free.take({NODES[0]: 5}) == first


def test_the_engine_starts_no_job_on_gpus_that_are_not_free(site):
    state = begun(site, job("a", 8, 1), job("b", 1, 1)).state
    state.start(0, {NODES[0]: 8}, 0, 977.0)
    with pytest.raises(ValueError, match="not free"):
        state.start(1, {NODES[0]: 1}, 0, 977.0)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 7), st.integers(0, 30), st.integers(0, 40)), max_size=60))
def test_gpus_are_conserved_whatever_starts_and_stops(site, steps):
    """Each step starts a job on nodes from a place on, or stops it; now and then the runs are numbered in between."""
    sizes = (1, 2, 3, 8, 12, 16, 64, 100)
    state = begun(site, *(job(f"j{n}", size, 1) for n, size in enumerate(sizes))).state
    placed, total = PlacedRuns.of(site), sum(map(len, FreeGpus.of(site).numbers.values()))
    for number, at, pause in steps:
        if state.jobs[number].job_id in [state.jobs[j].job_id for j in state.running.tolist()]:
            state.stop(number)
        left, nodes = sizes[number], {}
        for name in NODES[at:]:
            nodes |= {name: min(8, left)} if left else {}
            left -= nodes.get(name, 0)
        if not left and state.has_room(nodes, 300.0):
            state.start(number, nodes, 0, 300.0)
        if pause % 3:
            continue
        placed.follow(state)
        held = [(part.node, gpu) for run in placed.runs.values() for part in run.slices for gpu in part.gpus]
        assert len(held) == len(set(held))
        assert sum(map(len, placed.free.numbers.values())) + len(held) == total
        assert len(placed.runs) == len(state.running)
        for job_id, run in placed.runs.items():
            assert sum(len(part.gpus) for part in run.slices) == sizes[state.number_of[job_id]]
        names = state.arrays.node_names
        assert [len(placed.free.numbers[name]) for name in names] == state.world.now.free.tolist()


def test_a_job_that_was_stopped_and_runs_again_is_another_run(site):
    state, placed = begun(site, job("a", 8, 1), job("b", 8, 1)).state, PlacedRuns.of(site)
    state.start(0, {NODES[0]: 8}, 0, 977.0)
    placed.follow(state)
    before = placed.runs["a"]
    state.set_mode(0, 1, 794.0)
    placed.follow(state)
    assert placed.runs["a"].slices is before.slices, "another mode, the same GPUs"
    assert placed.runs["a"].mode.name == "p550"
    state.stop(0)
    state.start(0, {NODES[3]: 8}, 0, 977.0)
    state.start(1, {NODES[0]: 8}, 0, 977.0)
    placed.follow(state)
    assert {name: run.slices[0].node for name, run in placed.runs.items()} == {"a": NODES[3], "b": NODES[0]}


def test_running_jobs_are_listed_as_the_optimizer_reads_them(site):
    sim = begun(site, job("a", 16, 2), job("b", 1, 1), job("late", 1, 1, submit_s=START_S + 900))
    sim.state.start(0, {NODES[0]: 8, NODES[1]: 8}, 0, 977.0)
    sim.advance(START_S + 600)
    jobs = sim.state.as_jobs()
    check_fit(site, jobs, "queue")
    assert [(j.job_id, j.state) for j in jobs] == [("a", "running"), ("b", "waiting")]
    assert jobs[0].duration_s == pytest.approx(2 * 3600.0 - 600.0 * sim.state.world.tables.speed[0, 0, 0])
    assert expand(jobs[0].nodes) == NODES[:2]


def test_a_stopped_job_keeps_its_work_less_the_checkpoint(site):
    sim = begun(site, job("a", 8, 1, checkpoint_cost_s=120.0))
    sim.state.start(0, {NODES[0]: 8}, 0, 977.0)
    sim.advance(START_S + 600)
    left_s = sim.state.left_s(0)
    assert 0.0 < left_s < 3600.0 - 300.0
    sim.state.stop(0)
    (stopped,) = sim.state.as_jobs()
    assert stopped.state == "waiting"
    assert stopped.duration_s == pytest.approx(left_s + 120.0)
    sim.close()
    assert sim.outcome.stops == 1
    assert sim.outcome.work_gpu_s == pytest.approx(8 * (3600.0 - left_s - 120.0))
    assert sim.outcome.lost_gpu_s == pytest.approx(8 * 120.0)
