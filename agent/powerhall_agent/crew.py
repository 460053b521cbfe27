"""Runs driver calls one after the other on one thread, and leaves behind a call that does not return.

Invariants: tasks of one owner never run at the same time; a blocked task costs the others at most the patience, once,
because its thread is left to it and a fresh thread goes on with the rest; an owner whose task is blocked gets no new
task until that call returns. The caller's thread never enters the driver.
"""

import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from powerhall_agent.nvml.pulse import on_call

__all__ = ["Crew", "Task"]


@dataclass(frozen=True, slots=True)
class Task:
    """Something to run for an owner (a GPU index, or -1 for the driver as a whole); must not raise."""

    owner: int
    run: Callable[[], None]


class _Worker:
    """One thread; `started_ns` is when the running task began (0 between tasks), `call_ns` when its driver call did."""

    def __init__(self, crew: "Crew") -> None:
        self._crew = crew
        self.inbox: queue.SimpleQueue[Sequence[Task] | None] = queue.SimpleQueue()
        self.done: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self.lock = threading.Lock()
        self.tasks: Sequence[Task] = ()
        self.position = 0
        self.started_ns = 0
        self.call_ns = 0
        self.retired = False
        threading.Thread(target=self._loop, name="driver-calls", daemon=True).start()

    def _call_begins(self) -> None:
        self.call_ns = time.monotonic_ns()

    def _loop(self) -> None:
        on_call(self._call_begins)
        while True:
            tasks = self.inbox.get()
            if tasks is None:
                return
            with self.lock:
                self.tasks = tasks
            for number, task in enumerate(tasks):
                with self.lock:
                    self.position = number
                    self.started_ns = self.call_ns = time.monotonic_ns()
                task.run()
                with self.lock:
                    elapsed_ns = time.monotonic_ns() - self.started_ns
                    self.started_ns = 0
                    self._crew.note(task.owner, elapsed_ns)
                    if self.retired:
                        self._crew.released(task.owner)
                        return
            self.done.put(True)


class Crew:
    """A serial runner of tasks that survives tasks which block."""

    def __init__(self, patience_s: float = 0.05) -> None:
        """Start one thread; `patience_s` is how long a task may take before the others go on without it."""
        self._patience_ns = int(patience_s * 1e9)
        self._worker = _Worker(self)
        self._blocked: dict[int, _Worker] = {}
        self._lock = threading.Lock()
        self.busy_s = 0.0
        self.slowest_s: dict[int, float] = {}

    def blocked_since_ns(self, owner: int) -> int | None:
        """Return when the driver call began that keeps an owner's task, by the monotonic clock; None without one."""
        worker = self._blocked.get(owner)
        return None if worker is None else worker.call_ns

    def note(self, owner: int, elapsed_ns: int) -> None:
        """Count the time of a finished task."""
        elapsed_s = elapsed_ns / 1e9
        self.busy_s += elapsed_s
        if elapsed_s > self.slowest_s.get(owner, 0.0):
            self.slowest_s[owner] = elapsed_s

    def released(self, owner: int) -> None:
        """Note that a task which was left behind has returned."""
        with self._lock:
            self._blocked.pop(owner, None)

    def run(self, tasks: Sequence[Task]) -> list[int]:
        """Run the tasks of owners that are not blocked; returns the owners that were left behind now."""
        left: list[int] = []
        rest: Sequence[Task] = [task for task in tasks if task.owner not in self._blocked]
        while rest:
            self._worker.inbox.put(rest)
            rest = self._await(left)
        return left

    def _await(self, left: list[int]) -> Sequence[Task]:
        """Wait for the worker; returns what a fresh worker must go on with."""
        worker, wait_s = self._worker, self._patience_ns / 1e9
        while True:
            try:
                worker.done.get(timeout=max(0.001, wait_s))
                return ()
            except queue.Empty:
                pass
            with worker.lock:
                since_ns = worker.started_ns
                left_ns = self._patience_ns - (time.monotonic_ns() - since_ns) if since_ns else self._patience_ns
                if left_ns > 0:
                    wait_s = left_ns / 1e9
                    continue
                return self._retire(worker, left)

    def _retire(self, worker: _Worker, left: list[int]) -> Sequence[Task]:
        tasks = worker.tasks
        owner = tasks[worker.position].owner
        worker.retired = True
        with self._lock:
            self._blocked[owner] = worker
        left.append(owner)
        self._worker = _Worker(self)
        return [task for task in tasks[worker.position + 1 :] if task.owner != owner]

    def close(self) -> None:
        """End the idle thread; threads inside a blocked call end when it returns."""
        self._worker.inbox.put(None)
