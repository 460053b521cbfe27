"""Rounds of the optimizer as the timer runs them: the real command in a child process, fed and read through files."""

import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from powerhall.jobs.model import Job
from powerhall.plan.plan import Plan, read_plan
from powerhall.runtime.errors import PowerhallError

__all__ = ["RoundLog", "Rounds"]

_PATIENCE_S = 120.0


@dataclass(frozen=True, slots=True)
class RoundLog:
    """One round: when, how long it took on the wall clock, and what the independent checker said."""

    time_s: float
    wall_s: float
    plan_id: str
    status: str
    gap: float
    verified: bool
    assignments: int
    waiting: int
    why: str


@dataclass(slots=True)
class Rounds:
    """Runs rounds in `folder`, which holds site.toml; keeps their log."""

    folder: Path
    store: str
    horizon_s: float
    solve_s: float
    log: list[RoundLog] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    def run(self, jobs: Sequence[Job], now_s: float, why: str) -> Plan | None:
        """Run one round; None when it refused, with its words in `failed`."""
        began = time.monotonic()
        (self.folder / "queue.json").write_bytes(msgspec.json.encode(list(jobs)))
        out = self.folder / "plan.json"
        error = self._command(
            "round",
            *("--site", str(self.folder / "site.toml"), "--jobs", str(self.folder / "queue.json")),
            *("--store", self.store, "--settings", str(self.folder / "round.toml"), "--quiet"),
            *("--start", f"{now_s:.0f}", "--horizon", f"{self.horizon_s:.0f}s", "--seconds", f"{self.solve_s:g}"),
            *("--out", str(out)),
        )
        if error:
            self.failed.append(error)
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
                why,
            )
        )
        return plan

    def _verify(self, plan: Plan) -> Sequence[object]:
        from powerhall_optimizer.verify.plan import verify_plan

        return verify_plan(plan)

    def _command(self, *arguments: str) -> str:
        """Run the optimizer; return "" or its one line of refusal."""
        command = (sys.executable, "-c", "from powerhall_optimizer.entry import main; raise SystemExit(main())")
        child = subprocess.Popen((*command, *arguments), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        try:
            _, words = child.communicate(timeout=_PATIENCE_S)
        except subprocess.TimeoutExpired:
            raise PowerhallError(f"a round did not end within {_PATIENCE_S:.0f} s") from None
        finally:
            if child.poll() is None:
                child.kill()
                child.wait()
        with (self.folder / "rounds.log").open("a", encoding="utf-8") as log:
            log.write(words)
        return "" if child.returncode == 0 else (words.strip().splitlines() or ["no message"])[-1]
