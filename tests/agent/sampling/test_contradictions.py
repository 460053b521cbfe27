"""Power and energy counter contradict each other by a hundred times: the smaller one is another unit, or no reading."""

import pytest

from powerhall_agent.base.sensor_log import SensorLog
from powerhall_agent.collectors.rapl import Rapl
from powerhall_agent.sampling.energy import EnergyAccumulator
from powerhall_agent.sampling.fast_window import FastWindow
from powerhall_agent.sampling.plausibility import GpuPlausibility

SECOND = 1_000_000_000
START_MJ = 5_000_000_000


class Gpu:
    """A GPU of 700 W, read ten times a second; `power` and `counter` may turn its truth into something else."""

    def __init__(self):
        self.log = SensorLog(lambda: 0.0)
        self.fast = FastWindow(EnergyAccumulator(), None, self.log)
        checks = GpuPlausibility(self.log)
        checks.sift({"power_limit_max_w": 700.0})
        self.fast.most_mw = int(1000 * checks.most_w)
        self.fast.energy.counter.most_per_s = int(1000 * checks.counter_most_w)
        self.lows_w, self.true_mj = [], 0

    def run(self, load_mw, power=lambda _, mw: mw, counter=lambda _, mj: mj, seconds=60.0):
        for number in range(int(10 * seconds)):
            at_s, mw = number / 10, load_mw(number / 10)
            self.true_mj += mw // 10 if number else 0
            raw = counter(at_s, START_MJ + self.true_mj)
            self.fast.add(((number + 10) * SECOND // 10, number, power(at_s, mw), raw))
            if number % 10 == 9:
                self.fast.drain()
                self.lows_w.append(self.fast.interval().get("power_min_w"))
        return self

    @property
    def energies_mj(self):
        return self.fast.energy.counter_mj, self.fast.energy.integral_mj

    @property
    def dropped(self):
        return {name: fields["dropped_readings"] for name, fields in self.log.report()}


def steady(_):
    return 300_000


def during(first_s, last_s, turn):
    return lambda at_s, value: turn(value) if first_s <= at_s < last_s else value


@pytest.mark.parametrize(("first_s", "last_s"), [(20, 23), (20.5, 40.3), (20, 60), (0, 10)])
def test_watts_that_are_read_as_milliwatts_are_no_power(first_s, last_s):
    gpu = Gpu().run(steady, power=during(first_s, last_s, lambda mw: mw // 1000))
    assert min(low_w for low_w in gpu.lows_w if low_w is not None) == 300.0
    assert gpu.energies_mj == pytest.approx((gpu.true_mj, gpu.true_mj), rel=1e-3, abs=40_000)
    assert gpu.dropped["power_w"] == pytest.approx(10 * (last_s - first_s), abs=2)


@pytest.mark.parametrize("lag_s", [0.0, 1.0])
@pytest.mark.parametrize("idle_mw", [6_000, 60_000])
def test_honest_steps_between_idle_and_full_load_drop_nothing(idle_mw, lag_s):
    def load_mw(at_s):
        return 600_000 if int(at_s * 10) % 34 < 17 else idle_mw

    def shown_mw(at_s, mw):  # some GPUs show a mean over the last second
        return sum(load_mw(at_s - back / 10) for back in range(10)) // 10 if lag_s else mw

    gpu = Gpu().run(load_mw, power=shown_mw)
    assert not gpu.dropped
    assert None not in gpu.lows_w


@pytest.mark.parametrize("stood_s", [1, 30])
def test_a_counter_that_stood_still_and_catches_up_loses_nothing(stood_s):
    still = []

    def counter(at_s, mj):
        still.append(mj)
        return still[200] if 20 <= at_s < 20 + stood_s else mj

    gpu = Gpu().run(steady, counter=counter)
    assert gpu.energies_mj == (gpu.true_mj, gpu.true_mj)
    assert not gpu.dropped


def test_a_counter_in_another_unit_is_followed_neither_there_nor_back():
    gpu = Gpu().run(steady, counter=during(20, 140, lambda mj: mj // 1000), seconds=180)
    assert gpu.energies_mj == pytest.approx((gpu.true_mj, gpu.true_mj), rel=1e-3)
    assert gpu.fast.energy.resets == 0
    assert gpu.dropped == {"energy_j": 1200.0}


def test_a_set_limit_above_the_boards_own_is_no_limit():
    log = SensorLog(lambda: 0.0)
    checks = GpuPlausibility(log)
    checks.sift({"power_limit_w": 11_999.0})  # before the board's own is known
    checks.sift({"power_limit_max_w": 700.0, "power_limit_default_w": 700.0})
    assert checks.most_w == pytest.approx(1100.0)
    assert checks.sift({"power_limit_w": 11_999.0, "power_limit_requested_w": 5_000.0}) == {}
    assert checks.sift({"power_limit_w": 700.0}) == {"power_limit_w": 700.0}


def rapl(root, energies_uj):
    for number, uj in enumerate(energies_uj):
        folder = root / f"intel-rapl:{number}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "name").write_text(f"package-{number}\n")
        (folder / "max_energy_range_uj").write_text("262143328850\n")
        (folder / "energy_uj").write_text(f"{uj}\n")


def test_a_package_whose_counter_stands_still_shows_no_power_of_the_host(tmp_path):
    now_s, log = [0.0], SensorLog(lambda: 0.0)
    collector = Rapl(tmp_path, lambda: now_s[0], log)
    assert collector.collect() == {}, "the kernel's module is loaded later"
    powers_w = []
    for step in range(1, 9):
        now_s[0] += 10.0
        truth_uj = step * 2_000_000_000
        rapl(tmp_path, [truth_uj, 6_000_000_000 if 4 <= step < 7 else truth_uj])
        powers_w.append(collector.collect().get("cpu_power_w"))
    assert powers_w == [None, 400.0, 400.0, None, None, None, 400.0, 400.0]
    assert dict(log.report())["intel-rapl:1 (package-1)"]["dropped_readings"] == 3.0
