"""Powerhall's own job files."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from powerhall.jobs.job_files import read_jobs, write_jobs
from powerhall.jobs.model import Job
from powerhall.runtime.errors import Rejected

NAME = st.from_regex(r"[a-z][a-z0-9-]{0,8}", fullmatch=True)
JOBS = st.lists(
    st.builds(
        Job,
        job_id=NAME,
        gpus=st.integers(1, 10_000),
        duration_s=st.floats(1, 1e7),
        submit_s=st.floats(0, 2e9),
        job_class=NAME,
        weight=st.floats(0.01, 1e6),
        halls=st.lists(NAME, max_size=3).map(tuple),
        deadline_s=st.none() | st.floats(0, 2e9),
        preemptible=st.booleans(),
    ),
    min_size=1,
    unique_by=lambda job: job.job_id,
)


@given(JOBS)
def test_jobs_are_read_back_as_they_were_written(tmp_path_factory, jobs):
    path = tmp_path_factory.mktemp("jobs") / "jobs.csv"
    path.write_text(write_jobs(jobs))
    assert read_jobs(path) == tuple(jobs)


def test_blocks_have_columns_only_where_a_job_has_them(tmp_path):
    plain = Job("a", 8, 60.0)
    assert "within" not in write_jobs([plain])
    path = tmp_path / "jobs.csv"
    jobs = (plain, Job("b", 72, 60.0, within="nvlink_domain"), Job("c", 144, 60.0, within="rack", block_nodes=9))
    path.write_text(write_jobs(jobs))
    assert read_jobs(path) == jobs
    path.write_text("job_id,gpus,duration_s,block_nodes\na,8,60,2\n")
    with pytest.raises(Rejected, match=r"job a: block_nodes: 2: needs `within`"):
        read_jobs(path)
