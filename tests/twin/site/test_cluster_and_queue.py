"""GPUs are held by one job at a time; gangs are whole; the queue holds the remaining work."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twin_jobs import START_S, job

from powerhall.hostlist import expand
from powerhall_optimizer.inputs.snapshot import check_fit
from powerhall_twin.jobs.generator import generate
from powerhall_twin.site.actions import SetMode, Start, Stop, apply
from powerhall_twin.site.cluster import Cluster, Run
from powerhall_twin.site.queue import Queue


def run_of(cluster: Cluster, entry, hall: str) -> Run | None:
    nodes = [node for node in cluster.free if cluster.index.hall_of(node).zone == hall]
    whole = [node for node in nodes if len(cluster.free[node]) == 8]
    wanted = dict.fromkeys(whole[: -(-entry.gpus // 8)], min(8, entry.gpus))
    slices = cluster.take(wanted) if sum(wanted.values()) >= entry.gpus else None
    if slices is None:
        return None
    kind = cluster.index.node_type(slices[0].node)
    return Run(entry, hall, kind, kind.modes[0], slices, START_S, entry.duration_s, kind.modes[0].gpu_power_w)


def test_a_gpu_cannot_be_taken_twice(site):
    cluster = Cluster.of(site)
    run = run_of(cluster, job("a", 8, 1), "hall1")
    cluster.start(run)
    with pytest.raises(ValueError, match="not free"):
        cluster.start(run)
    assert cluster.stop("a") is run
    cluster.start(run)


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 30), st.sampled_from([1, 2, 8, 16, 64, 128])), max_size=60))
def test_gpus_are_conserved_whatever_starts_and_stops(site, steps):
    cluster = Cluster.of(site)
    total = sum(map(len, cluster.free.values()))
    for number, gpus in steps:
        name = f"j{number}"
        if name in cluster.runs:
            cluster.stop(name)
        else:
            run = run_of(cluster, job(name, gpus, 1), ("hall1", "hall2", "hall3")[number % 3])
            if run is not None:
                cluster.start(run)
        held = [(p.node, g) for r in cluster.runs.values() for p in r.slices for g in p.gpus]
        assert len(held) == len(set(held))
        assert sum(map(len, cluster.free.values())) + len(held) == total


def test_running_jobs_are_listed_as_the_optimizer_reads_them(site):
    cluster, queue = (
        Cluster.of(site),
        Queue.of([job("a", 16, 2), job("b", 1, 1), job("late", 1, 1, submit_s=START_S + 9)]),
    )
    cluster.start(run_of(cluster, job("a", 16, 2), "hall1"))
    cluster.runs["a"].left_s = 100.0
    jobs = queue.as_jobs(cluster, START_S)
    check_fit(site, jobs, "queue")
    assert [(j.job_id, j.state) for j in jobs] == [("a", "running"), ("b", "waiting")]
    assert jobs[0].duration_s == 100.0
    assert len(expand(jobs[0].nodes)) == 2


def test_a_stopped_job_keeps_its_work_less_the_checkpoint(site):
    cluster, queue = Cluster.of(site), Queue.of([job("a", 8, 1, checkpoint_cost_s=120.0)])
    cluster.start(run_of(cluster, job("a", 8, 1, checkpoint_cost_s=120.0), "hall1"))
    cluster.runs["a"].left_s = 1000.0
    (stopped,) = apply(cluster, [Stop("a")], START_S)
    queue.stopped(stopped)
    assert queue.records["a"].left_s == 1120.0
    assert queue.records["a"].stops == 1


def test_stops_and_lower_modes_come_before_starts(site):
    cluster = Cluster.of(site)
    first, second = job("a", 256, 1), job("b", 256, 1)
    cluster.start(run_of(cluster, first, "hall1"))
    run = cluster.runs["a"]
    start = Start(second, "hall1", run.node_type, run.node_type.modes[0], run.slices, 900.0, 60.0)
    apply(cluster, [start, Stop("a")], START_S)
    assert set(cluster.runs) == {"b"}
    apply(cluster, [SetMode("b", run.node_type.modes[-1], 500.0)], START_S)
    assert cluster.runs["b"].mode.name == "p350"


def test_the_generator_repeats_itself_and_fits_the_site(site):
    jobs = generate(site, START_S, 8 * 3600, seed=5, demand=1.3)
    assert jobs == generate(site, START_S, 8 * 3600, seed=5, demand=1.3)
    assert jobs != generate(site, START_S, 8 * 3600, seed=6, demand=1.3)
    check_fit(site, jobs, "generated")
    assert sum(j.gpus * j.duration_s for j in jobs) >= 1.3 * 768 * 8 * 3600
    small = sum(j.gpus <= 8 for j in jobs) / len(jobs)
    large_work = sum(j.gpus * j.duration_s for j in jobs if j.gpus > 8) / sum(j.gpus * j.duration_s for j in jobs)
    assert small > 0.5
    assert large_work > 0.5
