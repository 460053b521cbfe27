"""The Philly trace as jobs."""

from powerhall.jobs.readers.philly import read_philly


def test_the_real_trace_is_read_whole(data_dir):
    jobs = read_philly(data_dir / "jobs" / "philly_jobs.csv.gz")
    assert 80_000 < len(jobs) <= 82_247
    assert max(job.gpus for job in jobs) == 128
