"""The charts of a replay's report as plain Plotly data; colours are variables of the page's style."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from powerhall.report.html_page import chart_text
from powerhall.report.page_parts import LegendEntry
from powerhall_twin.engine.outcome import JobOutcome
from powerhall_twin.replay.figures import ReplayResults
from powerhall_twin.report.page import ChartSection, Panel
from powerhall_twin.report.replay_tables import title_of

__all__ = ["COLOURS", "replay_charts"]

Chart = dict[str, Any]
COLOURS = ("--power", "--cooling", "--planned", "--dry", "--wet", "--headroom", "--m0", "--warn")
_MODES = ("--m0", "--m1", "--m2", "--m3")
_MOST_MEDIA = 6
_MOST_JOBS = 80


def replay_charts(
    results: ReplayResults, jobs: Sequence[JobOutcome], modes: Sequence[str]
) -> tuple[dict[str, Chart], list[ChartSection]]:
    """Return figures by id and their sections; `jobs` are the first policy's, `modes` the site's, fastest first."""
    figures: dict[str, Chart] = {"power": _power_chart(results)}
    sections = [_power_section(results)]
    more = (_queue(results, figures), _cooling(results, figures), _gantt(results, jobs, modes, figures))
    return figures, [*sections, *(found for found in more if found is not None)]


def _policies(results: ReplayResults) -> tuple[LegendEntry, ...]:
    return tuple(LegendEntry(title_of(name), COLOURS[i % len(COLOURS)]) for i, name in enumerate(results.power))


def _power_section(results: ReplayResults) -> ChartSection:
    budget = (LegendEntry("budget", "--budget"),) if results.budget_w else ()
    legend = (*_policies(results), *budget)
    return ChartSection("Power at the meter", legend, (Panel("power"),), "Facility power in kW over time, UTC.")


def _power_chart(results: ReplayResults) -> Chart:
    data: list[Chart] = []
    for i, (name, (times_s, power_w)) in enumerate(results.power.items()):
        data.append(_steps(title_of(name), (times_s, _kw(power_w)), COLOURS[i % len(COLOURS)], "kW"))
    if results.budget_w:
        times_s, budget_kw = [float(t) for t in results.budget_w], _kw(results.budget_w.values())
        data.append(_steps("budget", ([*times_s, results.end_s], [*budget_kw, budget_kw[-1]]), "--budget", "kW"))
    top = 1.08 * max(max(one["y"], default=0.0) for one in data)
    return {"data": data, "layout": _layout(results, 360, {"range": [0, top], "ticksuffix": " kW"})}


def _steps(name: str, points: tuple[Iterable[float], Sequence[float]], colour: str, unit: str) -> Chart:
    """Return a line of steps; points are times in s and values."""
    x, y = [t * 1000 for t in points[0]], [round(value, 3) for value in points[1]]
    line = {"color": colour, "width": 1.6, "shape": "hv"}
    hover = f"%{{y:,.1f}} {unit}"
    return {"type": "scatter", "mode": "lines", "name": name, "x": x, "y": y, "line": line, "hovertemplate": hover}


def _kw(values: Iterable[float]) -> list[float]:
    return [value / 1e3 for value in values]


def _layout(results: ReplayResults, height: int, y_axis: Mapping[str, Any]) -> Chart:
    span = [results.start_s * 1000, results.end_s * 1000]
    x_axis = {"type": "date", "range": span, "nticks": 5 if height < 240 else 7}
    return {"height": height, "xaxis": x_axis, "yaxis": {"rangemode": "tozero", "nticks": 6, **y_axis}}


def _queue(results: ReplayResults, figures: dict[str, Chart]) -> ChartSection | None:
    if not results.samples:
        return None
    for id_, what, unit in (("queue", "waiting", "jobs"), ("busy", "busy_gpus", "GPUs")):
        data = [
            _steps(title_of(name), (one.times_s, getattr(one, what)), COLOURS[i % len(COLOURS)], unit)
            for i, (name, one) in enumerate(results.samples.items())
        ]
        figures[id_] = {"data": data, "layout": _layout(results, 220, {})}
    panels = Panel("queue", "jobs that wait"), Panel("busy", "GPUs that are busy")
    return ChartSection("Queue", _policies(results), panels, "Every five minutes.", grid="pair")


def _cooling(results: ReplayResults, figures: dict[str, Chart]) -> ChartSection | None:
    """Return heat of the tightest halls and media under each policy, and what the plants take under the first."""
    first = next(iter(results.samples.values()), None)
    if first is None or not first.heat_w:
        return None

    def use(name: str) -> float:
        pairs = (
            pair
            for one in results.samples.values()
            for pair in zip(one.heat_w[name], one.capacity_w[name], strict=True)
        )
        return max((heat / capacity for heat, capacity in pairs if capacity > 0), default=0.0)

    panels = []
    for number, place in enumerate(sorted(first.heat_w, key=use, reverse=True)[:_MOST_MEDIA]):
        data = [
            _steps(title_of(name), (one.times_s, _kw(one.heat_w[place])), COLOURS[i % len(COLOURS)], "kW")
            for i, (name, one) in enumerate(results.samples.items())
        ]
        data.append(_steps("capacity", (first.times_s, _kw(first.capacity_w[place])), "--capacity", "kW"))
        figures[f"heat{number}"] = {"data": data, "layout": _layout(results, 220, {"ticksuffix": " kW"})}
        panels.append(Panel(f"heat{number}", place))
    legend = (*_policies(results), LegendEntry("capacity in this weather", "--capacity"))
    left_out = len(first.heat_w) - len(panels)
    more = f" The tightest; {left_out} more are in results.json." if left_out else ""
    note = f"Heat to the plants of each medium.{more}"
    return ChartSection("Cooling load against capacity", legend, tuple(panels), note, grid="pair")


def _gantt(
    results: ReplayResults, jobs: Sequence[JobOutcome], modes: Sequence[str], figures: dict[str, Chart]
) -> ChartSection | None:
    """Return one row for each of the jobs with the most GPU time: waiting, then running in its last mode."""
    ran = [one for one in jobs if one.start_s is not None]
    if not ran:
        return None
    end_s = results.end_s
    largest = sorted(ran, key=lambda one: (-one.gpus * ((one.end_s or end_s) - (one.start_s or end_s)), one.job_id))
    shown = sorted(largest[:_MOST_JOBS], key=lambda one: (one.start_s or 0.0, one.job_id))
    waits = [(row, max(one.submit_s, results.start_s), one.start_s or end_s) for row, one in enumerate(shown)]
    data = [_bars(waits, "--grid")]
    for number, mode in enumerate(modes):
        bars = [(row, one.start_s or 0.0, one.end_s or end_s) for row, one in enumerate(shown) if one.mode == mode]
        data.append(_bars(bars, _MODES[min(number, len(_MODES) - 1)]))
    data.append(
        {
            "type": "scatter",
            "mode": "markers",
            "x": [((one.start_s or 0.0) + (one.end_s or end_s)) * 500 for one in shown],
            "y": list(range(len(shown))),
            "text": [_label(one) for one in shown],
            "marker": {"size": 12, "opacity": 0},
            "hovertemplate": "%{text}<extra></extra>",
        }
    )
    rows = {"range": [len(shown), -1], "showticklabels": False, "showgrid": False}
    layout = _layout(results, 160 + 6 * len(shown), rows)
    layout["hovermode"] = "closest"
    figures["jobs"] = {"data": data, "layout": layout}
    legend = tuple(LegendEntry(mode, _MODES[min(i, len(_MODES) - 1)], "box") for i, mode in enumerate(modes))
    first = title_of(results.policies[0].name)
    note = f"The {len(shown)} of {len(ran):,} jobs with the most GPU time under {first}; the colour is their last mode."
    return ChartSection("When jobs ran", (LegendEntry("waits", "--grid", "box"), *legend), (Panel("jobs"),), note)


def _label(one: JobOutcome) -> str:
    stops = f", stopped {one.stops} times" if one.stops else ""
    place = f"{one.gpus} GPUs in {chart_text(one.hall)}, {chart_text(one.mode)}"
    return f"<b>{chart_text(one.job_id)}</b><br>{place}{stops}"


def _bars(bars: Sequence[tuple[int, float, float]], colour: str) -> Chart:
    x: list[float | None] = []
    y: list[float | None] = []
    for row, begin_s, end_s in bars:
        x += [begin_s * 1000, end_s * 1000, None]
        y += [row, row, None]
    line = {"color": colour, "width": 4}
    return {"type": "scatter", "mode": "lines", "x": x, "y": y, "line": line, "hoverinfo": "skip"}
