"""The report of a sweep: one HTML page that needs no network, with a plot of each figure over the changes."""

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from powerhall.report.html_page import render_page
from powerhall.report.page_parts import LegendEntry, Table, Tile
from powerhall.runtime.files import replace_file
from powerhall_twin.replay.sweep import SweepRow
from powerhall_twin.report.page import ChartSection, Panel, TableSection
from powerhall_twin.report.replay_charts import COLOURS
from powerhall_twin.report.replay_tables import title_of

__all__ = ["sweep_html", "write_sweep"]

_FIGURES: tuple[tuple[str, str, float], ...] = (
    ("weighted_work", "weighted work, GPU h", 3600.0),
    ("work_per_mwh", "weighted work per MWh", 1.0),
    ("mean_wait_s", "mean wait, min", 60.0),
    ("wait_p95_s", "wait p95, min", 60.0),
    ("energy_j", "energy, MWh", 3.6e9),
    ("cost", "cost, USD", 1.0),
)


def write_sweep(rows: Sequence[SweepRow], site: str, path: Path) -> None:
    """Write the page, in one step."""
    replace_file(path, sweep_html(rows, site).encode())


def sweep_html(rows: Sequence[SweepRow], site: str) -> str:
    """Return the page."""
    changes, policies = _of(rows, "change"), _of(rows, "policy")
    seeds = len(_of(rows, "seed"))
    over_s = max(row.figures.over_budget_s for row in rows)
    legend = tuple(LegendEntry(title_of(name), COLOURS[i % len(COLOURS)]) for i, name in enumerate(policies))
    note = "Means over the seeds; bars from the lowest to the highest seed." if seeds > 1 else "One run a point."
    panels = tuple(Panel(name, title) for name, title, _ in _FIGURES)
    return render_page(
        "powerhall_twin.report",
        "demo_report.html",
        title=f"Powerhall: sweep at site {site}",
        figures={name: _chart(rows, name, scale) for name, _, scale in _FIGURES},
        heading=f"Sweep at site {site}",
        lead=f"{len(changes)} variants of the site, {len(policies)} policies, {seeds} drawn workloads.",
        ok=over_s == 0,
        verdict="every budget held in every run"
        if over_s == 0
        else f"a budget did not hold, for up to {over_s:,.0f} s",
        tiles=[
            Tile("Runs", f"{len(rows)}", f"{len(changes)} x {len(policies)} x {seeds}", "--power"),
            Tile("Over budget", f"{over_s:,.0f} s", "at most", "--budget"),
        ],
        charts=[ChartSection("Sensitivity", legend, panels, note, grid="pair")],
        tables=[TableSection("Means over the seeds", _table(rows, changes, policies), style="jobs")],
        waiting=None,
        policies=None,
        headrooms=None,
        footer="Powerhall twin. The same grid gives the same rows on any number of workers.",
    )


def _of(rows: Sequence[SweepRow], field: str) -> list[Any]:
    return list(dict.fromkeys(getattr(row, field) for row in rows))


def _name(change: str) -> str:
    return change or "as it is"


def _values(rows: Sequence[SweepRow], change: str, policy: str, figure: str) -> list[float]:
    return [getattr(row.figures, figure) for row in rows if (row.change, row.policy) == (change, policy)]


def _chart(rows: Sequence[SweepRow], figure: str, scale: float) -> dict[str, Any]:
    data = []
    for number, policy in enumerate(_of(rows, "policy")):
        found = {change: _values(rows, change, policy, figure) for change in _of(rows, "change")}
        means = [statistics.fmean(values) / scale for values in found.values()]
        more = [max(values) / scale - mean for values, mean in zip(found.values(), means, strict=True)]
        less = [mean - min(values) / scale for values, mean in zip(found.values(), means, strict=True)]
        colour = COLOURS[number % len(COLOURS)]
        bars = {
            "type": "data",
            "symmetric": False,
            "array": more,
            "arrayminus": less,
            "thickness": 1.2,
            "color": colour,
        }
        data.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": title_of(policy),
                "x": [_name(change) for change in found],
                "y": [round(mean, 4) for mean in means],
                "error_y": bars,
                "line": {"color": colour, "width": 1.8},
                "hovertemplate": "%{y:,.1f}",
            }
        )
    return {"data": data, "layout": {"height": 240, "xaxis": {"type": "category"}, "yaxis": {"nticks": 6}}}


def _table(rows: Sequence[SweepRow], changes: Sequence[str], policies: Sequence[str]) -> Table:
    header = ("policy", "variant", *(title for _, title, _ in _FIGURES), "deadlines missed", "over a budget s")
    lines = []
    for change in changes:
        for policy in policies:
            means = [statistics.fmean(_values(rows, change, policy, name)) / scale for name, _, scale in _FIGURES]
            missed = statistics.fmean(_values(rows, change, policy, "deadlines_missed"))
            over_s = max(_values(rows, change, policy, "over_budget_s"))
            cells = (*(f"{mean:,.1f}" for mean in means), f"{missed:,.1f}", f"{over_s:,.0f}")
            lines.append((title_of(policy), _name(change), *cells))
    return Table(header, tuple(lines), frozenset(range(2, len(header))))
