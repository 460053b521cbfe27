"""The demo's report: one HTML page that needs no network, for light and dark screens, wide and narrow."""

import re
import time
from dataclasses import dataclass
from pathlib import Path

from powerhall.physics.cooling import media
from powerhall.physics.plants.kinds import kind_of
from powerhall.plan.plan import Plan
from powerhall.report.html_page import render_page, require_libraries
from powerhall.report.page_parts import LegendEntry, Table, Tile
from powerhall.runtime.files import replace_file
from powerhall_twin.demo.demo_result import DemoResult, PlannedSlot
from powerhall_twin.policies.fcfs import FCFS
from powerhall_twin.policies.powerhall import POWERHALL
from powerhall_twin.policies.registry import POLICY_KINDS
from powerhall_twin.report import charts
from powerhall_twin.report.gantt import history_blocks, plan_blocks
from powerhall_twin.report.measured import Telemetry
from powerhall_twin.report.summary import Summary

__all__ = ["report_html", "write_report"]

_MOST_ROWS = 60
_MOST_HEADROOMS = 12
_LOW_HEADROOM = 0.02
_MEASURED_AND_PLANNED = (LegendEntry("measured", "--power"), LegendEntry("planned", "--planned", "dash"))
_CURTAILMENT = LegendEntry("curtailment", "--event", "box")


@dataclass(frozen=True, slots=True)
class Panel:
    """A chart by the id of its figure, with a title and a legend of its own where it has them."""

    id: str
    title: str = ""
    legend: tuple[LegendEntry, ...] = ()


@dataclass(frozen=True, slots=True)
class ChartSection:
    """A section of charts; `grid` is the CSS class that sets them side by side, `below` a chart under them."""

    title: str
    legend: tuple[LegendEntry, ...]
    panels: tuple[Panel, ...]
    note: str = ""
    grid: str = ""
    below: Panel | None = None
    style: str = ""


@dataclass(frozen=True, slots=True)
class TableSection:
    """A section with a table; `style` is a CSS class."""

    title: str
    table: Table
    note: str = ""
    style: str = ""


@dataclass(frozen=True, slots=True)
class HeadroomRow:
    """The lowest headroom of a zone, as text and as the length of a bar."""

    zone: str
    share: str
    bar_px: int
    low: bool
    at: str


def _clock(time_s: float) -> str:
    return time.strftime("%H:%M", time.gmtime(time_s))


def _kw(power_w: float) -> str:
    return f"{power_w / 1e3:,.0f} kW"


def _tiles(s: Summary) -> list[Tile]:
    """Return the tiles of the summary."""
    zone, least = min(s.worst_headroom.items(), key=lambda item: item[1])
    best = max(s.baselines, key=lambda b: b.weighted_work, default=None)
    fcfs = next((b for b in s.baselines if b.policy == FCFS.name), None)
    tiles = [
        ("Peak power", _kw(s.peak_power_w), f"of {_kw(s.budget_w)} at the meter", "--power"),
        ("Samples over budget", f"{s.breaches}", f"of {s.samples:,}; every zone and cooling plant", "--budget"),
        ("Least headroom", f"{least:.1%}", zone, "--headroom"),
        (
            "In the curtailment",
            _kw(s.curtailed_peak_w),
            f"peak of {_kw(s.curtailed_budget_w)} for {s.curtailed_s / 3600:.1f} h",
            "--budget",
        ),
        (
            "Work done",
            f"{s.work_gpu_s / 3600:,.0f} GPU h",
            f"{s.gpu_share:.0%} of all GPU time at full speed",
            "--power",
        ),
        ("Jobs", f"{s.jobs_done} done", f"{s.jobs_running} running, {s.jobs_queued} queued", "--power"),
        ("Energy", f"{s.energy_j / 3.6e9:.2f} MWh", f"PUE {s.pue:.2f}", "--cooling"),
        ("Cost of energy", f"${s.cost:,.0f}", f"${_ratio(s.cost, s.energy_j / 3.6e9):.0f} per MWh", "--cooling"),
        (
            "Plans verified",
            f"{s.rounds_verified} of {s.rounds}",
            f"{s.round_s_median:.1f} s per round",
            "--planned",
        ),
        ("Proven gap", f"{s.gap_median:.1%}", f"median; worst {s.gap_worst:.1%}", "--planned"),
    ]
    if fcfs is not None and best is not None:
        tiles.append(
            ("Against FCFS", f"{fcfs.weighted_work_ratio - 1:+.1%}", "weighted work, same budgets", "--headroom")
        )
        title = POLICY_KINDS[best.policy].title
        tiles.append(
            ("Against the best other", f"{best.weighted_work_ratio - 1:+.1%}", f"weighted work; {title}", "--headroom")
        )
    return [Tile(*tile) for tile in tiles]


def _ratio(a: float, b: float) -> float:
    return a / b if b else 0.0


def _with_clock_times(text: str, plan: Plan) -> str:
    """Return a sentence in which times on the plan's day are written as hours and minutes."""
    day = time.strftime("%Y-%m-%d", time.gmtime(plan.snapshot.start_s))
    return re.sub(rf"{day}T(\d\d:\d\d)Z", r"\1", text)


def _waiting(plan: Plan) -> Table:
    jobs = {job.job_id: job for job in plan.snapshot.jobs}
    rows: list[tuple[str | tuple[str, ...], ...]] = []
    for entry in sorted(plan.waiting, key=lambda w: (-jobs[w.job_id].weight, w.job_id)):
        job = jobs[entry.job_id]
        why = tuple(_with_clock_times(text, plan) for text in (entry.reason, *entry.what_if))
        rows.append((entry.job_id, job.gpu_share or str(job.gpus), f"{job.weight:g}", "open", why))
    later = [a for a in plan.assignments if not a.running and a.start_s > plan.snapshot.start_s]
    for a in sorted(later, key=lambda a: (a.start_s, a.job_id)):
        reason = _with_clock_times(a.reason or f"planned in {a.hall}, mode {a.mode}", plan)
        rows.append(
            (a.job_id, jobs[a.job_id].gpu_share or str(a.gpus), f"{jobs[a.job_id].weight:g}", _clock(a.start_s), reason)
        )
    left_out = len(rows) - _MOST_ROWS
    note = f"{left_out} more are in plan.json." if left_out > 0 else "" if rows else "No job waits in this plan."
    return Table(("job", "GPUs", "weight", "starts", "why"), tuple(rows[:_MOST_ROWS]), frozenset({1, 2}), note)


def _headrooms(result: DemoResult) -> list[HeadroomRow]:
    outcome = result.run.outcome
    lowest = sorted(outcome.worst_headroom.items(), key=lambda item: item[1])[:_MOST_HEADROOMS]
    return [
        HeadroomRow(zone, f"{share:.1%}", _bar_px(share), share < _LOW_HEADROOM, _clock(outcome.worst_at_s[zone]))
        for zone, share in lowest
    ]


def _bar_px(share: float) -> int:
    return round(max(2.0, min(110.0, 220 * share)))


def _policies(s: Summary) -> Table:
    """Return the table of policies; the first row is the demo's own."""
    totals = [
        (POWERHALL.title, s.weighted_work, s.work_gpu_s, s.energy_j, s.jobs_done, s.stops),
        *(
            (POLICY_KINDS[b.policy].title, b.weighted_work, b.work_gpu_s, b.energy_j, b.jobs_done, b.stops)
            for b in s.baselines
        ),
    ]
    rows = tuple(
        (title, f"{weighted / 3600:,.0f}", f"{work / 3600:,.0f}", f"{energy_j / 3.6e9:.2f}", f"{done}", f"{stops}")
        for title, weighted, work, energy_j, done, stops in totals
    )
    header = ("policy", "weighted GPU h", "GPU h", "MWh", "done", "stops")
    return Table(header, rows, frozenset({1, 2, 3, 4, 5}))


class _Charts:
    """Makes the sections of charts and keeps their figures by id."""

    def __init__(self, result: DemoResult, telemetry: Telemetry) -> None:
        self.result, self.t = result, telemetry
        self.figures: dict[str, charts.Chart] = {}
        self.span = result.start_s, result.end_s
        cut = result.curtailment
        self.event = (cut.start_s, min(cut.end_s, result.end_s)) if cut.start_s < result.end_s else None
        self.site = result.run.site
        node_type = next(iter(self.site.node_types.values()))
        self.modes = [mode.name for mode in node_type.modes]
        self.mode_legend = (
            *(
                LegendEntry(f"{m.name}: {m.gpu_power_limit_w:.0f} W a GPU" if m.gpu_power_limit_w else m.name, c, "box")
                for m, c in zip(node_type.modes, charts.MODES, strict=False)
            ),
            _CURTAILMENT,
        )

    def sections(self) -> list[ChartSection]:
        """Return all sections in order."""
        plan = self.result.reported_plan
        return [
            self._site(),
            self._halls(),
            self._cooling(),
            self._history(),
            *([] if plan is None else [self._plan(plan)]),
        ]

    def _panel(self, id: str, chart: charts.Chart, title: str = "", legend: tuple[LegendEntry, ...] = ()) -> Panel:  # noqa: A002
        self.figures[id] = chart
        return Panel(id, title, legend)

    def _planned(self, zone: str, *, heat: bool = False) -> list[tuple[float, float]]:
        """Return the planned power, or heat, of a zone by time."""

        def of(slot: PlannedSlot) -> int | None:
            return (slot.heat_w if heat else slot.zone_w).get(zone)

        known = ((slot.time_s, of(slot)) for slot in self.result.planned if slot.time_s < self.result.end_s)
        return [(time_s, float(value)) for time_s, value in known if value is not None]

    def _budget(self) -> list[tuple[float, float]]:
        """Return the steps of the site's budget within the run."""
        series, (low, high) = self.site.budgets[self.site.name], self.span
        times = [low, *(t for t in series.times_s if low < t < high), high]
        return [(t, series.at(t)) for t in times]

    def _site(self) -> ChartSection:
        planned = self._planned(self.site.name)
        chart = charts.site_chart(self.t, planned, self._budget(), self.span, self.event)
        legend = (
            *_MEASURED_AND_PLANNED,
            LegendEntry("IT alone", "--agents"),
            LegendEntry("budget", "--budget"),
            _CURTAILMENT,
        )
        note = "IT, losses and cooling at the grid connection. Measured values are read back from the store."
        return ChartSection("Site power against its budget", legend, (self._panel("site", chart),), note)

    def _halls(self) -> ChartSection:
        panels = []
        for hall in self.site.halls:
            chart = charts.hall_chart(self.t, hall.zone, self._planned(hall.zone), self.span, self.event)
            panels.append(self._panel(f"power-{hall.zone}", chart, hall.zone))
        agents, limit = LegendEntry("GPUs alone, by the agents", "--agents"), LegendEntry("limit", "--budget")
        legend = (*_MEASURED_AND_PLANNED, agents, limit)
        return ChartSection("IT power of the halls", legend, tuple(panels), grid="three")

    def _cooling(self) -> ChartSection:
        panels = []
        for hall in self.site.halls:
            for medium in media(hall):
                planned = self._planned(hall.zone, heat=True) if medium == "all" else []
                chart = charts.cooling_chart(self.t, hall.zone, medium, planned, self.span, self.event)
                plants = sorted({kind_of(plant).title for plant in hall.plants if plant.serves == medium})
                part = "" if medium == "all" else f", takes the {medium} part"
                title = f"{hall.zone} · {' + '.join(plants)}{part}"
                panels.append(self._panel(f"heat-{hall.zone}-{medium}", chart, title))
        legend = (
            LegendEntry("heat", "--cooling"),
            LegendEntry("planned", "--planned", "dash"),
            LegendEntry("capacity in this weather", "--capacity"),
        )
        note = "The capacity of the plants falls as the day gets hot; the plan keeps the heat below it."
        return ChartSection(
            "Cooling load against capacity", legend, tuple(panels), note, grid="pair", below=self._weather()
        )

    def _weather(self) -> Panel:
        times = [self.span[0] + i * 600 for i in range(int((self.span[1] - self.span[0]) // 600) + 1)]
        chart = charts.weather_chart(times, [self.result.run.scenario.weather(t) for t in times], self.span)
        legend = LegendEntry("dry bulb", "--dry"), LegendEntry("wet bulb", "--wet")
        return self._panel("weather", chart, "outdoor air", legend)

    def _history(self) -> ChartSection:
        blocks = history_blocks(self.site, self.result.run.history)
        chart = charts.gantt_chart(self.site, blocks, self.modes, self.span, self.event)
        note = "Every block is a job on its GPUs; the colour is their power limit."
        return ChartSection("What ran", self.mode_legend, (self._panel("history", chart),), note)

    def _plan(self, plan: Plan) -> ChartSection:
        start_s = plan.snapshot.start_s
        until_s = start_s + plan.snapshot.slots * plan.snapshot.slot_s
        blocks = charts.plan_blocks_of(plan, plan_blocks(plan))
        span = (start_s, min(until_s, max(self.span[1], start_s + 6 * 3600)))
        chart = charts.gantt_chart(self.site, blocks, self.modes, span, self.event)
        running = sum(a.running for a in plan.assignments)
        note = (
            f"The plan of {_clock(start_s)}, when the curtailment was announced: {running} jobs continue, "
            f"{len(plan.assignments) - running} start later, {len(plan.waiting)} have no start yet. "
            f"Proven gap {plan.gap:.1%}; verified without the solver."
        )
        return ChartSection("The plan", self.mode_legend, (self._panel("plan", chart),), note)


def _verdict(s: Summary) -> str:
    if s.ok:
        return "every budget held at every sample; every plan was verified before it was used"
    return f"{s.breaches} samples over a budget, {s.rounds - s.rounds_verified + s.rounds_refused} bad rounds"


def report_html(result: DemoResult, summary: Summary, telemetry: Telemetry) -> str:
    """Return the whole page."""
    s, site, plan = summary, result.run.site, result.reported_plan
    made = _Charts(result, telemetry)
    sections = made.sections()
    waiting = None
    if plan is not None:
        waiting = TableSection(f"Waiting jobs at {_clock(plan.snapshot.start_s)}", _waiting(plan), style="jobs")
    return render_page(
        "powerhall_twin.report",
        "demo_report.html",
        title=f"Powerhall: site {site.name}",
        figures=made.figures,
        heading=f"A day at site {site.name}",
        lead=(
            f"{s.halls} halls, {s.racks} racks, {s.nodes} nodes and {s.gpus} simulated GPUs on a hot day, with "
            f"more work than power. {s.simulated_s / 3600:g} h ran in {s.wall_s:.0f} s; agents stored "
            f"{s.agent_points:,} points."
        ),
        ok=s.ok,
        verdict=_verdict(s),
        tiles=_tiles(s),
        charts=sections,
        waiting=waiting,
        policies=TableSection(
            "Compared with other policies", _policies(s), "Same jobs, budgets and weather.", style="ours"
        ),
        headrooms={
            "title": "Least headroom",
            "note": "The tightest zones and plants of the day.",
            "style": "",
            "rows": _headrooms(result),
        },
        footer=(
            f"Powerhall twin, seed {s.seed}. Times are the site's; power draw comes from the physics of the simulated "
            "GPUs under their limits, not from the plan."
        ),
    )


def write_report(result: DemoResult, summary: Summary, telemetry: Telemetry, path: Path) -> None:
    """Write the page in one step."""
    require_libraries("report")
    replace_file(path, report_html(result, summary, telemetry).encode())
