"""The generator of jobs: repeatable, on sizes that the site has, most jobs small and most work in large ones."""

from twin_jobs import START_S

from powerhall_optimizer.inputs.snapshot import check_fit
from powerhall_twin.jobs.generator import generate


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
