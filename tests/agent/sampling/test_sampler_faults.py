"""The sampler on simulated GPUs that fail: each fault gives its event and state, and no other GPU is affected."""

import contextlib
import itertools
import threading
import time
from pathlib import Path

import pytest

from powerhall_agent.sampling import gpu_health as health
from powerhall_agent.sampling.exit_code import SamplerExit
from powerhall_agent.simulate import layout as at
from powerhall_agent.simulate.faults import apply, parse_script
from powerhall_agent.simulate.state import StateFile
from rigs.sampler_run import Run


def gaps(points):
    times = sorted(point.time_ms for point in points)
    return [after - before for before, after in itertools.pairwise(times)]


def test_full_set_comes_every_second_with_the_extremes_of_power(start):
    run = start(gpus=2)
    time.sleep(3.3)
    records = run.find("gpu", gpu="1")
    assert 2 <= len(records) <= 4
    for record in records:
        fields = record.fields
        assert fields["power_min_w"] <= fields["power_w"] <= fields["power_max_w"]
    assert records[-1].fields["power_w"] == pytest.approx(650, rel=0.02)
    assert records[-1].fields["energy_j"] > records[0].fields["energy_j"] + 500
    assert set(records[0].tags) == {"site", "node", "gpu"}
    assert run.find("node")[-1].fields["gpu_power_w"] == pytest.approx(1300, rel=0.02)


class MachineStalls:
    """How long threads of this process were ready to run while the machine ran others (Linux' run delay): no fault of
    the sampler. On a machine with nothing else to do it is next to nothing."""

    def __init__(self):
        self.rows = [(1000 * time.time(), 0.0)]
        self.known = self.delays_ms()
        self.over = threading.Event()
        self.thread = threading.Thread(target=self.watch)

    @staticmethod
    def delays_ms():
        found = {}
        for task in Path("/proc/self/task").iterdir():
            with contextlib.suppress(OSError):
                found[task.name] = int((task / "schedstat").read_text().split()[1]) / 1e6
        return found

    def watch(self):
        while not self.over.wait(0.02):
            delays = self.delays_ms()
            lost = sum(delay - self.known.get(task, 0.0) for task, delay in delays.items())
            self.known.update(delays)
            self.rows.append((1000 * time.time(), self.rows[-1][1] + lost))

    def within(self, begin_ms, end_ms):
        """Milliseconds lost in this span."""
        before = [lost for at_ms, lost in self.rows if at_ms <= begin_ms]
        after = [lost for at_ms, lost in self.rows if at_ms >= end_ms]
        return (after[0] if after else self.rows[-1][1]) - (before[-1] if before else 0.0)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()


@pytest.mark.parametrize("seconds", [4, pytest.param(60, marks=pytest.mark.slow)])
def test_one_hung_gpu_of_eight_delays_no_tick_of_the_others(start, seconds):
    run = start()
    with MachineStalls() as stalls:
        run.do("\n".join(f"gpu {gpu} xid 13" for gpu in range(8)))
        time.sleep(1.5)
        begun_ms = run.points[-1].time_ms
        run.do(f"gpu 3 hung {seconds}")
        hung_ms = 1000 * time.time()
        assert run.until(2, "gpu_state", gpu="3", reason="hung") < 1.0
        time.sleep(seconds - 1)
    end_ms = begun_ms + 58_000  # the recording of each GPU ends a minute after its trigger
    flagged = next(point for point in run.find("event", gpu="3", kind="gpu_quarantined"))
    next_tick_ms = 120
    assert flagged.time_ms - hung_ms - next_tick_ms < 500 + stalls.within(hung_ms, flagged.time_ms)
    neighbours = "0124567"
    ticks = {
        gpu: {p.time_ms for p in run.find("gpu_fast", gpu=gpu) if begun_ms <= p.time_ms < end_ms} for gpu in neighbours
    }
    written_ms = min(max(times) for times in ticks.values())
    every = sorted(time_ms for time_ms in set.union(*ticks.values()) if time_ms <= written_ms)
    assert len(every) >= 8 * (min(seconds, 58) - 1)
    for gpu in neighbours:
        assert not set(every) - ticks[gpu], f"GPU {gpu} missed a tick that another one had"
        for before, after in itertools.pairwise(sorted(p.time_ms for p in run.find("gpu", gpu=gpu))):
            assert after - before < 2000 + stalls.within(before, after)
    late = [
        after - before
        for before, after in itertools.pairwise(every)
        if after - before >= 200 + stalls.within(before, after)
    ]
    assert len(late) <= len(every) // 50, "ticks were missed by all"
    assert max(late, default=0) < 1000
    silent = range(round(hung_ms + 2 * next_tick_ms), round(hung_ms + 1000 * seconds - 100))
    assert not [p for p in run.find("gpu_fast", gpu="3") if p.time_ms in silent]
    run.until(3, "event", gpu="3", kind="gpu_recovered")
    run.done_s = time.monotonic()
    run.until(3, "gpu_state", gpu="3", up=1.0)


def test_lost_gpu_is_flagged_within_half_a_second(start):
    run = start()
    run.do("gpu 5 lost")
    assert run.until(2, "event", gpu="5", kind="gpu_quarantined") < 0.5
    run.until(2, "gpu_state", gpu="5", up=0.0, reason="lost")
    run.until(2, "node", gpus_up=7.0)
    assert run.find("event", gpu="5", kind="gpu_quarantined")[0].fields["code"] == 15
    before = len(run.find("gpu", gpu="4"))
    time.sleep(1.2)
    assert len(run.find("gpu", gpu="4")) > before


def test_gpu_that_needs_a_reset_and_one_with_unknown_errors_are_told_apart(start):
    run = start(gpus=3)
    run.do("gpu 0 reset_required\ngpu 1 unknown")
    run.until(2, "gpu_state", gpu="0", reason="reset_required")
    run.until(2, "gpu_state", gpu="1", reason="unknown_error")
    assert run.find("gpu_state", gpu="2")[-1].fields["up"] == 1.0


def test_recording_from_before_a_gpu_was_lost_is_shipped(start):
    run = start(gpus=2)
    time.sleep(1.5)
    run.do("gpu 1 lost")
    run.until(2, "event", gpu="1", kind="gpu_quarantined")
    lost_ms = run.find("event", gpu="1", kind="gpu_quarantined")[0].time_ms
    run.until(3, "gpu_fast", gpu="1")
    before = [point.time_ms for point in run.find("gpu_fast", gpu="1")]
    assert len(before) > 10
    assert lost_ms - 300 < max(before) <= lost_ms


def test_slow_gpu_misses_readings_but_is_not_flagged_hung(start):
    run = start(gpus=3)
    run.do("gpu 1 slow 0.02")
    time.sleep(3.5)
    assert not run.find("event", kind="gpu_quarantined")
    assert max(gaps(run.find("gpu", gpu="2"))) < 1300


def test_xid_comes_as_an_event_with_a_recording_around_it(start):
    run = start(gpus=2)
    time.sleep(1)
    run.do("gpu 1 xid 79")
    assert run.until(2, "event", gpu="1", kind="xid", code=79.0) < 1.0
    run.until(2, "gpu_fast", gpu="1")
    fast = run.find("gpu_fast", gpu="1")
    assert len(fast) > 10, "the ring's past comes with it"
    assert not run.find("gpu_fast", gpu="0")
    assert fast[0].fields["energy_j"] <= fast[-1].fields["energy_j"]


def test_a_burst_of_xids_is_stored_whole_with_the_cause_first(start):
    run = start(gpus=2)
    run.do("".join(f"gpu 1 xid {code}\n" for code in (48, 63, 94, 45)) + "gpu 0 xid 79\ngpu 0 xid 45")
    run.until(3, "event", gpu="0", kind="xid", code=45.0)
    for gpu, codes in (("1", [48, 63, 94, 45]), ("0", [79, 45])):
        stored = {point.time_ms: point.fields["code"] for point in run.find("event", gpu=gpu, kind="xid")}
        assert [stored[time_ms] for time_ms in sorted(stored)] == codes


@pytest.mark.parametrize(
    ("fault", "kind"),
    [("ecc", "ecc_double_bit"), ("retired", "dram_retirement"), ("unavailable", "gpu_unavailable"),
     ("recovery 1", "recovery_action")],
)  # fmt: skip
def test_driver_events_keep_their_kind(start, fault, kind):
    run = start(gpus=1)
    run.do(f"gpu 0 {fault}")
    assert run.until(3, "event", gpu="0", kind=kind) < 1.0


def test_mig_change_shows_the_instances_within_a_second(start):
    run = start(gpus=2)
    run.do("gpu 1 mig 3:20GiB 5:10GiB")
    assert run.until(3, "gpu_mig", gpu="1", instance="5") < 1.2
    run.until(3, "event", gpu="1", kind="mig_change")
    assert run.find("gpu_mig", instance="3")[0].fields["mem_total_bytes"] == 20 << 30
    run.until(3, "gpu_slow", gpu="1", mig_mode=1.0)
    run.do("gpu 1 mig off")
    run.until(3, "gpu_slow", gpu="1", mig_mode=0.0)


def test_driver_reload_goes_on_with_rising_energy(start):
    run = start(gpus=2)
    time.sleep(1.2)
    before = run.find("gpu", gpu="0")[-1].fields["energy_j"]
    run.do("reload 595.45.01")
    run.until(5, "event", kind="driver_gone")
    run.until(5, "gpu_identity", gpu="0", driver="595.45.01")
    run.until(5, "gpu", gpu="0")
    energies = [point.fields["energy_j"] for point in run.find("gpu", gpu="0")]
    assert energies == sorted(energies)
    assert energies[-1] >= before


def test_missing_driver_is_tried_again_until_it_is_there(start):
    run = start(gpus=1)
    run.do("unload")
    run.until(3, "event", kind="driver_gone", code=9.0)
    run.until(3, "event", kind="driver_missing", code=9.0)
    run.do("load")
    run.until(5, "gpu_state", gpu="0", up=1.0)


def test_unbind_frees_the_driver_within_two_seconds(start):
    run = start(gpus=2)
    started = time.monotonic()
    run.do("unbind")
    run.thread.join(3)
    assert run.outcome is SamplerExit.UNBIND
    assert time.monotonic() - started < 2
    assert run.find("event", kind="driver_unbind")


def test_library_that_no_longer_fits_ends_the_process(start):
    run = start(gpus=1)
    run.do("mismatch")
    run.thread.join(3)
    assert run.outcome is SamplerExit.MISMATCH


def test_limit_change_power_step_and_throttle_are_recorded(start):
    run = start(gpus=3)
    time.sleep(1.5)
    run.do("gpu 0 limit 300\ngpu 1 brake on")
    run.until(3, "event", gpu="0", kind="limit_change", code=300.0)
    run.until(3, "event", gpu="0", kind="power_step")
    run.until(3, "event", gpu="1", kind="throttle_onset")
    assert not run.find("event", gpu="2")


def test_counter_reset_and_wrap_leave_energy_rising(start):
    run = start(gpus=2)
    time.sleep(1)
    run.do("gpu 0 reset\ngpu 1 wrap 32")
    time.sleep(2.2)
    for gpu in "01":
        energies = [point.fields["energy_j"] for point in run.find("gpu", gpu=gpu)]
        assert energies == sorted(energies)
        assert energies[-1] < 10_000
    assert run.find("event", gpu="0", kind="counter_reset")
    assert not [p for p in run.find("event", gpu="1", kind="counter_reset") if p.time_ms > run.points[0].time_ms + 2500]


def test_all_gpus_hung_is_a_stuck_driver(start):
    run = start(gpus=2)
    run.do("hung 9")
    assert run.until(12, "agent", driver_stuck=1.0) < 4.0, "leaves a second for the way to the store"


def test_restart_continues_energy_and_timestamps(tmp_path):
    state = StateFile.create(gpus=1, node="gn01")
    state.set_load(0, 0.9)
    last = (0, 0.0)
    for _ in range(2):
        run = Run(state, state_dir=str(tmp_path))
        run.until(5, "gpu")
        run.stop.set()
        run.thread.join(5)
        first, final = run.find("gpu")[0], run.find("gpu")[-1]
        assert run.points[0].time_ms > last[0]
        assert first.fields["energy_j"] > last[1]
        last = (run.points[-1].time_ms, final.fields["energy_j"])


def test_collectors_report_success_and_duration(start):
    run = start(gpus=1)
    names = {point.tags["collector"] for point in run.find("collector")}
    assert {"gpu_fast", "gpu_slow", "gpu_identity"} <= names
    assert all(point.fields["success"] == 1.0 for point in run.find("collector"))


def test_gpu_that_is_lost_at_start_is_listed_as_down_and_taken_in_when_it_is_back(monkeypatch):
    monkeypatch.setattr(health, "_FIRST_RETRY_S", 1.0)
    state = StateFile.create(gpus=3, node="gn01")
    state.ints[state.base(1) + at.C_FORCE_RETURN] = 15
    run = Run(state)
    try:
        run.until(3, "gpu_state", gpu="1", up=0.0, reason="lost")
        run.until(3, "node", gpus=3.0, gpus_up=2.0)
        run.do("gpu 1 well")
        run.until(5, "gpu_state", gpu="1", up=1.0)
        run.until(5, "gpu", gpu="1")
    finally:
        run.stop.set()
        run.thread.join(10)


def test_another_gpu_in_the_place_of_a_lost_one_is_bound_as_itself(monkeypatch):
    monkeypatch.setattr(health, "_FIRST_RETRY_S", 1.0)
    state = StateFile.create(gpus=2, node="gn01")
    run = Run(state)
    try:
        run.until(5, "gpu_identity", gpu="1", uuid=state.text(1, at.T_UUID))
        run.do("gpu 1 lost")
        run.until(3, "gpu_state", gpu="1", up=0.0, reason="lost")
        state.set_text(1, at.T_UUID, "GPU-another")
        run.do("gpu 1 well")
        run.until(5, "event", gpu="1", kind="gpu_replaced")
        run.until(5, "gpu_identity", gpu="1", uuid="GPU-another")
    finally:
        run.stop.set()
        run.thread.join(10)


def test_gpu_that_hangs_at_start_costs_no_reading_of_the_others_and_is_taken_in_when_it_is_back(monkeypatch):
    monkeypatch.setattr(health, "_FIRST_RETRY_S", 1.0)
    state = StateFile.create(gpus=3, node="gn01")
    for step in parse_script("at 0 gpu 1 hung 60"):
        apply(state, step)
    run = Run(state)
    try:
        run.until(6, "gpu", gpu="2")
        run.until(3, "gpu_state", gpu="1", up=0.0, reason="hung")
        run.until(3, "node", gpus=3.0, gpus_up=2.0)
        before = len(run.find("gpu", gpu="0"))
        time.sleep(2.3)
        assert len(run.find("gpu", gpu="0")) >= before + 2, "also while it is tried again"
        run.do("gpu 1 well")
        run.until(5, "gpu", gpu="1")
    finally:
        run.stop.set()
        run.thread.join(10)
