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

from powerhall_agent.nvml.pulse import Pulse, on_call
from powerhall_agent.sampling.timerfd import Alarm

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
        self.busy_ns = 0
        self.slowest_ns: dict[int, int] = {}
        """Time inside tasks: in all, and of the longest of each owner."""
        self._patience_ns = int(patience_s * 1e9)
        self.blocked: dict[int, _Leader] = {}
        """Owners whose call does not return, and the thread that waits for it."""
        self._lock = threading.Lock()

    def blocked_since_ns(self, owner: int) -> int | None:
        """Return when the driver call began that keeps an owner's task, by the monotonic clock; None without one."""
        leader = self.blocked.get(owner)
        return None if leader is None else leader.pulse.call_ns

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
        self.busy_ns += elapsed_ns
        if elapsed_ns > self.slowest_ns.get(owner, 0):
            self.slowest_ns[owner] = elapsed_ns

    def work(self, leader: _Leader) -> bool:
        """Run the leader's tasks from its place on; False when it was retired meanwhile.

        One function, because it runs with cold caches: each further call costs microseconds.
        """
        tasks, pulse, now, lock, blocked = leader.tasks, leader.pulse, time.monotonic_ns, self._lock, self.blocked
        for number in range(leader.number, len(tasks)):
            task = tasks[number]
            owner = task.owner
            with lock:
                if owner in blocked:
                    continue
                leader.owner, leader.number = owner, number
                leader.started_ns = pulse.call_ns = now()
            task.run()
            with lock:
                elapsed_ns = now() - leader.started_ns
                leader.started_ns = 0
                self.busy_ns += elapsed_ns
                if elapsed_ns > self.slowest_ns.get(owner, 0):
                    self.slowest_ns[owner] = elapsed_ns
                if leader.retired:
                    del blocked[owner]
                    return False
        return True

    def overdue(self, leader: _Leader) -> int:
        """Retire a leader whose task has used up the patience; returns 0 then, else the nanoseconds that are left."""
        with self._lock:
            if not leader.started_ns:
                return self._patience_ns
            left_ns = self._patience_ns - (time.monotonic_ns() - leader.started_ns)
            if left_ns <= 0:
                leader.retired = True
                self.blocked[leader.owner] = leader
            return max(0, left_ns)

    @property
    def patience_ns(self) -> int:
        """How long a task may take."""
        return self._patience_ns


class _Drive:
    """One run of steps: the leader of the moment, the watcher, and the end."""

    def __init__(self, crew: Crew, steps: Steps) -> None:
        self._crew, self._steps = crew, steps
        self._alarm = Alarm(crew.patience_ns)
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
        steps, lock, work = self._steps, self._lock, self._crew.work
        set_usual, clear = self._alarm.set_usual, self._alarm.clear
        while work(leader):
            with lock:
                self._in_tasks = False
                clear()
            try:
                leader.tasks, leader.number = next(steps, ()), 0
            except Exception as error:  # noqa: BLE001  # raised again by `run`, on the caller's thread
                self._error = error
                leader.tasks = ()
            if not leader.tasks:
                self._finished.set()
                return
            with lock:
                self._in_tasks = True
                set_usual()

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
