"""How long a lease lives: never beyond its span from its receipt, whatever a clock shows and whoever sets it."""

import os
import stat
import time

import pytest
from tests.rigs.capper_process import SAFE_W, lease

from powerhall.lease import GpuCap, Lease, RefusedForNow, node_key, sign_lease
from powerhall.runtime.errors import Rejected
from powerhall_agent.capper.capper import Capper
from powerhall_agent.capper.limiter import Range

KEY = node_key(bytes(range(32)), "n1")
NOON = 1_800_000_000.0
HOUR = 3600.0


class Gpu:
    """One GPU of 200 to 700 W."""

    def __init__(self):
        self.limit_w = 700.0

    def ranges(self):
        return {0: Range(200.0, 700.0)}

    def read(self):
        return (GpuCap(0, self.limit_w),)

    def clocks_mhz(self, gpus):
        return dict.fromkeys(gpus, 0.0)

    def apply(self, caps):
        for cap in caps:
            self.limit_w = cap.power_limit_w


class Node:
    """A capper, and the true time beside its clock, which is `ahead_s` ahead of it."""

    def __init__(self, folder, ahead_s=0.0, age_s=2 * HOUR, **more):
        self.gpu, self.ahead_s, self.true_s, self.folder, self.more = Gpu(), ahead_s, NOON, folder, more
        self.age_s = age_s
        self.start()

    def start(self, boot="b1"):
        self.capper = Capper(
            self.gpu, node="n1", key=KEY, safe_limit_w=300.0, memory=self.folder / "memory.json",
            started_s=self.wall_s - self.age_s, boot=boot, **self.more,
        )  # fmt: skip

    @property
    def wall_s(self):
        return self.true_s + self.ahead_s

    def offer(self, signed):
        self.capper.offer(signed, self.wall_s, self.true_s - NOON)

    def live(self, seconds):
        """Let time pass with heartbeats; return how long the GPU was above its safe cap."""
        above_s = 0.0
        for _ in range(round(seconds / 0.2)):
            self.true_s += 0.2
            above_s += 0.2 * (self.gpu.limit_w > 300.0)
            self.capper.heard(self.true_s - NOON)
            self.capper.note_clocks(self.wall_s, self.true_s - NOON)
            self.capper.tick(self.true_s - NOON)
        return above_s


def signed(sequence, issued_s, lasts_s, watts=500.0):
    return sign_lease(Lease("n1", "p", sequence, issued_s, issued_s + lasts_s, 1.0, (GpuCap(0, watts),)), KEY)


def test_a_clock_an_hour_slow_takes_no_lease_at_all(tmp_path):
    node = Node(tmp_path, ahead_s=-HOUR)
    with pytest.raises(RefusedForNow, match="ahead of this node's clock"):
        node.offer(signed(1, NOON, 3.0))
    with pytest.raises(RefusedForNow):
        node.offer(signed(2, NOON - 600.0, 300.0))  # it ran out five minutes ago
    assert node.gpu.limit_w == 300.0


def test_rounds_ahead_prove_a_slow_clock_which_then_takes_no_run_out_lease(tmp_path):
    """A carrier offers the newest first; without a rule, a lease of an hour ago would look fresh by the slow clock."""
    node = Node(tmp_path, ahead_s=-HOUR)
    for sequence, ago_s in ((9, 0.0), (8, 300.0), (7, 600.0)):
        with pytest.raises(RefusedForNow):
            node.offer(signed(sequence, NOON - ago_s, 900.0))
    with pytest.raises(Rejected, match="clock is slow"):
        node.offer(signed(1, NOON - HOUR - 10.0, 900.0))
    node.ahead_s = 0.0
    node.offer(signed(9, NOON, 900.0))
    assert node.gpu.limit_w == 500.0


def test_a_planner_that_was_ahead_for_one_round_keeps_no_node_at_its_safe_cap(tmp_path):
    node = Node(tmp_path)
    with pytest.raises(RefusedForNow):
        node.offer(signed(9, NOON + 1200.0, 900.0))
    node.offer(signed(8, NOON - 10.0, 900.0))
    assert node.gpu.limit_w == 500.0
    for sequence in (11, 12):
        with pytest.raises(RefusedForNow):
            node.offer(signed(sequence, NOON + 300.0 * sequence, 900.0))
    node.offer(signed(13, NOON, 900.0, 600.0))  # after them in number and before them in time: the planner was set back
    assert node.gpu.limit_w == 600.0


def test_one_lease_a_little_ahead_shortens_the_one_before_it(tmp_path):
    """This node may be two minutes slow: the lease before has two minutes less to live."""
    node = Node(tmp_path)
    with pytest.raises(RefusedForNow):
        node.offer(signed(9, NOON + 120.0, 900.0))
    node.offer(signed(8, NOON - 10.0, 190.0))
    assert node.live(200.0) == pytest.approx(60.0, abs=0.3)


def test_a_clock_an_hour_fast_takes_nothing_that_has_run_out_by_it(tmp_path):
    node = Node(tmp_path, ahead_s=HOUR)
    with pytest.raises(Rejected, match="expires_s"):
        node.offer(signed(1, NOON, 900.0))


@pytest.mark.parametrize("step_s", [-HOUR, HOUR])
def test_a_step_while_a_lease_holds_neither_prolongs_nor_ends_it(tmp_path, step_s):
    node = Node(tmp_path)
    node.offer(signed(1, NOON, 30.0))
    assert node.live(10.0) == pytest.approx(10.0)
    node.ahead_s = step_s
    assert node.live(40.0) == pytest.approx(20.0, abs=0.3)
    assert any("clock: was set by" in alarm for alarm in node.capper.alarms)


def test_a_clock_set_back_an_hour_lets_no_run_out_lease_in(tmp_path):
    node = Node(tmp_path)
    node.offer(signed(1, NOON, 30.0))
    node.live(600.0)
    node.ahead_s = -HOUR
    with pytest.raises(Rejected, match="run out"):
        node.offer(signed(2, NOON + 20.0, 300.0))  # it ran out five minutes ago
    node.start()  # the memory keeps the newest issue time
    with pytest.raises(Rejected, match="run out"):
        node.offer(signed(2, NOON + 20.0, 300.0))
    node.offer(signed(3, NOON + 600.0, 30.0))  # and a fresh one is recognised, by the time that has certainly passed
    assert node.live(60.0) == pytest.approx(30.0, abs=0.3)


def test_the_span_from_issue_to_expiry_bounds_a_lease_of_a_slightly_slow_clock(tmp_path):
    node = Node(tmp_path, ahead_s=-0.9)
    node.offer(signed(1, NOON, 3.0))
    assert node.live(12.0) <= 3.0 + 0.2


def test_a_lease_that_is_offered_again_ends_when_it_would_have(tmp_path):
    node = Node(tmp_path, max_lease_s=60.0)
    again = signed(1, NOON, 600.0)
    node.offer(again)
    node.live(20.0)
    node.start()  # a crash: the same boot, the same clock of lifetimes
    node.offer(again)
    assert node.live(100.0) == pytest.approx(40.0, abs=0.3)
    node.start()
    with pytest.raises(Rejected, match="it was accepted before"):
        node.offer(again)


@pytest.mark.parametrize("lasts_s", [8_640_000.0, 1e30])
def test_no_lease_outlives_the_longest_that_the_settings_allow(tmp_path, lasts_s):
    node = Node(tmp_path, max_lease_s=60.0)
    node.offer(signed(1, NOON, lasts_s))
    assert node.live(90.0) == pytest.approx(60.0, abs=0.3)


def test_a_lease_of_no_plausible_end_is_refused(tmp_path):
    node = Node(tmp_path)
    with pytest.raises(Rejected, match="expires_s: 1e\\+308"):
        node.offer(signed(1, NOON, 1e308))
    assert node.gpu.limit_w == 300.0


def test_a_start_with_a_clock_that_is_corrected_later_locks_nothing_out(tmp_path):
    node = Node(tmp_path, ahead_s=HOUR, age_s=0.0)
    node.live(1.0)
    node.ahead_s = 0.0
    node.live(1.0)
    node.offer(signed(1, node.true_s, 30.0))
    assert node.gpu.limit_w == 500.0


def test_a_memory_from_an_earlier_version_keeps_number_and_found_limits(tmp_path):
    old = '{"found":[{"gpu":0,"power_limit_w":650.0,"sm_clock_mhz":null}],"sequence":7,"boot":"b1","since_s":5.0}'
    (tmp_path / "memory.json").write_text(old)
    node = Node(tmp_path)
    with pytest.raises(Rejected, match="must be above 6"):
        node.offer(signed(6, NOON, 30.0))
    assert node.capper.restore()
    assert node.gpu.limit_w == 650.0


LEFT_BEHIND = {
    "the marker": "memory.json.begun",
    "a memory set aside": "memory.json.damaged-20260101T000000Z",
    "limits found in an earlier boot": "memory.json.found/b0-GPU1.watts",
    "limits found in this boot": "memory.json.found/b1-index-0.watts",
}


@pytest.mark.parametrize("name", LEFT_BEHIND.values(), ids=LEFT_BEHIND)
def test_whatever_a_capper_left_behind_tells_a_lost_memory_from_a_first_start(tmp_path, name):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("700.000\n")
    node = Node(tmp_path, age_s=0.0)
    assert "lost" in " ".join(node.capper.alarms)
    with pytest.raises(Rejected, match="issued_s"):
        node.offer(signed(1, NOON + 0.5, 30.0))
    node.offer(signed(2, NOON + 1.0, 30.0))
    assert node.gpu.limit_w == 500.0
    node.start()
    assert node.capper.alarms == (), "it is told until the next start"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to make a device")
def test_settings_that_name_a_device_as_the_memory_cost_the_leases_and_not_the_device(tmp_path):
    """Root would move it aside and put a file in its place."""
    os.mknod(tmp_path / "memory.json", stat.S_IFCHR | 0o600, os.makedev(1, 7))  # as /dev/full
    node = Node(tmp_path)
    assert node.gpu.limit_w == 300.0
    with pytest.raises(RefusedForNow, match="not a device"):
        node.offer(signed(1, NOON, 30.0))
    assert stat.S_ISCHR((tmp_path / "memory.json").stat().st_mode)
    assert "regular file" in " ".join(node.capper.alarms)


def test_a_first_start_is_no_loss(tmp_path):
    node = Node(tmp_path, age_s=0.0)
    assert node.capper.alarms == ()
    node.offer(signed(1, NOON + 0.5, 30.0))
    assert node.gpu.limit_w == 500.0


def test_the_process_refuses_leases_from_the_future_and_from_the_past(rig):
    """As a clock an hour slow, and one that is right, see them."""
    rig.start()
    now_s = time.time()
    for sequence, issued_s, seconds in ((1, now_s + 3600.0, 3.0), (2, now_s - 600.0, 300.0), (3, now_s + 5.0, 60.0)):
        with pytest.raises(Rejected):
            rig.client.offer(lease(sequence, seconds, issued_s=issued_s))
        assert rig.limits() == [SAFE_W] * 4
    assert "issued_s" in rig.log


def test_the_longest_lease_and_the_skew_are_settings(rig):
    rig.write_config(max_lease="1 s", clock_skew="20 s")
    rig.start()
    rig.client.offer(lease(1, 600.0, issued_s=time.time() + 10.0))
    assert rig.limits() == [500.0] * 4
    rig.until(rig.limits, [SAFE_W] * 4, 1.0 + 2.0, beat=True)


@pytest.mark.parametrize(
    ("setting", "text"), [("clock_skew", "10 h"), ("clock_skew", "61 s"), ("max_lease", "0 s"), ("max_lease", "999 ms")]
)
def test_times_that_no_ledger_counts_are_refused_after_the_safe_caps(rig, setting, text):
    rig.write_config(**{setting: text})
    rig.start(wait=False)
    assert rig.process.wait(20) == 1
    assert rig.limits() == [SAFE_W] * 4
    assert f"{setting}: '{text}': must be at" in rig.log


@pytest.mark.parametrize("slow_s", [10.0, 300.0])
def test_a_slow_clock_that_takes_a_lease_later_holds_it_no_longer(tmp_path, slow_s):
    """It was seen at once, and refused until its time had come by this node's clock."""
    node = Node(tmp_path, ahead_s=-slow_s)
    late = signed(1, NOON, 600.0)
    with pytest.raises(RefusedForNow):
        node.offer(late)
    node.live(slow_s)
    node.offer(late)
    assert node.live(700.0) == pytest.approx(600.0 - slow_s, abs=0.3)


def test_after_a_boot_the_newest_lease_is_not_taken_again_however_slow_the_clock(tmp_path):
    """The host was off for twenty minutes, which nothing here tells; the planner has granted nothing since."""
    node = Node(tmp_path)
    before = signed(10, node.wall_s, 900.0)
    node.offer(before)
    boot_s = node.true_s + 1200.0
    for _ in range(2):  # the capper starts again
        node.true_s, node.ahead_s = boot_s + 20.0, -1200.0
        node.start(boot="b2")
        assert node.capper.status().reason == "boot", "by which the carrier knows that it needs another one"
        with pytest.raises(Rejected, match="before a boot"):
            node.capper.offer(before, node.wall_s, node.true_s - boot_s)
    assert node.gpu.limit_w == 300.0
    node.ahead_s = 0.0
    node.capper.offer(signed(11, node.wall_s, 900.0), node.wall_s, node.true_s - boot_s)
    assert node.gpu.limit_w == 500.0


@pytest.mark.parametrize("ahead_s", [HOUR, 24 * HOUR, 10 * 365 * 24 * HOUR])
@pytest.mark.parametrize("boots", [False, True])
def test_when_both_clocks_were_ahead_once_newer_leases_are_taken_after_it(tmp_path, ahead_s, boots):
    node = Node(tmp_path, ahead_s=ahead_s)
    node.offer(signed(10, node.wall_s, 900.0))
    node.ahead_s = 0.0
    node.live(300.0)
    assert node.gpu.limit_w == 500.0, "by the clock that nobody sets it holds until its end"
    with pytest.raises(Rejected):
        node.offer(signed(11, node.wall_s, 900.0, watts=600.0))
    node.live(601.0)
    assert node.gpu.limit_w == 300.0
    assert any("chronyc tracking" in line and "powerhall-optimizer lease" in line for line in node.capper.alarms)
    if boots:
        node.start(boot="b2")
    for refused in (signed(12, node.wall_s - 120.0, 900.0), signed(10, node.wall_s, 900.0)):
        with pytest.raises(Rejected):
            node.offer(refused)
    node.offer(signed(12, node.wall_s - 2.0, 900.0, watts=600.0))
    assert node.gpu.limit_w == 600.0
    node.capper.note_clocks(node.wall_s, node.true_s - NOON)
    assert not any("chronyc" in line for line in node.capper.alarms)
    with pytest.raises(Rejected):
        node.offer(signed(11, node.wall_s, 900.0))
    assert node.live(1000.0) == pytest.approx(898.0, abs=1.0)


def test_a_clock_that_is_slow_takes_no_lease_that_has_run_out_after_a_newer_one(tmp_path):
    node = Node(tmp_path)
    old = signed(11, node.wall_s - 1800.0, 900.0)
    node.offer(signed(10, node.wall_s, 60.0))
    node.live(61.0)
    node.ahead_s = -HOUR
    with pytest.raises(Rejected):
        node.offer(old)
    assert node.gpu.limit_w == 300.0


@pytest.mark.parametrize("slow_s", [600.0, HOUR])
def test_a_lease_that_has_run_out_since_a_boot_is_not_taken_by_a_slow_clock(tmp_path, slow_s):
    """The time since the boot has passed since its issue, whatever the clock that the host came up with."""
    node = Node(tmp_path)
    before = signed(10, node.wall_s, 900.0)
    node.offer(before)
    node.true_s += 1200.0
    node.ahead_s = -slow_s
    node.start(boot="b2")
    assert node.gpu.limit_w == 300.0
    with pytest.raises(Rejected):
        node.offer(before)
    assert node.gpu.limit_w == 300.0
