"""Dashboards as plain data: what Grafana's JSON (grafana.py), the preview and the alert rules are all made from."""

from dataclasses import dataclass, field
from typing import Literal

from powerhall.store import Query, Select
from powerhall.store.schema import MEASUREMENTS, Field

__all__ = ["GRID", "Board", "Choice", "Kind", "Link", "Panel", "Step", "column_unit", "is_moment"]

GRID = 24
"""Columns of a dashboard's grid."""
Kind = Literal["stat", "age", "timeseries", "heatmap", "table", "timeline"]


@dataclass(frozen=True, slots=True)
class Step:
    """From this value on a number is shown in this role's colour; None is the lowest step."""

    value: float | None
    role: Literal["good", "warning", "critical", "neutral"]


@dataclass(frozen=True, slots=True)
class Link:
    """A click on this column opens another dashboard, with these of the row's columns as its variables."""

    column: str
    board: str
    variables: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel: what it shows, why it is there, and the queries behind it.

    `stack` names the columns that are stacked; `recent_s` looks at the last seconds instead of the chosen range;
    `sort` and `limit` order a table by a column, largest first. `unit` replaces the schema's unit.
    """

    title: str
    text: str
    kind: Kind
    queries: tuple[Query, ...]
    width: int = 12
    height: int = 8
    unit: str | None = None
    steps: tuple[Step, ...] = ()
    stack: tuple[str, ...] = ()
    links: tuple[Link, ...] = ()
    recent_s: int | None = None
    sort: str = ""
    limit: int | None = None
    hide: tuple[str, ...] = ()
    future: bool = False
    """The panel looks ahead: its range is from now on, by `recent_s`."""

    @property
    def points(self) -> int:
        """Time buckets that the panel is drawn with at most: what its width can show."""
        return 100 if self.kind == "stat" else 24 * self.width


@dataclass(frozen=True, slots=True)
class Choice:
    """A variable at the head of a dashboard: the values of a tag (or of a text field) of a measurement.

    `within` are the choices that narrow it. Without `several`, exactly one value is chosen. `newest` is no choice but
    the newest value of the field `of`, by itself.
    """

    name: str
    measurement: str
    within: tuple[str, ...] = ()
    several: bool = True
    is_field: bool = False
    newest: bool = False
    of: str = ""

    @property
    def field(self) -> str:
        """The field that is listed, where it is a field."""
        return self.of or self.name


@dataclass(frozen=True, slots=True)
class Board:
    """One dashboard: the question it answers, its choices and its panels in rows."""

    uid: str
    short_title: str
    question: str
    choices: tuple[Choice, ...]
    rows: tuple[tuple[str, tuple[Panel, ...]], ...] = field(default=())
    hours: int = 6
    annotations: bool = True

    @property
    def title(self) -> str:
        """The title in Grafana, where dashboards of other systems stand beside it."""
        return f"Powerhall: {self.short_title}"

    @property
    def panels(self) -> tuple[Panel, ...]:
        """All panels in order."""
        return tuple(panel for _, panels in self.rows for panel in panels)


def column_unit(query: Query, entry: Select) -> str:
    """Return a column's unit: the schema's, "" for counts and ratios, "%" for ratios times 100."""
    if entry.per:
        return "%" if entry.scale == 100.0 else ""
    if entry.scale == 100.0:
        return "%"
    if entry.aggregate == "count":
        return ""
    while query.inner:
        (entry,) = (inner for inner in query.inner.select if inner.name == entry.field)
        query = query.inner
        if entry.per or entry.aggregate == "count":
            return column_unit(query, entry)
    stored = MEASUREMENTS[query.measurement].field(entry.field)
    return "time" if is_moment(stored) else stored.unit


def is_moment(stored: Field) -> bool:
    """Whether the field is a moment in seconds since the epoch; dashboards ask for it in milliseconds."""
    return "since the epoch" in stored.text
