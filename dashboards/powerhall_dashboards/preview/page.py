"""One HTML page with every dashboard: cards, tables and charts, nothing fetched from a network."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from powerhall.report.html_page import render_page
from powerhall.store import Row
from powerhall_dashboards.model import Board, Panel, column_unit
from powerhall_dashboards.palette import step_colour
from powerhall_dashboards.preview import text
from powerhall_dashboards.preview.answers import Answer, Event
from powerhall_dashboards.preview.charts import figure

__all__ = ["render_preview"]

_ROW_HEIGHT_PX = 34
_LANE_HEIGHT_PX = 22
_MAX_ROWS = 200
_LONG = 28
"""Texts above this many characters are wrapped."""
_TIME = "Time"


@dataclass(frozen=True, slots=True)
class Stat:
    """One number as text, in its colour."""

    text: str
    colour: str


@dataclass(frozen=True, slots=True)
class TableCell:
    """A cell: a number is aligned to the right, a long text is wrapped."""

    text: str
    number: bool = False
    long: bool = False


@dataclass(frozen=True, slots=True)
class PanelTable:
    """A table; `numbers` names the columns that are aligned to the right."""

    header: list[str]
    rows: list[list[TableCell]]
    numbers: frozenset[str]


@dataclass(frozen=True, slots=True)
class Card:
    """A panel on the page: a stat, a table, a figure by its id, or nothing to show."""

    title: str
    text: str
    kind: str
    width: int
    small: bool
    stat: Stat | None = None
    table: PanelTable | None = None
    figure_id: str = ""
    height_px: int = 0


@dataclass(frozen=True, slots=True)
class Section:
    """A dashboard on the page: its rows of cards under their titles."""

    id: str
    title: str
    question: str
    rows: list[tuple[str, list[Card]]]


@dataclass(slots=True)
class _Builder:
    """Builds the sections and collects the figures by the id of their element."""

    end_s: float
    events: list[Event]
    figures: dict[str, object] = field(default_factory=dict)

    def section(self, board: Board, answers: list[Answer]) -> Section:
        """Return a dashboard's section."""
        by_panel = {id(answer.panel): answer for answer in answers}
        rows = [(title, [self.card(board, by_panel[id(panel)]) for panel in panels]) for title, panels in board.rows]
        return Section(board.uid, board.short_title, board.question, rows)

    def card(self, board: Board, answer: Answer) -> Card:
        """Return a panel's card; the figure of a chart is collected."""
        panel = answer.panel
        kind, small = panel.kind, panel.kind in ("stat", "age")
        stat, table, figure_id, height_px = None, None, "", 0
        if answer.empty:
            pass
        elif kind == "stat":
            stat = _stat(answer)
        elif kind == "age":
            stat = _age(answer, self.end_s)
        elif kind == "table":
            table = _table(answer)
        else:
            figure_id = f"{board.uid}-{len(self.figures)}"
            self.figures[figure_id] = figure(answer, self.events)
            height_px = max(panel.height * _ROW_HEIGHT_PX, _lanes(answer) * _LANE_HEIGHT_PX)
        return Card(panel.title, panel.text, kind, panel.width, small, stat, table, figure_id, height_px)


def render_preview(
    boards: list[tuple[Board, list[Answer]]], chosen: Mapping[str, tuple[str, ...]], end_s: float, events: list[Event]
) -> str:
    """Return the whole page."""
    builder = _Builder(end_s, events)
    return render_page(
        "powerhall_dashboards.preview",
        "preview.html",
        title="Powerhall preview",
        sections=[builder.section(board, answers) for board, answers in boards],
        figures=builder.figures,
        end=text.moment(end_s),
        chosen=", ".join(f"{name} {', '.join(values)}" for name, values in chosen.items() if any(values)),
    )


def _lanes(answer: Answer) -> int:
    """Return the number of lanes of a timeline, 0 for other charts."""
    if answer.panel.kind != "timeline":
        return 0
    return len({tuple(row.tags.values()) for _, rows in answer.rows for row in rows})


def _age(answer: Answer, end_s: float) -> Stat:
    age_s = end_s - max(row.time_s for _, rows in answer.rows for row in rows)
    return Stat(text.age(age_s), step_colour(answer.panel.steps, age_s))


def _stat(answer: Answer) -> Stat:
    ((query, rows),) = answer.rows
    (entry,) = query.select
    number = next((row.number(entry.name) for row in reversed(rows) if row.number(entry.name) is not None), None)
    return Stat(text.value(number, column_unit(query, entry)), step_colour(answer.panel.steps, number or 0.0))


def _table(answer: Answer) -> PanelTable:
    ((query, rows),) = answer.rows
    names = [_TIME, *query.group_by, *(entry.name for entry in query.select)]
    units = {entry.name: column_unit(query, entry) for entry in query.select}
    ordered = sorted(rows, key=lambda row: _sort_key(row, answer.panel), reverse=True)
    shown = ordered[: answer.panel.limit or _MAX_ROWS]
    filled = {name for row in shown for name, value in {**row.tags, **row.values}.items() if value not in ("", None)}
    names = [name for name in names if name not in answer.panel.hide and name in {_TIME, *filled}]
    texts = {name for name in names for row in shown if isinstance(row.values.get(name), str)}
    end_s = answer.end_s - 1
    return PanelTable(
        names,
        [[_cell(row, name, units, end_s) for name in names] for row in shown],
        frozenset(names) - {*texts, *query.group_by, _TIME},
    )


def _sort_key(row: Row, panel: Panel) -> tuple[int, float, str]:
    if panel.sort in ("", _TIME):
        return 0, row.time_s, ""
    value = row.values.get(panel.sort, row.tags.get(panel.sort))
    return (1, value, "") if isinstance(value, float) else (0, 0.0, str(value or ""))


def _cell(row: Row, name: str, units: dict[str, str], end_s: float) -> TableCell:
    if name == _TIME:
        return TableCell(text.near(row.time_s, end_s))
    if name in row.tags:
        return TableCell(row.tags[name])
    value = row.values[name]
    if isinstance(value, str):
        return TableCell(value, long=len(value) > _LONG)
    if units[name] == "time" and isinstance(value, float) and value > 0:
        return TableCell(text.near(value / 1000, end_s), number=True)
    return TableCell(text.value(value, units[name]), number=isinstance(value, float))
