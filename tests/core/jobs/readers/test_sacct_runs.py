"""What ran when, by Slurm's accounting."""

import pytest

from powerhall.jobs.readers.sacct_runs import read_sacct_runs
from powerhall.runtime.errors import Rejected

TEXT = """\
JobIDRaw|Submit|Eligible|Start|End|Elapsed|AllocTRES|Partition|State|NodeList
1|1970-01-01T00:00:10|1970-01-01T00:01:00|1970-01-01T00:02:00|1970-01-01T00:12:00|00:10:00|gres/gpu=8|train|COMPLETED|gn01
1.batch|1970-01-01T00:00:10||1970-01-01T00:02:00|1970-01-01T00:12:00|00:10:00|gres/gpu=8|train|COMPLETED|gn01
2|1970-01-01T00:00:20||Unknown|1970-01-01T00:10:00|00:05:00|gres/gpu:h200=4|serve|FAILED|None assigned
3|1970-01-01T00:00:30||1970-01-01T00:03:00|Unknown|00:04:00|gres/gpu=2|train|RUNNING|gn02
4|1970-01-01T00:00:40||Unknown|Unknown|00:00:00|gres/gpu=2|train|PENDING|
5|1970-01-01T00:00:50||1970-01-01T00:01:00|1970-01-01T00:02:00|00:01:00|cpu=4|train|COMPLETED|cn01
6|1970-01-01T00:00:50||Unknown|Unknown|00:01:00|gres/gpu=1|train|COMPLETED|cn01
7|1970-01-01T00:09:00||1970-01-01T00:01:00|1970-01-01T00:02:00|00:01:00|gres/gpu=1|train|COMPLETED|cn01
1|1970-01-01T00:20:00||1970-01-01T00:30:00|1970-01-01T00:31:00|00:01:00|gres/gpu=8|train|COMPLETED|gn01
8|yesterday||1970-01-01T00:01:00|1970-01-01T00:02:00|00:01:00|gres/gpu=1|train|COMPLETED|cn01
9|short
"""


def test_runs_have_their_start_end_and_when_they_were_ready(tmp_path):
    path = tmp_path / "sacct.txt"
    path.write_text(TEXT)
    found = read_sacct_runs(path)
    runs = {run.job_id: run for run in found.runs}
    assert list(runs) == ["7", "1", "3", "2", "1#2"]
    assert (runs["1"].ready_s, runs["1"].start_s, runs["1"].end_s, runs["1"].nodes) == (60, 120, 720, "gn01")
    assert (runs["2"].start_s, runs["2"].end_s, runs["2"].gpus, runs["2"].nodes) == (300, 600, 4, "")
    assert (runs["3"].end_s, runs["3"].ended) == (420, False)
    assert runs["7"].ready_s == runs["7"].start_s == 60
    told = " | ".join(found.notes)
    for part in ("not started", "without a GPU", "without a start", "a time that is none", "other cells", "still ran"):
        assert part in told


def test_a_run_that_ended_in_a_requeue_is_a_run(tmp_path):
    path = tmp_path / "sacct.txt"
    end = "1970-01-01T00:12:00"
    path.write_text(
        TEXT.replace("9|short", f"9|1970-01-01T00:01:00||Unknown|{end}|00:02:00|gres/shard=2|a|REQUEUED|gn01")
    )
    (run,) = (run for run in read_sacct_runs(path).runs if run.job_id == "9")
    assert (run.start_s, run.end_s, run.gpus, run.ended) == (600, 720, 2, True)


def test_a_file_without_a_run_names_why(tmp_path):
    path = tmp_path / "sacct.txt"
    path.write_text("\n".join(line for line in TEXT.splitlines() if line[:2] in ("Jo", "4|", "5|")))
    with pytest.raises(Rejected, match=r"no run with a GPU: .*had not started"):
        read_sacct_runs(path)
