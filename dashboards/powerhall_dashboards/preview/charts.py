"""Panels as Plotly figures: plain data that the page's script draws."""

from collections.abc import Iterator, Mapping
from datetime import datetime, tzinfo
from itertools import groupby

from powerhall.report.html_page import chart_text
from powerhall.store import Query, Row
from powerhall_dashboards.boards.parts import MARKED
from powerhall_dashboards.model import FREE_LANE, Panel, column_unit
from powerhall_dashboards.palette import COLOURS, DASHED, FROM_ZERO, OF_EVERY_GROUP, ROLES, SERIES, STEPPED
from powerhall_dashboards.preview.answers import Answer, Event

__all__ = ["figure"]

Json = dict[str, object]
_SUFFIX = {
    "W": "W",
    "J": "J",
    "Wh": "Wh",
    "B": "B",
    "degC": " °C",
    "K": " K",
    "%": " %",
    "h": " h",
    "kg": " kg",
    "l": " l",
    "s": " s",
    "MHz": " MHz",
    "currency": " USD",
}
_EVENT_COLOURS = {kind: colour for _, kinds, colour in MARKED for kind in kinds}
_CRITICAL_STATES = frozenset({"lost", "hung", "reset_required", "unknown_error"})
"""Reasons of `gpu_state` for which a GPU does not answer."""


def figure(answer: Answer, events: list[Event], halls: Mapping[str, str] | None = None) -> Json:
    """Return Plotly's data and layout of a chart; `halls` gives each hall the colour that it keeps on every chart."""
    kept = halls or {}
    match answer.panel.kind:
        case "heatmap":
            layout = _layout(answer, showlegend=False, hovermode="closest")
            layout["yaxis"] = {"automargin": True, "type": "category"}
            return {"data": _heatmap(answer), "layout": layout}
        case "timeline":
            bars = _timeline(answer, kept)
            layout = _layout(answer, barmode="overlay", showlegend=False, bargap=0.15, hovermode="closest")
            layout["yaxis"] = {"automargin": True, "type": "category", "autorange": "reversed", "dtick": 1}
            return {"data": bars, "layout": layout}
        case _:
            layout = _layout(answer, **({"barmode": "relative"} if answer.panel.bars_s else {}))
            layout["shapes"] = [
                _line(event, answer.zone) for event in events if answer.start_s <= event.time_s < answer.end_s
            ]
            return {"data": list(_lines(answer, kept)), "layout": layout}


def _iso(time_s: float, zone: tzinfo) -> str:
    return datetime.fromtimestamp(time_s, zone).strftime("%Y-%m-%dT%H:%M:%S")


def _span(answer: Answer) -> list[str]:
    """Return the range of time to draw: the wanted range, less the time before the first point or after a plan."""
    times_s = [row.time_s for _, rows in answer.rows for row in rows]
    end_s = answer.end_s
    if answer.panel.future:
        end_s = min(end_s, max(times_s) + max(query.every_s or 0.0 for query, _ in answer.rows))
    return [_iso(max(answer.start_s, min(times_s)), answer.zone), _iso(end_s, answer.zone)]


def _layout(answer: Answer, **more: object) -> Json:
    query, _ = answer.rows[0]
    unit = column_unit(query, query.select[0])
    return {
        "margin": {"l": 10, "r": 10, "t": 6, "b": 10},
        "xaxis": {"type": "date", "range": _span(answer), "automargin": True},
        "yaxis": {
            "automargin": True,
            "ticksuffix": _SUFFIX.get(unit, ""),
            "tickformat": "~s" if unit in ("W", "Wh", "J", "B") else ",~r",
            "rangemode": "tozero" if unit in FROM_ZERO else "normal",
        },
        "legend": {"orientation": "h", "y": -0.18},
        "hovermode": "x unified",
        "showlegend": True,
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        **more,
    }


def _line(event: Event, zone: tzinfo) -> Json:
    colour = _EVENT_COLOURS[event.kind]
    x = _iso(event.time_s, zone)
    line = {"color": colour, "dash": "dot", "width": 1}
    return {"type": "line", "x0": x, "x1": x, "y0": 0, "y1": 1, "yref": "paper", "line": line}


def _groups(query: Query, rows: list[Row]) -> Iterator[tuple[str, list[Row]]]:
    """Yield the rows of each group under its name."""
    for tags, found in groupby(rows, key=lambda row: tuple(row.tags[tag] for tag in query.group_by)):
        yield chart_text(" ".join(tag for tag in tags if tag)), list(found)


def _lines(answer: Answer, halls: Mapping[str, str]) -> Iterator[Json]:
    columns = {entry.name for query, _ in answer.rows for entry in query.select}
    colours: dict[str, str] = {}
    for query, rows in answer.rows:
        for group, found in _groups(query, rows):
            for place, entry in enumerate(query.select):
                points = [(_iso(row.time_s, answer.zone), row.number(entry.name)) for row in found]
                name = " ".join(part for part in (group, entry.name if len(columns) > 1 or not group else "") if part)
                own = COLOURS.get(entry.name) if not query.group_by or entry.name in OF_EVERY_GROUP else None
                key = group or entry.name
                colours.setdefault(key, halls.get(key) or SERIES[len(colours) % len(SERIES)])
                dash = "dash" if entry.name in DASHED else "dot" if group and place else "solid"
                yield _trace(answer, entry.name, name, points, (own or colours[key], dash))


def _trace(
    answer: Answer, column: str, name: str, points: list[tuple[str, float | None]], style: tuple[str, str]
) -> Json:
    colour, dash = style
    if answer.panel.bars_s:
        return _bars(answer.panel.bars_s, name, points, colour)
    trace: Json = {
        "type": "scatter",
        "mode": "lines" if len(points) > 1 else "markers",
        "name": name,
        "x": [x for x, _ in points],
        "y": [y for _, y in points],
        "line": {"color": colour, "width": 1.5, "dash": dash, "shape": "hv" if column in STEPPED else "linear"},
        "marker": {"color": colour},
    }
    if column in answer.panel.stack:
        trace |= {"stackgroup": "stack", "line": {"color": colour, "width": 0.5}}
    return trace


def _bars(seconds: int, name: str, points: list[tuple[str, float | None]], colour: str) -> Json:
    """Return bars that begin at their point, with a gap to the next."""
    x, y = ([point[place] for point in points] for place in (0, 1))
    marker = {"color": colour}
    return {"type": "bar", "name": name, "x": x, "y": y, "offset": 0, "width": 0.9e3 * seconds, "marker": marker}


def _heatmap(answer: Answer) -> list[Json]:
    ((query, rows),) = answer.rows
    (entry,) = query.select
    times = sorted({row.time_s for row in rows})
    grid = {name: {row.time_s: row.number(entry.name) for row in found} for name, found in _groups(query, rows)}
    unit = column_unit(query, entry)
    low, high = answer.panel.scale or (None, None)
    return [
        {
            "type": "heatmap",
            "zmin": low,
            "zmax": high,
            "x": [_iso(time_s, answer.zone) for time_s in times],
            "y": list(grid),
            "z": [[cells.get(time_s) for time_s in times] for cells in grid.values()],
            "colorscale": _colour_scale(answer.panel),
            "colorbar": {"ticksuffix": _SUFFIX.get(unit, ""), "thickness": 10, "tickformat": "~s"},
        }
    ]


def _colour_scale(panel: Panel) -> list[tuple[float, str]]:
    """Return Plotly's colours over a panel's scale: a pale tint at its low end, then the colour of each threshold."""
    if panel.scale is None:
        return [(0.0, "#EDF2F7"), (1.0, ROLES["neutral"])]
    low, high = panel.scale
    steps = [step for step in panel.steps if step.value is not None]
    found = [(0.0, "#E4F0DF")]
    before = ROLES["good"]
    for step in steps:
        at = ((step.value or 0.0) - low) / (high - low)
        found += [(at, before), (at, ROLES[step.role])]
        before = ROLES[step.role]
    return [*found, (1.0, before)]


def _timeline(answer: Answer, halls: Mapping[str, str]) -> list[Json]:
    ((query, rows),) = answer.rows
    (entry,) = query.select
    lanes, bases, widths, texts, colours = [], [], [], [], []
    every_s = max((query.every_s or 0.0), 1.0)
    for lane, found in _groups(query, rows):
        for text, run in groupby(found, key=lambda row: row.values[entry.name]):
            held = list(run)
            if text in (FREE_LANE, None):
                continue
            lanes.append(lane)
            bases.append(_iso(held[0].time_s, answer.zone))
            widths.append((held[-1].time_s + every_s - held[0].time_s) * 1000)
            texts.append(chart_text(str(text)))
            colours.append(halls.get(held[0].tags.get("hall", "")) or _state_colour(str(text)))
    bar: Json = {
        "type": "bar",
        "orientation": "h",
        "y": lanes,
        "base": bases,
        "x": widths,
        "text": texts,
        "textposition": "inside",
        "insidetextanchor": "start",
        "hovertemplate": "%{y}: %{text}<extra></extra>",
        "marker": {"color": colours},
    }
    return [bar]


def _state_colour(text: str) -> str:
    if text == "ok":
        return ROLES["good"]
    if text in _CRITICAL_STATES:
        return ROLES["critical"]
    return ROLES["neutral"]
