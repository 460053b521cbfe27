"""The thread that makes driver calls, and a GPU's health."""

import os
import threading
import time

import pytest

from powerhall_agent.nvml.call_start import note_call_start
from powerhall_agent.sampling.driver_thread import DriverThread, Task
from powerhall_agent.sampling.gpu_health import GpuHealth

SECOND = 1_000_000_000


def drive(driver_thread, batches):
    """Run batches of tasks on a driver thread, in a thread of its own; returns the thread."""
    thread = threading.Thread(target=driver_thread.run, args=(iter(batches),))
    thread.start()
    return thread


def test_tasks_run_in_order_and_a_blocked_one_does_not_hold_up_the_others():
    driver_thread = DriverThread(call_limit_s=0.05)
    release, done, times = threading.Event(), [], []
    tasks = [Task(n, (lambda n=n: done.append(n)) if n != 2 else release.wait) for n in range(5)]

    def steps():
        for _ in range(2):
            times.append(time.monotonic())
            yield tasks
        times.append(time.monotonic())
        assert driver_thread.blocked_since_ns(2) is not None
        release.set()
        while driver_thread.blocked_since_ns(2) is not None:
            time.sleep(0.01)
        yield [Task(2, lambda: done.append(2))]

    drive(driver_thread, steps()).join(10)
    assert done == [0, 1, 3, 4, 0, 1, 3, 4, 2]
    assert 0.05 <= times[1] - times[0] < 0.4
    assert times[2] - times[1] < 0.05, "a blocked owner costs nothing any more"


def test_several_blocked_tasks_are_each_left_behind_once():
    driver_thread = DriverThread(call_limit_s=0.03)
    release, done = threading.Event(), []
    tasks = [Task(n, release.wait if n < 3 else (lambda n=n: done.append(n))) for n in range(6)]
    drive(driver_thread, [tasks]).join(10)
    assert done == [3, 4, 5]
    assert all(driver_thread.blocked_since_ns(n) is not None for n in range(3))
    release.set()


def test_a_slow_task_of_quick_calls_is_not_taken_for_a_hung_call():
    driver_thread = DriverThread(call_limit_s=0.03)
    ages = []

    def slow():
        for _ in range(20):
            note_call_start()
            time.sleep(0.01)

    def look():
        begun_ns = driver_thread.blocked_since_ns(0)
        if begun_ns is not None:
            ages.append((time.monotonic_ns() - begun_ns) / 1e9)

    drive(driver_thread, [[Task(0, slow)], *[[Task(1, look), Task(1, lambda: time.sleep(0.01))]] * 10]).join(10)
    assert ages
    assert max(ages) < 0.1


def test_error_in_the_steps_reaches_the_caller():
    def steps():
        yield [Task(0, lambda: None)]
        raise LookupError("a bug")

    with pytest.raises(LookupError, match="a bug"):
        DriverThread().run(steps())


def test_a_driver_thread_frees_its_threads_and_descriptors():
    before = threading.active_count(), len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        DriverThread().run(iter([[Task(0, lambda: None)]] * 3))
    time.sleep(0.05)
    assert threading.active_count() <= before[0]
    assert len(os.listdir("/proc/self/fd")) <= before[1]


def test_health_needs_three_strikes_for_an_unknown_error():
    health = GpuHealth()
    assert [health.fault(999, 0), health.fault(999, 0), health.fault(999, 0)] == [False, False, True]
    assert health.reason == "unknown_error"


def test_good_call_between_strikes_starts_over():
    health = GpuHealth()
    health.fault(999, 0)
    health.fault(999, 0)
    health.recover()
    assert health.fault(999, 0) is False
    assert health.up


def test_retries_of_a_lost_gpu_back_off_to_a_minute():
    health = GpuHealth()
    waits, now_ns = [], 0
    assert health.fault(15, now_ns)
    for _ in range(6):
        waits.append((health.retry_ns - now_ns) / SECOND)
        now_ns = health.retry_ns
        assert health.due(now_ns)
        assert health.fault(15, now_ns) is False
    assert waits == [5, 10, 20, 40, 60, 60]
    assert health.recover()
    assert health.up
