"""Signals become flags, end a wait at once, and leave the process as they found it."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from powerhall.runtime.signals import ServiceSignals, StopFlag


def send(number):
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("kind", [StopFlag, ServiceSignals])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_signal_sets_only_a_flag(kind, number):
    with kind() as flag:
        assert not flag()
        send(number)
        assert flag()
        assert flag.stopped
        assert not flag.reload


def test_a_reload_is_a_flag_of_its_own():
    with StopFlag(reload_on=(signal.SIGHUP,)) as flag:
        send(signal.SIGHUP)
        assert flag.reload
        assert not flag.stopped


def test_ignored_signals_do_nothing():
    with StopFlag((signal.SIGTERM,), ignore=(signal.SIGINT,)) as flag:
        send(signal.SIGINT)
        assert not flag.stopped


@pytest.mark.parametrize("kind", [StopFlag, ServiceSignals])
def test_handlers_and_wakeup_are_put_back(kind):
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]
    for _ in range(2):
        with kind(reload_on=(signal.SIGHUP,)):
            assert all(signal.getsignal(number) != old for number, old in zip(numbers, before, strict=True))
    assert [signal.getsignal(number) for number in numbers] == before
    assert signal.set_wakeup_fd(-1) == -1


def test_a_wait_takes_its_time_without_a_signal():
    with ServiceSignals() as signals:
        began = time.monotonic()
        assert not signals.wait(0.05)
        assert time.monotonic() - began >= 0.05
        assert not signals.wait(-1.0)


def test_a_signal_ends_a_wait_at_once():
    with ServiceSignals() as signals:
        threading.Timer(0.1, send, (signal.SIGTERM,)).start()
        began = time.monotonic()
        assert signals.wait(20.0)
        assert time.monotonic() - began < 10.0
        assert signals.wait(20.0), "a stop stays"


def test_a_signal_before_the_wait_is_not_lost():
    with ServiceSignals(reload_on=(signal.SIGHUP,)) as signals:
        send(signal.SIGHUP)
        began = time.monotonic()
        assert not signals.wait(20.0)
        assert time.monotonic() - began < 10.0
        assert signals.reload
        began = time.monotonic()
        assert not signals.wait(0.05), "the pipe was drained"
        assert time.monotonic() - began >= 0.05


def test_a_process_ends_with_its_parent():
    child = """
import os, signal, sys, time
from powerhall.runtime.signals import end_with_parent
end_with_parent(signal.SIGKILL)
print(os.getpid(), flush=True)
time.sleep(60)
"""
    parent = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {child!r}]).wait()"
    running = subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True)
    pid = int(running.stdout.readline())
    running.kill()
    running.wait()
    end_s = time.monotonic() + 10.0
    while alive(pid):
        assert time.monotonic() < end_s, "the child outlived its parent"
        time.sleep(0.02)
    running.stdout.close()


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
