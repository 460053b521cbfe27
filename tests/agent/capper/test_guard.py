"""The guard of the capper: a lease ends on time although the capper itself stands still."""

import os
import re
import signal
import time
from pathlib import Path

import pytest
from tests.rigs.capper_process import SAFE_W, lease

from powerhall.runtime.errors import Rejected
from powerhall_agent.capper.guard import GRACE_S, Ends

STANDS_STILL = "stands still"


def guards(rig):
    """The processes that the capper has started."""
    pid = rig.process.pid
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def started(rig):
    """Start the capper; return when its guard waits: it turns ten times a second and uses no time."""
    rig.start()
    begin_s, before = time.monotonic(), (0, 0)
    while time.monotonic() - begin_s < 30.0:
        (guard,) = guards(rig)
        status, stat = (Path(f"/proc/{guard}/{name}").read_text() for name in ("status", "stat"))
        now = int(re.search(r"\nvoluntary_ctxt_switches:\s+(\d+)", status)[1]), int(stat.rpartition(")")[2].split()[11])
        if now[0] - before[0] in range(2, 12) and now[1] - before[1] <= 2:
            return
        before = now
        time.sleep(0.5)
    raise AssertionError(rig.log[-2000:])


def short(sequence, lasts_s=1.0, watts=600.0):
    return lease(sequence, lasts_s, watts)


def test_the_lease_of_a_stopped_capper_ends_within_two_seconds_of_its_time(rig):
    started(rig)
    rig.client.offer(short(1))
    end_s = time.monotonic() + 1.0
    rig.process.send_signal(signal.SIGSTOP)
    time.sleep(0.7)
    assert rig.limits() == [600.0] * 4, "until then it holds"
    rig.until(rig.limits, [SAFE_W] * 4, end_s + 2.0 - time.monotonic())
    assert STANDS_STILL in rig.log
    rig.process.send_signal(signal.SIGCONT)
    rig.until(rig.answers, True, 3.0)
    rig.client.offer(lease(2))
    assert rig.limits() == [500.0] * 4


def test_a_hung_gpu_beside_a_stopped_capper_costs_itself_alone(rig):
    started(rig)
    rig.client.offer(short(1))
    rig.fault("gpu 1 hung 30")
    rig.process.send_signal(signal.SIGSTOP)
    rig.until(rig.limits, [SAFE_W, 600.0, SAFE_W, SAFE_W], 3.0)
    rig.process.send_signal(signal.SIGCONT)


def test_a_guard_that_dies_is_started_again_and_told_the_lease(rig):
    rig.start()
    rig.client.offer(short(1, lasts_s=4.0))
    (guard,) = guards(rig)
    os.kill(guard, signal.SIGKILL)
    rig.until(lambda: [pid for pid in guards(rig) if pid != guard] != [], True, 3.0, beat=True)
    time.sleep(0.3)
    rig.client.alive()
    rig.process.send_signal(signal.SIGSTOP)
    rig.until(rig.limits, [SAFE_W] * 4, 6.0)
    rig.process.send_signal(signal.SIGCONT)


def test_a_capper_that_is_well_never_needs_it_and_takes_it_along(rig):
    rig.start()
    rig.client.offer(short(1))
    rig.until(rig.limits, [SAFE_W] * 4, 3.0, beat=True)
    time.sleep(GRACE_S + 0.5)
    with pytest.raises(Rejected):
        rig.client.offer(short(1))
    assert STANDS_STILL not in rig.log
    (guard,) = guards(rig)
    rig.stop(signal.SIGKILL)
    begin_s = time.monotonic()
    while Path(f"/proc/{guard}/stat").exists() and time.monotonic() - begin_s < 2.0:
        time.sleep(0.02)
    assert not Path(f"/proc/{guard}/stat").exists()


def test_each_end_is_acted_on_a_few_times_and_only_after_the_grace():
    ends = Ends()
    ends.feed(b"100.0\n20")
    ends.feed(b"0.0\n")
    assert not ends.is_due(200.4)
    assert [second for second in range(201, 240) if ends.is_due(float(second))] == [201, 203, 205]
    ends.feed(b"0.000\n")
    assert not ends.is_due(300.0)
    ends.feed(b"310.0\n")
    assert ends.is_due(311.0)
