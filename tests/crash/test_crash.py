"""The short form of the kill -9 loop; `python tests/crash/run.py --kills 500` is the long one."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from run import crash_loop


@pytest.mark.rig
@pytest.mark.slow
def test_fifty_kills_lose_nothing_and_double_nothing(influx, tmp_path):
    result = crash_loop(influx, 50, 7, tmp_path)
    assert result["promised_points"] > 500
    assert result["answers_503"] > 0
    assert result["answers_swallowed"] > 0
    assert (result["lost_points"], result["doubled_points"], result["undrained"]) == (0, 0, 0), result
