"""A host with jobs."""

import pytest

from rigs.job_host import Host


@pytest.fixture
def host(tmp_path):
    return Host(tmp_path)
