"""The demo's report: one HTML page that needs no network, for light and dark screens, wide and narrow."""

import html
import json
import re
import time
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from powerhall.physics.cooling import media
from powerhall.physics.plants.kinds import kind_of
from powerhall.plan.plan import Plan
from powerhall.runtime.files import replace_file
from powerhall_twin.demo.demo_result import DemoResult, PlannedSlot
from powerhall_twin.policies.fcfs import FCFS
from powerhall_twin.policies.registry import POLICY_KINDS
from powerhall_twin.report import charts
from powerhall_twin.report.gantt import history_blocks, plan_blocks
from powerhall_twin.report.measured import Telemetry
from powerhall_twin.report.summary import Summary

__all__ = ["report_html", "write_report"]

_MOST_ROWS = 60
Tile = tuple[str, str, str, str]


def _clock(time_s: float) -> str:
    return time.strftime("%H:%M", time.gmtime(time_s))


def _kw(power_w: float) -> str:
    return f"{power_w / 1e3:,.0f} kW"


def _tiles(s: Summary) -> list[Tile]:
    """Return label, figure, small print and colour of the tiles."""
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
    return tiles


def _ratio(a: float, b: float) -> float:
    return a / b if b else 0.0


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], numbers: set[int]) -> str:
    """Return an HTML table; cells are HTML already."""

    def cells(values: Sequence[str], tag: str) -> str:
        return "".join(f"<{tag}{' class=n' if i in numbers else ''}>{v}</{tag}>" for i, v in enumerate(values))

    body = "".join(f"<tr>{cells(row, 'td')}</tr>" for row in rows)
    return f"<div class=scroll><table><thead><tr>{cells(header, 'th')}</tr></thead><tbody>{body}</tbody></table></div>"


def _name(job_id: str) -> str:
    return f"<span class=name>{html.escape(job_id)}</span>"


def _short(text: str, plan: Plan) -> str:
    """Return a sentence as HTML, its times on the plan's day as a clock shows them."""
    day = time.strftime("%Y-%m-%d", time.gmtime(plan.snapshot.start_s))
    return html.escape(re.sub(rf"{day}T(\d\d:\d\d)Z", r"\1", text))


def _waiting(plan: Plan) -> str:
    jobs = {job.job_id: job for job in plan.snapshot.jobs}
    rows = []
    for entry in sorted(plan.waiting, key=lambda w: (-jobs[w.job_id].weight, w.job_id)):
        job = jobs[entry.job_id]
        why = "<br>".join(_short(text, plan) for text in (entry.reason, *entry.what_if))
        rows.append((_name(entry.job_id), str(job.gpus), f"{job.weight:g}", "open", why))
    later = [a for a in plan.assignments if not a.running and a.start_s > plan.snapshot.start_s]
    for a in sorted(later, key=lambda a: (a.start_s, a.job_id)):
        why = a.reason or f"planned in {a.hall}, mode {a.mode}"
        rows.append((_name(a.job_id), str(a.gpus), f"{jobs[a.job_id].weight:g}", _clock(a.start_s), _short(why, plan)))
    if not rows:
        return "<p class=note>No job waits in this plan.</p>"
    more = f"<p class=note>{len(rows) - _MOST_ROWS} more are in plan.json.</p>" if len(rows) > _MOST_ROWS else ""
    return _table(("job", "GPUs", "weight", "starts", "why"), rows[:_MOST_ROWS], {1, 2}) + more


def _headrooms(result: DemoResult) -> str:
    guard = result.run.guard
    lowest = sorted(guard.worst_headroom.items(), key=lambda item: item[1])[:12]
    rows = [
        (
            html.escape(zone),
            f'<span class="bar{" low" if value < 0.02 else ""}" style="width:{_bar_px(value)}px"></span>{value:.1%}',
            _clock(guard.worst_at_s[zone]),
        )
        for zone, value in lowest
    ]
    return _table(("zone", "least headroom", "at"), rows, {2})


def _bar_px(share: float) -> int:
    return round(max(2.0, min(110.0, 220 * share)))


def _compare(s: Summary) -> str:
    ours = ("<b>Powerhall</b>", f"{s.weighted_work / 3600:,.0f}", f"{s.work_gpu_s / 3600:,.0f}")
    rows: list[tuple[str, ...]] = [(*ours, f"{s.energy_j / 3.6e9:.2f}", f"{s.jobs_done}", f"{s.stops}")]
    rows += [
        (
            POLICY_KINDS[b.policy].title,
            f"{b.weighted_work / 3600:,.0f}",
            f"{b.work_gpu_s / 3600:,.0f}",
            f"{b.energy_j / 3.6e9:.2f}",
            f"{b.jobs_done}",
            f"{b.stops}",
        )
        for b in s.baselines
    ]
    return _table(("policy", "weighted GPU h", "GPU h", "MWh", "done", "stops"), rows, {1, 2, 3, 4, 5})


def _key(*entries: tuple[str, str, str]) -> str:
    return (
        "<div class=key>"
        + "".join(
            f'<span><i class="{kind}" style="--c:var({colour})"></i>{text}</span>' for text, colour, kind in entries
        )
        + "</div>"
    )


def _section(title: str, note: str, *inside: str) -> str:
    note_html = f"<p class=note>{note}</p>" if note else ""
    return f"<section><h2>{title}</h2>{note_html}{''.join(inside)}</section>"


_POWER_KEY = (("measured", "--power", ""), ("planned", "--planned", "dash"))


class _Page:
    """Collects charts and HTML."""

    def __init__(self, result: DemoResult, summary: Summary, telemetry: Telemetry) -> None:
        self.result, self.summary, self.t = result, summary, telemetry
        self.charts: dict[str, charts.Chart] = {}
        self.span = result.start_s, result.end_s
        cut = result.curtailment
        self.event = (cut.start_s, min(cut.end_s, result.end_s)) if cut.start_s < result.end_s else None
        self.site = result.run.site
        kind = next(iter(self.site.node_types.values()))
        self.modes = [mode.name for mode in kind.modes]

    def chart(self, name: str, chart: charts.Chart) -> str:
        """Keep a chart and return its place."""
        self.charts[name] = chart
        return f'<div id="{name}"></div>'

    def planned(self, zone: str, *, heat: bool = False) -> list[tuple[float, float]]:
        """Return what the plans in force foresaw for a zone."""

        def of(slot: PlannedSlot) -> int | None:
            return (slot.heat_w if heat else slot.zone_w).get(zone)

        known = ((slot.time_s, of(slot)) for slot in self.result.planned if slot.time_s < self.result.end_s)
        return [(time_s, float(value)) for time_s, value in known if value is not None]

    def budget(self) -> list[tuple[float, float]]:
        """Return the steps of the site's budget within the run."""
        series, (low, high) = self.site.budgets[self.site.name], self.span
        times = [low, *(t for t in series.times_s if low < t < high), high]
        return [(t, series.at(t)) for t in times]

    def site_section(self) -> str:
        chart = charts.site_chart(self.t, self.planned(self.site.name), self.budget(), self.span, self.event)
        note = "IT, losses and cooling at the grid connection. Measured values are read back from the store."
        key = _key(
            *_POWER_KEY, ("IT alone", "--agents", ""), ("budget", "--budget", ""), ("curtailment", "--event", "box")
        )
        return _section("Site power against its budget", note, key, self.chart("site", chart))

    def hall_section(self) -> str:
        parts = [
            f"<div><h3>{hall.zone}</h3>"
            + self.chart(
                f"power-{hall.zone}",
                charts.hall_chart(self.t, hall.zone, self.planned(hall.zone), self.span, self.event),
            )
            + "</div>"
            for hall in self.site.halls
        ]
        key = _key(*_POWER_KEY, ("GPUs alone, by the agents", "--agents", ""), ("limit", "--budget", ""))
        return _section("IT power of the halls", "", key, f"<div class=three>{''.join(parts)}</div>")

    def cooling_section(self) -> str:
        parts = []
        for hall in self.site.halls:
            for medium in media(hall):
                planned = self.planned(hall.zone, heat=True) if medium == "all" else []
                chart = charts.cooling_chart(self.t, hall.zone, medium, planned, self.span, self.event)
                plants = sorted({kind_of(plant).title for plant in hall.plants if plant.serves == medium})
                place = self.chart(f"heat-{hall.zone}-{medium}", chart)
                what = " + ".join(plants) + ("" if medium == "all" else f", takes the {medium} part")
                parts.append(f"<div><h3>{hall.zone} &middot; {what}</h3>{place}</div>")
        times = [self.span[0] + i * 600 for i in range(int((self.span[1] - self.span[0]) // 600) + 1)]
        air = charts.weather_chart(times, [self.result.run.scenario.weather(t) for t in times], self.span)
        key = _key(
            ("heat", "--cooling", ""),
            ("planned", "--planned", "dash"),
            ("capacity in this weather", "--capacity", ""),
        )
        outside = f"<h3>outdoor air</h3>{_key(('dry bulb', '--dry', ''), ('wet bulb', '--wet', ''))}"
        note = "What the plants can take up falls as the day gets hot; the plan keeps the heat below it."
        grid = f"<div class=pair>{''.join(parts)}</div>"
        return _section("Cooling load against capacity", note, key, grid, outside, self.chart("weather", air))

    def mode_key(self) -> str:
        kind = next(iter(self.site.node_types.values()))
        return _key(
            *(
                (f"{m.name}: {m.gpu_power_limit_w:.0f} W a GPU" if m.gpu_power_limit_w else m.name, c, "box")
                for m, c in zip(kind.modes, charts.MODES, strict=False)
            ),
            ("curtailment", "--event", "box"),
        )

    def history_section(self) -> str:
        blocks = history_blocks(self.site, self.result.run.history)
        chart = charts.gantt_chart(self.site, blocks, self.modes, self.span, self.event)
        note = "Every block is a job on the GPUs that it held; its colour is the power limit that they had."
        return _section("What ran", note, self.mode_key(), self.chart("history", chart))

    def plan_section(self) -> str:
        plan = self.result.reported_plan
        if plan is None:
            return ""
        start_s = plan.snapshot.start_s
        until_s = start_s + plan.snapshot.slots * plan.snapshot.slot_s
        blocks = charts.plan_blocks_of(plan, plan_blocks(plan))
        span = (start_s, min(until_s, max(self.span[1], start_s + 6 * 3600)))
        chart = charts.gantt_chart(self.site, blocks, self.modes, span, self.event)
        running = sum(a.running for a in plan.assignments)
        note = (
            f"What the optimizer decided at {_clock(start_s)}, when the curtailment was announced: "
            f"{running} jobs go on, {len(plan.assignments) - running} start later, {len(plan.waiting)} have no start "
            f"yet. Proven gap {plan.gap:.1%}; verified without the solver."
        )
        gantt = _section("The plan", note, self.mode_key(), self.chart("plan", chart))
        return gantt + _section(f"Waiting jobs at {_clock(start_s)}", "", _waiting(plan))

    def body(self) -> str:
        s = self.summary
        good = "every budget held at every sample; every plan was verified before it was used"
        bad = f"{s.breaches} samples over a budget, {s.rounds - s.rounds_verified + s.rounds_refused} bad rounds"
        tiles = "".join(
            f'<div class=tile style="--c:var({colour})"><span>{html.escape(label)}</span><b>{html.escape(figure)}</b>'
            f"<small>{html.escape(small)}</small></div>"
            for label, figure, small, colour in _tiles(s)
        )
        lead = (
            f"{s.halls} halls, {s.racks} racks, {s.nodes} nodes and {s.gpus} simulated GPUs on a hot day, with "
            f"more work than power. {s.simulated_s / 3600:g} h ran in {s.wall_s:.0f} s; agents stored "
            f"{s.agent_points:,} points."
        )
        return "".join(
            (
                f"<h1>A day at site {html.escape(self.site.name)}</h1><p class=lead>{lead}</p>",
                f'<div class="verdict {"good" if s.ok else "bad"}">{"&#10003;" if s.ok else "&#10007;"} '
                f"{html.escape(good if s.ok else bad)}</div>",
                f"<div class=tiles>{tiles}</div>",
                self.site_section(),
                self.hall_section(),
                self.cooling_section(),
                self.history_section(),
                self.plan_section(),
                "<div class=two>",
                _section("Compared with other policies", "Same jobs, budgets and weather.", _compare(s)),
                _section("Least headroom", "The tightest zones and plants of the day.", _headrooms(self.result)),
                "</div>",
                f"<footer>Powerhall twin, seed {s.seed}. Times are the site's; power draw comes from the physics of "
                "the simulated GPUs under their limits, not from the plan.</footer>",
            )
        )


def report_html(result: DemoResult, summary: Summary, telemetry: Telemetry) -> str:
    """Return the whole page."""
    from plotly.offline import get_plotlyjs

    page = _Page(result, summary, telemetry)
    body = page.body()
    template = resources.files("powerhall_twin.report").joinpath("page.html").read_text(encoding="utf-8")
    data = json.dumps(page.charts, separators=(",", ":")).replace("</", "<\\/")
    for mark, text in (("TITLE", f"Powerhall: site {page.site.name}"), ("BODY", body), ("CHARTS", data)):
        template = template.replace(f"@@{mark}@@", text)
    return template.replace("@@PLOTLY@@", get_plotlyjs())


def write_report(result: DemoResult, summary: Summary, telemetry: Telemetry, path: Path) -> None:
    """Write the page in one step."""
    replace_file(path, report_html(result, summary, telemetry).encode())
