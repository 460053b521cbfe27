"""One HTML page with every dashboard: cards, tables and charts, script and style inside, nothing fetched."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape

from plotly.offline import get_plotlyjs

from powerhall.store import Row
from powerhall_dashboards.model import Board, Panel, column_unit
from powerhall_dashboards.palette import step_colour
from powerhall_dashboards.preview import text
from powerhall_dashboards.preview.answers import Answer, Event
from powerhall_dashboards.preview.charts import figure

__all__ = ["render_page"]

_STYLE = """
:root { --ink: #1c2733; --soft: #5b6b7b; --line: #dfe5ec; --card: #fff; --page: #f3f5f8; }
* { box-sizing: border-box; }
body { margin: 0; font: 14px/1.4 system-ui, sans-serif; color: var(--ink); background: var(--page); }
header { position: sticky; top: 0; z-index: 2; background: #16212e; color: #fff; padding: 8px 16px; }
header b { margin-right: 16px; }
header a { color: #cfe0f4; margin-right: 12px; text-decoration: none; white-space: nowrap; }
main { max-width: 1500px; margin: 0 auto; padding: 0 16px 40px; }
section { scroll-margin-top: 60px; }
h2 { margin: 24px 0 0; } h3 { margin: 18px 0 8px; font-size: 13px; text-transform: uppercase; color: var(--soft); }
.question, .choice { color: var(--soft); margin: 2px 0; }
.row { display: grid; grid-template-columns: repeat(24, 1fr); gap: 10px; }
.panel { background: var(--card); border: 1px solid var(--line); border-radius: 6px; padding: 8px 10px; min-width: 0; }
.panel h4 { margin: 0; font-size: 13px; } .panel p { margin: 0 0 4px; color: var(--soft); font-size: 12px; }
.stat { font-size: 21px; font-weight: 600; white-space: nowrap; overflow: hidden; text-overflow: ellipsis; }
.chart { width: 100%; }
.scroll { overflow: auto; max-height: 420px; }
table { border-collapse: collapse; width: 100%; font-size: 12px; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: 3px 8px; border-bottom: 1px solid var(--line); vertical-align: top; }
td { white-space: nowrap; } td.long { white-space: normal; min-width: 260px; }
td.long div { display: -webkit-box; -webkit-box-orient: vertical; -webkit-line-clamp: 3; overflow: hidden; }
th.n, td.n { text-align: right; } th { position: sticky; top: 0; background: var(--card); }
.none { color: var(--soft); padding: 20px 0; text-align: center; }
@media (max-width: 700px) {
  main { padding: 0 8px 24px; } header { padding: 6px 8px; overflow-x: auto; white-space: nowrap; }
  .row { grid-template-columns: repeat(2, 1fr); } .panel { grid-column: span 2 !important; }
  .panel.small { grid-column: span 1 !important; } .stat { font-size: 18px; }
}
"""

_SCRIPT = """
const figures = JSON.parse(document.getElementById("figures").textContent);
const config = { responsive: true, displayModeBar: false };
for (const [id, figure] of Object.entries(figures)) { Plotly.newPlot(id, figure.data, figure.layout, config); }
document.body.dataset.drawn = Object.keys(figures).length;
"""

_POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"
_ROW_HEIGHT_PX = 34
_LANE_HEIGHT_PX = 22
_MAX_ROWS = 200
_LONG = 28
"""Texts above this many characters are wrapped."""
_NUMBER = ' class="n"'


@dataclass(slots=True)
class _Page:
    """The page as it grows: figures by the id of the element that they are drawn into."""

    end_s: float
    events: list[Event]
    figures: dict[str, object] = field(default_factory=dict)

    def section(self, board: Board, answers: list[Answer]) -> str:
        """Return a dashboard's part of the page."""
        by_panel = {id(answer.panel): answer for answer in answers}
        rows = []
        for title, panels in board.rows:
            cards = "".join(self.card(board, by_panel[id(panel)]) for panel in panels)
            rows.append(f'<h3>{escape(title)}</h3><div class="row">{cards}</div>')
        question = f'<p class="question">{escape(board.question)}</p>'
        return f'<section id="{board.uid}"><h2>{escape(_short(board))}</h2>{question}{"".join(rows)}</section>'

    def card(self, board: Board, answer: Answer) -> str:
        """Return a panel."""
        panel = answer.panel
        small = panel.kind in ("stat", "age")
        head = f"<h4>{escape(panel.title)}</h4>" + ("" if small else f"<p>{escape(panel.text)}</p>")
        body = self.body(f"{board.uid}-{len(self.figures)}", answer)
        attributes = f'class="panel{" small" if small else ""}" data-kind="{panel.kind}" title="{escape(panel.text)}"'
        return f'<div {attributes} style="grid-column: span {panel.width}">{head}{body}</div>'

    def body(self, name: str, answer: Answer) -> str:
        """Return what a panel shows; charts are kept aside as figures."""
        if answer.empty:
            return '<div class="none">nothing to show</div>'
        if answer.panel.kind == "stat":
            return _stat(answer)
        if answer.panel.kind == "age":
            return _age(answer, self.end_s)
        if answer.panel.kind == "table":
            return _table(answer)
        self.figures[name] = figure(answer, self.events)
        height_px = max(answer.panel.height * _ROW_HEIGHT_PX, _lanes(answer) * _LANE_HEIGHT_PX)
        return f'<div class="chart" id="{name}" style="height:{height_px}px"></div>'


def render_page(
    boards: list[tuple[Board, list[Answer]]], chosen: Mapping[str, tuple[str, ...]], end_s: float, events: list[Event]
) -> str:
    """Return the whole page."""
    page = _Page(end_s, events)
    sections = "".join(page.section(board, answers) for board, answers in boards)
    links = "".join(f'<a href="#{board.uid}">{escape(_short(board))}</a>' for board, _ in boards)
    looked_at = ", ".join(f"{name} {', '.join(values)}" for name, values in chosen.items() if any(values))
    data = json.dumps(page.figures, separators=(",", ":")).replace("<", "\\u003c")
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}"><link rel="icon" href="data:,">'
        f"<title>Powerhall preview</title><style>{_STYLE}</style></head><body>"
        f"<header><b>Powerhall</b>{links}</header><main>"
        f'<p class="choice">Up to {text.moment(end_s)} UTC; {escape(looked_at)}.</p>{sections}</main>'
        f'<script type="application/json" id="figures">{data}</script>'
        f"<script>{get_plotlyjs()}</script><script>{_SCRIPT}</script></body></html>"
    )


def _lanes(answer: Answer) -> int:
    """Return how many lanes a timeline has, 0 for other charts."""
    if answer.panel.kind != "timeline":
        return 0
    return len({tuple(row.tags.values()) for _, rows in answer.rows for row in rows})


def _short(board: Board) -> str:
    return board.title.removeprefix("Powerhall: ")


def _age(answer: Answer, end_s: float) -> str:
    age_s = end_s - max(row.time_s for _, rows in answer.rows for row in rows)
    return f'<div class="stat" style="color:{step_colour(answer.panel.steps, age_s)}">{text.age(age_s)}</div>'


def _stat(answer: Answer) -> str:
    ((query, rows),) = answer.rows
    (entry,) = query.select
    number = next((row.number(entry.name) for row in reversed(rows) if row.number(entry.name) is not None), None)
    colour = step_colour(answer.panel.steps, number or 0.0)
    return f'<div class="stat" style="color:{colour}">{escape(text.value(number, column_unit(query, entry)))}</div>'


def _table(answer: Answer) -> str:
    ((query, rows),) = answer.rows
    names = ["Time", *query.group_by, *(entry.name for entry in query.select)]
    units = {entry.name: column_unit(query, entry) for entry in query.select}
    shown = sorted(rows, key=lambda row: _sort_key(row, answer.panel), reverse=True)
    shown = shown[: answer.panel.limit or _MAX_ROWS]
    said = {name for row in shown for name, value in {**row.tags, **row.values}.items() if value not in ("", None)}
    names = [name for name in names if name not in answer.panel.hide and name in {"Time", *said}]
    texts = {name for name in names for row in shown if isinstance(row.values.get(name), str)}
    head = "".join(
        f"<th{'' if name in (*texts, *query.group_by, 'Time') else _NUMBER}>{escape(name)}</th>" for name in names
    )
    end_s = answer.end_s - 1
    body = "".join(f"<tr>{''.join(_cell(row, name, units, end_s) for name in names)}</tr>" for row in shown)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _sort_key(row: Row, panel: Panel) -> tuple[int, float, str]:
    if panel.sort in ("", "Time"):
        return 0, row.time_s, ""
    value = row.values.get(panel.sort, row.tags.get(panel.sort))
    return (1, value, "") if isinstance(value, float) else (0, 0.0, str(value or ""))


def _cell(row: Row, name: str, units: dict[str, str], end_s: float) -> str:
    if name == "Time":
        return f"<td>{text.near(row.time_s, end_s)}</td>"
    if name in row.tags:
        return f"<td>{escape(row.tags[name])}</td>"
    value = row.values[name]
    shown = escape(text.value(value, units[name]))
    if units[name] == "time" and isinstance(value, float) and value > 0:
        shown = text.near(value / 1000, end_s)
    if isinstance(value, str) and len(shown) > _LONG:
        return f'<td class="long" title="{shown}"><div>{shown}</div></td>'
    return f"<td{_NUMBER if isinstance(value, float) else ''}>{shown}</td>"
