"""Energy of a GPU, the 10 Hz window, and which fields of the full set are read."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from powerhall.store.line_protocol import parse_lines
from powerhall_agent.collectors.gpu import GpuFull
from powerhall_agent.nvml.driver import Driver
from powerhall_agent.sampling.energy import EnergyAccumulator
from powerhall_agent.sampling.fast_window import FastWindow
from powerhall_agent.sampling.flight_recorder import FlightRecorder
from powerhall_agent.sampling.sampler import Sampler
from powerhall_agent.settings.sampler_settings import SamplerSettings
from powerhall_agent.simulate import layout as at
from powerhall_agent.simulate.install import install
from powerhall_agent.simulate.state import StateFile
from powerhall_agent.simulate.world import advance, claim

SECOND = 1_000_000_000


def feed(energy, seconds, watts, start_ns=SECOND, raw=0, step_s=0.1):
    for number in range(int(seconds / step_s) + 1):
        energy.add(start_ns + int(number * step_s * SECOND), watts * 1000, raw + round(watts * number * step_s * 1000))
    return start_ns + int(seconds * SECOND), raw + round(watts * seconds * 1000)


def test_counter_and_integral_close_for_constant_power():
    energy = EnergyAccumulator()
    feed(energy, 60, 700)
    assert energy.counter_mj == 42_000_000
    assert energy.integral_mj == 42_000_000
    assert energy.closure() is None, "the first sample has no interval"
    feed(energy, 10, 700, start_ns=61 * SECOND + SECOND // 10, raw=42_070_000)
    assert energy.closure() == pytest.approx(0.0, abs=1e-3)


def test_closure_shows_a_counter_that_runs_fast():
    energy = EnergyAccumulator()
    for number in range(200):
        energy.add(SECOND + number * SECOND // 10, 500_000, number * 52_500)
        if number == 1:
            energy.closure()
    assert energy.closure() == pytest.approx(0.05, abs=1e-3)


def test_counter_continues_over_a_driver_reload():
    energy = EnergyAccumulator()
    end_ns, _ = feed(energy, 10, 500)
    before = energy.counter_mj
    assert energy.add(end_ns + SECOND, 500_000, 400) is True
    assert energy.counter_mj == before + 500_000, "what was sampled meanwhile; the new counter knows of 0.4 J alone"
    assert energy.resets == 1
    assert energy.closure() is None


def test_counter_wrap_is_no_restart():
    energy = EnergyAccumulator()
    energy.add(SECOND, 500_000, (1 << 32) - 20_000)
    assert energy.add(SECOND + SECOND // 10, 500_000, 30_000) is False
    assert energy.counter_mj == 50_000
    assert energy.resets == 0


def test_implausible_jump_of_the_counter_is_replaced_by_the_integral():
    energy = EnergyAccumulator()
    end_ns, raw = feed(energy, 10, 500)
    energy.add(end_ns + SECOND // 10, 500_000, raw + 10**12)
    assert energy.counter_mj == pytest.approx(5_050_000, abs=100)


def test_gap_is_filled_from_the_counter():
    energy = EnergyAccumulator()
    end_ns, raw = feed(energy, 10, 500)
    energy.add(end_ns + 60 * SECOND, 500_000, raw + 30_000_000)
    assert energy.integral_mj == 35_000_000


def test_totals_continue_after_a_restart_and_after_a_reboot():
    kept = EnergyAccumulator(counter_mj=1000, integral_mj=990, raw_mj=400)
    kept.add(SECOND, 100_000, 450)
    assert (kept.counter_mj, kept.integral_mj) == (1050, 1040)
    rebooted = EnergyAccumulator(counter_mj=1000, integral_mj=990, raw_mj=0)
    rebooted.add(SECOND, 100_000, 70)
    assert rebooted.counter_mj == 1070


def test_gpu_without_a_counter_counts_the_integral():
    energy = EnergyAccumulator()
    for number in range(11):
        energy.add(SECOND + number * SECOND // 10, 300_000, None)
    assert energy.counter_mj == pytest.approx(300_000, abs=1)


@settings(max_examples=200)
@given(
    st.lists(
        st.tuples(st.integers(0, 5 * SECOND), st.one_of(st.none(), st.integers(0, 10**6)),
                  st.one_of(st.none(), st.integers(0, 2**64 - 1))),
        min_size=1, max_size=60,
    )
)  # fmt: skip
def test_totals_never_fall_for_any_driver_counter(samples):
    energy = EnergyAccumulator()
    now_ns, last = 0, (0, 0)
    for step_ns, power_mw, raw_mj in samples:
        now_ns += step_ns
        energy.add(now_ns, power_mw, raw_mj)
        assert energy.counter_mj >= last[0]
        assert energy.integral_mj >= last[1]
        last = (energy.counter_mj, energy.integral_mj)


@settings(max_examples=300)
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
def test_a_batch_of_samples_gives_the_same_as_single_samples(samples, portions):
    now_ns, raw, rows = SECOND, 10**7, []
    for step_ns, power_mw, rise_mj in samples:
        now_ns += step_ns
        raw = max(0, raw + (rise_mj or 0))
        rows.append((now_ns, power_mw, None if rise_mj is None else raw))
    single, many = EnergyAccumulator(), EnergyAccumulator()
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
    again = EnergyAccumulator()
    assert energies == [(again.add(*row), again.counter_mj)[1] for row in rows]
    assert restarts == singly
    assert many.counter_mj == single.counter_mj
    assert abs(many.integral_mj - single.integral_mj) <= 1, "halves of a picojoule"
    assert many.raw_mj == single.raw_mj


def test_fast_window_finds_steps_and_extremes_for_any_split_of_the_readings():
    powers = [400_000] * 15 + [650_000] * 3 + [None] + [650_000] * 11
    for portion in (1, 7, 30):
        fast, steps = FastWindow(EnergyAccumulator(), FlightRecorder()), []
        fast.limit_w = 700.0
        for tick, power in enumerate(powers):
            fast.add((tick * SECOND // 10, tick * 100, power, 1000 * tick))
            if tick % portion == portion - 1:
                steps += fast.drain().steps
        steps += fast.drain().steps
        fields = fast.interval()
        assert [(time_ms, round(step_w)) for time_ms, step_w in steps] == [(1500, 250)]
        assert (fields["power_min_w"], fields["power_max_w"]) == (400.0, 650.0)
        assert fields["power_w"] == pytest.approx((15 * 400 + 14 * 650) / 29, abs=0.001)
        assert fast.record(1600)
        assert [sample[0] for sample in fast.take_recorded()] == [100 * tick for tick in range(30) if tick != 18]


def test_counter_and_power_that_differ_raise_one_event_after_a_minute(tmp_path):
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
