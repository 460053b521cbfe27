"""The Standard Workload Format as jobs."""

import pytest

from powerhall.jobs.readers.swf import read_swf, read_swf_list

HEAD = b"; Version: 2.2\n; UnixStartTime: 1000000000\n"
LINE = b"1 0 10 300 8 -1 -1 8 600 -1 1 1 1 1 1 1 -1 -1\n"


def written(tmp_path, text):
    path = tmp_path / "trace.swf"
    path.write_bytes(text)
    return path


def test_lines_of_jobs_that_ran_become_jobs(tmp_path):
    swf = tmp_path / "trace.swf"
    swf.write_text("; UnixStartTime: 1000\n 1 5 -1 60 4 -1 -1 4 100 -1 1 1 1 1 2 -1 -1 -1\n 2 6 -1 -1 4 " + "-1 " * 13)
    (job,) = read_swf(swf)
    assert (job.gpus, job.submit_s, job.duration_s, job.job_class) == (4, 1005.0, 60.0, "queue2")


def test_parts_of_a_swapped_job_are_not_jobs_beside_its_line(tmp_path):
    parts = b"".join(
        b"1 -1 %d 100 8 -1 -1 8 600 -1 %d 1 1 1 1 1 -1 -1\n" % (at, code) for at, code in ((50, 2), (70, 3))
    )
    found = read_swf_list(written(tmp_path, HEAD + LINE + parts))
    assert [(job.job_id, job.duration_s) for job in found.jobs] == [("swf-1", 300.0)]
    assert any("2 that are parts of a job" in note for note in found.notes)


def test_parts_without_a_line_of_their_job_are_one_job(tmp_path):
    parts = b"9 5 1 100 8 -1 -1 8 600 -1 2 1 1 1 1 1 -1 -1\n9 -1 1 40 8 -1 -1 8 600 -1 4 1 1 1 1 1 -1 -1\n"
    (job,) = read_swf(written(tmp_path, HEAD + parts))
    assert (job.job_id, job.duration_s, job.submit_s) == ("swf-9", 140.0, 1_000_000_005.0)


@pytest.mark.parametrize("line", [LINE, LINE.replace(b" -1 -1\n", b" -1\n"), LINE.replace(b"\n", b" 7 7\n")])
def test_a_latin_1_header_and_columns_more_or_less_refuse_nothing(tmp_path, line):
    (job,) = read_swf(written(tmp_path, b"; Installation: Universit\xe4t\n" + HEAD + line))
    assert (job.gpus, job.submit_s) == (8, 1_000_000_000.0)


@pytest.mark.parametrize(
    ("text", "origin_s"),
    [(b"1e9", 1e9), (b"1.5E+9", 1.5e9), (b"1500000000000", 1.5e9), (b"1500000000 (UTC)", 1.5e9), (b"0", 0.0)],
)
def test_an_origin_may_be_in_milliseconds_or_in_other_notation(tmp_path, text, origin_s):
    for before in (b"", b"\n  "):
        found = read_swf_list(written(tmp_path, before + b"; UnixStartTime: " + text + b"\n" + LINE))
        assert found.jobs[0].submit_s == origin_s
        assert ("UnixStartTime is taken as milliseconds" in found.notes) == (len(text) == 13)


@pytest.mark.parametrize(
    "head", [b"; UnixStartTime: UNKNOWN\n", b"; UnixStartTime: 1,000\n", b"; UnixStartTime: 0\n", b""]
)
def test_an_unknown_origin_is_told(tmp_path, head):
    found = read_swf_list(written(tmp_path, head + LINE))
    assert found.jobs[0].submit_s == 0.0
    assert any("no UnixStartTime" in note for note in found.notes)


def test_a_damaged_line_is_counted(tmp_path):
    found = read_swf_list(written(tmp_path, HEAD + b"x y\n2 1\n" + LINE))
    assert [job.job_id for job in found.jobs] == ["swf-1"]
    assert found.notes == ("2 lines skipped: 1 with text for a number, 1 with less than 5 numbers",)


def test_notes_after_the_numbers_and_a_header_in_other_capitals_are_read(tmp_path):
    (job,) = read_swf(written(tmp_path, b";unixstarttime: 1000.5\n" + LINE.replace(b"\n", b" ; a note\n")))
    assert (job.gpus, job.submit_s) == (8, 1000.0)
