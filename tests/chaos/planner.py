"""The planner's machine: plans that replace each other, budgets that fall, and the real lease command on them."""

import json
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from chaos import plans
from chaos.faults import Notes
from chaos.judge import Step, Zone
from chaos.mutants import PLANNER
from chaos.world import BIN, MUTANTS, STORE_URL, World


@dataclass
class Run:
    """A run of the lease command."""

    start_s: float
    """True seconds of the epoch."""
    offset_s: float
    process: subprocess.Popen[bytes]
    code: int | None = None
    took_s: float = 0.0


@dataclass
class Planner:
    """Writes plans and runs the lease command; remembers what the judge must know."""

    world: World
    dice: random.Random
    notes: Notes
    mutant: str = ""
    budget_w: float = 0.0
    runs: list[Run] = field(default_factory=list)
    order: dict[str, int] = field(default_factory=dict)
    ends_s: dict[str, float] = field(default_factory=dict)
    site_steps: list[Step] = field(default_factory=list)
    harm_s: float | None = None
    """When to do harm to the process in flight."""
    harm: int = signal.SIGKILL
    is_short: bool = False
    old: Path | None = None

    def __post_init__(self) -> None:
        self.nodes = tuple(sorted(self.world.nodes))
        self.budget_w = plans.budget_w(len(self.nodes))
        self.low_w = len(self.nodes) * plans.NODE_SAFE_W + 150.0

    def zones(self) -> tuple[Zone, ...]:
        """Return the zones with their budgets, in seconds of the monotonic clock."""
        found = [Zone("chaos", self.nodes, tuple(self.site_steps))]
        if len(self.nodes) > 2:
            found.append(Zone("feed", self.nodes[:2], (Step(0.0, plans.feed_w(), 0.0),)))
        return tuple(found)

    def fitting_modes(self) -> dict[str, str]:
        """Return jobs that all fit beside the safe caps of the other nodes."""
        if len(self.nodes) > 1 and self.dice.random() < 0.4:
            return dict.fromkeys(self.dice.sample(self.nodes, 2), "eco")
        return {self.dice.choice(self.nodes): "full"}

    def new_plan(self, modes: dict[str, str], *, slots: int = 15, fall_after_s: float | None = None) -> None:
        """Put a new plan in force; with a fall of the site's budget after some seconds, known to it."""
        true_s, now_s = self.world.true_s(), time.monotonic()
        steps = [(true_s - 1000.0, self.budget_w)]
        self._step(now_s, self.budget_w, now_s)
        busy = None
        if fall_after_s is not None:
            busy = max(1, int(fall_after_s // plans.SLOT_S))
            fall_s = int(true_s) + busy * plans.SLOT_S
            steps.append((float(fall_s), self.low_w))
            self._step(fall_s - self.world.zero_s, self.low_w, now_s)
        self._write(self.world.plan, modes, true_s, slots, tuple(steps), busy)
        self.is_short = slots * plans.SLOT_S < 20

    def _write(self, path: Path, modes, true_s, slots, steps, busy, site="chaos") -> None:
        made = path.with_name(".made")
        try:
            plan = plans.write(
                made, self.nodes, modes, now_s=true_s, slots=slots, steps=steps, busy_slots=busy, site=site
            )
            if site == "chaos":
                self.order.setdefault(plan.plan_id, int(true_s))  # of two plans of one second either may be the newer
                self.ends_s[plan.plan_id] = plan.end_s - self.world.zero_s
            if path.exists() and site == "chaos":
                self.old = self.world.folder / "old-plan.json"
                shutil.copy(path, self.old)
            self.world.give(made, "chaos-planner", 0o644)
            made.replace(path)
            if site == "chaos":
                plans.note(path)
                self.world.give(path.with_name(f"{path.name}.newest"), "chaos-planner", 0o644)
        except OSError:
            return  # a full or read-only disk keeps the last plan

    def _step(self, time_s: float, budget_w: float, known_s: float) -> None:
        self.site_steps = [step for step in self.site_steps if step.time_s < time_s]
        self.site_steps.append(Step(time_s, budget_w, known_s))

    def _spans(self) -> list[str]:
        """Return short leases: longer ones where the machine is so busy that the command takes seconds."""
        return [f"{seconds + self.slow_s:.0f}s" for seconds in (3, 3, 4, 6)]

    @property
    def slow_s(self) -> float:
        """How much longer than a second the slower of the last two runs took."""
        return max(0.0, *(run.took_s - 1.0 for run in self.runs[-2:])) if self.runs else 0.0

    def late_s(self, since_s: float) -> float:
        """Return how much longer than a second each the runs after a true moment took, all in all."""
        spans = ((max(run.start_s, since_s), run.start_s + run.took_s) for run in self.runs)
        return sum(max(0.0, end_s - begin_s - 1.0) for begin_s, end_s in spans)

    def start(self, span: str | None = None) -> None:
        """Run the lease command once, where none runs."""
        if self.runs and self.runs[-1].code is None:
            return
        world = self.world
        span = span or self.dice.choice(["15 min", "100 d"] if self.is_short else self._spans())
        world.planner_clock.set(world.planner_offset_s)
        program = [str(BIN / "powerhall-optimizer")]
        if self.mutant in PLANNER:
            program = [sys.executable, str(MUTANTS), self.mutant, "powerhall-optimizer"]
        command = [*world.planner, *program, "lease", "--plan", str(world.plan), "--store", STORE_URL]
        command += ["--site-key", str(world.site_key), "--ledger", str(world.ledger), "--for", span]
        command += ["--events", str(world.events)]
        env = {"PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "PYTHONDONTWRITEBYTECODE": "1", "LANG": "C.UTF-8"}
        env |= world.planner_clock.env
        with (world.folder / "planner.log").open("ab") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, env=env, cwd="/", umask=0o077)
        self.runs.append(Run(world.true_s(), world.planner_clock.offset_s, process))

    def poll(self) -> None:
        """Note the end of a run; do the harm that is due."""
        run = self.runs[-1] if self.runs else None
        if run is None or run.code is not None:
            return
        run.code = run.process.poll()
        run.took_s = self.world.true_s() - run.start_s
        if run.code is None and self.harm_s is not None and self.world.true_s() - run.start_s > self.harm_s:
            self.notes.lines.append(f"signal {self.harm} to the lease command after {self.harm_s:.2f} s")
            run.process.send_signal(self.harm)
            self.harm_s = None

    def resume(self) -> None:
        """Let a stopped run go on, and do no harm that is still due: nobody would let that run go on."""
        self.harm_s = None
        if self.runs and self.runs[-1].process.poll() is None:
            self.runs[-1].process.send_signal(signal.SIGCONT)

    def fault(self) -> None:
        """Draw one change of plan or budget, or harm to the command."""
        kind = self.dice.choices(
            ["plan", "short", "fall", "cut", "old", "other", "torn", "kill", "stop"], [5, 2, 3, 2, 2, 1, 1, 2, 1]
        )[0]
        self.notes.lines.append(f"planner: {kind}")
        getattr(self, f"_{kind}")()

    def _plan(self) -> None:
        self.new_plan(self.fitting_modes())

    def _short(self) -> None:
        self.new_plan(self.fitting_modes(), slots=2)

    def _fall(self) -> None:
        self.new_plan(self.fitting_modes(), fall_after_s=self.dice.choice([4.0, 8.0]))

    def _cut(self) -> None:
        now_s, true_s = time.monotonic(), self.world.true_s()
        row = {"start": true_s, "end": true_s + 6.0, "zone": "chaos", "power_limit": f"{self.low_w:.0f} W"}
        made = self.world.events.with_name(".events")
        try:
            made.write_text(json.dumps([row]))
            self.world.give(made, "chaos-planner", 0o644)
            made.replace(self.world.events)
        except OSError:
            return
        later = [step for step in self.site_steps if step.time_s > now_s]
        self._step(now_s, self.low_w, now_s)
        self._step(now_s + 6.0, later[-1].budget_w if later else self.budget_w, now_s)

    def _old(self) -> None:
        """Put the plan of before in the place of the newest, as a restored backup does."""
        if self.old is not None:
            made = self.world.plan.with_name(".made")
            try:
                shutil.copy(self.old, made)
                self.world.give(made, "chaos-planner", 0o644)
                made.replace(self.world.plan)
            except OSError:
                return

    def _other(self) -> None:
        """Put a plan of another site, of nodes with the same names, in the place of the newest.

        Only a ledger that knows its own site can refuse it.
        """
        if not any(run.code == 0 for run in self.runs):
            return
        true_s = self.world.true_s()
        steps = ((true_s - 1000.0, self.budget_w),)
        self._write(self.world.plan, self.fitting_modes(), true_s, 15, steps, None, site="elsewhere")

    def _torn(self) -> None:
        try:
            data = self.world.plan.read_bytes()
            self.world.plan.write_bytes(data[: self.dice.randrange(len(data))] + self.dice.choice([b"", b"\xff\xfe"]))
        except OSError:
            return

    def _kill(self) -> None:
        self.harm_s, self.harm = self.dice.uniform(0.05, 0.8), signal.SIGKILL
        self.start()

    def _stop(self) -> None:
        self.harm_s, self.harm = self.dice.uniform(0.05, 0.8), signal.SIGSTOP
        self.start()
