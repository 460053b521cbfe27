"""Rounds of the optimizer as a timer runs them: `powerhall-optimizer round` in a child process, through files."""

import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

import msgspec

from powerhall.jobs.model import Job
from powerhall.plan.plan import Plan, read_plan
from powerhall.runtime.errors import PowerhallError

__all__ = ["RoundLog", "RoundRunner", "RoundTrigger"]

_TIMEOUT_S = 120.0


class RoundTrigger(StrEnum):
    """The cause of a round; the value is its text in the demo's output."""

    TIMER = "timer"
    CURTAILMENT = "curtailment announced"


@dataclass(frozen=True, slots=True)
class RoundLog:
    """One round: its simulated time, its duration on the wall clock, its plan, and whether the verifier passed it."""

    time_s: float
    wall_s: float
    plan_id: str
    status: str
    gap: float
    verified: bool
    assignments: int
    waiting: int
    trigger: RoundTrigger


@dataclass(slots=True)
class RoundRunner:
    """Runs rounds in `folder`, which holds site.toml; keeps their log and the messages of refused rounds."""

    folder: Path
    store: str
    horizon_s: float
    solve_s: float
    log: list[RoundLog] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)

    def run(self, jobs: Sequence[Job], now_s: float, trigger: RoundTrigger) -> Plan | None:
        """Run one round; None where it was refused, with its message in `refusals`."""
        began = time.monotonic()
        (self.folder / "queue.json").write_bytes(msgspec.json.encode(list(jobs)))
        out = self.folder / "plan.json"
        refusal = self._run_command(
            "round",
            *("--site", str(self.folder / "site.toml"), "--jobs", str(self.folder / "queue.json")),
            *("--store", self.store, "--settings", str(self.folder / "round.toml"), "--quiet"),
            *("--start", f"{now_s:.0f}", "--horizon", f"{self.horizon_s:.0f}s", "--seconds", f"{self.solve_s:g}"),
            *("--out", str(out)),
        )
        if refusal is not None:
            self.refusals.append(refusal)
            return None
        plan = read_plan(out)
        verified = not self._verify(plan)
        self.log.append(
            RoundLog(
                now_s,
                time.monotonic() - began,
                plan.plan_id,
                plan.status,
                plan.gap,
                verified,
                len(plan.assignments),
                len(plan.waiting),
                trigger,
            )
        )
        return plan

    def _verify(self, plan: Plan) -> Sequence[object]:
        from powerhall_optimizer.verify.plan import verify_plan

        return verify_plan(plan)

    def _run_command(self, *arguments: str) -> str | None:
        """Run the optimizer; return None, or the last line of its message where it was refused."""
        command = (sys.executable, "-c", "from powerhall_optimizer.entry import main; raise SystemExit(main())")
        child = subprocess.Popen((*command, *arguments), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        try:
            _, message = child.communicate(timeout=_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            raise PowerhallError(f"a round did not end within {_TIMEOUT_S:.0f} s") from None
        finally:
            if child.poll() is None:
                child.kill()
                child.wait()
        with (self.folder / "rounds.log").open("a", encoding="utf-8") as log:
            log.write(message)
        return None if child.returncode == 0 else (message.strip().splitlines() or ["no message"])[-1]
