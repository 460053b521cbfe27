"""Runs the sampler's steps and its driver calls on one thread, and leaves behind a call that does not return.

A caller hands in a generator that yields the driver calls to make next. One thread, the leader, makes the calls and
resumes the generator. When a call takes longer than the patience, a watching thread retires the leader and lets a fresh
one go on with the remaining calls and the same generator: a generator can be resumed from any thread as long as it is
not running, and it is not while a call is.

Invariants: tasks of one owner never run at the same time; a blocked task costs the others at most the patience, once;
an owner whose task is blocked gets no new task until that call returns. Without a blocked call no thread but the leader
ever wakes.
"""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from powerhall_agent.alarm import Alarm
from powerhall_agent.nvml.pulse import Pulse, on_call

__all__ = ["Crew", "Steps", "Task"]


@dataclass(frozen=True, slots=True)
class Task:
    """Something to run for an owner (a GPU index, or -1 for the driver as a whole); must not raise."""

    owner: int
    run: Callable[[], None]


Steps = Iterator[Sequence[Task]]


class _Leader:
    """A thread that leads, or has been retired; times are of the monotonic clock, 0 outside a task."""

    def __init__(self, tasks: Sequence[Task], first: int = 0) -> None:
        self.tasks, self.number = tasks, first
        """The tasks of the present step, and which of them is under way or comes first."""
        self.owner = 0
        self.started_ns = 0
        self.pulse = Pulse()
        self.retired = False


class Crew:
    """Runs steps in order, whatever a single task does."""

    def __init__(self, patience_s: float = 0.05) -> None:
        """`patience_s` is how long a task may take before the others go on without it."""
        self.busy_s = 0.0
        self.slowest_s: dict[int, float] = {}
        self._patience_ns = int(patience_s * 1e9)
        self._blocked: dict[int, _Leader] = {}
        self._lock = threading.Lock()

    def blocked_since_ns(self, owner: int) -> int | None:
        """Return when the driver call began that keeps an owner's task, by the monotonic clock; None without one."""
        leader = self._blocked.get(owner)
        return None if leader is None else leader.pulse.call_ns

    @property
    def blocked(self) -> bool:
        """True while any call does not return."""
        return bool(self._blocked)

    def run_here(self, steps: Steps) -> None:
        """Run all steps on the calling thread, without protection: for simulated time and for tests."""
        for tasks in steps:
            for task in tasks:
                begun_ns = time.monotonic_ns()
                task.run()
                self._note(task.owner, time.monotonic_ns() - begun_ns)

    def drive(self, steps: Steps) -> None:
        """Run all steps on a leading thread and wait for their end; an exception of the steps is raised here."""
        _Drive(self, steps).run()

    def _note(self, owner: int, elapsed_ns: int) -> None:
        elapsed_s = elapsed_ns / 1e9
        self.busy_s += elapsed_s
        if elapsed_s > self.slowest_s.get(owner, 0.0):
            self.slowest_s[owner] = elapsed_s

    def begin(self, leader: _Leader, task: Task, number: int) -> bool:
        """Enter a task, the one of this number; False when its owner is still blocked."""
        with self._lock:
            if task.owner in self._blocked:
                return False
            leader.owner, leader.number = task.owner, number
            leader.started_ns = leader.pulse.call_ns = time.monotonic_ns()
            return True

    def end(self, leader: _Leader) -> bool:
        """Leave a task; False when the leader was retired meanwhile."""
        with self._lock:
            self._note(leader.owner, time.monotonic_ns() - leader.started_ns)
            leader.started_ns = 0
            if leader.retired:
                self._blocked.pop(leader.owner, None)
            return not leader.retired

    def overdue(self, leader: _Leader) -> int:
        """Retire a leader whose task has used up the patience; returns 0 then, else the nanoseconds that are left."""
        with self._lock:
            if not leader.started_ns:
                return self._patience_ns
            left_ns = self._patience_ns - (time.monotonic_ns() - leader.started_ns)
            if left_ns <= 0:
                leader.retired = True
                self._blocked[leader.owner] = leader
            return max(0, left_ns)

    @property
    def patience_ns(self) -> int:
        """How long a task may take."""
        return self._patience_ns


class _Drive:
    """One run of steps: the leader of the moment, the watcher, and the end."""

    def __init__(self, crew: Crew, steps: Steps) -> None:
        self._crew, self._steps = crew, steps
        self._alarm = Alarm()
        self._lock = threading.Lock()
        self._finished = threading.Event()
        self._error: Exception | None = None
        self._leader = _Leader(())
        self._in_tasks = False

    def run(self) -> None:
        watcher = threading.Thread(target=self._watch, name="sampler-watch", daemon=True)
        watcher.start()
        self._start(self._leader)
        self._finished.wait()
        with self._lock:
            self._alarm.set(1)
        watcher.join()
        self._alarm.close()
        if self._error is not None:
            raise self._error

    def _start(self, leader: _Leader) -> None:
        threading.Thread(target=self._lead, args=(leader,), name="sampler-lead", daemon=True).start()

    def _lead(self, leader: _Leader) -> None:
        on_call(leader.pulse)
        first = leader.number
        while True:
            for number, task in enumerate(leader.tasks):
                if number < first or not self._crew.begin(leader, task, number):
                    continue
                task.run()
                if not self._crew.end(leader):
                    return
            self._set_alarm(False)
            try:
                leader.tasks, first = next(self._steps, ()), 0
                if not leader.tasks:
                    self._finished.set()
                    return
            except Exception as error:  # noqa: BLE001  # raised again by `run`, on the caller's thread
                self._error = error
                self._finished.set()
                return
            self._set_alarm(True)

    def _set_alarm(self, running: bool) -> None:
        with self._lock:
            self._in_tasks = running
            if running:
                self._alarm.set(self._crew.patience_ns)
            else:
                self._alarm.clear()

    def _watch(self) -> None:
        while True:
            self._alarm.wait()
            with self._lock:
                if self._finished.is_set():
                    return
                if not self._in_tasks:
                    continue
                left_ns = self._crew.overdue(self._leader)
                if left_ns == 0:
                    self._leader = _Leader(self._leader.tasks, self._leader.number + 1)
                    self._start(self._leader)
                self._alarm.set(left_ns or self._crew.patience_ns)
