"""A safe limit that no GPU accepts is a mistake: the lowest limits hold, no lease, and everybody says so."""

import subprocess

import pytest
from tests.rigs.capper_process import FOUND_W, MIN_W, SAFE_W, lease

from powerhall.lease import RefusedForNow
from powerhall_agent.capper.gpu_calls import Range
from powerhall_agent.capper.safe_check import compared


@pytest.mark.parametrize("text", ["3000 W", "1e4 kW", "701.5 W"])
def test_a_safe_limit_above_every_gpu_is_not_believed(rig, text):
    rig.settings["safe_gpu_power_limit"] = text
    rig.write_config()
    rig.start()
    assert rig.limits() == [MIN_W] * 4
    (alarm,) = [line for line in rig.client.alive().status.alarms if "safe_gpu_power_limit" in line]
    assert "must be at most 700 W" in alarm
    with pytest.raises(RefusedForNow, match="must be at most 700 W"):
        rig.client.offer(lease(1))
    done = subprocess.run([*rig.command(), "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "above what any GPU accepts" in done.stdout


def test_the_check_of_a_good_limit_sets_nothing(rig):
    done = subprocess.run([*rig.command(), "--check"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [f"GPU {gpu}: accepts 200 to 700 W; {SAFE_W:.0f} W fits" for gpu in range(4)]
    assert rig.limits() == [FOUND_W] * 4


def test_a_limit_that_one_kind_of_gpu_accepts_fits_a_mixed_host():
    lines, is_taken = compared(350.0, {0: Range(100, 700), 1: Range(40, 72)}, {2: "lost"})
    assert is_taken
    assert lines == [
        "GPU 2: does not answer: lost",
        "GPU 0: accepts 100 to 700 W; 350 W fits",
        "GPU 1: accepts 40 to 72 W; 350 W is brought to 72 W",
    ]
    assert compared(350.0, {}, {})[1] is False
