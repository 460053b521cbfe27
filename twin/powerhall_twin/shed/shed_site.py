"""The demo's site for the trial of an emergency shed: simulated GPUs under the agent's cappers, in simulated time.

The site runs a plan of the optimizer, its scheduler follows plans with a delay, and its meter writes into the store.
"""

import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Final

import msgspec

from powerhall.plan.plan import Plan, Snapshot
from powerhall.runtime.log import Log
from powerhall.site.index import SiteIndex
from powerhall.site.site_file import read_site
from powerhall.site.topology import Site
from powerhall.store import Store, open_store
from powerhall.store.line_protocol import Point, encode
from powerhall.timeseries import parse_time
from powerhall_optimizer.inputs.round_settings import RoundSettings
from powerhall_optimizer.leases.caps import safe_caps_w
from powerhall_optimizer.leases.grant_cycle import GrantCycle
from powerhall_optimizer.leases.ledger import Ledger
from powerhall_optimizer.planning.planner import make_plan
from powerhall_optimizer.schedulers.base import Command, WriteReport
from powerhall_optimizer.shed.shedder import Shedder
from powerhall_twin.engine.measured_site import MeasuredSite
from powerhall_twin.jobs.generator import generate
from powerhall_twin.policies.plan_runner import PlanRunner
from powerhall_twin.shed.capped_nodes import CappedNodes
from powerhall_twin.site.placed_runs import PlacedRun
from powerhall_twin.site.scenario import MILD, Scenario
from powerhall_twin.site.simulated_nodes import SimulatedNodes, advance_nodes, create_nodes

__all__ = ["ShedSettings", "ShedSite", "assembled", "settle"]

_SITE_KEY: Final = bytes(range(32))
"""Key that signs the leases of one simulated site; not a secret."""
_METER_S: Final = 10.0
_SLOT_S: Final = 300
_SLOTS: Final = 24
_LONGEST_S: Final = 86_400.0
_START: Final = "2026-07-15T10:00:00Z"


@dataclass(frozen=True, slots=True)
class ShedSettings:
    """The shed, and the time steps of the twin; `scheduler_s` is the time that the scheduler takes to stop a job."""

    out: Path
    share: float = 0.30
    within_s: float = 10.0
    before_s: float = 30.0
    after_s: float = 60.0
    step_s: float = 0.25
    poll_s: float = 2.0
    scheduler_s: float = 3.0
    safe_limit_w: float = 200.0
    solve_s: float = 3.0
    seed: int = 1


@dataclass(slots=True)
class ShedSite:
    """The site at `now_s`; `meter_w` are the meter's readings at `at_s`.

    `touched` are the watched jobs whose limits have changed or that no longer run.
    """

    settings: ShedSettings
    measured: MeasuredSite
    store: Store
    cappers: CappedNodes
    ledger: Ledger
    runner: PlanRunner = field(default_factory=PlanRunner)
    pending: list[tuple[float, Plan]] = field(default_factory=list)
    at_s: list[float] = field(default_factory=list)
    meter_w: list[float] = field(default_factory=list)
    metered_s: float = 0.0
    watched: dict[str, tuple[float, ...]] = field(default_factory=dict)
    touched: set[str] = field(default_factory=set)
    clock_mark_s: float = 0.0

    @property
    def now_s(self) -> float:
        """The site's time."""
        return self.measured.now_s

    @property
    def site(self) -> Site:
        """The site file in force."""
        return self.measured.site

    @property
    def runs(self) -> Mapping[str, PlacedRun]:
        """The running jobs by id."""
        return self.measured.placed.runs

    def adopt(self, plan: Plan) -> None:
        """Follow a plan from now on: stop jobs and change modes at once."""
        self.runner.take(plan, self.measured.state)
        self.measured.placed.follow(self.measured.state)

    def advance(self, seconds: float) -> None:
        """Advance the site: scheduler, carriers, cappers, GPUs, meter."""
        end_s = self.now_s + seconds
        while self.now_s < end_s - 1e-9:
            dt_s = min(self.settings.step_s, end_s - self.now_s)
            self._schedule()
            self.cappers.advance(self.now_s)
            self.measured.put_loads(limits=False)
            advance_nodes(list(self.measured.nodes.states.values()), dt_s)
            self._read(dt_s)

    def _schedule(self) -> None:
        """Adopt the plans whose delay has passed, and start the jobs that are due."""
        for due_s, plan in [entry for entry in self.pending if entry[0] <= self.now_s]:
            self.pending.remove((due_s, plan))
            self.runner.take(plan, self.measured.state)
        self.measured.put_moment()
        self.runner.follow(self.measured.state)

    def _read(self, dt_s: float) -> None:
        site_w = self.measured.read(dt_s).facility_w
        self.at_s.append(self.now_s)
        self.meter_w.append(site_w)
        if self.now_s - self.metered_s >= _METER_S:
            self.metered_s = self.now_s
            fields: dict[str, float | str] = {"facility_power_w": site_w}
            self.store.write(encode(Point("site_10s", {"site": self.site.name}, fields, round(self.now_s * 1000))))
        for job_id, limits in self.watched.items():
            run = self.runs.get(job_id)
            if run is None or self._limits(job_id) != limits:
                self.touched.add(job_id)

    def watch(self, job_ids: tuple[str, ...]) -> None:
        """Watch the limits of these jobs' GPUs from now on."""
        self.watched = {job_id: self._limits(job_id) for job_id in job_ids}

    def _limits(self, job_id: str) -> tuple[float, ...]:
        parts = self.runs[job_id].slices
        return tuple(
            self.cappers.nodes[part.node].limiter.read()[gpu].power_limit_w or 0.0
            for part in parts
            for gpu in part.gpus
        )

    # The shedder's interface to a site: a clock, in which computing takes its real time, and a scheduler.

    def clock(self) -> float:
        """Return the simulated time, advanced by the real time of computing since the last call."""
        spent_s = time.perf_counter() - self.clock_mark_s
        if self.clock_mark_s and spent_s > 1e-3:
            self.advance(spent_s)
        self.clock_mark_s = time.perf_counter()
        return self.now_s

    def sleep(self, seconds: float) -> None:
        """Let simulated time pass."""
        self.clock()
        self.advance(seconds)
        self.clock_mark_s = time.perf_counter()

    def apply(self, plan: Plan, *, dry_run: bool = False) -> WriteReport:
        """Accept a plan as a workload manager does: its stops follow after `scheduler_s`."""
        report = WriteReport("twin", plan.plan_id, dry_run)
        self.pending.append((self.now_s + self.settings.scheduler_s, plan))
        report.commands.append(Command("take plan", plan.plan_id))
        return report

    def round(self, site: Site, previous: Plan | None) -> Plan:
        """Make a plan for the running and waiting jobs with the optimizer."""
        start_s = int(self.now_s // _SLOT_S) * _SLOT_S
        jobs = self.measured.state.as_jobs()
        dry_c, wet_c = (MILD.dry_bulb_c,) * _SLOTS, (MILD.wet_bulb_c,) * _SLOTS
        snapshot = Snapshot(start_s, start_s, _SLOT_S, _SLOTS, site, jobs, dry_bulb_c=dry_c, wet_bulb_c=wet_c)
        settings, log = RoundSettings(target_gap=0.02), Log(quiet=True)
        return make_plan(snapshot, settings, self.settings.solve_s, created_s=start_s, log=log, previous=previous)

    def lease(self, plan: Plan, span_s: float = 900.0) -> dict[str, object]:
        """Grant leases for a plan, as `powerhall-optimizer lease` does."""
        return GrantCycle(plan, self.ledger, _SITE_KEY, self.store).run(self.now_s, self.now_s + span_s)

    def shedder(self) -> Shedder:
        """Return the optimizer's shedder on this site."""
        return Shedder(
            self.ledger, self.store, _SITE_KEY, self, self.settings.out / "shed-plan.json",
            clock=self.clock, sleep=self.sleep,
        )  # fmt: skip


@contextmanager
def assembled(settings: ShedSettings) -> Iterator[ShedSite]:
    """Start the demo's site, idle and at its safe caps; site files that exist in its folder are kept."""
    settings.out.mkdir(parents=True, exist_ok=True)
    for name in ("gpus", "cappers"):
        shutil.rmtree(settings.out / name, ignore_errors=True)
    for name in ("store.db", "store.db-wal", "store.db-shm", "ledger.json", "shed-plan.json"):
        (settings.out / name).unlink(missing_ok=True)
    for entry in resources.files("powerhall_twin.demo").joinpath("demo_site").iterdir():
        if not (settings.out / entry.name).exists():
            (settings.out / entry.name).write_bytes(entry.read_bytes())
    site = read_site(settings.out / "site.toml")[0]
    start_s = parse_time(_START)
    create_nodes(site, settings.out / "gpus", settings.seed)
    nodes = SimulatedNodes.open(site, settings.out / "gpus")
    store = open_store(f"sqlite:///{settings.out}/store.db")
    with (settings.out / "carriers.log").open("w", encoding="utf-8") as log, closing(store):
        cappers = CappedNodes.open(
            nodes, store, _SITE_KEY, settings.out / "cappers", start_s,
            safe_limit_w=settings.safe_limit_w, poll_s=settings.poll_s, seed=settings.seed, log=Log(log),
        )  # fmt: skip
        gpus = SiteIndex.of(site).gpus
        jobs, total = [], 0
        for job in generate(site, start_s, 6 * 3600.0, seed=settings.seed):
            jobs.append(msgspec.structs.replace(job, submit_s=start_s - 1.0, duration_s=max(7200.0, job.duration_s)))
            total += job.gpus
            if total > 1.3 * gpus:
                break
        ledger = Ledger(safe_caps_w(site), settings.out / "ledger.json")
        scenario = Scenario(site, tuple(jobs), start_s, start_s + _LONGEST_S)
        yield ShedSite(settings, MeasuredSite.of(scenario, "shed", nodes), store, cappers, ledger)


def settle(twin: ShedSite) -> Plan:
    """Bring the site to its steady state: plan, start, plan again with the running jobs, lease, and wait."""
    first = twin.round(twin.site, None)
    twin.adopt(first)
    twin.lease(first)
    twin.advance(2.0)
    plan = twin.round(twin.site, first)
    twin.adopt(plan)
    twin.lease(plan)
    twin.advance(twin.settings.before_s)
    return plan
