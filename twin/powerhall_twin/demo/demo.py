"""The demo: a hot day at a site with more work than power, and a grid curtailment half-way.

The site's clock runs `speedup` times faster than the wall clock, except during a round of the optimizer, which takes
its real seconds.
"""

import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib import resources
from typing import Final

from powerhall.forecasts.csv_series import PRICES, read_forecast
from powerhall.physics.weather_files import read_weather
from powerhall.plan.plan import Plan
from powerhall.runtime.errors import Rejected
from powerhall.site.index import SiteIndex
from powerhall.site.site_file import Planning, read_site
from powerhall.site.topology import Site
from powerhall.store import open_store
from powerhall.timeseries import parse_time
from powerhall_optimizer.billing.bill import make_bill
from powerhall_optimizer.billing.bill_days import days_of, write_day
from powerhall_optimizer.jit import cache_state
from powerhall_twin.demo.agent_pool import agent_pool
from powerhall_twin.demo.dashboard_data import DashboardWriter
from powerhall_twin.demo.demo_result import Curtailment, DemoResult, DemoSettings, PlannedSlot
from powerhall_twin.demo.kept_day import check_kept_day
from powerhall_twin.demo.realtime_agents import RealtimeAgents, realtime_agents
from powerhall_twin.demo.rounds import RoundRunner, RoundTrigger
from powerhall_twin.demo.site_run import SiteRun
from powerhall_twin.engine.jit import cache_folder
from powerhall_twin.engine.measured_site import MeasuredSite
from powerhall_twin.jobs.generator import generate
from powerhall_twin.policies.planned_rounds import PlannedRounds
from powerhall_twin.policies.powerhall import POWERHALL
from powerhall_twin.policies.solver_warmup import solver_warmup
from powerhall_twin.site.scenario import Scenario
from powerhall_twin.site.simulated_nodes import SimulatedNodes, create_nodes

__all__ = ["run_demo"]

START: Final = "2026-07-15T10:00:00Z"
TICK_S: Final = 60.0
HORIZON_S: Final = 6 * 3600.0
_OUTPUT_NAMES: Final = (
    *("gpus", "spool", "store.db", "store.db-wal", "store.db-shm", "plan.json", "queue.json", "rounds.log"),
    *("agents.log", "realtime.log", "report.html", "summary.json", "round.toml"),
)
"""Files and folders that a demo writes into its output folder."""
_SETTINGS: Final = """\
# Settings of the demo's rounds. Agents sample every {sample_s:g} s of simulated time here, so nodes go stale later.
slot_s = 300
stale_after_s = {stale_s:g}
target_gap = 0.02
"""


Progress = Callable[[str], None]


def _prepare(settings: DemoSettings) -> None:
    """Make the output folder and remove the output of an earlier demo; other files in it are left alone."""
    out = settings.out
    if out.exists() and not out.is_dir():
        raise Rejected.field("command line", "--out", str(out), "must be a folder")
    out.mkdir(parents=True, exist_ok=True)
    for name in _OUTPUT_NAMES:
        path = out / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    for entry in resources.files("powerhall_twin.demo").joinpath("demo_site").iterdir():
        (out / entry.name).write_bytes(entry.read_bytes())
    text = _SETTINGS.format(sample_s=settings.sample_s, stale_s=3 * settings.sample_s + 60)
    (out / "round.toml").write_text(text, encoding="utf-8")


def _scenario(site: Site, planning: Planning, settings: DemoSettings) -> Scenario:
    start_s, length_s = parse_time(START), settings.minutes * 60.0
    assert planning.weather is not None
    assert planning.prices is not None
    weather = read_weather(planning.weather, start_s, start_s + length_s)
    prices = read_forecast(planning.prices, PRICES).series
    jobs = generate(site, start_s, max(length_s, 6 * 3600.0), seed=settings.seed)
    return Scenario(site, jobs, start_s, start_s + length_s, weather.dry_bulb, weather.wet_bulb, prices)


class _DemoRun:
    """The running demo."""

    def __init__(self, result: DemoResult, agents: RealtimeAgents, report: Progress) -> None:
        self.result, self.agents, self.report = result, agents, report
        self.run, self.settings = result.run, result.settings
        self.next_round_s = result.start_s
        self.next_sample_s = result.start_s + result.settings.sample_s
        self.announced = False
        self.pace_wall_s = self.pace_site_s = 0.0

    @property
    def now_s(self) -> float:
        """The site's time."""
        return self.run.measured.now_s

    def print_site(self) -> None:
        """Print the size of the site, the number of jobs and the budget."""
        site = self.run.site
        gpus = SiteIndex.of(site).gpus
        nodes = len(self.run.measured.nodes.states)
        self.report(f"{len(site.halls)} halls, {len(list(site.racks()))} racks, {nodes} nodes, {gpus} GPUs")
        full_kw = self.run.full_budget_w / 1e3
        self.report(
            f"{len(self.run.scenario.jobs)} jobs, seed {self.settings.seed}, budget {full_kw:.0f} kW at the meter"
        )

    def run_to_end(self) -> None:
        """Simulate until the end of the run."""
        self._pace_from_here()
        while self.now_s < self.result.end_s - 1e-6:
            if not self.announced and self.now_s >= self.result.curtailment.announced_s:
                self._announce()
                self._round(RoundTrigger.CURTAILMENT)
            elif self.now_s >= self.next_round_s:
                self._round(RoundTrigger.TIMER)
            self._step()
            self._wait()

    def _announce(self) -> None:
        """Announce the curtailment: rewrite the budget file, as an operator would, and read the site again."""
        self.announced = True
        cut, grid = self.result.curtailment, self.settings.out / "grid.csv"
        full_w = self.run.full_budget_w
        rows = [(0.0, full_w), (cut.start_s, full_w * (1 - cut.cut)), (cut.end_s, full_w)]
        grid.write_text("time,power_kw\n" + "".join(f"{t:.0f},{w / 1e3:g}\n" for t, w in rows), encoding="utf-8")
        site, _ = read_site(self.settings.out / "site.toml")
        self.run.measured.sim.change_site(site)
        span = f"from {_clock(cut.start_s)} to {_clock(cut.end_s)}"
        self.report(f"{_clock(self.now_s)}  the grid asks for {cut.cut:.0%} less {span}")

    def _round(self, trigger: RoundTrigger) -> None:
        self.run.measured.put_moment()
        jobs = self.run.measured.state.as_jobs()
        while self.next_round_s <= self.now_s:
            self.next_round_s += self.settings.round_s
        if not jobs:
            return
        began = time.monotonic()
        rounds = self.result.rounds
        plan = rounds.run(jobs, self.now_s, trigger)
        if plan is None:
            self.report(f"{_clock(self.now_s)}  round refused: {rounds.refusals[-1]}")
        else:
            self._adopt(plan)
        self._move(min(time.monotonic() - began, self._to_tick()))
        self._pace_from_here()

    def _adopt(self, plan: Plan) -> None:
        if not self.announced or self.result.rounds.log[-1].trigger is RoundTrigger.CURTAILMENT:
            self.result.reported_plan = plan
        self.run.adopt(plan)
        self._record_planned(plan)
        entry, reading = self.result.rounds.log[-1], self.run.last_reading
        now_kw = f"{reading.facility_w / 1e3:5.0f} kW" if reading else "        "
        budget_kw = SiteIndex.of(self.run.site).budgets_at(self.now_s - 1.0)[self.run.site.name] / 1e3
        self.report(
            f"{_clock(self.now_s)}  {now_kw} of {budget_kw:.0f} kW  {self.run.running:3d} run  "
            f"{self.run.waiting:3d} queued  plan {entry.plan_id[:8]} {entry.status} gap {entry.gap:.1%} "
            f"{'verified' if entry.verified else 'NOT VERIFIED'} in {entry.wall_s:.1f} s ({entry.trigger})"
        )

    def _record_planned(self, plan: Plan) -> None:
        start_s, slot_s = plan.snapshot.start_s, plan.snapshot.slot_s
        self.result.planned = [slot for slot in self.result.planned if slot.time_s < start_s]
        for i in range(min(plan.snapshot.slots, int(2 * self.settings.round_s // slot_s) + 1)):
            zone_w = {zone.zone: zone.planned_w[i] for zone in plan.zones if zone.planned_w}
            heat_w = {zone.zone: zone.heat_w[i] for zone in plan.zones if zone.heat_w}
            self.result.planned.append(PlannedSlot(start_s + i * slot_s, zone_w, heat_w))

    def _to_tick(self) -> float:
        """Return the seconds to the next tick."""
        return TICK_S - (self.now_s - self.result.start_s) % TICK_S

    def _step(self) -> None:
        self.run.schedule()
        self._move(self._to_tick())

    def _move(self, dt_s: float) -> None:
        dt_s = min(dt_s, self.result.end_s - self.now_s)
        if dt_s <= 0:
            return
        sample = self.now_s + dt_s >= self.next_sample_s - 1e-6
        self.run.tick(dt_s, sample=sample)
        self.agents.follow(self.run.measured.nodes)
        if sample:
            self.next_sample_s += self.settings.sample_s * (
                1 + (self.now_s - self.next_sample_s) // self.settings.sample_s
            )

    def _pace_from_here(self) -> None:
        self.pace_wall_s, self.pace_site_s = time.monotonic(), self.now_s

    def _wait(self) -> None:
        ahead_s = (self.now_s - self.pace_site_s) / self.settings.speedup - (time.monotonic() - self.pace_wall_s)
        if ahead_s > 0:
            time.sleep(ahead_s)


def _clock(time_s: float) -> str:
    return time.strftime("%H:%M", time.gmtime(time_s))


def _print_nothing(_text: str) -> None:
    """Suppress progress lines."""


def _print_line(text: str) -> None:
    """Print a progress line."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


@contextmanager
def _assembled(settings: DemoSettings) -> Iterator[_DemoRun]:
    """Start every part of the demo; they end with the block."""
    _prepare(settings)
    site, planning = read_site(settings.out / "site.toml")
    scenario = _scenario(site, planning, settings)
    url = settings.store or f"sqlite:///{settings.out}/store.db"
    length_s = scenario.end_s - scenario.start_s
    cut = Curtailment.half_way(scenario.start_s, length_s, settings.cut)
    create_nodes(site, settings.out / "gpus", settings.seed)
    first = tuple(job for job in scenario.jobs if job.submit_s <= scenario.start_s)
    progress = _print_nothing if settings.quiet else _print_line
    with ExitStack() as stack:
        compiled = stack.enter_context(
            solver_warmup(PlannedRounds(scenario).snapshot(site, first, scenario.start_s), settings.out, progress)
        )
        store = open_store(url)
        stack.callback(store.close)
        check_kept_day(store, url, site.name, scenario.start_s)
        agents = stack.enter_context(realtime_agents(site, settings.out, url, settings.realtime))
        workers = stack.enter_context(
            agent_pool(site, settings.out, url, workers=2, sample_s=settings.sample_s, start_s=scenario.start_s)
        )
        nodes = SimulatedNodes.open(site, settings.out / "gpus")
        full_w = SiteIndex.of(site).budgets_at(scenario.start_s)[site.name]
        dashboards = DashboardWriter.of(store, nodes, site, settings.sample_s)
        if not cache_state(cache_folder()).warm:
            progress("compiling the engine, once per installation ...")
        run = SiteRun(MeasuredSite.of(scenario, POWERHALL.name, nodes), workers, full_w, dashboards)
        rounds = RoundRunner(settings.out, url, HORIZON_S, settings.solve_s)
        result = DemoResult(settings, url, run, rounds, cut, scenario.start_s, scenario.end_s)
        compiled()
        yield _DemoRun(result, agents, progress)
        reports = workers.close()
        dashboards.close()
        for day in days_of((scenario.start_s - 86_400, scenario.end_s), planning.zone, result.end_s):
            write_day(store, make_bill(store, site, planning, day, result.end_s))
        result.agent_points = sum(report.sent for report in reports)
        result.agent_points_lost = sum(report.dropped + report.rejected for report in reports)
        result.realtime = agents.check(store)


def run_demo(settings: DemoSettings) -> DemoResult:
    """Run the demo; Ctrl-C ends it early, with summary and report of the time so far."""
    began = time.monotonic()
    with _assembled(settings) as demo:
        demo.print_site()
        demo.run.first_reading()
        try:
            demo.run_to_end()
        except KeyboardInterrupt:
            demo.result.interrupted = True
            demo.report("interrupted: ending in order")
        demo.result.end_s = demo.now_s
        demo.run.close()
    demo.result.wall_s = time.monotonic() - began
    return demo.result
