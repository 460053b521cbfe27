"""Lets numba compile the solver before the first round: once per installation, it takes longer than a round may.

`python -m powerhall_twin.policies.solver_warmup SNAPSHOT.json` does it in a process of its own; the compiled code is
kept on disk.
"""

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

__all__ = ["compile_solver", "warming"]

_QUIET_S: Final = 8.0
_PATIENCE_S: Final = 400.0


def compile_solver(snapshot: Snapshot) -> None:
    """Run every stage of the solver once on this snapshot, however long its compilation takes."""
    from powerhall_optimizer.problem.build import build
    from powerhall_optimizer.solve.pipeline import solve

    solve(build(snapshot).problem, seconds=_PATIENCE_S, iterations=1, seed=1, workers=2)


@contextmanager
def warming(snapshot: Snapshot, folder: Path, say: Callable[[str], None]) -> Iterator[Callable[[], None]]:
    """Compile in a child process; the block gets a function that waits for its end. Failing is left to the rounds."""
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
            say("compiling the solver, once per installation ...")
            with suppress(subprocess.TimeoutExpired):
                child.wait(timeout=_PATIENCE_S)

    try:
        yield wait
    finally:
        if child.poll() is None:
            child.kill()
        child.wait()
        path.unlink(missing_ok=True)


if __name__ == "__main__":
    try:
        compile_solver(read_json(sys.argv[1], Snapshot))
    except PowerhallError as error:
        sys.exit(str(error))
