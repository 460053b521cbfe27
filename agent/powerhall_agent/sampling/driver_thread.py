"""Runs the steps of the sampler and its driver calls on one thread, and replaces it when a call does not return.

A caller hands in a generator that yields the driver calls to make next. One thread, the worker, makes the calls and
resumes the generator. When a call takes longer than the limit, a watching thread retires the worker and starts
another, which continues with the remaining calls and the same generator. A generator can be resumed from any thread
while it is not running, which holds while a call is under way.

An exception of a task ends that task alone and is kept in `failures`; one of the generator ends the run.

Invariants: tasks of one owner never run at the same time; a blocked task delays the others once, by at most the limit;
an owner whose task is blocked gets no new task until that call returns. Without a blocked call no thread but the worker
ever wakes.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from powerhall_agent.nvml.call_start import CallStart, track_calls
from powerhall_agent.sampling.timerfd import TimerFd

__all__ = ["DriverThread", "Steps", "Task"]


@dataclass(frozen=True, slots=True)
class Task:
    """Something to run for an owner (a GPU index, or -1 for the driver as a whole)."""

    owner: int
    run: Callable[[], None]


Steps = Iterator[Sequence[Task]]


class _Worker:
    """A thread that runs tasks, or has been retired; times are of the monotonic clock, 0 outside a task."""

    def __init__(self, tasks: Sequence[Task], first: int = 0) -> None:
        self.tasks, self.number = tasks, first
        """The tasks of the current step, and the number of the one under way or next."""
        self.owner = 0
        self.started_ns = 0
        self.call_start = CallStart()
        self.retired = False


class DriverThread:
    """Runs steps in order, even when a task blocks."""

    def __init__(self, call_limit_s: float = 0.05) -> None:
        """`call_limit_s` is how long a task may take before the others continue without it."""
        self.busy_ns = 0
        self.slowest_ns: dict[int, int] = {}
        """Time inside tasks: in all, and of the longest of each owner."""
        self.failures: deque[tuple[int, Exception]] = deque(maxlen=100)
        """Exceptions of tasks, by owner, until they are taken."""
        self._call_limit_ns = int(call_limit_s * 1e9)
        self.blocked: dict[int, _Worker] = {}
        """Owners whose call does not return, and the thread that waits for it."""
        self._lock = threading.Lock()

    def blocked_since_ns(self, owner: int) -> int | None:
        """Return when the driver call began that keeps an owner's task, by the monotonic clock; None without one."""
        worker = self.blocked.get(owner)
        return None if worker is None else worker.call_start.call_ns

    def run_here(self, steps: Steps) -> None:
        """Run all steps on the calling thread, without protection: for simulated time and for tests."""
        for tasks in steps:
            for task in tasks:
                begun_ns = time.monotonic_ns()
                try:
                    task.run()
                except Exception as error:  # noqa: BLE001 - reported by who takes the failures
                    self.failures.append((task.owner, error))
                self._note(task.owner, time.monotonic_ns() - begun_ns)

    def run(self, steps: Steps) -> None:
        """Run all steps on a worker thread and wait for their end; an exception of the steps is raised here."""
        _SupervisedRun(self, steps).run()

    def _note(self, owner: int, elapsed_ns: int) -> None:
        self.busy_ns += elapsed_ns
        if elapsed_ns > self.slowest_ns.get(owner, 0):
            self.slowest_ns[owner] = elapsed_ns

    def run_tasks(self, worker: _Worker) -> bool:
        """Run the remaining tasks of the worker; False when it was retired meanwhile.

        One function, because it runs with cold caches: each further call costs microseconds.
        """
        tasks, call_start, now, lock, blocked = (
            worker.tasks,
            worker.call_start,
            time.monotonic_ns,
            self._lock,
            self.blocked,
        )
        for number in range(worker.number, len(tasks)):
            task = tasks[number]
            owner = task.owner
            with lock:
                if owner in blocked:
                    continue
                worker.owner, worker.number = owner, number
                worker.started_ns = call_start.call_ns = now()
            try:
                task.run()
            except Exception as error:  # noqa: BLE001 - reported by who takes the failures
                self.failures.append((owner, error))
            with lock:
                elapsed_ns = now() - worker.started_ns
                worker.started_ns = 0
                self.busy_ns += elapsed_ns
                if elapsed_ns > self.slowest_ns.get(owner, 0):
                    self.slowest_ns[owner] = elapsed_ns
                if worker.retired:
                    del blocked[owner]
                    return False
        return True

    def overdue(self, worker: _Worker) -> int:
        """Retire a worker whose task has exceeded the limit; returns 0 then, else the nanoseconds that are left."""
        with self._lock:
            if not worker.started_ns:
                return self._call_limit_ns
            left_ns = self._call_limit_ns - (time.monotonic_ns() - worker.started_ns)
            if left_ns <= 0:
                worker.retired = True
                self.blocked[worker.owner] = worker
            return max(0, left_ns)

    @property
    def call_limit_ns(self) -> int:
        """How long a task may take."""
        return self._call_limit_ns


class _SupervisedRun:
    """One run of steps: the current worker, the watcher, and the end."""

    def __init__(self, driver_thread: DriverThread, steps: Steps) -> None:
        self._calls, self._steps = driver_thread, steps
        self._timer = TimerFd(driver_thread.call_limit_ns)
        self._lock = threading.Lock()
        self._finished = threading.Event()
        self._error: BaseException | None = None
        self._worker = _Worker(())
        self._in_tasks = False

    def run(self) -> None:
        watcher = threading.Thread(target=self._watch, name="sampler-watch", daemon=True)
        watcher.start()
        self._start(self._worker)
        self._finished.wait()
        with self._lock:
            self._timer.set(1)
        watcher.join()
        self._timer.close()
        if self._error is not None:
            raise self._error

    def _start(self, worker: _Worker) -> None:
        threading.Thread(target=self._work, args=(worker,), name="sampler-driver", daemon=True).start()

    def _work(self, worker: _Worker) -> None:
        try:
            self._work_on(worker)
        except BaseException as error:  # noqa: BLE001 - raised again by `run`, on the caller's thread
            self._end(error)

    def _end(self, error: BaseException) -> None:
        self._error = error
        self._finished.set()

    def _work_on(self, worker: _Worker) -> None:
        track_calls(worker.call_start)
        steps, lock, run_tasks = self._steps, self._lock, self._calls.run_tasks
        set_usual, clear = self._timer.set_usual, self._timer.clear
        while run_tasks(worker):
            with lock:
                self._in_tasks = False
                clear()
            worker.tasks, worker.number = next(steps, ()), 0
            if not worker.tasks:
                self._finished.set()
                return
            with lock:
                self._in_tasks = True
                set_usual()

    def _watch(self) -> None:
        try:
            self._watch_calls()
        except BaseException as error:  # noqa: BLE001 - without the watch a hung call would go unseen
            self._end(error)

    def _watch_calls(self) -> None:
        while True:
            self._timer.wait()
            with self._lock:
                if self._finished.is_set():
                    return
                if not self._in_tasks:
                    continue
                left_ns = self._calls.overdue(self._worker)
                if left_ns == 0:
                    self._worker = _Worker(self._worker.tasks, self._worker.number + 1)
                    self._start(self._worker)
                self._timer.set(left_ns or self._calls.call_limit_ns)
