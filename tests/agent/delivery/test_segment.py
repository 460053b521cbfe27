"""The record format: a damaged segment is read as a prefix of its records."""

import random

from hypothesis import given
from hypothesis import strategies as st

from powerhall_agent.delivery.segment import MAGIC, encode_record, pack, scan, unpack

PAYLOADS = st.lists(st.binary(min_size=1, max_size=200), min_size=1, max_size=8)


def _segment(payloads: list[bytes]) -> bytes:
    return MAGIC + b"".join(encode_record(payload, index + 1) for index, payload in enumerate(payloads))


@given(PAYLOADS)
def test_an_intact_segment_gives_back_every_payload_and_count(payloads):
    data = _segment(payloads)
    found = scan(data)
    assert unpack(data, found.records) == b"".join(payloads)
    assert [entry.points for entry in found.records] == list(range(1, len(payloads) + 1))
    assert found.good_bytes == len(data)


@given(PAYLOADS, st.data())
def test_a_torn_segment_gives_whole_records_only(payloads, data):
    whole = _segment(payloads)
    cut = data.draw(st.integers(0, len(whole)))
    found = scan(whole[:cut])
    assert b"".join(payloads).startswith(unpack(whole[:cut], found.records))
    assert found.good_bytes <= cut


@given(PAYLOADS, st.data())
def test_a_flipped_bit_invalidates_its_record_and_all_after_it(payloads, data):
    whole = bytearray(_segment(payloads))
    at = data.draw(st.integers(0, len(whole) - 1))
    whole[at] ^= 1 << data.draw(st.integers(0, 7))
    found = scan(bytes(whole))
    believed = unpack(bytes(whole), found.records)
    assert b"".join(payloads).startswith(believed)
    assert found.good_bytes <= max(at, 0)


def test_a_tail_of_zeros_is_not_a_record():
    whole = _segment([b"a 1\n", b"b 2\n"])
    assert len(scan(whole + bytes(4096)).records) == 2


def test_a_packed_segment_is_one_record_and_smaller():
    dice = random.Random(1)
    lines = b"".join(b"gpu,gpu=%d power_w=%.1f,temp_c=40.0 %d\n" % (i % 8, dice.gauss(500, 5), i) for i in range(2000))
    data = pack(lines, 2000)
    found = scan(data)
    assert len(data) < len(lines) / 4
    assert unpack(data, found.records) == lines
    assert found.points == 2000
