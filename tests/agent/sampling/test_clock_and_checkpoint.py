"""Timestamps and the checkpoint."""

from hypothesis import example, given, settings
from hypothesis import strategies as st

from powerhall_agent.base.clock import MOST_AHEAD_MS, Stamper
from powerhall_agent.sampling.checkpoint import Checkpoint, Totals

SECOND = 1_000_000_000


@settings(max_examples=200)
@example([(0, 0), (3600 * SECOND, -3600 * SECOND)], 0)  # set back by an hour while nothing was stamped
@example([(0, 0), (0, -60 * SECOND)], 0)
@given(
    st.lists(st.tuples(st.integers(0, 7200 * SECOND), st.integers(-3600 * SECOND, 3600 * SECOND)), max_size=60),
    st.integers(0, 10**13),
)
def test_timestamps_rise_but_for_told_steps_and_are_never_far_ahead(moves, last_ms):
    stamper = Stamper(last_ms)
    mono_ns, wall_ns, last = 0, 1_700_000_000 * SECOND, last_ms
    for step_ns, jump_ns in moves:
        mono_ns += step_ns
        wall_ns += step_ns + jump_ns
        stamp = stamper.stamp(mono_ns, wall_ns)
        step = stamper.take_step()
        assert stamp > last or (step is not None and step.before_ms == last)
        assert wall_ns // 1_000_000 <= stamp <= wall_ns // 1_000_000 + MOST_AHEAD_MS
        last = stamp


def test_a_clock_of_another_decade_is_left_at_once_at_full_pace():
    stamper = Stamper()
    for second in range(10):
        stamper.stamp(second * SECOND, (2_082_758_400 + second) * SECOND)
    assert stamper.take_step() is None
    stamps = [stamper.stamp((10 + second) * SECOND, (1_790_000_000 + second) * SECOND) for second in range(10)]
    assert stamps == [1000 * (1_790_000_000 + second) for second in range(10)]
    step = stamper.take_step()
    assert (step.by_ms, step.old_is_wrong) == (1000 * (1_790_000_000 - 2_082_758_410), True)


def test_a_run_after_a_wrong_clock_knows_by_how_much_it_was_wrong():
    in_boot = Stamper(2_082_758_400_000, 100 * SECOND)
    in_boot.stamp(160 * SECOND, 1_790_000_060 * SECOND)
    assert in_boot.take_step().by_ms == 1_790_000_000_000 - 2_082_758_400_000
    after_boot = Stamper(2_082_758_400_000)
    after_boot.stamp(5 * SECOND, 1_790_000_060 * SECOND)
    step = after_boot.take_step()
    assert (step.by_ms, step.old_is_wrong) == (0, False)


def test_a_machine_that_stood_still_was_not_wrong_but_a_clock_of_1970_was():
    paused, unset = Stamper(), Stamper()
    paused.stamp(0, 1_790_000_000 * SECOND)
    paused.stamp(SECOND, 1_790_003_600 * SECOND)
    unset.stamp(0, 40 * SECOND)
    unset.stamp(SECOND, 1_790_000_000 * SECOND)
    assert not paused.take_step().old_is_wrong
    assert unset.take_step().old_is_wrong


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


@settings(max_examples=100)
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


def test_the_time_of_the_last_timestamp_counts_in_its_boot_alone(tmp_path):
    Checkpoint(tmp_path / "n.energy").keep_ms(123456, 77, 5)
    again = Checkpoint(tmp_path / "n.energy")
    assert (again.last_ms(), again.last_mono_ns(5), again.last_mono_ns(6)) == (123456, 77, None)
