"""A capper as a process, ended with the test."""

import pytest
from tests.rigs.capper_process import CapperProcess


@pytest.fixture
def rig(tmp_path):
    made = CapperProcess(tmp_path)
    yield made
    made.close()
