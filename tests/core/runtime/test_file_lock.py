"""A lock has one owner at a time, and none after its process has ended."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from powerhall.runtime.errors import Retryable
from powerhall.runtime.file_lock import FileLock, LockHeld, lock_path

HOLD = """
import sys, time
from powerhall.runtime.file_lock import FileLock
lock = FileLock(sys.argv[1])
print("held", flush=True)
time.sleep(60)
"""


def test_a_second_owner_gets_the_process_id_of_the_first(tmp_path):
    path = tmp_path / "lock"
    with FileLock(path):
        with pytest.raises(LockHeld, match=rf"lock: is locked by process {os.getpid()}$") as refused:
            FileLock(path)
        assert refused.value.holder == str(os.getpid())
        assert isinstance(refused.value, Retryable)
    with FileLock(path):
        assert path.read_text() == f"{os.getpid()}\n"
    assert path.exists(), "a lock file that goes away lets two own it"


def test_a_lock_file_of_another_program_has_no_process_id(tmp_path):
    path = tmp_path / "lock"
    with FileLock(path):
        path.write_text("")
        with pytest.raises(LockHeld) as refused:
            FileLock(path)
    assert refused.value.holder == "?"


def test_the_lock_waits_for_the_given_time(tmp_path):
    lock = FileLock(tmp_path / "lock")
    threading.Timer(0.2, lock.release).start()
    with FileLock(tmp_path / "lock", wait_s=20.0):
        began = time.monotonic()
        with pytest.raises(LockHeld):
            FileLock(tmp_path / "lock", wait_s=0.1)
        assert 0.1 <= time.monotonic() - began < 10.0


def test_a_lock_dies_with_its_process(tmp_path):
    path = tmp_path / "lock"
    holder = subprocess.Popen([sys.executable, "-c", HOLD, path], stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(LockHeld) as refused:
        FileLock(path)
    assert refused.value.holder == str(holder.pid)
    holder.kill()
    holder.wait()
    holder.stdout.close()
    FileLock(path).release()


def test_a_folder_that_is_not_there_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        FileLock(tmp_path / "none" / "lock")


def test_the_lock_file_has_the_mode_that_was_asked_for(tmp_path):
    before = os.umask(0)
    try:
        FileLock(tmp_path / "lock", mode=0o640).release()
    finally:
        os.umask(before)
    assert (tmp_path / "lock").stat().st_mode & 0o777 == 0o640


def test_a_lock_file_that_others_may_read_is_closed_to_them(tmp_path):
    """Whoever may read it may hold the lock."""
    (tmp_path / "lock").touch()
    (tmp_path / "lock").chmod(0o664)
    FileLock(tmp_path / "lock", mode=0o600).release()
    assert (tmp_path / "lock").stat().st_mode & 0o777 == 0o600


def test_the_lock_of_a_file_lies_beside_it_and_is_hidden():
    assert lock_path(Path("/var/plan.json")) == Path("/var/.plan.json.lock")
