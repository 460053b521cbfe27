"""One capper per set of GPUs, memory and socket; a second one goes in one line and touches no limit."""

import io
import os
import signal
import subprocess
import sys
import time

import pytest
from tests.rigs.capper_process import FOUND_W, lease

from powerhall.runtime.log import Log
from powerhall_agent.capper.instance_lock import AnotherCapper, InstanceLocks, hold_lock


@pytest.mark.parametrize("other", [{}, {"memory": "other.json"}, {"socket": "other.sock", "memory": "other.json"}])
def test_a_second_capper_ends_in_one_line_and_no_limit_moves(rig, other):
    rig.start()
    rig.client.offer(lease(1))
    config = rig.folder / "second.toml"
    rig.write_config(config, **{name: rig.folder / value for name, value in other.items()})
    with subprocess.Popen(rig.command(config), stderr=subprocess.PIPE, text=True) as second:
        seen = set()
        while second.poll() is None:
            rig.client.alive()
            seen.add(tuple(rig.limits()))
            time.sleep(0.02)
        assert second.returncode == 1
        (line,) = second.stderr.read().splitlines()
    assert str(rig.process.pid) in line
    assert "limits untouched" in line
    assert seen == {(500.0,) * 4}
    assert rig.client.alive().status.state == "leased"
    assert rig.stop(signal.SIGTERM) == 0
    assert rig.limits() == [FOUND_W] * 4


STUCK = """
import ctypes, os, sys, threading, time
from powerhall.runtime.file_lock import FileLock
lock = FileLock(sys.argv[1])
threading.Thread(target=time.sleep, args=(60,)).start()
print("held", flush=True)
ctypes.CDLL(None).syscall(60, 0)  # SYS_exit of x86_64: the main thread alone ends
"""


def test_a_lock_of_a_process_that_only_hangs_in_the_kernel_is_taken_over(tmp_path):
    """As a capper leaves it that was killed while a driver call does not return: a zombie with a living thread."""
    path = tmp_path / "gpus.lock"
    with subprocess.Popen([sys.executable, "-c", STUCK, path], stdout=subprocess.PIPE) as stuck:
        assert stuck.stdout.readline() == b"held\n"
        deadline_s = time.monotonic() + 5.0
        while True:
            try:
                lock = hold_lock(path)
                break
            except AnotherCapper:
                assert time.monotonic() < deadline_s
                time.sleep(0.05)
        with pytest.raises(AnotherCapper):
            hold_lock(path)
        lock.release()
        stuck.kill()


def test_no_other_user_may_read_a_lock_and_so_hold_it(tmp_path):
    """The carrier's user reaches the folder: it kept a capper and `powerhall-safecaps` out, and the lease for good."""
    before = os.umask(0o022)
    try:
        hold_lock(tmp_path / "x.lock").release()
    finally:
        os.umask(before)
    assert (tmp_path / "x.lock").stat().st_mode & 0o077 == 0


def test_the_lock_of_a_living_process_is_not_taken(tmp_path):
    lock = hold_lock(tmp_path / "x.lock")
    with pytest.raises(AnotherCapper):
        hold_lock(tmp_path / "x.lock")
    lock.release()
    hold_lock(tmp_path / "x.lock").release()


def test_a_lock_whose_file_was_removed_is_taken_again(tmp_path):
    path, out = tmp_path / "x.lock", io.StringIO()
    locks = InstanceLocks([hold_lock(path)], Log(out))
    locks.check(1.0)
    path.unlink()
    locks.check(1.5)
    assert not path.exists(), "it looks once a second"
    locks.check(2.0)
    assert "taken again" in out.getvalue()
    with pytest.raises(AnotherCapper):
        hold_lock(path)
    path.unlink()
    other = hold_lock(path)
    with pytest.raises(AnotherCapper, match=str(os.getpid())):
        locks.check(3.0)
    other.release()
    locks.release()


def test_a_capper_that_lost_its_lock_to_another_one_leaves_and_restores_nothing(rig):
    rig.start()
    rig.client.offer(lease(1))
    rig.process.send_signal(signal.SIGSTOP)  # else it may take the lock again before the second one has started
    (rig.folder / ".gpus.capper.lock").unlink()
    config = rig.folder / "second.toml"
    rig.write_config(config, socket=rig.folder / "other.sock", memory=rig.folder / "other.json")
    with subprocess.Popen(rig.command(config), stderr=subprocess.PIPE, text=True) as second:
        try:
            rig.until(rig.limits, [300.0] * 4, 10.0)
            rig.process.send_signal(signal.SIGCONT)
            rig.until(rig.process.poll, 1, 10.0)
            rig.until(rig.limits, [300.0] * 4, 3.0)
            time.sleep(0.7)
            assert rig.limits() == [300.0] * 4, "the second one holds its safe caps; nothing was put back"
            assert second.poll() is None
            second.terminate()
            assert second.wait(10.0) == 0
            assert rig.limits() == [FOUND_W] * 4, "what the first one found, and not the caps of its lease"
        finally:
            second.kill()
    assert "event=lock_lost" in rig.log
    assert f"process {second.pid}" in rig.log
