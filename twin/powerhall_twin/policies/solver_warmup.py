"""JIT warm-up: numba compiles the solver before the first round, which would otherwise exceed its time limit.

Compilation happens once per installation; the code is kept on disk. `python -m
powerhall_twin.policies.solver_warmup SNAPSHOT.json` compiles in a process of its own.
"""

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import msgspec

from powerhall.plan.plan import Snapshot
from powerhall.runtime.errors import PowerhallError
from powerhall.runtime.settings import read_json
from powerhall.runtime.signals import end_with_parent

__all__ = ["compile_solver", "solver_warmup"]

_QUIET_S: Final = 8.0
_TIMEOUT_S: Final = 400.0


def compile_solver(snapshot: Snapshot) -> None:
    """Run every stage of the solver once on this snapshot, however long its compilation takes."""
    from powerhall_optimizer.problem.site_problem import build_problem
    from powerhall_optimizer.solve.pipeline import solve

    solve(build_problem(snapshot).problem, seconds=_TIMEOUT_S, iterations=1, seed=1, workers=2)


@contextmanager
def solver_warmup(snapshot: Snapshot, folder: Path, progress: Callable[[str], None]) -> Iterator[Callable[[], None]]:
    """Compile in a child process; the block gets a function that waits for its end. A failure shows in the rounds."""
    path = folder / "snapshot.json"
    path.write_bytes(msgspec.json.encode(snapshot))
    child = subprocess.Popen(
        (sys.executable, "-m", "powerhall_twin.policies.solver_warmup", str(path)),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )

    def wait() -> None:
        try:
            child.wait(timeout=_QUIET_S)
        except subprocess.TimeoutExpired:
            progress("compiling the solver, once per installation ...")
            with suppress(subprocess.TimeoutExpired):
                child.wait(timeout=_TIMEOUT_S)

    try:
        yield wait
    finally:
        if child.poll() is None:
            child.kill()
        child.wait()
        path.unlink(missing_ok=True)


if __name__ == "__main__":
    end_with_parent(signal.SIGKILL)
    try:
        compile_solver(read_json(sys.argv[1], Snapshot))
    except PowerhallError as error:
        sys.exit(str(error))
