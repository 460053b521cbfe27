"""The limiter on simulated GPUs: each in a thread of its own, found by its UUID, held to what was asked for last."""

import time

import pynvml
import pytest
from tests.rigs.capper_process import KEY, lease

from powerhall.lease import GpuCap
from powerhall_agent.capper.capper import Capper
from powerhall_agent.capper.found_limits import FoundLimits
from powerhall_agent.capper.gpu_calls import Range, is_plausible
from powerhall_agent.capper.limiter import CapsNotHeld, DriverGone, NvmlLimiter
from powerhall_agent.simulate import layout as at
from powerhall_agent.simulate.faults import apply, parse_script
from powerhall_agent.simulate.install import install
from powerhall_agent.simulate.state import StateFile


@pytest.fixture
def state():
    made = StateFile.create(gpus=3, node="n1")
    install([made])
    return made


@pytest.fixture
def limiters():
    """Makes limiters, and ends their threads with the test: the next one has other GPUs."""
    made = []

    def make():
        made.append(NvmlLimiter())
        return made[-1]

    yield make
    for limiter in made:
        limiter.close()


def fault(state, text):
    for step in parse_script(f"at 0 {text}"):
        apply(state, step)


def limit_w(state, gpu):
    return state.doubles[state.base(gpu) + at.C_LIMIT_W]


def until(read, within_s=2.0):
    end_s = time.monotonic() + within_s
    while not read():
        assert time.monotonic() < end_s
        time.sleep(0.02)


def ask(limiter, watts):
    limiter.apply(tuple(GpuCap(gpu, watts) for gpu in range(3)))


def test_setting_waits_half_a_second_for_a_gpu_that_hangs_and_then_not_at_all(state, limiters):
    limiter = limiters()
    fault(state, "gpu 1 hung 60")
    for longest_s in (0.9, 0.2):
        begin = time.monotonic()
        with pytest.raises(CapsNotHeld, match="GPU 1") as caught:
            ask(limiter, 400.0)
        assert time.monotonic() - begin < longest_s
        assert (caught.value.failed, caught.value.above) == ({1}, frozenset())
    assert [limit_w(state, gpu) for gpu in range(3)] == [400.0, 700.0, 400.0]
    until(lambda: limiter.troubles().keys() == {1}, 5.0)
    assert [cap.gpu for cap in limiter.read()] == [0, 2]
    ask_last = pytest.raises(CapsNotHeld)
    with ask_last:
        ask(limiter, 350.0)
    fault(state, "gpu 1 well")
    until(lambda: limit_w(state, 1) == 350.0)


def test_a_lost_gpu_gets_what_was_asked_for_last_when_it_is_back(state, limiters):
    limiter = limiters()
    ask(limiter, 400.0)
    fault(state, "gpu 2 lost")
    state.set_limit(2, 700.0)
    with pytest.raises(CapsNotHeld):
        ask(limiter, 300.0)
    fault(state, "gpu 2 well")
    until(lambda: limit_w(state, 2) == 300.0)


def test_a_gpu_that_may_not_be_set_is_above_only_if_its_limit_is(state, limiters):
    limiter = limiters()
    ask(limiter, 400.0)
    state.ints[at.H_SET_RETURN] = 4
    with pytest.raises(CapsNotHeld) as raised:
        ask(limiter, 500.0)
    assert (raised.value.above, raised.value.not_allowed) == (frozenset(), True)
    with pytest.raises(CapsNotHeld) as lowered:
        ask(limiter, 300.0)
    assert lowered.value.above == {0, 1, 2}


def test_a_driver_that_goes_ends_the_limiter_and_one_that_is_not_there_is_no_traceback(state, limiters):
    limiter = limiters()
    fault(state, "unload")

    def is_gone():
        try:
            limiter.read()
        except DriverGone:
            return True
        return False

    until(is_gone)
    with pytest.raises(DriverGone):
        NvmlLimiter()


def test_a_gpu_that_is_exchanged_is_capped_and_its_own_limit_comes_back(state, limiters, tmp_path):
    found = FoundLimits([tmp_path / "found"], "b1")
    limiter = limiters()
    capper = Capper(
        limiter, node="n1", key=None, safe_limit_w=300.0, memory=tmp_path / "memory.json", found=found, gpu_count=3
    )
    fault(state, "gpu 1 lost")
    state.set_text(1, at.T_UUID, "GPU-another")
    state.set_limit(1, 650.0)
    fault(state, "gpu 1 well")
    begin_s = time.monotonic()

    def held():
        capper.tick(time.monotonic())
        return limit_w(state, 1) == 300.0

    until(held)
    assert time.monotonic() - begin_s < 2.0
    assert capper.restore()
    assert [limit_w(state, gpu) for gpu in range(3)] == [700.0, 650.0, 700.0]


def test_a_range_that_changes_moves_the_safe_cap_into_it(state, limiters, tmp_path):
    capper = Capper(limiters(), node="n1", key=None, safe_limit_w=300.0, memory=tmp_path / "memory.json", gpu_count=3)
    assert limit_w(state, 0) == 300.0
    word = state.base(0) + at.getter_word("LIMIT_RANGE")
    state.doubles[state.base(0) + at.C_LIMIT_MIN_W], state.ints[word + 1] = 350.0, 350_000
    until(lambda: capper.tick(time.monotonic()) or limit_w(state, 0) == 350.0)


@pytest.mark.parametrize("text", ["", "\xff", "many", "-5\n", "700", "1e999\n"])
def test_a_damaged_note_of_a_found_limit_gives_the_gpus_default(state, limiters, tmp_path, text):
    folder = tmp_path / "found"
    folder.mkdir()
    for gpu in range(3):
        (folder / f"b1-{state.text(gpu, at.T_UUID)}.watts").write_text(text, encoding="latin-1")
        state.set_limit(gpu, 640.0)
    capper = Capper(
        limiters(), node="n1", key=None, safe_limit_w=300.0, memory=tmp_path / "memory.json",
        found=FoundLimits([folder], "b1"),
    )  # fmt: skip
    assert capper.restore()
    assert [limit_w(state, gpu) for gpu in range(3)] == [700.0] * 3
    assert list(folder.iterdir()) == []


def test_a_note_of_which_a_bit_has_changed_is_not_believed(tmp_path):
    (first,) = _notes(tmp_path, 650.0)
    good = first.read_bytes()
    for bit in range(8 * len(good)):
        body = bytearray(good)
        body[bit // 8] ^= 1 << bit % 8
        first.write_bytes(body)
        found = FoundLimits([tmp_path], "b1")
        found.note("GPU-1", 300.0)
        assert found.get("GPU-1") is None, bytes(body)
    first.write_text("650.000\n")  # as an earlier version wrote it
    found = FoundLimits([tmp_path], "b1")
    found.note("GPU-1", 300.0)
    assert found.get("GPU-1") == 650.0


def _notes(folder, limit_w):
    FoundLimits([folder], "b1").note("GPU-1", limit_w)
    return list(folder.glob("*.watts"))


def test_where_the_disk_is_full_found_limits_go_beside_the_socket(tmp_path):
    (tmp_path / "taken").write_text("no folder can be here")
    folders = [tmp_path / "taken", tmp_path / "run"]
    FoundLimits(folders, "b1").note("GPU-1", 650.0)
    after = FoundLimits(folders, "b1")
    after.note("GPU-1", 300.0)
    assert after.get("GPU-1") == 650.0
    other = FoundLimits(folders, "b2")
    other.prune()
    assert not other.any_of_this_boot()
    assert not FoundLimits(folders, "b1").any_of_this_boot()


@pytest.mark.parametrize("low_high_mw", [(0, 0), (700_000, 200_000), (4_294_967_295, 4_294_967_295)])
def test_a_range_that_no_gpu_has_is_not_believed(state, limiters, tmp_path, low_high_mw):
    word = state.base(1) + at.getter_word("LIMIT_RANGE")
    state.ints[word + 1], state.ints[word + 2] = low_high_mw
    capper = Capper(limiters(), node="n1", key=KEY, safe_limit_w=300.0, memory=tmp_path / "memory.json", gpu_count=3)
    assert [limit_w(state, gpu) for gpu in range(3)] == [300.0] * 3
    capper.offer(lease(1, gpus=3), time.time(), time.monotonic())
    assert [limit_w(state, gpu) for gpu in range(3)] == [500.0] * 3
    assert capper.restore()
    assert [limit_w(state, gpu) for gpu in range(3)] == [700.0] * 3


def test_no_gpu_has_a_limit_of_0_w_even_where_its_range_is_not_known():
    assert not is_plausible(0.0, Range(1.0, 3000.0))
    assert is_plausible(100.0, Range(1.0, 3000.0))


@pytest.mark.parametrize("reads_w", [0.0, 4_294_967.0])
def test_a_limit_that_no_gpu_can_have_is_not_put_back(state, limiters, tmp_path, reads_w):
    state.set_limit(1, reads_w)
    capper = Capper(limiters(), node="n1", key=None, safe_limit_w=300.0, memory=tmp_path / "memory.json", gpu_count=3)
    assert limit_w(state, 1) == 300.0
    assert capper.restore()
    assert [limit_w(state, gpu) for gpu in range(3)] == [700.0] * 3


def test_a_gpu_that_gives_another_uuid_gets_back_what_was_found_and_not_its_cap(state, limiters, tmp_path):
    capper = Capper(limiters(), node="n1", key=KEY, safe_limit_w=300.0, memory=tmp_path / "memory.json", gpu_count=3)
    capper.offer(lease(1, gpus=3), time.time(), time.monotonic())
    state.set_text(1, at.T_UUID, "GPU-another")
    begin_s = time.monotonic()
    while time.monotonic() - begin_s < 1.5:
        capper.heard(time.monotonic())
        capper.tick(time.monotonic())
        time.sleep(0.05)
    assert capper.restore()
    assert [limit_w(state, gpu) for gpu in range(3)] == [700.0] * 3


def test_a_lease_below_what_a_gpu_accepts_by_now_is_not_confirmed(state, limiters, tmp_path):
    capper = Capper(limiters(), node="n1", key=KEY, safe_limit_w=300.0, memory=tmp_path / "memory.json", gpu_count=3)
    capper.offer(lease(1, gpus=3), time.time(), time.monotonic())
    assert capper.confirmation(time.time()) is not None
    word = state.base(0) + at.getter_word("LIMIT_RANGE")
    state.doubles[state.base(0) + at.C_LIMIT_MIN_W], state.ints[word + 1] = 650.0, 650_000

    def is_raised():
        capper.heard(time.monotonic())
        capper.tick(time.monotonic())
        return limit_w(state, 0) == 650.0

    until(is_raised)
    assert capper.confirmation(time.time()) is None


@pytest.mark.parametrize(("takes_w", "clock_mhz"), [(450, None), (450, 1200.0), (520, None)])
def test_a_gpu_that_takes_another_limit_costs_the_lease_only_where_it_is_higher(
    state, limiters, tmp_path, monkeypatch, takes_w, clock_mhz
):
    setter = pynvml.nvmlDeviceSetPowerManagementLimit

    def sets(handle, limit_mw):
        is_odd = pynvml.nvmlDeviceGetIndex(handle) == 1 and limit_mw > 400_000
        setter(handle, takes_w * 1000 if is_odd else limit_mw)

    monkeypatch.setattr(pynvml, "nvmlDeviceSetPowerManagementLimit", sets)
    capper = Capper(limiters(), node="n1", key=KEY, safe_limit_w=300.0, memory=tmp_path / "memory.json", gpu_count=3)
    caps = tuple(GpuCap(gpu, 500.0, clock_mhz) for gpu in range(3))
    capper.offer(lease(1, caps=caps), time.time(), time.monotonic())
    assert capper.status().state == ("leased" if takes_w < 500 else "safe")
    assert [limit_w(state, gpu) for gpu in (0, 2)] == [500.0 if takes_w < 500 else 300.0] * 2
    assert "GPU 1: power limit reads" in capper.status().error
    if clock_mhz is None:
        until(lambda: capper.confirmation(time.time()) is not None)
    capper.tick(time.monotonic() + 0.6)
    assert capper.rewrites == 0, "no other program has changed it"
