"""The checks that every list of jobs passes."""

import math

import pytest

from powerhall.jobs.model import Job, check_jobs
from powerhall.runtime.errors import Rejected


@pytest.mark.parametrize(
    ("field", "value"),
    [("gpus", 0), ("duration_s", 0.0), ("duration_s", math.nan), ("weight", 0.0), ("weight", math.inf),
     ("submit_s", math.nan), ("deadline_s", math.inf), ("checkpoint_cost_s", -1.0), ("state", "running")],
)  # fmt: skip
def test_an_unsound_job_is_refused_by_name_and_field(field, value):
    fields = {"job_id": "j7", "gpus": 8, "duration_s": 60.0, field: value}
    with pytest.raises(Rejected, match=rf"here: job j7: {field}"):
        check_jobs([Job(**fields)], "here")
