"""Slurm's accounting as jobs: archived and read live."""

from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest

from powerhall.jobs.readers.formats import read_job_file, read_queue_file
from powerhall.jobs.readers.sacct import read_sacct, read_sacct_list
from powerhall.jobs.readers.sacct_states import phase_of
from powerhall.runtime.errors import Rejected

LIVE = """\
JobID|JobIDRaw|Submit|Start|End|Elapsed|Timelimit|State|ReqTRES|AllocTRES|Partition|NodeList
101|101|2026-11-28T08:00:00|2026-11-28T08:10:00|Unknown|02:00:00|1-00:00:00|RUNNING|gres/gpu=8|gres/gpu:h200=8,gres/gpu=8|train|gn01
101.batch|101.batch|2026-11-28T08:10:00|2026-11-28T08:10:00|Unknown|02:00:00||RUNNING||gres/gpu=8||gn01
102_[1-10%2]|102|2026-11-28T09:00:00|Unknown|Unknown|00:00:00|UNLIMITED|PENDING|gres/gpu=4||train|None assigned
105|105|2026-11-28T09:05:00|None|2026-11-28T09:20:00|00:00:00|01:00:00|CANCELLED by 1000|gres/gpu=2||train|None assigned
106|106|2026-11-28T09:06:00|2026-11-28T09:06:00|2026-11-28T09:20:00|00:14:00|01:00:00|NODE_FAIL|gres/gpu=2|gres/gpu=2|train|gn02
"""


def written(tmp_path, text, name="sacct.txt"):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


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


def test_what_runs_and_waits_is_a_queue_and_what_has_ended_is_not_in_it(tmp_path):
    found = read_queue_file(written(tmp_path, LIVE))
    jobs = {job.job_id: job for job in found.jobs}
    assert set(jobs) == {"101", "102_1", "102_2"}
    assert (jobs["101"].state, jobs["101"].gpus, jobs["101"].nodes) == ("running", 8, "gn01")
    assert jobs["101"].duration_s == 22 * 3600
    assert (jobs["102_1"].state, jobs["102_1"].gpus, jobs["102_1"].duration_s) == ("waiting", 4, 86_400.0)
    assert [entry.job_id for entry in found.left_out] == [f"102_{n}" for n in range(3, 11)]
    assert any("2 that have ended" in note for note in found.notes)


def test_the_same_file_is_a_trace_of_what_has_ended(tmp_path):
    assert [job.job_id for job in read_job_file(written(tmp_path, LIVE), "sacct")] == ["106"]


def test_of_a_job_that_was_requeued_the_last_run_counts(tmp_path):
    text = (
        "JobIDRaw|Submit|Elapsed|AllocTRES|State\n"
        "200|2026-11-28T08:00:00|01:00:00|gres/gpu=8|PREEMPTED\n"
        "200|2026-11-28T09:05:00|02:00:00|gres/gpu=8|COMPLETED\n"
    )
    found = read_sacct_list(written(tmp_path, text))
    assert [(job.job_id, job.duration_s) for job in found.jobs] == [("200", 7200.0)]
    assert any("1 of an earlier run of a job" in note for note in found.notes)


@pytest.mark.parametrize(
    "row", ["300|2026-11-28T08:00:00|INVALID|gres/gpu=8", "300|Unknown|00:10:00|gres/gpu=8", "300|"]
)
def test_a_line_with_a_time_that_is_none_is_counted_and_the_rest_is_read(tmp_path, row):
    text = f"JobIDRaw|Submit|Elapsed|AllocTRES\n{row}\n301|2026-11-28T08:00:00|00:10:00|gres/gpu=8\n"
    found = read_sacct_list(written(tmp_path, text))
    assert [job.job_id for job in found.jobs] == ["301"]
    assert any("1 lines skipped" in note for note in found.notes)


@pytest.mark.parametrize("name", [b"a|b", b"M\xfcller", "Müller".encode(), b'"quoted', b"|||"])
def test_names_are_free_text(tmp_path, name):
    text = b"JobIDRaw|JobName|Submit|Elapsed|AllocTRES\n300|" + name + b"|2026-11-28T08:00:00|00:10:00|gres/gpu=8\n"
    (job,) = read_sacct(written(tmp_path, text))
    assert (job.job_id, job.gpus, job.duration_s) == ("300", 8, 600.0)


def test_sacct_parsable_ends_lines_with_a_bar(tmp_path):
    text = "JobIDRaw|Submit|Elapsed|AllocTRES|\n1|2026-11-28T08:00:00|00:10:00|gres/gpu=8|\n"
    assert [job.gpus for job in read_sacct(written(tmp_path, text))] == [8]


@pytest.mark.parametrize(
    ("zone", "hour"), [(None, 8), (UTC, 8), (ZoneInfo("Europe/Berlin"), 7), (timezone(timedelta(hours=-5)), 13)]
)
def test_local_times_are_those_of_the_cluster(tmp_path, zone, hour):
    text = "JobIDRaw|Submit|Elapsed|AllocTRES\n301|2026-11-28T08:00:00|00:10:00|gres/gpu=8\n"
    found = read_sacct_list(written(tmp_path, text), zone)
    assert found.jobs[0].submit_s == datetime(2026, 11, 28, hour, tzinfo=UTC).timestamp()
    assert any("taken as UTC" in note for note in found.notes) is (zone is None), "never guessed silently"


def test_a_file_without_jobs_is_refused(tmp_path):
    with pytest.raises(Rejected, match="no jobs"):
        read_sacct(written(tmp_path, "JobIDRaw|Submit|Elapsed|AllocTRES\n"))


@pytest.mark.parametrize(
    ("change", "gpus"),
    [
        ({"Elapsed": "INVALID"}, 8),
        ({"Submit": "Unknown"}, 8),
        ({"JobName": "a|b", "Comment": "c"}, 8),
        ({"AllocTRES": "cpu=4,gres/shard=2"}, 2),
        ({"AllocTRES": "cpu=4,gres/mps=150,gres/mps:h200=150"}, 2),
        ({"AllocTRES": "billing=9,gres/gpu:1g.10gb=3,gres/gpu=3"}, 3),
        ({"AllocTRES": "gres/gpu=2K"}, 2048),
    ],
)
def test_what_runs_counts_however_little_of_its_line_is_understood(tmp_path, change, gpus):
    row = {
        "JobID": "7", "JobName": "a", "Comment": "", "State": "RUNNING", "Submit": "2026-11-28T08:00:00",
        "Elapsed": "00:10:00", "AllocTRES": "gres/gpu=8", "NodeList": "gn01",
    }  # fmt: skip
    text = "|".join(row) + "\n" + "|".join((row | change).values()) + "\n"
    (job,) = read_sacct_list(written(tmp_path, text)).jobs
    assert (job.state, job.gpus, job.nodes) == ("running", gpus, "gn01")


def test_a_running_job_whose_line_does_not_fit_keeps_its_gpus_counted(tmp_path):
    more = "8|a|b|RUNNING|2026-11-28T08:00:00|00:10:00|gres/gpu=4|gn02|c|d\n8.batch|a|b|RUNNING|x|x|gres/gpu=4|x|c|d\n"
    head = "JobID|JobName|State|Submit|Elapsed|AllocTRES|NodeList|Comment\n"
    good = "7|a|RUNNING|2026-11-28T08:00:00|00:10:00|gres/gpu=8|gn01|\n"
    found = read_sacct_list(written(tmp_path, head + good + more))
    assert [(one.job_id, one.running, one.gpus) for one in found.left_out] == [("8", True, 4)]


def test_an_array_that_sacct_shortened_is_no_step(tmp_path):
    head = "JobIDRaw|JobID|State|Submit|Elapsed|ReqTRES|AllocTRES\n"
    row = "9|9_[1-2,4,...%2]|PENDING|2026-11-28T08:00:00|00:00:00|gres/gpu=8|\n"
    found = read_sacct_list(written(tmp_path, head + row))
    assert [job.job_id for job in found.jobs] == ["9_1", "9_2"]
    assert [one.job_id for one in found.left_out] == ["9_4"]


@pytest.mark.parametrize(
    ("state", "end", "phase"),
    [
        ("STOPPED", "Unknown", "RUNS"), ("running", "Unknown", "RUNS"), ("RUNNING+COMPLETING", "Unknown", "RUNS"),
        ("R", "Unknown", "RUNS"), ("POWER_UP_NODE", "Unknown", "RUNS"), ("SOMETHINGNEW", "Unknown", "RUNS"),
        ("", "Unknown", "RUNS"), ("RUNNING", "2026-11-28T09:00:00", "RUNS"), ("RESIZING", "Unknown", "RUNS"),
        ("RESIZING", "2026-11-28T09:00:00", "OVER"), ("SOMETHINGNEW", "2026-11-28T09:00:00", "OVER"),
        ("CANCELLED by 1000", "2026-11-28T09:00:00", "OVER"), ("CANCELLED+", "Unknown", "OVER"),
        ("OUT_OF_ME+", "2026-11-28T09:00:00", "OVER"), ("CD", "2026-11-28T09:00:00", "OVER"),
        ("PENDING", "Unknown", "WAITS"), ("REQUEUE_HOLD", "Unknown", "WAITS"), ("PD", "Unknown", "WAITS"),
    ],
)  # fmt: skip
def test_states_are_understood_in_every_form(state, end, phase):
    assert phase_of({"State": state, "End": end, "AllocTRES": "gres/gpu=8"}).name == phase


def test_every_run_of_a_job_that_goes_on_counts_and_the_last_line_of_a_run_wins(tmp_path):
    """Two clusters of a federation, or an accounting that missed an end, have one id twice."""
    head = "JobIDRaw|Submit|Start|End|Elapsed|State|ReqTRES|AllocTRES|NodeList\n"
    row = "7|2026-11-28T08:00:00|{}|{}|01:00:00|{}|gres/gpu=8|{}|{}\n"
    lines = [
        row.format("2026-11-28T08:00:00", "2026-11-28T08:30:00", "REQUEUED", "gres/gpu=8", "gn09"),
        row.format("2026-11-28T09:00:00", "Unknown", "RUNNING", "gres/gpu=8", "gn01"),
        row.format("2026-11-28T09:00:00", "Unknown", "RUNNING", "gres/gpu=4", "gn01"),
        row.format("2026-11-28T09:10:00", "Unknown", "SUSPENDED", "gres/gpu=8", "gn02"),
        row.format("Unknown", "Unknown", "PENDING", "", "None assigned"),
    ]
    found = read_sacct_list(written(tmp_path, head + "".join(lines)))
    assert [(job.job_id, job.state, job.gpus, job.nodes) for job in found.jobs] == [
        ("7", "running", 4, "gn01"),
        ("7#2", "running", 8, "gn02"),
    ]


def test_a_waiting_job_of_parts_of_gpus_is_left_out(tmp_path):
    text = LIVE + "120|120|2026-11-28T09:07:00|Unknown|Unknown|00:00:00|01:00:00|PENDING|gres/shard=2||train|\n"
    found = read_sacct_list(written(tmp_path, text))
    assert [entry.reason for entry in found.left_out if entry.job_id == "120"] == ["asks for parts of GPUs"]
