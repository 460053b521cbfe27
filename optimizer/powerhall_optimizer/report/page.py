"""A plan as one self-contained HTML page: power against budget, cooling against capacity, Gantt, waiting jobs.

`report_html(plan)` is a plain function; Plotly is inlined, the page loads nothing from the network.
"""

import html
import importlib.util
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from powerhall.plan.multi_site import MultiSitePlan
from powerhall.plan.plan import Plan
from powerhall.runtime.errors import PowerhallError
from powerhall.runtime.files import replace_file
from powerhall.site.index import SiteIndex
from powerhall.units import format_energy, format_power
from powerhall_optimizer.planning.figures import figures, multi_site_figures
from powerhall_optimizer.report import charts
from powerhall_optimizer.report.storage_chart import charts_of_stores

__all__ = ["multi_site_html", "page", "report_html", "write_report"]

_MOST_ROWS = 500
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1c2430; background: #f5f6f8; margin: 0; }
main { max-width: 1180px; margin: 0 auto; padding: 24px; }
h1 { font-size: 24px; margin: 0 0 4px; } h2 { font-size: 17px; margin: 28px 0 8px; }
.sub { color: #5a6472; margin: 0 0 16px; overflow-wrap: anywhere; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 12px; }
.tile, .card { background: #fff; border: 1px solid #e1e4e9; border-radius: 8px; padding: 12px 14px; }
.tile b { display: block; font-size: 20px; } .tile span { color: #5a6472; font-size: 13px; }
.card { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 14px; }
th, td { text-align: left; padding: 6px 10px; border-bottom: 1px solid #e9ebef; vertical-align: top; }
th { color: #5a6472; font-weight: 600; } td.n { text-align: right; font-variant-numeric: tabular-nums; }
"""


def _tiles(plan: Plan) -> list[tuple[str, str]]:
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
    return tiles


def _cells(values: Sequence[str], tag: str = "td") -> str:
    numbers = (' class="n"' if tag == "td" and value.replace(",", "").isdigit() else "" for value in values)
    return "".join(f"<{tag}{c}>{html.escape(v)}</{tag}>" for v, c in zip(values, numbers, strict=True))


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return an HTML table; all texts are escaped."""
    body = "".join(f"<tr>{_cells(row)}</tr>" for row in rows)
    return f"<table><thead><tr>{_cells(header, 'th')}</tr></thead><tbody>{body}</tbody></table>"


def _waiting(plan: Plan) -> str:
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
    if not rows:
        return "<p>No job waits.</p>"
    more = f"<p>{len(order) - _MOST_ROWS} more are in plan.json.</p>" if len(order) > _MOST_ROWS else ""
    return table(("job", "GPUs", "weight", "code", "why, and what would change it"), rows) + more


def page(title: str, subtitle: str, tiles: Sequence[tuple[str, str]], sections: Sequence[tuple[str, object]]) -> str:
    """Return a whole page; a section's content is a Plotly figure or ready HTML text."""
    from plotly.offline import get_plotlyjs

    parts: list[str] = []
    scripts: list[str] = []
    for number, (heading, content) in enumerate(sections):
        parts.append(f"<h2>{html.escape(heading)}</h2>")
        if isinstance(content, str):
            parts.append(f'<div class="card">{content}</div>')
            continue
        name = f"chart{number}"
        parts.append(f'<div class="card"><div id="{name}"></div></div>')
        figure = content.to_json().replace("</", "<\\/")  # type: ignore[attr-defined]
        scripts.append(
            f"Plotly.newPlot({json.dumps(name)}, Object.assign({figure}, "
            "{config: {responsive: true, displaylogo: false}}));"
        )
    shown = "".join(f'<div class="tile"><b>{html.escape(v)}</b><span>{html.escape(k)}</span></div>' for k, v in tiles)
    return (
        f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">'
        f"<style>{_STYLE}</style><script>{get_plotlyjs()}</script></head><body><main><h1>{html.escape(title)}</h1>"
        f'<p class="sub">{html.escape(subtitle)}</p><div class="tiles">{shown}</div>{"".join(parts)}</main>'
        f"<script>{''.join(scripts)}</script></body></html>"
    )


def sections(plan: Plan) -> list[tuple[str, object]]:
    """Return the sections of a plan's page, each a heading with a Plotly figure or HTML; other pages may reuse them."""
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
    return found


def report_html(plan: Plan) -> str:
    """Return the plan's page."""
    need_plotly()
    s = plan.snapshot
    start = datetime.fromtimestamp(s.start_s, UTC)
    subtitle = (
        f"{plan.status} plan {plan.plan_id[:12]} from {start:%Y-%m-%d %H:%M} UTC over {s.slots * s.slot_s / 3600:g} h; "
        f"{len(SiteIndex.of(s.site).rack_of)} nodes, {len(s.jobs)} jobs. {' '.join(plan.notes)}"
    )
    return page(f"Powerhall plan of {s.site.name}", subtitle, _tiles(plan), sections(plan))


def need_plotly() -> None:
    """Refuse with the missing extra's name where plotly is not installed."""
    if importlib.util.find_spec("plotly") is None:
        raise PowerhallError("--report needs plotly: pip install 'powerhall[twin]'")


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
    table_of_sites = table(header, [_site_row(part) for part in plan.plans])
    parts: list[tuple[str, object]] = [("The sites", table_of_sites)]
    for part in plan.plans:
        parts += [(f"{part.snapshot.site.name}: {heading}", content) for heading, content in sections(part)]
    start = datetime.fromtimestamp(s.start_s, UTC)
    subtitle = (
        f"{plan.status} plan {plan.plan_id[:12]} from {start:%Y-%m-%d %H:%M} UTC over {s.slots * s.slot_s / 3600:g} h; "
        f"{len(plan.jobs)} jobs. {' '.join(plan.notes)}"
    )
    return page(f"Powerhall plan of {names}", subtitle, tiles, parts)


def _site_row(plan: Plan) -> tuple[str, ...]:
    come = figures(plan)
    site = next(zone for zone in plan.zones if zone.zone == plan.snapshot.site.name)
    counts = f"{len(plan.snapshot.jobs)}", f"{come.jobs_started}", f"{come.jobs_waiting}"
    sums = f"{come.work_gpu_s / 3600:,.0f}", format_energy(come.energy_j), f"{come.cost:,.0f}"
    return plan.snapshot.site.name, *counts, *sums, format_power(max(site.planned_w))


def write_report(plan: Plan | MultiSitePlan, path: Path) -> None:
    """Write the plan's page in one step."""
    need_plotly()
    text = multi_site_html(plan) if isinstance(plan, MultiSitePlan) else report_html(plan)
    replace_file(path, text.encode())
