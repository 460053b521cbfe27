"""A plan as one self-contained HTML page: power against budget, cooling against capacity, Gantt, waiting jobs.

`report_html(plan)` is a plain function; the page loads nothing from a network.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from powerhall.forecasts.page_times import local_words, moment_in
from powerhall.plan.multi_site import MultiSitePlan
from powerhall.plan.plan import Plan, Waiting
from powerhall.report.html_page import plain_figure, render_page, require_libraries
from powerhall.report.page_parts import Table, Tile
from powerhall.runtime.files import replace_file
from powerhall.site.index import SiteIndex
from powerhall.units import format_energy, format_power
from powerhall_optimizer.planning.figures import figures, multi_site_figures
from powerhall_optimizer.report import charts
from powerhall_optimizer.report.storage_chart import charts_of_stores

__all__ = ["multi_site_html", "report_html", "write_report"]

_MOST_ROWS = 500


@dataclass(frozen=True, slots=True)
class Folded:
    """A table, and a longer one that opens under a label."""

    shown: Table
    label: str = ""
    details: Table | None = None


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the page under a heading: a Plotly figure, or a table with or without details."""

    heading: str
    content: object


def _tiles(plan: Plan) -> list[Tile]:
    come = figures(plan)
    site = next((zone for zone in plan.zones if zone.zone == plan.snapshot.site.name), None)
    tiles = [
        ("proven gap", f"{plan.gap:.2%}"),
        ("jobs that go on", f"{come.jobs_running}"),
        ("jobs that start", f"{come.jobs_started}"),
        ("jobs that wait", f"{come.jobs_waiting}"),
        ("GPU hours of work", f"{come.work_gpu_s / 3600:,.0f}"),
        ("energy at the meter", format_energy(come.energy_j)),
    ]
    if come.water_l:
        tiles.append(("water", f"{come.water_l / 1e3:,.1f} m³"))
        tiles.append(("water per kWh of IT (WUE)", f"{come.water_l / max(1.0, come.it_energy_j / 3.6e6):.2f} l"))
    if plan.snapshot.price_per_mwh:
        tiles.append(("cost of energy", f"{come.cost:,.0f} USD"))
    if site is not None:
        tiles.append(("highest site power", format_power(max(site.planned_w))))
        if site.budget_w:
            use = max(w / b for w, b in zip(site.planned_w, site.budget_w, strict=True) if b > 0)
            tiles.append(("highest use of the budget", f"{use:.1%}"))
    return [Tile(label, value) for label, value in tiles]


def _waiting(plan: Plan) -> Folded:
    """Return what holds jobs back, the reason with the most GPUs first; every job of them on demand."""
    if not plan.waiting:
        return Folded(Table((), (), note="No job waits."))
    jobs = {job.job_id: job for job in plan.snapshot.jobs}
    by_code: dict[str, list[Waiting]] = {}
    for entry in plan.waiting:
        by_code.setdefault(str(entry.code), []).append(entry)
    rows = []
    for code, found in sorted(by_code.items(), key=lambda item: -sum(jobs[w.job_id].gpus for w in item[1])):
        gpus = sum(jobs[w.job_id].gpus for w in found)
        first = max(found, key=lambda w: (jobs[w.job_id].weight, jobs[w.job_id].gpus, w.job_id))
        help_ = first.what_if[0] if first.what_if else "nothing that was tried"
        rows.append((code, f"{len(found)}", f"{gpus:,}", first.job_id, _local(plan, first.reason), _local(plan, help_)))
    header = ("what holds them back", "jobs", "GPUs", "heaviest job", "why it waits", "what would start it")
    summary = Table(header, tuple(rows), frozenset({1, 2}), stacked=True)
    return Folded(summary, f"All {len(plan.waiting)} waiting jobs", _every_waiting(plan))


def _local(plan: Plan, words: str) -> str:
    """Write the times within a sentence as the clocks of the site show them."""
    return local_words(words, plan.snapshot.start_s, charts.plan_zone(plan.snapshot))


def _every_waiting(plan: Plan) -> Table:
    jobs = {job.job_id: job for job in plan.snapshot.jobs}
    order = sorted(plan.waiting, key=lambda w: (-jobs[w.job_id].weight, -jobs[w.job_id].gpus, w.job_id))
    rows = [
        (
            w.job_id,
            jobs[w.job_id].gpu_share or f"{jobs[w.job_id].gpus}",
            f"{jobs[w.job_id].weight:g}",
            w.code,
            _local(plan, "; ".join((w.reason, *w.what_if))),
        )
        for w in order[:_MOST_ROWS]
    ]
    left_out = len(order) - len(rows)
    note = f"{left_out} more are in plan.json." if left_out else ""
    header = ("job", "GPUs", "weight", "code", "why, and what would change it")
    return Table(header, tuple(rows), frozenset({1, 2}), note, stacked=True)


def _plants(plan: Plan) -> Table:
    """Return the plants with the units that run in turn, and their energy and water over the horizon."""
    s = plan.snapshot
    units = {(hall.zone, plant.name): plant.units for hall in s.site.halls for plant in hall.plants}
    rows = [
        (
            entry.hall,
            entry.plant,
            _stages(plan, entry.units, units.get((entry.hall, entry.plant), 1)),
            format_power(max(entry.power_w, default=0)),
            format_energy(float(sum(entry.power_w) * s.slot_s)),
            f"{sum(entry.water_l) / 1e3:,.1f}",
        )
        for entry in plan.plants[:_MOST_ROWS]
    ]
    header = ("hall", "plant", "units to run, from when", "highest power", "energy", "water, m³")
    return Table(header, tuple(rows), frozenset({3, 4, 5}), "")


def _stages(plan: Plan, units: tuple[int, ...], most: int) -> str:
    """Return when how many units run: `2 of 4, 14:00 3, 19:30 2`; the first eight changes."""
    if most == 1:
        return "1"
    s = plan.snapshot
    changes = [slot for slot in range(1, len(units)) if units[slot] != units[slot - 1]]
    times = [datetime.fromtimestamp(s.start_s + slot * s.slot_s, charts.plan_zone(s)) for slot in changes]
    shown = [f"{at:%H:%M} {units[slot]}" for at, slot in zip(times[:8], changes, strict=False)]
    more = [f"{len(changes) - 8} more changes"] if len(changes) > 8 else []
    return ", ".join([f"{units[0]} of {most}", *shown, *more])


def _page(title: str, subtitle: str, tiles: Sequence[Tile], sections: Sequence[Section]) -> str:
    shown = [
        (section.heading, f"chart{number}", _as_folded(section.content)) for number, section in enumerate(sections)
    ]
    drawn = {
        f"chart{number}": plain_figure(section.content)
        for number, section in enumerate(sections)
        if not isinstance(section.content, Table | Folded)
    }
    return render_page(
        "powerhall_optimizer.report",
        "plan_report.html",
        title=title,
        subtitle=subtitle,
        tiles=tiles,
        sections=shown,
        figures=drawn,
    )


def _as_folded(content: object) -> Folded | None:
    """Return a table with its details; None for a chart."""
    return Folded(content) if isinstance(content, Table) else content if isinstance(content, Folded) else None


def _sections(plan: Plan, prefix: str = "") -> list[Section]:
    """Return the sections of a plan's page."""
    found: list[tuple[str, object]] = [
        ("Site power at the meter against its budget", charts.site_power(plan)),
        ("IT power of the halls against their limits", charts.hall_power(plan)),
    ]
    if any(zone.heat_w for zone in plan.zones):
        found.append(("Cooling load of the halls against capacity", charts.cooling(plan)))
    if plan.plants:
        found.append(("Cooling plants: units to run, power and water", _plants(plan)))
    if plan.storages:
        found.append(("Batteries, tanks and loops: power and content", charts_of_stores(plan)))
    found.append(("The plan: every block is a job on its GPUs", charts.gantt(plan)))
    found.append((f"Waiting jobs ({len(plan.waiting)})", _waiting(plan)))
    return [Section(prefix + heading, content) for heading, content in found]


def report_html(plan: Plan) -> str:
    """Return the plan's page."""
    s = plan.snapshot
    start = moment_in(charts.plan_zone(s), s.start_s, "%Y-%m-%d %H:%M")
    subtitle = (
        f"{plan.status} plan {plan.plan_id[:12]} from {start} over {s.slots * s.slot_s / 3600:g} h; "
        f"{len(SiteIndex.of(s.site).rack_of)} nodes, {len(s.jobs)} jobs. {' '.join(plan.notes)}"
    )
    return _page(f"Powerhall plan of {s.site.name}", subtitle, _tiles(plan), _sections(plan))


def multi_site_html(plan: MultiSitePlan) -> str:
    """Return the page of several sites' plans: all together first, then site by site."""
    come = multi_site_figures(plan)
    s = plan.plans[0].snapshot
    names = ", ".join(part.snapshot.site.name for part in plan.plans)
    tiles = [
        ("sites", f"{len(plan.plans)}"),
        ("proven gap of all sites", f"{plan.gap:.2%}"),
        ("jobs that go on", f"{come.jobs_running}"),
        ("jobs that start", f"{come.jobs_started}"),
        ("jobs that wait", f"{come.jobs_waiting}"),
        ("GPU hours of work", f"{come.work_gpu_s / 3600:,.0f}"),
        ("energy at the meters", format_energy(come.energy_j)),
        ("cost of energy", f"{come.cost:,.0f} USD"),
    ]
    header = ("site", "jobs", "start", "wait", "GPU hours", "energy", "cost, USD", "highest power")
    sites = Table(header, tuple(_site_row(part) for part in plan.plans), frozenset({1, 2, 3, 4, 6}))
    parts = [Section("The sites", sites)]
    for part in plan.plans:
        parts += _sections(part, f"{part.snapshot.site.name}: ")
    start = moment_in(charts.plan_zone(s), s.start_s, "%Y-%m-%d %H:%M")
    subtitle = (
        f"{plan.status} plan {plan.plan_id[:12]} from {start} over {s.slots * s.slot_s / 3600:g} h; "
        f"{len(plan.jobs)} jobs. {' '.join(plan.notes)}"
    )
    return _page(f"Powerhall plan of {names}", subtitle, [Tile(label, value) for label, value in tiles], parts)


def _site_row(plan: Plan) -> tuple[str, ...]:
    come = figures(plan)
    site = next(zone for zone in plan.zones if zone.zone == plan.snapshot.site.name)
    counts = f"{len(plan.snapshot.jobs)}", f"{come.jobs_started}", f"{come.jobs_waiting}"
    sums = f"{come.work_gpu_s / 3600:,.0f}", format_energy(come.energy_j), f"{come.cost:,.0f}"
    return plan.snapshot.site.name, *counts, *sums, format_power(max(site.planned_w))


def write_report(plan: Plan | MultiSitePlan, path: Path) -> None:
    """Write the plan's page in one step."""
    require_libraries("--report")
    text = multi_site_html(plan) if isinstance(plan, MultiSitePlan) else report_html(plan)
    replace_file(path, text.encode())
