"""The spool keeps its lines over restarts, damage, full disks and its own bound."""

import errno
import io
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from powerhall.runtime.errors import ConfigError, Rejected
from powerhall.runtime.log import Log
from powerhall_agent.delivery.restamp import restamp
from powerhall_agent.delivery.segment import MAGIC, encode_record
from powerhall_agent.delivery.spool import Spool, segments_of

QUIET = Log(io.StringIO())


def _lines(first: int, count: int) -> bytes:
    return b"".join(b"gpu,gpu=0 power_w=500.0 %d\n" % number for number in range(first, first + count))


def _spool(folder: Path, max_bytes: int = 1 << 20, segment_bytes: int = 4096) -> Spool:
    return Spool(folder, max_bytes, segment_bytes, QUIET)


def _all(spool: Spool) -> bytes:
    found = b""
    while (batch := spool.backlog(1 << 20)) is not None:
        found += batch.lines
        spool.ack(batch)
    while (batch := spool.live(1 << 20)) is not None:
        found += batch.lines
        spool.ack(batch)
    return found


def test_appended_lines_survive_a_restart_in_order(tmp_path):
    first = _spool(tmp_path)
    for number in range(0, 500, 10):
        assert first.append(_lines(number, 10))
    first.close()
    second = _spool(tmp_path)
    assert second.stats().points_waiting == 500
    assert _all(second) == _lines(0, 500)
    second.close()


def test_what_waits_is_stamped_anew_wherever_it_is_and_stays_so(tmp_path):
    spool = _spool(tmp_path, segment_bytes=8192)
    for number in range(1000, 1500, 10):
        spool.append(_lines(number, 10))
    assert spool.pack_one()
    sending = spool.live(1 << 20)
    spool.change(restamp(-400, 1100, 1399))
    spool.change(restamp(5000, 700, 700))
    spool.append(_lines(1500, 10))
    spool.release(sending)
    times = [*range(1000, 1100), *range(700, 1000), *range(1400, 1510)]
    times[100] = 5700
    spool.close()
    second = _spool(tmp_path)
    assert [int(line.split()[-1]) for line in _all(second).splitlines()] == times
    second.close()


def test_jobs_keep_their_time_and_odd_lines_stay():
    lines = b"job_interval,gpu=0 end_s=0 1200\nnode gpus=1 1200\nodd\n"
    assert restamp(-1000, 1100, 1300)(lines) == b"job_interval,gpu=0 end_s=0 1200\nnode gpus=1 200\nodd\n"


def test_delivered_segments_are_unlinked(tmp_path):
    spool = _spool(tmp_path)
    for number in range(0, 500, 10):
        spool.append(_lines(number, 10))
    _all(spool)
    spool.close()
    assert segments_of(tmp_path) == []


def test_live_lines_are_the_newest_segment_and_come_without_reading_the_disk(tmp_path):
    spool = _spool(tmp_path, segment_bytes=4096)
    spool.append(_lines(0, 140))
    spool.append(_lines(140, 10))
    batch = spool.live(1 << 20)
    assert batch is not None
    assert batch.lines == _lines(140, 10)
    spool.release(batch)
    assert spool.backlog_points() == 140
    spool.close()


def test_a_batch_that_is_released_comes_again(tmp_path):
    spool = _spool(tmp_path)
    spool.append(_lines(0, 10))
    batch = spool.live(1 << 20)
    assert batch is not None
    assert spool.live(1 << 20) is None
    spool.release(batch)
    again = spool.live(1 << 20)
    assert again is not None
    assert again.lines == batch.lines
    spool.close()


def test_a_full_spool_drops_the_oldest_and_counts_it(tmp_path):
    spool = _spool(tmp_path, max_bytes=20_000)
    for number in range(0, 5000, 10):
        assert spool.append(_lines(number, 10))
    stats = spool.stats()
    assert stats.bytes_waiting <= 20_000
    assert stats.dropped_points + stats.points_waiting == 5000
    kept = _all(spool)
    assert kept.endswith(_lines(4990, 10))
    assert kept == _lines(5000 - kept.count(b"\n"), kept.count(b"\n"))
    spool.close()


def test_a_second_process_is_refused_with_the_owner_named(tmp_path):
    spool = _spool(tmp_path)
    with pytest.raises(Rejected, match=f"in use by process {os.getpid()}"):
        _spool(tmp_path)
    spool.close()
    _spool(tmp_path).close()


def test_a_folder_that_cannot_be_made_is_refused_in_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="must be able to write there"):
        _spool(tmp_path / "file" / "spool")


def test_packed_segments_hold_the_same_lines_in_less_space(tmp_path):
    spool = _spool(tmp_path, segment_bytes=16384)
    for number in range(0, 2000, 10):
        spool.append(_lines(number, 10))
    before = spool.stats().bytes_waiting
    while spool.pack_one():
        pass
    assert spool.stats().bytes_waiting < before / 4
    assert spool.stats().points_waiting == 2000
    spool.close()
    again = _spool(tmp_path)
    assert _all(again) == _lines(0, 2000)
    again.close()


def _victim(folder: Path) -> tuple[bytes, bytes]:
    """Write one segment by hand; return its records' lines and its bytes."""
    payloads = [_lines(number, 3) for number in range(0, 30, 3)]
    data = MAGIC + b"".join(encode_record(payload, 3) for payload in payloads)
    folder.mkdir()
    (folder / "0000000000000001.seg").write_bytes(data)
    return b"".join(payloads), data


def test_three_thousand_damaged_spools_start_with_their_valid_prefix():
    dice = random.Random(3)
    base = Path(tempfile.mkdtemp(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None))
    slowest_s = 0.0
    try:
        for number in range(3000):
            folder = base / str(number)
            whole, data = _victim(folder)
            kind, at = number % 3, dice.randrange(len(data))
            if kind == 0:
                data = data[:at]
            elif kind == 1:
                data = data[:at] + bytes([data[at] ^ (1 << dice.randrange(8))]) + data[at + 1 :]
            else:
                data = data[:at] + bytes(len(data) - at)
            (folder / "0000000000000001.seg").write_bytes(data)
            started_s = time.perf_counter()
            spool = _spool(folder)
            slowest_s = max(slowest_s, time.perf_counter() - started_s)
            assert spool.append(_lines(1000, 1))
            got = _all(spool)
            assert whole.startswith(got.removesuffix(_lines(1000, 1))), (number, kind, at)
            assert got.endswith(_lines(1000, 1))
            spool.close()
            shutil.rmtree(folder)
    finally:
        shutil.rmtree(base)
    assert slowest_s < 1.0


def test_a_damaged_tail_is_moved_to_the_damaged_folder(tmp_path):
    _, data = _victim(tmp_path / "s")
    (tmp_path / "s" / "0000000000000001.seg").write_bytes(data[:-5])
    spool = _spool(tmp_path / "s")
    kept = list((tmp_path / "s" / "damaged").iterdir())
    assert len(kept) == 1
    assert data[:-5].endswith(kept[0].read_bytes())
    assert spool.stats().damaged_bytes == len(kept[0].read_bytes())
    spool.close()


def test_damage_while_running_loses_only_the_records_after_it(tmp_path):
    spool = _spool(tmp_path)
    for number in range(0, 300, 10):
        spool.append(_lines(number, 10))
    path = segments_of(tmp_path)[0]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    got = _all(spool)
    stats = spool.stats()
    assert stats.dropped_points > 0
    assert got.count(b"\n") + stats.dropped_points == 300
    spool.close()


_ON_SMALL_DISK = """
import io, sys
from pathlib import Path
from powerhall.runtime.log import Log
from powerhall_agent.delivery.spool import Spool
folder = Path(sys.argv[1])
spool = Spool(folder / "spool", 1 << 30, 65536, Log(io.StringIO()))
lines = lambda first: b"".join(b"gpu,gpu=%d power_w=512.25 %d\\n" % (i, first) for i in range(8))
for number in range(10_000):
    spool.append(lines(number))
stats = spool.stats()
assert stats.dropped_points > 0, stats
assert stats.dropped_points + stats.points_waiting == 80_000, stats
got = b""
while (batch := spool.backlog(1 << 20)) is not None:
    got += batch.lines
    spool.ack(batch)
while (batch := spool.live(1 << 20)) is not None:
    got += batch.lines
    spool.ack(batch)
kept = got.count(b"\\n") // 8
assert kept > 1000, kept
assert got == b"".join(lines(n) for n in range(10_000 - kept, 10_000)), "the newest are kept, in order"
assert spool.append(lines(10_000)), "resumes without a restart once there is room"
spool.close()
print(stats.dropped_points // 8, "of 10000 ticks dropped,", kept, "kept")
"""


def test_a_full_disk_keeps_the_newest_counts_the_rest_and_resumes(tmp_path):
    wrap = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--mount", "--map-root-user"]
    script = f'mount -t tmpfs -o size=1m none {tmp_path} && exec {sys.executable} -c "$1" {tmp_path}'
    command = [*wrap, "sh", "-c", script, "sh", _ON_SMALL_DISK]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    if "unshare" in done.stderr or "mount:" in done.stderr:
        pytest.skip(f"cannot mount a tmpfs here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    assert "ticks dropped" in done.stdout


def test_a_broken_disk_leaves_the_newest_lines_in_memory(tmp_path, monkeypatch):
    spool = _spool(tmp_path)
    spool.append(_lines(0, 5))

    def broken(_descriptor, _data):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("powerhall_agent.delivery.spool.write_all", broken)
    assert not spool.append(_lines(5, 5))
    assert not spool.append(_lines(10, 5))
    monkeypatch.undo()
    assert spool.append(_lines(15, 5))
    got = _all(spool)
    assert sorted(got.splitlines()) == sorted(_lines(0, 20).splitlines())
    spool.close()


class SpoolModel(RuleBasedStateMachine):
    """Appends, deliveries, releases, packing and restarts in any order: no acknowledged append is ever lost."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None))
        self.spool = _spool(self.folder)
        self.next = 0
        self.owed: set[bytes] = set()
        self.held: list = []

    @rule(count=st.integers(1, 60))
    def append(self, count):
        lines = _lines(self.next, count)
        self.next += count
        assert self.spool.append(lines)
        self.owed |= set(lines.splitlines())

    @rule(limit=st.integers(1, 10_000))
    def take_live(self, limit):
        batch = self.spool.live(limit)
        self.held += [batch] if batch else []

    @rule(limit=st.integers(1, 10_000))
    def take_backlog(self, limit):
        batch = self.spool.backlog(limit)
        self.held += [batch] if batch else []

    @rule()
    def deliver(self):
        if self.held:
            batch = self.held.pop()
            self.owed -= set(batch.lines.splitlines())
            self.spool.ack(batch)

    @rule()
    def fail(self):
        if self.held:
            self.spool.release(self.held.pop())

    @rule()
    def pack(self):
        self.spool.pack_one()

    @rule()
    def crash(self):
        self.spool._owner.release()  # as after kill -9: nothing is flushed or closed in order
        if self.spool._active is not None:
            os.close(self.spool._active[1])
        self.held.clear()
        self.spool = _spool(self.folder)

    @invariant()
    def what_is_owed_waits(self):
        assert self.spool.stats().points_waiting >= len(self.owed)

    def teardown(self):
        for batch in self.held:
            self.spool.release(batch)
        left = set(_all(self.spool).splitlines())
        assert self.owed <= left
        self.spool.close()
        shutil.rmtree(self.folder)


TestSpoolModel = SpoolModel.TestCase
TestSpoolModel.settings = hypothesis_settings(max_examples=150, stateful_step_count=40)
