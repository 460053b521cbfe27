"""The page of a hindsight: one side that says what was lost and why, as HTML and, with Chromium, as PDF."""

from pathlib import Path
from typing import Any

import msgspec

from powerhall.report.html_page import chart_text, render_page
from powerhall.report.page_parts import LegendEntry, Table, Tile
from powerhall.runtime.files import replace_file
from powerhall_twin.hindsight.hindsight import Hindsight
from powerhall_twin.report.hindsight_text import (
    ROWS_HEADER,
    calibration_text,
    figure_rows,
    headline,
    window_text,
)
from powerhall_twin.report.page import ChartSection, Panel
from powerhall_twin.report.pdf import write_pdf

__all__ = ["hindsight_html", "write_hindsight"]


def write_hindsight(found: Hindsight, out: Path) -> list[str]:
    """Write result.json, report.html and, where Chromium is, report.pdf; return a line on each page."""
    replace_file(out / "result.json", msgspec.json.format(msgspec.json.encode(found), indent=1) + b"\n")
    page, pdf = out / "report.html", out / "report.pdf"
    replace_file(page, hindsight_html(found).encode())
    trouble = write_pdf(page, pdf)
    return [str(page), str(pdf) if trouble is None else f"no PDF: {trouble}; report.html prints on one side of A4"]


def hindsight_html(found: Hindsight) -> str:
    """Return the page."""
    return render_page(
        "powerhall_twin.report",
        "hindsight.html",
        title=f"Powerhall: hindsight at site {found.site}",
        figures={"range": _range_chart(found), "power": _power_chart(found)},
        heading=headline(found),
        lead=f"{window_text(found)}. The same jobs, budgets, plants, weather and prices.",
        tiles=_tiles(found),
        power=_power_section(found),
        rows=Table(ROWS_HEADER, tuple(figure_rows(found)), frozenset({1, 2, 3})),
        calibration=calibration_text(found),
        notes=found.notes,
        bound=f"{found.bound_usd:,.0f} USD",
        plan=found.plan_id[:12],
    )


def _tiles(found: Hindsight) -> list[Tile]:
    d, p = found.done, found.possible
    more_mwh = (p.energy_j - d.energy_j) / 3.6e9
    tiles = [
        Tile(
            "Lost, at least", f"{max(0.0, found.possible_usd - found.done_usd):,.0f} USD", "shown by a plan", "--power"
        ),
        Tile("Lost, at most", f"{max(0.0, found.bound_usd - found.done_usd):,.0f} USD", "proven", "--budget"),
        Tile("GPU hours", f"{p.work_gpu_h - d.work_gpu_h:+,.0f}", f"to the {d.work_gpu_h:,.0f} done", "--power"),
        Tile("Energy", f"{more_mwh:+,.2f} MWh", f"to the {d.energy_j / 3.6e9:,.1f} used", "--cooling"),
        Tile(
            "Mean wait", f"{(p.mean_wait_s - d.mean_wait_s) / 60:+,.0f} min", f"from {d.mean_wait_s / 60:,.0f}", "--dry"
        ),
    ]
    if d.co2_kg is not None and p.co2_kg is not None:
        tiles.append(Tile("CO2", f"{(p.co2_kg - d.co2_kg) / 1e3:+,.2f} t", f"to {d.co2_kg / 1e3:,.1f} t", "--cooling"))
    else:
        tiles.append(Tile("Peak power", f"{d.peak_w / 1e3:,.0f} kW", f"possible {p.peak_w / 1e3:,.0f} kW", "--budget"))
    return tiles


def _range_chart(found: Hindsight) -> dict[str, Any]:
    bars = (("no policy more than", found.bound_usd, "--budget"), ("possible", found.possible_usd, "--planned"))
    rows = (*bars, ("done", found.done_usd, "--power"))
    data = {
        "type": "bar",
        "orientation": "h",
        "x": [usd for _, usd, _ in rows],
        "y": [name for name, _, _ in rows],
        "text": [f"{usd:,.0f} USD" for _, usd, _ in rows],
        "textposition": "auto",
        "marker": {"color": [colour for _, _, colour in rows]},
        "hovertemplate": "%{x:,.0f} USD",
    }
    axis = {"title": {"text": "earned in the window, USD"}, "rangemode": "tozero"}
    return {"data": [data], "layout": {"height": 170, "xaxis": axis, "yaxis": {"type": "category"}}}


def _power_section(found: Hindsight) -> ChartSection:
    legend = [LegendEntry("done, by the model", "--power"), LegendEntry("possible: the plan", "--planned")]
    if found.metered_w:
        legend.append(LegendEntry("meter", "--dry"))
    if found.budget_w:
        legend.append(LegendEntry("budget", "--budget"))
    return ChartSection("Power at the meter", tuple(legend), (Panel("power"),), "kW over time, UTC.")


def _power_chart(found: Hindsight) -> dict[str, Any]:
    series: list[tuple[str, str, Any, float]] = [
        ("done", "--power", found.done_w, 1.6),
        ("possible", "--planned", found.possible_w, 1.4),
    ]
    if found.metered_w:
        series.append(("meter", "--dry", found.metered_w, 1.2))
    if found.budget_w:
        series.append(("budget", "--budget", found.budget_w, 2.2))
    data = [
        {
            "type": "scatter", "mode": "lines", "name": chart_text(name), "x": [t * 1000 for t in found.times_s],
            "y": [None if w is None else round(w / 1e3, 3) for w in watts],
            "line": {"color": colour, "width": width, "shape": "hv"}, "hovertemplate": "%{y:,.1f} kW",
        }
        for name, colour, watts, width in series
    ]  # fmt: skip
    axis = {"type": "date", "range": [found.start_s * 1000, found.end_s * 1000]}
    return {
        "data": data,
        "layout": {"height": 230, "xaxis": axis, "yaxis": {"rangemode": "tozero", "ticksuffix": " kW"}},
    }
