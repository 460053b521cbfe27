"""Formats of job files are detected, and every format is read by its reader."""

import re

import pytest

from powerhall.jobs.readers.formats import JOB_FORMATS, detect_format, format_titles, read_job_file
from powerhall.runtime.errors import Rejected

SWF_LINE = " 1 5 -1 60 4 -1 -1 4 100 -1 1 1 1 1 2 -1 -1 -1\n"
PHILLY = "timestamp,duration,num_gpus,gpu_time,cluster\n2017-10-01T00:00:00,60,8,480,vc1\n"
SACCT = "JobIDRaw|Submit|Elapsed|AllocTRES\n7|2024-01-01T00:00:00|10:30|gres/gpu=16\n"


@pytest.mark.parametrize(
    ("name", "text", "form"),
    [
        ("a.csv", "id,gpus,duration\nj,8,60\n", "own"),
        ("a.json", '[{"job_id": "j", "gpus": 8, "duration_s": 60}]', "own"),
        ("A.SWF", SWF_LINE, "swf"),
        ("a.txt", "; UnixStartTime: 0\n" + SWF_LINE, "swf"),
        ("a.txt", SACCT, "sacct"),
        ("a.csv", PHILLY, "philly"),
    ],
)
def test_a_file_is_recognised_and_read(tmp_path, name, text, form):
    path = tmp_path / name
    path.write_text(text)
    assert detect_format(path) == form
    assert read_job_file(path) == read_job_file(path, form) == JOB_FORMATS[form].read(path)


def test_a_file_of_no_known_format_is_refused_with_the_formats(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("colour,size\n")
    with pytest.raises(Rejected, match=r"a\.csv: first line: 'colour,size': must be one of the formats ") as refused:
        read_job_file(path)
    assert all(name in str(refused.value) for name in JOB_FORMATS)


def test_help_and_guide_name_every_format(root):
    row = re.search(r"^\| `--jobs FILE` \|.*$", (root / "docs/guide/optimizer.md").read_text(), re.MULTILINE)
    assert row is not None
    for reader in JOB_FORMATS.values():
        assert reader.title in format_titles()
        assert re.search(rf"[ ,`]{reader.name}[,`)]", row[0]), reader.name
