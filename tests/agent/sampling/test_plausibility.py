"""Garbage in, truth or silence out: implausible readings are dropped, counted and told, and never integrated."""

import itertools
import lzma
import random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from powerhall.store.gpu_fields import ACTIVITY_FIELDS, FULL_FIELDS, SLOW_FIELDS, FieldValue
from powerhall.store.line_protocol import parse_lines
from powerhall_agent.base.sensor_log import SensorLog
from powerhall_agent.base.trusted_counter import TrustedCounter, Verdict
from powerhall_agent.collectors.gpu import GpuFull
from powerhall_agent.collectors.rapl import Rapl
from powerhall_agent.nvml.driver import Driver
from powerhall_agent.sampling.energy import EnergyAccumulator
from powerhall_agent.sampling.fast_window import FastWindow
from powerhall_agent.sampling.plausibility import GpuPlausibility, NodePlausibility
from powerhall_agent.sampling.sampler import Sampler
from powerhall_agent.settings.sampler_settings import SamplerSettings
from powerhall_agent.simulate import layout as at
from powerhall_agent.simulate.install import install
from powerhall_agent.simulate.state import StateFile
from powerhall_agent.simulate.world import advance, claim

SECOND = 1_000_000_000
LIMIT_W = 700.0
SENTINELS = [0xFFFFFFFF, 0x7FFFFFFF, 0x7FFFFFFFFFFFFFF0, 0xFFFFFFFFFFFFFFFF, -1, 3_700_000, 808_334_905]


def window():
    log = SensorLog(lambda: 0.0)
    fast = FastWindow(EnergyAccumulator(), None, log)
    checks = GpuPlausibility(log)
    checks.sift({"power_limit_max_w": LIMIT_W})
    fast.most_mw = int(1000 * checks.most_w)
    fast.energy.counter.most_per_s = int(1000 * checks.counter_most_w)
    return fast, log


class Truth:
    """A GPU whose load jumps between idle and full; its true energy is known exactly."""

    def __init__(self, seed, start_mj):
        self.rng = random.Random(seed)
        self.power_mw, self.raw, self.now_ns, self.energy_mj = 90_000, start_mj, SECOND, 0

    def step(self):
        if self.rng.random() < 0.03:
            self.power_mw = self.rng.choice([90_000, 350_000, 700_000])
        step_ns = int(SECOND * self.rng.uniform(0.08, 0.12))
        rise = self.power_mw * step_ns // SECOND
        self.now_ns, self.raw, self.energy_mj = self.now_ns + step_ns, self.raw + rise, self.energy_mj + rise


GARBAGE = st.lists(
    st.tuples(
        st.integers(5, 560),
        st.integers(1, 4),
        st.sampled_from(["power", "counter", "both"]),
        st.one_of(st.sampled_from([*SENTINELS, 0]), st.integers(10_000_000, 2**63)),
    ),
    max_size=6,
)


@settings(max_examples=40, deadline=None)
@example([(270, 4, "power", 2**32 - 1), (274, 1, "counter", 2**32 - 1)], 0, 0)  # one after the other
@given(GARBAGE, st.integers(0, 2**31), st.sampled_from([0, 5_000, 40_000_000, 12_000_000_000, 2**32 - 50_000]))
def test_garbage_leaves_energy_within_a_thousandth_and_no_implausible_power(garbage, seed, start_mj):
    fast, log = window()
    truth = Truth(seed, start_mj)
    wraps = start_mj < 2**32
    bad = {number: (what, value) for first, length, what, value in garbage for number in range(first, first + length)}
    high_w, drops = 0.0, 0
    for number in range(600):
        truth.step()
        what, value = bad.get(number, ("", 0))
        raw = truth.raw % 2**32 if wraps else truth.raw
        if what != "power" and abs(value - raw) < 5_000_000:
            what = ""  # a reading that is 5 kJ off within half a second may be true
        power = value if what in ("power", "both") else truth.power_mw
        drops += power > 1_100_000 or power < 0
        fast.add((truth.now_ns, number, power or None, value if what in ("counter", "both") else raw))
        if number == 0:
            truth.energy_mj = 0
        if number % 10 == 9:
            fast.drain()
            high_w = max(high_w, fast.interval().get("power_max_w", 0.0))
    assert high_w <= LIMIT_W
    assert fast.energy.integral_mj == pytest.approx(truth.energy_mj, rel=1e-3, abs=100_000)
    assert fast.energy.counter_mj == pytest.approx(truth.energy_mj, rel=1e-3, abs=100_000)
    told = dict(log.report())
    assert told.get("power_w", {}).get("dropped_readings", 0.0) == drops


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.lists(st.integers(1, 3000), max_size=4))
def test_honest_steps_gaps_and_restarts_of_the_agent_drop_nothing(seed, pauses):
    fast, log = window()
    truth = Truth(seed, 7_000_000)
    for number in range(400):
        truth.step()
        if number % 100 == 50 and pauses:  # the agent stands still for up to five minutes
            for _ in range(pauses.pop()):
                truth.step()
        if number == 0:
            truth.energy_mj = 0
        fast.add((truth.now_ns, number, truth.power_mw, truth.raw))
        if number % 10 == 9:
            fast.drain()
        if number == 200:
            fast.drain()
            kept = fast.energy
            fast, log = window()
            fast.energy = EnergyAccumulator(kept.counter_mj, kept.integral_mj, kept.raw_mj, kept.counter.raw_ns)
    assert not dict(log.report())
    assert fast.energy.counter_mj == truth.energy_mj
    assert fast.energy.integral_mj == pytest.approx(truth.energy_mj, rel=1e-3, abs=400_000), "a trapezoid per step"


def counter(total=0, raw=None):
    return TrustedCounter(1_000_000, 50_000, total=total, raw=raw)


@pytest.mark.parametrize("lower_mj", [60_000, 2_000_000, 3_000_000_000])
def test_a_counter_lower_after_a_restart_in_the_same_boot_is_not_added(lower_mj):
    energy = EnergyAccumulator(5_000_000, 5_000_000, 12_000_000_000, SECOND)
    raw = 12_000_000_000 - lower_mj
    for number in range(40):
        energy.add(3600 * SECOND + number * SECOND // 10, 500_000, raw + 50_000 * number)
    assert energy.counter_mj == pytest.approx(5_000_000 + 39 * 50_000, abs=60_000)
    assert energy.integral_mj == pytest.approx(5_000_000 + 39 * 50_000, abs=60_000)


def test_a_detour_of_any_length_up_to_a_minute_leaves_nothing_in_the_total():
    for detour in (1, 4, 7, 300):
        counted = counter()
        for number in range(600):
            true = 10**9 + 50_000 * number
            garbage = 3 * 10**11 if 100 <= number < 100 + detour else true
            counted.take(number * SECOND // 10, garbage, 50_000)
        assert counted.total == 599 * 50_000


def test_a_counter_that_begins_anew_is_followed_at_once():
    counted = counter()
    for number in range(50):
        counted.take(number * SECOND // 10, 10**9 + 50_000 * number, 50_000)
    verdicts = [counted.take(5 * SECOND + number * SECOND // 10, 900 + 50_000 * number, 50_000) for number in range(9)]
    assert verdicts == [Verdict.RESTARTED] + [Verdict.BELIEVED] * 8
    assert counted.total == 49 * 50_000 + 9 * 50_000


def test_a_sensor_is_suspect_after_ten_and_trusted_after_ten():
    log = SensorLog(lambda: 0.0)
    for _ in range(9):
        log.drop("power_w", "5,000 W is above 1,100 W")
    assert [event.kind for event in log.take_events()] == ["implausible_reading"]
    log.drop("power_w", "5,000 W is above 1,100 W")
    (event,) = log.take_events()
    assert (event.kind, event.detail) == ("sensor_suspect", "power_w: 5,000 W is above 1,100 W")
    log.believe("power_w", 9)
    assert dict(log.report())["power_w"]["suspect"] == 1.0
    log.believe("power_w")
    assert [event.kind for event in log.take_events()] == ["sensor_trusted"]
    assert dict(log.report())["power_w"]["dropped_readings"] == 10.0


@pytest.mark.parametrize(
    ("field", "garbage", "honest"),
    [
        ("power_average_w", 4294967.295, 1040.0), ("module_power_w", 4294967.295, 2000.0),
        ("hbm_power_w", 4294967.295, 98.0), ("power_limit_w", 4294967.295, 700.0), ("power_limit_w", 0.0, 200.0),
        ("temp_c", 0.0, 20.0), ("temp_c", 4294967295.0, 88.0), ("temp_c", 255.0, 90.0), ("temp_c", -1.0, 3.0),
        ("hbm_temp_c", 0.0, 95.0), ("hbm_temp_c", 65535.0, 104.0), ("util_percent", 808334905.0, 100.0),
        ("mem_util_percent", 686103.0, 100.0), ("mem_used_bytes", float(2**64 - 1), 80e9),
        ("sm_clock_mhz", 4294967295.0, 1980.0), ("pstate", 32.0, 8.0), ("pstate", 4294967295.0, 0.0),
        ("slow_thermal_s", (2**64 - 1) / 1e9, 1e6), ("nvlink_tx_bytes", float(2**64 - 1) * 1024, 1e15),
        ("ecc_uncorrected", float(2**64 - 1), 3.0), ("power_average_w", float("nan"), 0.0),
        ("temp_margin_c", 4294967295.0, -2.0),
    ],
)  # fmt: skip
def test_a_value_that_no_gpu_can_show_is_left_out_and_an_honest_one_stays(field, garbage, honest):
    log = SensorLog()
    checks = GpuPlausibility(log, itertools.count(0, 100 * SECOND).__next__)
    checks.sift({"power_limit_max_w": LIMIT_W, "temp_shutdown_c": 92.0})
    assert checks.sift({field: honest}) == {field: honest}
    assert not log.watched
    assert checks.sift({field: garbage, "temp_slowdown_c": 87.0}) == {"temp_slowdown_c": 87.0}
    assert log.watched == (garbage != 32.0), "unknown is no fault"


@pytest.mark.parametrize("row", [*FULL_FIELDS, *SLOW_FIELDS, *ACTIVITY_FIELDS], ids=lambda row: row.name)
def test_what_drivers_show_in_place_of_a_value_is_no_value_of_any_field(row):
    if row.name == "energy_closure":
        pytest.skip("computed by the sampler")
    raw = 2**64 - 1
    for source in row.sources:
        if isinstance(source, FieldValue):
            raw = (raw if source.value_type == "u64" or source.wrap_bits else 2**32 - 1) / source.per
            break
    log, honest = SensorLog(), {"processes" if row.name == "pstate" else "pstate": 8.0}
    assert GpuPlausibility(log).sift({row.name: float(raw)} | honest) == honest
    assert log.watched


def test_memory_in_use_is_part_of_the_memory_present():
    log = SensorLog()
    fields = GpuPlausibility(log).sift({"mem_used_bytes": 5000.0, "mem_total_bytes": 100.0})
    assert fields == {"mem_total_bytes": 100.0}
    assert dict(log.report())["mem_used_bytes"]["reason"] == "5,000 B are used of 100 B"


def test_a_temperature_cannot_jump_but_can_be_followed():
    now = [0]
    log = SensorLog()
    checks = GpuPlausibility(log, lambda: now[0])
    kept = []
    for temp_c in (40, 41, 119, 42, 60, 75, 88):
        now[0] += SECOND
        kept += list(checks.sift({"temp_c": float(temp_c)}).values())
    assert kept == [40, 41, 42, 60, 75, 88]


def domain(root, name, label, energy_uj, **more):
    folder = root / name
    folder.mkdir(parents=True)
    for file, text in {"name": label, "max_energy_range_uj": 262_143_328_850, "energy_uj": energy_uj, **more}.items():
        (folder / file).write_text(f"{text}\n")
    return folder / "energy_uj"


@pytest.mark.parametrize(
    "odd",
    ["0", "back", "restart", "18446744073709551615", "262143328849", "", "N/A", "-5"],
)
def test_rapl_shows_no_power_that_a_package_cannot_draw(tmp_path, odd):
    start = 100_000_000_000
    first = domain(tmp_path, "intel-rapl:0", "package-0", start, constraint_0_max_power_uw=350_000_000)
    second = domain(tmp_path, "intel-rapl:1", "package-1", start, constraint_0_max_power_uw=350_000_000)
    now = [0.0]
    log = SensorLog()
    rapl = Rapl(tmp_path, lambda: now[0], log)
    powers, base = [], 0
    for second_ in range(60):
        now[0] = float(second_)
        true = start + 200_000_000 * second_
        text = str(true + base)
        if 20 <= second_ < 23:
            text = {"back": str(true - 5_000_000_000), "restart": "0"}.get(odd, odd)
        if odd == "restart" and second_ >= 23:
            base = -start - 200_000_000 * 22
            text = str(true + base)
        first.write_text(text + "\n")
        second.write_text(f"{true}\n")
        fields = rapl.collect()
        powers += [fields["cpu_power_w"]] if "cpu_power_w" in fields else []
        energy_j = fields["cpu_energy_j"]
    assert len(powers) >= 55
    assert powers == pytest.approx([400.0] * len(powers), rel=0.07)
    assert energy_j == pytest.approx(59 * 400.0, rel=0.02)
    assert dict(log.report())["intel-rapl:0 (package-0)"]["dropped_readings"] >= 2


def test_a_node_meter_is_compared_with_the_gpus_and_with_what_a_node_can_draw():
    log = SensorLog()
    checks = NodePlausibility(log)
    checks.gpus_most_w = 8 * 1100.0
    for second in range(30):
        checks.note_gpus(second * SECOND, 5000.0)
    assert checks.sift({"power_w": 118.0, "inlet_temp_c": 25.0}) == {"inlet_temp_c": 25.0}
    assert dict(log.report())["power_w"]["reason"] == "118 W, while the GPUs alone draw 5,000 W"
    assert checks.sift({"power_w": 5600.0}) == {"power_w": 5600.0}
    assert checks.sift({"power_w": 4_290_000.0}) == {}
    checks.note_gpus(31 * SECOND, 800.0)
    assert checks.sift({"power_w": 2000.0}) == {"power_w": 2000.0}, "the load has just fallen"


class Clock:
    now_ns = SECOND

    def monotonic_ns(self):
        return self.now_ns

    def time_ns(self):
        return 1_700_000_000 * SECOND + self.now_ns


@pytest.mark.parametrize("garbage", [0xFFFFFFFF, 3_700_000])
def test_garbage_of_the_driver_reaches_no_point_and_is_told(garbage):
    state = StateFile.create(gpus=2, model_name="H100", node="gn01")
    claim(state)
    for gpu in (0, 1):
        state.set_load(gpu, 0.6)
    advance(state, 60.0)
    install([state])
    lines, clock = [], Clock()

    class Sink:
        def write(self, block):
            lines.extend(parse_lines(block))

    sampler = Sampler(SamplerSettings(node="gn01", rapl=False, attribution=False), Sink(), clock)
    for tick in range(300):
        advance(state, 0.1)
        if 50 <= tick < 53:
            state.ints[state.base(0) + at.F_BASE + at.F_WORDS * 186 + 1] = garbage
        sampler.tick()
        clock.now_ns += SECOND // 10
    sampler.close()
    gpus = [point for point in lines if point.measurement == "gpu"]
    assert max(point.fields["power_max_w"] for point in gpus) < 700
    assert max(p.fields["gpu_power_w"] for p in lines if "gpu_power_w" in p.fields) < 1400
    rises = {
        (gpu, field): max(found) - min(found)
        for gpu in "01"
        for field in ("energy_integral_j", "energy_j")
        for found in [[point.fields[field] for point in gpus if point.tags["gpu"] == gpu]]
    }
    assert rises["0", "energy_integral_j"] == pytest.approx(rises["0", "energy_j"], rel=2e-3)
    (event,) = [point for point in lines if point.tags.get("kind") == "implausible_reading"]
    assert event.fields["detail"].startswith("power_w: ")
    (sensor,) = {(p.tags["gpu"], p.tags["sensor"]) for p in lines if p.measurement == "sensor"}
    assert sensor == ("0", "power_w")
    assert [p.fields["dropped_readings"] for p in lines if p.measurement == "sensor"][-1] == 3.0


def test_a_byte_counter_without_a_value_is_not_counted_on():
    state = StateFile.create(gpus=1, model_name="H100", node="gn01")
    claim(state)
    install([state])
    driver = Driver()
    full, log = GpuFull(driver, driver.gpus[0]), SensorLog()
    checks = GpuPlausibility(log)
    word = state.base(0) + at.F_BASE + at.F_WORDS * at.field_slot(197, 0) + 1
    state.doubles[state.base(0) + at.C_STATIC] = 1.0
    seen = []
    for raw in (5_000, 6_000, 0xFFFFFFFF, 7_000, 0xFFFFFFFF, 8_000):
        state.ints[word] = raw
        seen.append(checks.sift(full.collect()).get("pcie_tx_bytes"))
    assert seen == [5_000, 6_000, None, 7_000, None, 8_000]
    assert dict(log.report())["pcie_tx_bytes"]["dropped_readings"] == 2.0
    driver.close()


def traces(data_dir):
    for path in sorted((data_dir / "power").glob("*.csv.xz")):
        runs = {}
        with lzma.open(path, "rt") as file:
            next(file)
            for line in file:
                bench, run, node, time_ms, watts = line.split(",")
                runs.setdefault((bench, run, node), []).append((int(time_ms), float(watts)))
        yield from runs.values()


def test_hours_of_real_node_power_raise_no_alarm(data_dir):
    """Measured nodes of eight H100, as the node's meter and, an eighth each, as a GPU with counter."""
    seconds = 0.0
    for rows in traces(data_dir):
        fast, log = window()
        node = NodePlausibility(log)
        node.gpus_most_w = 8 * 1100.0
        raw, last_ms, last_w = 10_000_000, rows[0][0], rows[0][1]
        for time_ms, watts in rows:
            passed_ms = max(0, time_ms - last_ms)
            raw += max(0, int((watts + last_w) / 16 * passed_ms))
            last_ms, last_w, seconds = time_ms, watts, seconds + passed_ms / 1000
            fast.add((SECOND + time_ms * 1_000_000, time_ms, int(1000 * max(0.0, watts) / 8), raw))
            node.note_gpus(time_ms * 1_000_000, 0.7 * watts)
            node.sift({"power_w": watts})
            if len(fast.pending) >= 10:
                fast.drain()
        assert not dict(log.report()), rows[0]
    assert seconds > 3600
