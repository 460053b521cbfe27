"""The Standard Workload Format as jobs."""

from powerhall.jobs.readers.swf import read_swf


def test_lines_of_jobs_that_ran_become_jobs(tmp_path):
    swf = tmp_path / "trace.swf"
    swf.write_text("; UnixStartTime: 1000\n 1 5 -1 60 4 -1 -1 4 100 -1 1 1 1 1 2 -1 -1 -1\n 2 6 -1 -1 4 " + "-1 " * 13)
    (job,) = read_swf(swf)
    assert (job.gpus, job.submit_s, job.duration_s, job.job_class) == (4, 1005.0, 60.0, "queue2")
