"""Slurm's accounting as jobs."""

from powerhall.jobs.readers.sacct import read_sacct


def test_lines_of_jobs_with_gpus_become_jobs(tmp_path):
    sacct = tmp_path / "sacct.txt"
    sacct.write_text(
        "JobIDRaw|Submit|Elapsed|AllocTRES|Partition\n"
        "7|2024-01-01T00:00:00|1-02:03:04|cpu=8,gres/gpu=16,node=2|train\n"
        "7.batch|2024-01-01T00:00:00|1-02:03:04|cpu=8|\n"
        "8|2024-01-01T00:00:00|00:10:00|cpu=8|cpu\n"
        "9|2024-01-01T00:00:00|10:30|gres/gpu:a100=4,gres/gpu:h100=2|mix\n"
    )
    first, second = read_sacct(sacct)
    assert (first.job_id, first.gpus, first.duration_s, first.job_class) == ("7", 16, 93_784.0, "train")
    assert (second.gpus, second.duration_s) == (6, 630.0)
