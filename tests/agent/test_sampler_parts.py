"""Energy, timestamps, checkpoint, recorder, crew, health and encoder, each on its own."""

import math
import os
import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from powerhall.line import parse_lines
from powerhall_agent.checkpoint import Checkpoint, Totals
from powerhall_agent.clock import Stamper
from powerhall_agent.collectors.gpu import GpuFull
from powerhall_agent.crew import Crew, Task
from powerhall_agent.encode import Series
from powerhall_agent.energy import EnergyTruth
from powerhall_agent.fastset import FastSet
from powerhall_agent.health import Health
from powerhall_agent.nvml.driver import Driver
from powerhall_agent.nvml.pulse import call_begins
from powerhall_agent.recorder import Recorder
from powerhall_agent.sampler import Sampler
from powerhall_agent.sampler_settings import SamplerSettings
from powerhall_agent.simulate import layout as at
from powerhall_agent.simulate.install import install
from powerhall_agent.simulate.state import StateFile
from powerhall_agent.simulate.world import advance, claim
from powerhall_agent.unwrap import Unwrap

SECOND = 1_000_000_000


def feed(energy, seconds, watts, start_ns=SECOND, raw=0, step_s=0.1):
    for number in range(int(seconds / step_s) + 1):
        energy.add(start_ns + int(number * step_s * SECOND), watts * 1000, raw + round(watts * number * step_s * 1000))
    return start_ns + int(seconds * SECOND), raw + round(watts * seconds * 1000)


def test_counter_and_integral_close_for_constant_power():
    energy = EnergyTruth()
    feed(energy, 60, 700)
    assert energy.counter_mj == 42_000_000
    assert energy.integral_mj == 42_000_000
    assert energy.closure() is None, "the first sample has no interval"
    feed(energy, 10, 700, start_ns=61 * SECOND + SECOND // 10, raw=42_070_000)
    assert energy.closure() == pytest.approx(0.0, abs=1e-3)


def test_closure_shows_a_counter_that_runs_fast():
    energy = EnergyTruth()
    for number in range(200):
        energy.add(SECOND + number * SECOND // 10, 500_000, number * 52_500)
        if number == 1:
            energy.closure()
    assert energy.closure() == pytest.approx(0.05, abs=1e-3)


def test_counter_goes_on_over_a_driver_reload():
    energy = EnergyTruth()
    end_ns, _ = feed(energy, 10, 500)
    before = energy.counter_mj
    assert energy.add(end_ns + SECOND, 500_000, 400) is True
    assert energy.counter_mj == before + 400
    assert energy.resets == 1
    assert energy.closure() is None


def test_counter_wrap_is_no_restart():
    energy = EnergyTruth()
    energy.add(SECOND, 500_000, (1 << 32) - 20_000)
    assert energy.add(SECOND + SECOND // 10, 500_000, 30_000) is False
    assert energy.counter_mj == 50_000
    assert energy.resets == 0


def test_implausible_jump_of_the_counter_is_replaced_by_the_integral():
    energy = EnergyTruth()
    end_ns, raw = feed(energy, 10, 500)
    energy.add(end_ns + SECOND // 10, 500_000, raw + 10**12)
    assert energy.counter_mj == pytest.approx(5_050_000, abs=100)


def test_gap_is_filled_from_the_counter():
    energy = EnergyTruth()
    end_ns, raw = feed(energy, 10, 500)
    energy.add(end_ns + 60 * SECOND, 500_000, raw + 30_000_000)
    assert energy.integral_mj == 35_000_000


def test_totals_go_on_after_a_restart_and_after_a_reboot():
    kept = EnergyTruth(counter_mj=1000, integral_mj=990, raw_mj=400)
    kept.add(SECOND, 100_000, 450)
    assert (kept.counter_mj, kept.integral_mj) == (1050, 1040)
    rebooted = EnergyTruth(counter_mj=1000, integral_mj=990, raw_mj=0)
    rebooted.add(SECOND, 100_000, 70)
    assert rebooted.counter_mj == 1070


def test_gpu_without_a_counter_counts_the_integral():
    energy = EnergyTruth()
    for number in range(11):
        energy.add(SECOND + number * SECOND // 10, 300_000, None)
    assert energy.counter_mj == pytest.approx(300_000, abs=1)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 5 * SECOND), st.one_of(st.none(), st.integers(0, 10**6)),
                  st.one_of(st.none(), st.integers(0, 2**64 - 1))),
        min_size=1, max_size=60,
    )
)  # fmt: skip
def test_totals_never_fall_whatever_the_driver_says(samples):
    energy = EnergyTruth()
    now_ns, last = 0, (0, 0)
    for step_ns, power_mw, raw_mj in samples:
        now_ns += step_ns
        energy.add(now_ns, power_mw, raw_mj)
        assert energy.counter_mj >= last[0]
        assert energy.integral_mj >= last[1]
        last = (energy.counter_mj, energy.integral_mj)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.one_of(st.integers(SECOND // 20, SECOND // 5), st.integers(0, 5 * SECOND)),
            st.one_of(st.integers(0, 10**6), st.none()),
            st.one_of(st.integers(0, 60_000), st.integers(-(10**9), 10**9), st.none()),
        ),
        max_size=40,
    ),
    st.lists(st.integers(1, 12), min_size=40, max_size=40),
)
def test_samples_taken_together_come_to_the_same_as_one_by_one(samples, portions):
    now_ns, raw, rows = SECOND, 10**7, []
    for step_ns, power_mw, rise_mj in samples:
        now_ns += step_ns
        raw = max(0, raw + (rise_mj or 0))
        rows.append((now_ns, power_mw, None if rise_mj is None else raw))
    single, many = EnergyTruth(), EnergyTruth()
    restarts, energies, singly = [], [], []
    for place, row in enumerate(rows):
        if single.add(*row):
            singly.append(place)
    at = 0
    for portion in portions:
        part = rows[at : at + portion]
        if part:
            got, where = many.add_many(*zip(*part, strict=True))
            energies += got
            restarts += [at + place for place in where]
        at += portion
    again = EnergyTruth()
    assert energies == [(again.add(*row), again.counter_mj)[1] for row in rows]
    assert restarts == singly
    assert many.counter_mj == single.counter_mj
    assert abs(many.integral_mj - single.integral_mj) <= 1, "halves of a picojoule"
    assert many.raw_mj == single.raw_mj


def test_fast_set_finds_steps_and_extremes_however_the_readings_are_portioned():
    powers = [400_000] * 15 + [650_000] * 3 + [None] + [650_000] * 11
    for portion in (1, 7, 30):
        fast, steps = FastSet(EnergyTruth(), Recorder()), []
        fast.limit_w = 700.0
        for tick, power in enumerate(powers):
            fast.add((tick * SECOND // 10, tick * 100, power, 1000 * tick))
            if tick % portion == portion - 1:
                steps += fast.digest().steps
        steps += fast.digest().steps
        fields = fast.interval()
        assert [(time_ms, round(step_w)) for time_ms, step_w in steps] == [(1500, 250)]
        assert (fields["power_min_w"], fields["power_max_w"]) == (400.0, 650.0)
        assert fields["power_w"] == pytest.approx((15 * 400 + 14 * 650) / 29, abs=0.001)
        assert fast.record(1600)
        assert [sample[0] for sample in fast.shipment()] == [100 * tick for tick in range(30) if tick != 18]


def test_counter_and_power_that_part_are_one_alarm_a_minute_later(tmp_path):
    state = StateFile.create(gpus=1, node="gn01")
    claim(state)
    advance(state, 5.0)
    install([state])
    state.doubles[state.base(0) + at.C_STATIC] = 1.0  # power stays, the counter stands still
    lines = []

    class Sink:
        def write(self, block):
            lines.extend(parse_lines(block))

    class Clock:
        now_ns = SECOND

        def monotonic_ns(self):
            return self.now_ns

        def time_ns(self):
            return 1_700_000_000 * SECOND + self.now_ns

    clock = Clock()
    sampler = Sampler(
        SamplerSettings(node="gn01", state_dir=str(tmp_path), rapl=False, attribution=False), Sink(), clock
    )
    alarms = []
    for _ in range(1500):
        sampler.tick()
        clock.now_ns += SECOND // 10
    sampler.close()
    alarms = [p for p in lines if p.measurement == "event" and p.tags["kind"] == "energy_closure"]
    assert len(alarms) == 1
    assert alarms[0].fields["code"] == -1.0
    first_ms = min(p.time_ms for p in lines)
    assert 60_000 <= alarms[0].time_ms - first_ms <= 90_000
    times = {p.tags["collector"] for p in lines if p.measurement == "collector"}
    assert {"field:power_w", "field:pstate", "field:ecc_corrected"} <= times


def test_only_the_wanted_fields_of_the_full_set_are_read():
    state = StateFile.create(gpus=1, node="gn01")
    claim(state)
    install([state])
    driver = Driver()
    wanted = ("temp_margin_c", "mem_used_bytes", "slow_thermal_s")
    full = GpuFull(driver, driver.gpus[0], wanted)
    assert set(full.collect()) == set(wanted)
    assert {spec.name for spec in full.batch.specs} == {"sw_thermal_s", "hw_thermal_s"}
    with pytest.raises(ValueError, match="'powr_w'"):
        SamplerSettings(node="n", fields=("powr_w",))


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 2 * SECOND), st.integers(-3600 * SECOND, 3600 * SECOND)), max_size=60),
    st.integers(0, 10**13),
)
def test_timestamps_strictly_rise_over_clock_steps(moves, last_ms):
    stamper = Stamper(last_ms)
    mono_ns, wall_ns, last = 0, 1_700_000_000 * SECOND, last_ms
    for step_ns, jump_ns in moves:
        mono_ns += step_ns
        wall_ns += step_ns + jump_ns
        stamp = stamper.stamp(mono_ns, wall_ns)
        assert stamp > last
        last = stamp


def test_timestamps_meet_the_wall_clock_again_after_a_step_back():
    stamper = Stamper()
    assert stamper.stamp(0, 10_000 * SECOND) == 10_000_000
    stamps = [stamper.stamp(k * SECOND, (10_000 - 60 + k) * SECOND) for k in range(1, 200)]
    assert stamps[10] == 10_000_000 + 11 * 500
    assert stamps[-1] == (10_000 - 60 + 199) * 1000


def test_checkpoint_outlives_its_process_and_damage(tmp_path):
    path = tmp_path / "node.energy"
    first = Checkpoint(path)
    first.keep(Totals("GPU-a", 10, 9, 8, 1))
    first.keep(Totals("GPU-b", 20, 19, 18, 1))
    first.keep(Totals("GPU-a", 11, 10, 9, 1))
    first.keep_ms(123456)
    again = Checkpoint(path)
    assert again.totals("GPU-a") == Totals("GPU-a", 11, 10, 9, 1)
    assert again.totals("GPU-b") == Totals("GPU-b", 20, 19, 18, 1)
    assert again.totals("GPU-c") is None
    assert again.last_ms() == 123456
    path.write_bytes(b"nonsense" * 100)
    assert Checkpoint(path).totals("GPU-a") is None


@settings(max_examples=100, deadline=None)
@given(offset=st.integers(0, 64 + 2 * 128 * 2 + 100), length=st.integers(1, 200), fill=st.integers(0, 255))
def test_damaged_checkpoint_gives_a_whole_record_or_none(tmp_path_factory, offset, length, fill):
    path = tmp_path_factory.mktemp("ckpt") / "node.energy"
    kept = Checkpoint(path)
    for value in range(1, 5):
        kept.keep(Totals("GPU-a", value, value, value, 1))
    data = bytearray(path.read_bytes())
    data[offset : offset + length] = bytes([fill]) * len(data[offset : offset + length])
    path.write_bytes(data)
    found = Checkpoint(path).totals("GPU-a")
    assert found is None or found in [Totals("GPU-a", value, value, value, 1) for value in (3, 4)]


def test_checkpoint_keeps_64_gpus():
    kept = Checkpoint(None)
    for gpu in range(64):
        kept.keep(Totals(f"GPU-{gpu}", gpu, gpu, gpu, 1))
    assert [kept.totals(f"GPU-{gpu}").counter_mj for gpu in range(64)] == list(range(64))


def drain(recorder):
    taken = []
    while True:
        some = recorder.take()
        if not some:
            return taken
        taken += some


def test_recorder_ships_a_minute_on_either_side_of_a_trigger():
    recorder = Recorder()
    shipped = []
    for tick in range(2000):
        recorder.add(tick * 100, 1000, tick)
        if tick == 1000:
            assert recorder.trigger(tick * 100)
        shipped += recorder.take()
    assert shipped == [(tick * 100, 1000, tick) for tick in range(400, 1601)]


def test_recorder_is_silent_without_a_trigger():
    recorder = Recorder()
    for tick in range(3000):
        recorder.add(tick * 100, 1000, tick)
        assert recorder.take() == []


def test_triggers_close_together_make_one_recording_without_repeats():
    recorder = Recorder()
    shipped = []
    for tick in range(3000):
        recorder.add(tick * 100, 1000, tick)
        if tick in (1000, 1300):
            assert recorder.trigger(tick * 100)
        shipped += recorder.take()
    assert [sample[2] for sample in shipped] == list(range(400, 1901))


def test_recordings_of_an_hour_are_limited():
    recorder = Recorder()
    allowed = sum(recorder.trigger(start * 200_000) for start in range(1, 18))
    assert allowed == 6
    assert recorder.refused == 11
    assert recorder.trigger(2 * 3_600_000 + 18 * 200_000)


def drive(crew, batches):
    """Drive a crew over batches of tasks in a thread of its own; returns the thread."""
    thread = threading.Thread(target=crew.drive, args=(iter(batches),))
    thread.start()
    return thread


def test_crew_runs_tasks_in_order_and_spares_others_from_a_blocked_one():
    crew = Crew(patience_s=0.05)
    release, done, times = threading.Event(), [], []
    tasks = [Task(n, (lambda n=n: done.append(n)) if n != 2 else release.wait) for n in range(5)]

    def steps():
        for _ in range(2):
            times.append(time.monotonic())
            yield tasks
        times.append(time.monotonic())
        assert crew.blocked_since_ns(2) is not None
        release.set()
        while crew.blocked_since_ns(2) is not None:
            time.sleep(0.01)
        yield [Task(2, lambda: done.append(2))]

    drive(crew, steps()).join(10)
    assert done == [0, 1, 3, 4, 0, 1, 3, 4, 2]
    assert 0.05 <= times[1] - times[0] < 0.4
    assert times[2] - times[1] < 0.05, "a blocked owner costs nothing any more"


def test_crew_with_several_blocked_tasks_leaves_each_once():
    crew = Crew(patience_s=0.03)
    release, done = threading.Event(), []
    tasks = [Task(n, release.wait if n < 3 else (lambda n=n: done.append(n))) for n in range(6)]
    drive(crew, [tasks]).join(10)
    assert done == [3, 4, 5]
    assert all(crew.blocked_since_ns(n) is not None for n in range(3))
    release.set()


def test_crew_tells_a_slow_task_of_quick_calls_from_a_hung_call():
    crew = Crew(patience_s=0.03)
    ages = []

    def slow():
        for _ in range(20):
            call_begins()
            time.sleep(0.01)

    def look():
        begun_ns = crew.blocked_since_ns(0)
        if begun_ns is not None:
            ages.append((time.monotonic_ns() - begun_ns) / 1e9)

    drive(crew, [[Task(0, slow)], *[[Task(1, look), Task(1, lambda: time.sleep(0.01))]] * 10]).join(10)
    assert ages
    assert max(ages) < 0.1


def test_error_in_the_steps_reaches_the_caller():
    def steps():
        yield [Task(0, lambda: None)]
        raise LookupError("a bug")

    with pytest.raises(LookupError, match="a bug"):
        Crew().drive(steps())


def test_threads_and_descriptors_of_a_crew_are_given_back():
    before = threading.active_count(), len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        Crew().drive(iter([[Task(0, lambda: None)]] * 3))
    time.sleep(0.05)
    assert threading.active_count() <= before[0]
    assert len(os.listdir("/proc/self/fd")) <= before[1]


def test_health_needs_three_strikes_for_an_unknown_error():
    health = Health()
    assert [health.fault(999, 0), health.fault(999, 0), health.fault(999, 0)] == [False, False, True]
    assert health.reason == "unknown_error"


def test_good_call_between_strikes_starts_over():
    health = Health()
    health.fault(999, 0)
    health.fault(999, 0)
    health.well()
    assert health.fault(999, 0) is False
    assert health.up


def test_retries_of_a_lost_gpu_back_off_to_a_minute():
    health = Health()
    waits, now_ns = [], 0
    assert health.fault(15, now_ns)
    for _ in range(6):
        waits.append((health.retry_ns - now_ns) / SECOND)
        now_ns = health.retry_ns
        assert health.due(now_ns)
        assert health.fault(15, now_ns) is False
    assert waits == [5, 10, 20, 40, 60, 60]
    assert health.well()
    assert health.up


def test_encoder_writes_what_the_reader_reads():
    series = Series("gpu", {"site": "s 1", "hall": "", "node": "a,b", "gpu": "0"})
    line = series.encode({"power_w": 1.5, "temp_c": 40, "energy_j": float("nan")}, 1700000000123)
    (point,) = parse_lines(line)
    assert point.tags == {"site": "s 1", "node": "a,b", "gpu": "0"}
    assert point.fields == {"power_w": 1.5, "temp_c": 40.0}
    assert point.time_ms == 1700000000123


def test_encoder_keeps_percent_signs_and_quotes():
    series = Series("event", {"node": "50%s", "kind": "x"})
    (point,) = parse_lines(series.encode({"detail": 'a "b" 5%', "code": 1.0}, 5))
    assert point.tags["node"] == "50%s"
    assert point.fields["detail"] == 'a "b" 5%'


def test_encoder_refuses_fields_that_the_schema_does_not_have():
    with pytest.raises(ValueError, match=r"gpu.*no field 'job'"):
        Series("gpu", {"node": "n"}).encode({"job": 1.0}, 1)
    with pytest.raises(ValueError, match="must be a number"):
        Series("gpu", {"node": "n"}).encode({"power_w": "high"}, 1)


@settings(max_examples=300, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(["power_w", "temp_c", "energy_j", "mem_used_bytes", "util_percent"]),
        st.one_of(st.floats(), st.integers(-(2**53), 2**53)),
    ),
    st.integers(0, 2**53),
)
def test_every_finite_number_survives_encoding_exactly(fields, time_ms):
    line = Series("gpu", {"node": "n,1", "gpu": "0"}).encode(fields, time_ms)
    finite = {key: float(value) for key, value in fields.items() if math.isfinite(value)}
    if not finite:
        assert line == b""
    else:
        (point,) = parse_lines(line)
        assert point.fields == finite
        assert point.time_ms == time_ms
        assert point.tags["node"] == "n,1"


def test_point_without_values_is_no_line():
    assert Series("gpu", {"node": "n"}).encode({"power_w": float("inf")}, 1) == b""


@given(st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=50))
def test_wrapping_counter_is_unwrapped_exactly(steps):
    unwrap, truth = Unwrap(32), 7
    assert unwrap.total(7) == 7
    for step in steps:
        truth += step
        assert unwrap.total(truth % 2**32) == truth


def test_counter_beyond_32_bits_is_taken_as_one_of_64():
    unwrap = Unwrap(32)
    assert [unwrap.total(raw) for raw in (10, 2**33, 2**33 + 5)] == [10, 2**33, 2**33 + 5]
    assert unwrap.total(7) == 2**33 + 12, "a restart, not a wrap"


def test_state_folder_that_cannot_be_written_is_no_reason_to_stop(tmp_path, caplog):
    blocked = tmp_path / "file"
    blocked.write_text("")
    settings = SamplerSettings(node="n", state_dir=str(blocked / "state"))
    assert Sampler(settings, sink=None).stamper.last_ms == 0
    assert "state_not_kept" in caplog.text


def test_restarted_counter_counts_what_is_new():
    unwrap = Unwrap(32)
    unwrap.total(3_000_000_000)
    assert unwrap.total(100) == 3_000_000_000 + (100 + 2**32 - 3_000_000_000)
    fresh = Unwrap(32)
    fresh.total(1000)
    assert fresh.total(10) == 1010
