"""One HTML page with every dashboard: cards, tables and charts, nothing fetched from a network."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from powerhall.forecasts.page_times import local_words, near
from powerhall.report.html_page import render_page
from powerhall.store import Row
from powerhall_dashboards.model import Board, Panel, column_unit
from powerhall_dashboards.palette import WORDS, step_role
from powerhall_dashboards.preview import text
from powerhall_dashboards.preview.answers import Answer, Event
from powerhall_dashboards.preview.charts import figure
from powerhall_dashboards.preview.overview import Overview

__all__ = ["PACKAGE", "PageBuilder", "chosen_text", "render_preview"]

PACKAGE = "powerhall_dashboards.preview"
"""Where the templates are."""
_ROW_HEIGHT_PX = 34
_LANE_HEIGHT_PX = 22
_MAX_ROWS = 200
_LONG = 28
"""Texts above this many characters are wrapped."""
_TIME = "Time"


@dataclass(frozen=True, slots=True)
class Stat:
    """One number as text, in the colour of its role."""

    text: str
    role: str


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
    stacked: bool = False
    """It has sentences: on a phone its rows are cards."""


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
class PageBuilder:
    """Builds the sections and collects the figures by the id of their element."""

    events: list[Event]
    halls: Mapping[str, str]
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
            stat = _age(answer)
        elif kind == "table":
            table = _table(answer)
        else:
            figure_id = f"{board.uid}-{len(self.figures)}"
            self.figures[figure_id] = figure(answer, self.events, self.halls)
            height_px = max(panel.height * _ROW_HEIGHT_PX, _lanes(answer) * _LANE_HEIGHT_PX)
        return Card(panel.title, panel.text, kind, panel.width, small, stat, table, figure_id, height_px)


def render_preview(
    boards: list[tuple[Board, list[Answer]]],
    chosen: Mapping[str, tuple[str, ...]],
    end: str,
    builder: PageBuilder,
    first: Overview,
) -> str:
    """Return the whole page; `end` is the moment that it shows, as text."""
    return render_page(
        PACKAGE,
        "preview.html",
        title="Powerhall preview",
        sections=[builder.section(board, answers) for board, answers in boards],
        figures=builder.figures,
        first=first,
        end=end,
        chosen=chosen_text(chosen),
    )


def chosen_text(chosen: Mapping[str, tuple[str, ...]]) -> str:
    """Return what was chosen, as a line of the page."""
    return ", ".join(f"{name} {', '.join(map(_short, values))}" for name, values in chosen.items() if any(values))


def _short(name: str) -> str:
    """Shorten an id that nobody reads to its end, such as that of a plan."""
    return f"{name[:12]}…" if len(name) > 40 else name


def _lanes(answer: Answer) -> int:
    """Return the number of lanes of a timeline, 0 for other charts."""
    if answer.panel.kind != "timeline":
        return 0
    return len({tuple(row.tags.values()) for _, rows in answer.rows for row in rows})


def _age(answer: Answer) -> Stat:
    age_s = answer.end_s - 1 - max(row.time_s for _, rows in answer.rows for row in rows)
    return Stat(text.age(age_s), step_role(answer.panel.steps, age_s))


def _stat(answer: Answer) -> Stat:
    ((query, rows),) = answer.rows
    (entry,) = query.select
    number = next((row.number(entry.name) for row in reversed(rows) if row.number(entry.name) is not None), None)
    words = WORDS.get(entry.name, {}).get(number) if number is not None else None
    return Stat(
        words or text.value(number, column_unit(query, entry), answer.zone),
        step_role(answer.panel.steps, number or 0.0),
    )


def _table(answer: Answer) -> PanelTable:
    ((query, rows),) = answer.rows
    names = [_TIME, *query.group_by, *(entry.name for entry in query.select)]
    units = {entry.name: column_unit(query, entry) for entry in query.select}
    ordered = sorted(rows, key=lambda row: _sort_key(row, answer.panel), reverse=True)
    shown = ordered[: answer.panel.limit or _MAX_ROWS]
    filled = {name for row in shown for name, value in {**row.tags, **row.values}.items() if value not in ("", None)}
    names = [name for name in names if name not in answer.panel.hide and name in {_TIME, *filled}]
    texts = {name for name in names for row in shown if isinstance(row.values.get(name), str)}
    cells = [[_cell(row, name, units, answer) for name in names] for row in shown]
    numbers = frozenset(names) - {*texts, *query.group_by, *WORDS, _TIME}
    return PanelTable(names, cells, numbers, any(cell.long for row in cells for cell in row))


def _sort_key(row: Row, panel: Panel) -> tuple[int, float, str]:
    if panel.sort in ("", _TIME):
        return 0, row.time_s, ""
    value = row.values.get(panel.sort, row.tags.get(panel.sort))
    return (1, value, "") if isinstance(value, float) else (0, 0.0, str(value or ""))


def _cell(row: Row, name: str, units: dict[str, str], answer: Answer) -> TableCell:
    end_s, zone = answer.end_s - 1, answer.zone
    if name == _TIME:
        return TableCell(near(row.time_s, end_s, zone))
    if name in row.tags:
        return TableCell(row.tags[name])
    value = row.values[name]
    if isinstance(value, float) and (words := WORDS.get(name, {}).get(value)):
        return TableCell(words)
    if isinstance(value, str):
        value = local_words(value, end_s, zone)
        return TableCell(value, long=len(value) > _LONG)
    if units[name] == "time" and isinstance(value, float) and value > 0:
        return TableCell(near(value / 1000, end_s, zone), number=True)
    return TableCell(text.value(value, units[name], zone), number=isinstance(value, float))
