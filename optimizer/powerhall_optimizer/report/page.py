"""A plan as one self-contained HTML page: power against budget, cooling against capacity, Gantt, waiting jobs.

`report_html(plan)` is a plain function; the page loads nothing from a network.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from powerhall.plan.multi_site import MultiSitePlan
from powerhall.plan.plan import Plan
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
class Section:
    """A part of the page under a heading: a Plotly figure, or a table."""

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
    if plan.snapshot.price_per_mwh:
        tiles.append(("cost of energy", f"{come.cost:,.0f} USD"))
    if site is not None:
        tiles.append(("highest site power", format_power(max(site.planned_w))))
        if site.budget_w:
            use = max(w / b for w, b in zip(site.planned_w, site.budget_w, strict=True) if b > 0)
            tiles.append(("highest use of the budget", f"{use:.1%}"))
    return [Tile(label, value) for label, value in tiles]


def _waiting(plan: Plan) -> Table:
    jobs = {job.job_id: job for job in plan.snapshot.jobs}
    order = sorted(plan.waiting, key=lambda w: (-jobs[w.job_id].weight, -jobs[w.job_id].gpus, w.job_id))
    rows = [
        (
            w.job_id,
            f"{jobs[w.job_id].gpus}",
            f"{jobs[w.job_id].weight:g}",
            w.code,
            "; ".join((w.reason, *w.what_if)),
        )
        for w in order[:_MOST_ROWS]
    ]
    left_out = len(order) - len(rows)
    note = f"{left_out} more are in plan.json." if left_out else "" if rows else "No job waits."
    header = ("job", "GPUs", "weight", "code", "why, and what would change it")
    return Table(header, tuple(rows), frozenset({1, 2}), note)


def _page(title: str, subtitle: str, tiles: Sequence[Tile], sections: Sequence[Section]) -> str:
    shown = [
        (section.heading, f"chart{number}", section.content if isinstance(section.content, Table) else None)
        for number, section in enumerate(sections)
    ]
    drawn = {
        f"chart{number}": plain_figure(section.content)
        for number, section in enumerate(sections)
        if not isinstance(section.content, Table)
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


def _sections(plan: Plan, prefix: str = "") -> list[Section]:
    """Return the sections of a plan's page."""
    found: list[tuple[str, object]] = [
        ("Site power at the meter against its budget", charts.site_power(plan)),
        ("IT power of the halls against their limits", charts.hall_power(plan)),
    ]
    if any(zone.heat_w for zone in plan.zones):
        found.append(("Cooling load of the halls against capacity", charts.cooling(plan)))
    if plan.storages:
        found.append(("Batteries, tanks and loops: power and content", charts_of_stores(plan)))
    found.append(("The plan: every block is a job on its GPUs", charts.gantt(plan)))
    found.append((f"Waiting jobs ({len(plan.waiting)})", _waiting(plan)))
    return [Section(prefix + heading, content) for heading, content in found]


def report_html(plan: Plan) -> str:
    """Return the plan's page."""
    s = plan.snapshot
    start = datetime.fromtimestamp(s.start_s, UTC)
    subtitle = (
        f"{plan.status} plan {plan.plan_id[:12]} from {start:%Y-%m-%d %H:%M} UTC over {s.slots * s.slot_s / 3600:g} h; "
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
    start = datetime.fromtimestamp(s.start_s, UTC)
    subtitle = (
        f"{plan.status} plan {plan.plan_id[:12]} from {start:%Y-%m-%d %H:%M} UTC over {s.slots * s.slot_s / 3600:g} h; "
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
