"""Damaged memories and lost notes of found limits: kept, told, and no earlier lease comes in by them."""

import hashlib
import os
import signal
import subprocess
import sys
import time

import pytest
from tests.rigs.capper_process import FOUND_W, SAFE_W, lease

from powerhall.runtime.errors import Rejected
from powerhall_agent.capper.found_limits import boot_id
from powerhall_agent.capper.lease_memory import LeaseMemory
from powerhall_agent.simulate import layout
from powerhall_agent.simulate.world import advance

BROKEN_MEMORIES = {
    "empty": b"",
    "cut off": b'{"found"',
    "null": b"null",
    "noise": bytes(range(128, 168)),
    "a wrong type": b'{"found":null,"sequence":"x"}',
    "deep": b'{"x":' + b"[" * 5000,
    "a number beyond 64 bit": b'{"found":null,"sequence":' + b"9" * 30 + b"}",
}


@pytest.mark.parametrize("body", BROKEN_MEMORIES.values(), ids=BROKEN_MEMORIES)
def test_whatever_damages_a_memory_is_kept_told_and_lets_no_earlier_lease_in(tmp_path, body):
    path = tmp_path / "memory.json"
    path.write_bytes(body)
    memory = LeaseMemory(path, started_s=1000.0, boot="b1", skew_s=1.0)
    (aside,) = tmp_path.glob("memory.json.damaged-*")
    assert aside.read_bytes() == body
    assert aside.name in memory.damaged
    assert (memory.kept.since_s, memory.kept.sequence) == (1001.0, 0)
    assert memory.save()
    assert LeaseMemory(path, started_s=2000.0, boot="b1", skew_s=1.0).kept.since_s == 1001.0


def test_every_changed_bit_of_a_memory_is_found(tmp_path):
    path = tmp_path / "memory.json"
    memory = LeaseMemory(path, started_s=1000.0, boot="b1", skew_s=1.0)
    memory.kept.sequence, memory.kept.issued_s, memory.kept.until_s = 41, 1234.5, 777.25
    assert memory.save()
    good = path.read_bytes()
    for bit in range(8 * len(good)):
        body = bytearray(good)
        body[bit // 8] ^= 1 << bit % 8
        path.write_bytes(body)
        read = LeaseMemory(path, started_s=2000.0, boot="b1", skew_s=1.0)
        assert read.damaged, body
        assert read.kept.sequence == 0
    path.write_bytes(good)
    assert LeaseMemory(path, started_s=2000.0, boot="b1", skew_s=1.0).kept.sequence == 41


def test_a_memory_with_a_field_of_a_newer_version_is_read(tmp_path):
    path = tmp_path / "memory.json"
    rest = b'"sequence":41,"boot":"b1","since_s":5.0,"of_later":[1]}'
    path.write_bytes(b'{"check":"' + hashlib.sha256(rest).hexdigest().encode() + b'",' + rest)
    memory = LeaseMemory(path, started_s=2000.0, boot="b1", skew_s=1.0)
    assert (memory.damaged, memory.kept.sequence) == ("", 41)


def test_a_changed_byte_of_a_memory_that_still_reads_lets_no_earlier_lease_in(rig):
    rig.start()
    newest = lease(29, watts=600.0)
    rig.client.offer(newest)
    rig.stop(signal.SIGKILL)
    rig.memory.write_bytes(rig.memory.read_bytes().replace(b'"sequence":29', b'"sequence":19'))
    rig.start()
    assert "damaged" in " ".join(rig.client.alive().status.alarms)
    for replayed in (lease(25, watts=690.0, issued_s=time.time() - 5.0), newest):
        with pytest.raises(Rejected, match="issued_s"):
            rig.client.offer(replayed)
    assert rig.limits() == [SAFE_W] * 4


@pytest.mark.parametrize("name", ["noise", "deep"])
def test_a_damaged_memory_is_set_aside_after_the_safe_caps_and_replays_nothing(rig, name):
    body = BROKEN_MEMORIES[name]
    rig.start()
    old, newest = lease(1, watts=690.0), lease(2, watts=600.0)
    rig.client.offer(newest)
    rig.stop(signal.SIGKILL)
    rig.memory.write_bytes(body)
    rig.start()
    assert rig.limits() == [SAFE_W] * 4
    (aside,) = rig.folder.glob("memory.json.damaged-*")
    assert aside.read_bytes() == body
    assert "damaged" in " ".join(rig.client.alive().status.alarms)
    for replayed in (old, newest):
        with pytest.raises(Rejected, match="issued_s"):
            rig.client.offer(replayed)
    assert rig.limits() == [SAFE_W] * 4
    time.sleep(1.0)  # the clocks of planner and node may differ so much
    rig.client.offer(lease(3))
    assert rig.limits() == [500.0] * 4
    assert rig.stop(signal.SIGTERM) == 0
    assert rig.limits() == [FOUND_W] * 4, "what was found does not lie in the memory"


def test_a_memory_that_is_a_folder_or_endless_is_damaged_too(rig):
    rig.memory.mkdir()
    rig.start()
    assert rig.limits() == [SAFE_W] * 4
    assert rig.stop(signal.SIGKILL) == -signal.SIGKILL
    rig.memory.unlink()
    os.mkfifo(rig.memory)
    rig.start()
    assert rig.limits() == [SAFE_W] * 4


LOST_NOTES = [
    lambda note: note.unlink(),
    lambda note: note.write_text(note.read_text()[:6]),
    lambda note: note.write_text("450.000\n"),
    lambda note: (note.unlink(), note.mkdir()),
]


def test_a_lost_note_of_a_found_limit_is_told_and_no_cap_is_put_back_for_it(rig):
    for gpu in range(4):
        rig.fault(f"gpu {gpu} limit {650 - gpu}")
    advance(rig.state, 1.0)
    rig.start()
    rig.client.offer(lease(1, watts=450.0))
    rig.stop(signal.SIGKILL)
    notes = sorted(rig.memory.with_name("memory.json.found").glob("*.watts"))
    for note, lose in zip(notes, LOST_NOTES, strict=True):
        lose(note)
    rig.start()
    text = " ".join(rig.client.alive().status.alarms)
    assert all(rig.state.text(gpu, layout.T_UUID) in text for gpu in range(4)), text
    assert rig.stop(signal.SIGTERM) == 0
    assert rig.limits() == [650.0, 649.0, 648.0, 647.0]


def test_safecaps_after_lost_notes_take_no_cap_for_what_was_found(rig):
    rig.start()
    rig.client.offer(lease(1, watts=450.0))
    for note in rig.memory.with_name("memory.json.found").glob("*.watts"):
        note.unlink()
    rig.stop(signal.SIGKILL)
    command = [sys.executable, "-m", "powerhall_agent.capper.safe_caps", "--config", rig.config]
    subprocess.run([*command, "--simulate-state", rig.folder / "gpus"], check=True)
    rig.start()
    assert rig.stop(signal.SIGTERM) == 0
    assert rig.limits() == [FOUND_W] * 4


def test_a_lost_note_of_a_gpu_that_comes_back_later_is_not_forgotten(rig):
    rig.start()
    rig.client.offer(lease(1, watts=450.0))
    rig.stop(signal.SIGKILL)
    for note in rig.memory.with_name("memory.json.found").glob("*.watts"):
        note.unlink()
    rig.fault("gpu 2 lost")
    rig.start()
    rig.fault("gpu 2 well")
    rig.until(rig.limits, [SAFE_W] * 4, 3.0)
    assert rig.stop(signal.SIGTERM) == 0
    assert rig.limits() == [FOUND_W] * 4


def test_a_limit_that_a_person_set_after_an_orderly_stop_is_what_the_next_one_finds(rig):
    rig.start()
    assert rig.stop(signal.SIGTERM) == 0
    for gpu in range(4):
        rig.fault(f"gpu {gpu} limit 600")
    rig.start()
    assert rig.client.alive().status.alarms == ()
    assert rig.stop(signal.SIGTERM) == 0
    assert rig.limits() == [600.0] * 4


def test_a_damaged_note_without_its_copy_is_told_and_gives_the_default(rig):
    rig.start()
    rig.client.offer(lease(1, watts=450.0))
    rig.stop(signal.SIGKILL)
    for note in rig.memory.with_name("memory.json.found").glob("*.watts"):
        note.write_text("4")
    rig.memory.write_bytes(b"\xff")
    rig.start()
    assert "default limit" in " ".join(rig.client.alive().status.alarms)
    assert rig.stop(signal.SIGTERM) == 0
    assert rig.limits() == [FOUND_W] * 4


def test_a_lost_memory_counts_as_a_damaged_one_and_not_as_a_first_start(rig):
    rig.write_config(clock_skew="2 s")
    rig.start()
    newest = lease(2, watts=600.0)
    rig.client.offer(newest)
    assert rig.stop(signal.SIGTERM) == 0, "found limits are put back and forgotten"
    rig.memory.unlink()
    began_s = time.time()
    rig.start()
    assert "lost" in " ".join(rig.client.alive().status.alarms)
    for replayed in (newest, lease(3, issued_s=began_s + 1.5)):  # by a planner's clock that is ahead
        with pytest.raises(Rejected, match="issued_s"):
            rig.client.offer(replayed)
    assert rig.limits() == [SAFE_W] * 4

    def taken():
        try:
            rig.client.offer(lease(4))
        except Rejected:
            return False
        return True

    rig.until(taken, True, 5.0)
    assert rig.limits() == [500.0] * 4


@pytest.mark.parametrize("kind", ["pipe", "folder", "endless"])
def test_whatever_stands_in_the_place_of_a_found_limit_delays_no_safe_cap(rig, kind):
    folder = rig.memory.with_name(f"{rig.memory.name}.found")
    folder.mkdir()
    for gpu in range(4):
        note = folder / f"{boot_id().replace('-', '')}-{rig.state.text(gpu, layout.T_UUID)}.watts"
        {"pipe": os.mkfifo, "folder": os.mkdir, "endless": lambda path: os.symlink("/dev/zero", path)}[kind](note)
    rig.start(wait=False)
    rig.until(rig.limits, [SAFE_W] * 4, 10.0)
    rig.until(rig.answers, True, 10.0)
    assert rig.stop(signal.SIGTERM) == 0
    assert rig.limits() == [FOUND_W] * 4
