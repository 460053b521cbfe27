"""The charts of the demo's report as plain Plotly data; colours such as `--power` are variables of the page's style."""

from collections.abc import Mapping, Sequence
from typing import Any

from powerhall.physics.weather import Weather
from powerhall.plan.plan import Plan
from powerhall.site.topology import Site
from powerhall_twin.report.gantt import Block, gantt_rows
from powerhall_twin.report.measured import Telemetry

__all__ = ["cooling_chart", "gantt_chart", "hall_chart", "plan_blocks_of", "site_chart", "weather_chart"]

Chart = dict[str, Any]
Steps = Sequence[tuple[float, float]]
Span = tuple[float, float]
MODES = ("--m0", "--m1", "--m2", "--m3")


def _ms(times_s: Sequence[float]) -> list[float]:
    return [time_s * 1000 for time_s in times_s]


def _kw(values: Sequence[float | None]) -> list[float | None]:
    return [None if v is None else round(v / 1e3, 3) for v in values]


def _line(name: str, times_s: Sequence[float], values: Sequence[float | None], colour: str, **more: Any) -> Chart:  # noqa: ANN401
    line = {"color": colour, "width": more.pop("width", 2), **more.pop("line", {})}
    shown = {"type": "scatter", "mode": "lines", "hovertemplate": "%{y:.1f} kW", **more}
    return {"name": name, "x": _ms(times_s), "y": _kw(values), "line": line, **shown}


def _event(span: Span | None) -> list[Chart]:
    if span is None:
        return []
    box = {"type": "rect", "xref": "x", "yref": "paper", "x0": span[0] * 1000, "x1": span[1] * 1000, "y0": 0, "y1": 1}
    return [{**box, "fillcolor": "--event", "line": {"width": 0}, "layer": "below"}]


def _layout(span: Span, height: int, event: Span | None, top_w: float) -> Chart:
    return {
        "height": height,
        "xaxis": {
            "type": "date",
            "range": [span[0] * 1000, span[1] * 1000],
            "tickformat": "%H:%M",
            "nticks": 5 if height < 220 else 12,
        },
        "yaxis": {"range": [0, top_w / 1e3], "ticksuffix": " kW", "nticks": 6},
        "shapes": _event(event),
    }


def site_chart(t: Telemetry, planned: Steps, budgets: Steps, span: Span, event: Span | None) -> Chart:
    """Return facility power: measured, planned, budget."""
    hv = {"shape": "hv"}
    top_w = 1.08 * max(v for v in (*(b[1] for b in budgets), *t.site["facility_power_w"]) if v is not None)
    power = _line(
        "measured", t.times_s, t.site["facility_power_w"], "--power", fill="tozeroy", fillcolor="--power-fill"
    )
    plan = _line(
        "planned", [p[0] for p in planned], [p[1] for p in planned], "--planned", line={**hv, "dash": "dot"}, width=1.8
    )
    budget = _line("budget", [b[0] for b in budgets], [b[1] for b in budgets], "--budget", line=hv, width=2.6)
    it = _line("IT alone", t.times_s, t.site["it_power_w"], "--agents", width=1.3)
    return {"data": [power, it, plan, budget], "layout": _layout(span, 330, event, top_w)}


def hall_chart(t: Telemetry, hall: str, planned: Steps, span: Span, event: Span | None) -> Chart:
    """Return the IT power of one hall: meter, GPUs as the agents measured them, planned, limit."""
    series = t.halls[hall]
    gpus = sorted(t.gpu_w[hall].items())
    top_w = 1.1 * max(v for v in (*series["budget_w"], *series["it_power_w"]) if v is not None)
    data = [
        _line("measured", t.times_s, series["it_power_w"], "--power", fill="tozeroy", fillcolor="--power-fill"),
        _line("GPUs, by the agents", [g[0] for g in gpus], [g[1] for g in gpus], "--agents", width=1.3),
        _line(
            "planned",
            [p[0] for p in planned],
            [p[1] for p in planned],
            "--planned",
            line={"shape": "hv", "dash": "dot"},
            width=1.6,
        ),
        _line("limit", t.times_s, series["budget_w"], "--budget", width=2.4),
    ]
    return {"data": data, "layout": _layout(span, 210, event, top_w)}


def cooling_chart(t: Telemetry, hall: str, medium: str, planned: Steps, span: Span, event: Span | None) -> Chart:  # noqa: PLR0917
    """Return the heat of a hall in one medium against the capacity of the plants that serve it."""
    heat, capacity = t.cooling[hall, medium]
    top_w = 1.1 * max(v for v in (*heat, *capacity) if v is not None)
    data = [
        _line("heat", t.times_s, heat, "--cooling", fill="tozeroy", fillcolor="--cooling-fill"),
        _line(
            "planned heat",
            [p[0] for p in planned],
            [p[1] for p in planned],
            "--planned",
            line={"shape": "hv", "dash": "dot"},
            width=1.6,
        ),
        _line("capacity", t.times_s, capacity, "--capacity", width=2.4),
    ]
    return {"data": data, "layout": _layout(span, 210, event, top_w)}


def weather_chart(times_s: Sequence[float], weather: Sequence[Weather], span: Span) -> Chart:
    """Return dry-bulb and wet-bulb temperature of the outdoor air."""
    layout = _layout(span, 150, None, 1.0)
    layout["yaxis"] = {"ticksuffix": " °C", "nticks": 5}
    common: dict[str, Any] = {"type": "scatter", "mode": "lines", "hovertemplate": "%{y:.1f} °C", "x": _ms(times_s)}
    dry = {**common, "name": "dry bulb", "y": [w.dry_bulb_c for w in weather], "line": {"color": "--dry", "width": 2}}
    wet = {**common, "name": "wet bulb", "y": [w.wet_bulb_c for w in weather], "line": {"color": "--wet", "width": 2}}
    return {"data": [dry, wet], "layout": layout}


def gantt_chart(
    site: Site,
    blocks: Sequence[Block],
    modes: Sequence[str],
    span: Span,
    event: Span | None,
) -> Chart:
    """Return every job as a block on the GPUs that it holds; one trace per power mode."""
    data = [_blocks(blocks, mode, MODES[min(i, len(MODES) - 1)]) for i, mode in enumerate(modes)]
    data.append(_labels(blocks))
    first, total = gantt_rows(site)
    layout = _layout(span, 470, event, 1.0)
    layout["hovermode"] = "closest"
    bounds = _hall_bounds(site, first, total)
    layout["yaxis"] = {
        "range": [total, 0],
        "tickvals": [(low + high) / 2 for low, high in bounds.values()],
        "ticktext": list(bounds),
        "showgrid": False,
        "zeroline": False,
    }
    rule = {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "line": {"color": "--rule", "width": 1}}
    layout["shapes"] += [{**rule, "y0": low, "y1": low} for low, _ in list(bounds.values())[1:]]
    return {"data": data, "layout": layout}


def _hall_bounds(site: Site, first: Mapping[str, int], total: int) -> dict[str, tuple[int, int]]:
    starts = [(hall.zone, first[next(hall.racks()).nodes[0]]) for hall in site.halls]
    ends = [*(low for _, low in starts[1:]), total]
    return {hall: (low, high) for (hall, low), high in zip(starts, ends, strict=True)}


def _blocks(blocks: Sequence[Block], mode: str, colour: str) -> Chart:
    x: list[float | None] = []
    y: list[float | None] = []
    for b in blocks:
        if b.mode == mode:
            x += [b.start_s * 1000, b.end_s * 1000, b.end_s * 1000, b.start_s * 1000, b.start_s * 1000, None]
            y += [b.row, b.row, b.row + b.rows, b.row + b.rows, b.row, None]
    line = {"color": "--card", "width": 0.8}
    return {
        "type": "scatter",
        "mode": "lines",
        "name": mode,
        "x": x,
        "y": y,
        "fill": "toself",
        "fillcolor": colour,
        "line": line,
        "hoverinfo": "skip",
    }


def _labels(blocks: Sequence[Block]) -> Chart:
    """Return invisible points in the middle of the blocks, which carry their hover texts."""
    return {
        "type": "scatter",
        "mode": "markers",
        "x": [(b.start_s + b.end_s) * 500 for b in blocks],
        "y": [b.row + b.rows / 2 for b in blocks],
        "text": [b.text for b in blocks],
        "marker": {"size": 12, "opacity": 0},
        "hovertemplate": "%{text}<extra></extra>",
    }


def plan_blocks_of(plan: Plan, blocks: Sequence[Block]) -> list[Block]:
    """Cut a plan's blocks at the end of its horizon."""
    end_s = plan.snapshot.start_s + plan.snapshot.slots * plan.snapshot.slot_s
    return [b.until(end_s) for b in blocks if b.start_s < end_s]
