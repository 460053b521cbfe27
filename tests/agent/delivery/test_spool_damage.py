"""What damage costs is counted in points: once, and never less than what is really lost."""

import errno
import io
import os
import random
import time
from pathlib import Path

import pytest

from powerhall.runtime.log import Log
from powerhall_agent.delivery.segment import MAGIC, encode_record, pack
from powerhall_agent.delivery.spool import Spool, segments_of

QUIET = Log(io.StringIO())
HEAD = 16


def lines_of(first, count):
    return b"".join(
        b"gpu,site=s,node=n1,gpu=%d power_w=%d.0,temp_c=60.0 %d\n" % (n % 8, 100 + n % 600, 1_700_000_000_000 + n)
        for n in range(first, first + count)
    )


def spool_of(folder, log=QUIET):
    return Spool(folder, 64 << 20, 1 << 20, log)


def segment(folder, data):
    folder.mkdir(exist_ok=True)
    (folder / "0000000000000001.seg").write_bytes(data)


def drained(spool):
    found = 0
    while (batch := spool.backlog(1 << 20)) is not None:
        found += batch.lines.count(b"\n")
        spool.ack(batch)
    return found


def records(counts):
    firsts = [sum(counts[:index]) for index in range(len(counts))]
    return [encode_record(lines_of(first, count), count) for first, count in zip(firsts, counts, strict=True)]


def test_random_damage_never_counts_less_than_it_costs_and_hardly_more(tmp_path):
    dice = random.Random(20261128)
    over = []
    for number in range(400):
        counts = [dice.randint(1, 40) for _ in range(dice.randint(1, 12))]
        data = bytearray(MAGIC + b"".join(records(counts)))
        at = dice.randrange(len(data))
        match number % 4:
            case 0:
                data[at] ^= 1 << dice.randrange(8)
            case 1:
                span = min(dice.randint(1, 4096), len(data) - at)
                data[at : at + span] = bytes(span)
            case 2:
                span = min(dice.randint(1, 4096), len(data) - at)
                data[at : at + span] = dice.randbytes(span)
            case _:
                data[at:] = bytes(len(data) - at)
        segment(tmp_path / str(number), bytes(data))
        spool = spool_of(tmp_path / str(number))
        found, dropped = drained(spool), spool.stats().dropped_points
        spool.close()
        assert found + dropped >= sum(counts), (number, at, counts)
        over.append((found + dropped - sum(counts)) / sum(counts))
    assert sorted(over)[len(over) // 2] < 0.02
    assert sum(over) / len(over) < 0.5


@pytest.mark.parametrize("cut", [1, HEAD - 1, HEAD, HEAD + 5, 400])
def test_a_torn_last_record_counts_with_the_points_in_its_head(tmp_path, cut):
    whole = records([10, 20, 30])
    segment(tmp_path / "s", MAGIC + whole[0] + whole[1] + whole[2][:cut])
    spool = spool_of(tmp_path / "s")
    assert spool.stats().dropped_points == (30 if cut >= HEAD else 1)
    assert drained(spool) == 30
    spool.close()


def test_records_behind_a_damaged_one_are_counted_to_the_point(tmp_path):
    whole = records([10, 20, 30, 40, 50])
    whole[1] = whole[1][:100] + b"\x00" + whole[1][101:]
    segment(tmp_path / "s", MAGIC + b"".join(whole))
    spool = spool_of(tmp_path / "s")
    assert (drained(spool), spool.stats().dropped_points) == (10, 140)
    spool.close()


def test_a_segment_without_its_beginning_is_counted_whole(tmp_path):
    whole = records([10, 20, 30])
    segment(tmp_path / "s", b"\x00" * len(MAGIC) + b"".join(whole))
    spool = spool_of(tmp_path / "s")
    assert spool.stats().dropped_points == 60
    spool.close()


@pytest.mark.parametrize("at", [len(MAGIC) + 2, len(MAGIC) + HEAD + 50])
def test_a_damaged_packed_segment_is_counted_too(tmp_path, at):
    data = bytearray(pack(lines_of(0, 1620), 1620))
    data[at] ^= 0x55
    segment(tmp_path / "s", bytes(data))
    spool = spool_of(tmp_path / "s")
    dropped = spool.stats().dropped_points
    assert dropped >= 1620
    if at > len(MAGIC) + HEAD:
        assert dropped == 1620
    spool.close()


@pytest.mark.parametrize("filling", [b"\x00", b"\x01\x00\x00\x00", b"\xff", b"gpu f=1 1700000000000\n"])
def test_a_megabyte_of_anything_is_counted_in_seconds(tmp_path, filling):
    good = encode_record(lines_of(0, 10), 10)
    segment(tmp_path / "s", MAGIC + good + filling * ((1 << 20) // len(filling)) + good)
    begin_s = time.process_time()
    spool = spool_of(tmp_path / "s")
    assert time.process_time() - begin_s < 2.0
    assert spool.stats().dropped_points >= 10
    spool.close()


def test_three_damaged_segments_of_an_outage_are_counted_in_the_metric_and_the_log(tmp_path):
    """Three segments of 1,620 points each: what a power loss in an outage cost without a trace."""
    (tmp_path / "s").mkdir()
    for number in range(3):
        data = bytearray(pack(lines_of(1620 * number, 1620), 1620))
        data[-20] ^= 0xFF
        (tmp_path / "s" / f"{number + 1:016d}.seg").write_bytes(bytes(data))
    text = io.StringIO()
    spool = spool_of(tmp_path / "s", Log(text))
    assert spool.stats().dropped_points == 4860
    spool.close()
    assert "dropped_points=1620" in text.getvalue()
    again = spool_of(tmp_path / "s")
    assert again.stats().dropped_points == 0, "counted once"
    again.close()


def test_damage_that_is_found_at_delivery_is_counted_once_however_often_the_batch_comes_back(tmp_path):
    spool = spool_of(tmp_path)
    for number in range(0, 300, 10):
        spool.append(lines_of(number, 10))
    spool._roll()
    path = segments_of(tmp_path)[0]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(bytes(data))
    for _ in range(5):
        batch = spool.backlog(1 << 20)
        spool.release(batch)
    stats = spool.stats()
    assert batch.points + stats.dropped_points == 300
    assert stats.points_waiting == batch.points
    assert drained(spool) == batch.points
    spool.close()


def test_points_that_were_delivered_before_the_damage_are_not_lost(tmp_path):
    spool = spool_of(tmp_path)
    spool.append(lines_of(0, 10))
    batch = spool.live(1 << 20)
    spool.ack(batch)
    spool.append(lines_of(10, 10))
    spool._roll()
    path = segments_of(tmp_path)[0]
    data = bytearray(path.read_bytes())
    data[len(MAGIC) + HEAD + 3] ^= 0xFF
    path.write_bytes(bytes(data))
    assert drained(spool) == 0
    assert spool.stats().dropped_points == 10
    spool.close()


def test_a_segment_that_cannot_be_read_for_a_moment_is_not_given_up(tmp_path, monkeypatch):
    spool = spool_of(tmp_path)
    spool.append(lines_of(0, 10))
    spool._roll()

    def refuse(self):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", refuse)
        assert spool.backlog(1 << 20) is None
        assert not spool.pack_one()
    assert (spool.stats().points_waiting, spool.stats().dropped_points) == (10, 0)
    assert drained(spool) == 10
    spool.close()
