"""Dashboards as plain data, from which Grafana's JSON and the preview are made."""

from dataclasses import dataclass, field
from typing import Literal

from powerhall.store import Query, Select
from powerhall.store.schema import MEASUREMENTS

__all__ = ["FREE_LANE", "GRID", "WATT_HOURS", "Board", "Choice", "Kind", "Link", "Panel", "Step", "column_unit"]

GRID = 24
"""Columns of a dashboard's grid."""
WATT_HOURS = 1 / 3600
"""Scale of a column of joules that is shown in Wh, as people read energy."""
FREE_LANE = "-"
"""Value of a timeline's lane while it is free; no bar is drawn."""
Kind = Literal["stat", "age", "timeseries", "heatmap", "table", "timeline"]


@dataclass(frozen=True, slots=True)
class Step:
    """The colour of numbers from this value on, by role; None is the lowest step."""

    value: float | None
    role: Literal["good", "warning", "critical", "neutral"]


@dataclass(frozen=True, slots=True)
class Link:
    """A link of a table's column to another dashboard; the named columns of the row become its variables."""

    column: str
    board: str
    variables: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel: its title, its description, and its queries.

    `stack` names the columns that are stacked; `recent_s` shows the last seconds instead of the chosen range; `sort`
    and `limit` order a table by a column, largest first. `unit` replaces the schema's unit.
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
    """The panel shows the next `recent_s` seconds instead of the last ones."""
    scale: tuple[float, float] | None = None
    """Lowest and highest value of a heat map's colours, the same whatever the data; `steps` are its thresholds."""

    bars_s: int = 0
    """Stored points are drawn as bars of this many seconds from their time on; 0 draws lines."""

    @property
    def points(self) -> int:
        """Most time buckets of the panel, from its width."""
        return 100 if self.kind == "stat" else 24 * self.width


@dataclass(frozen=True, slots=True)
class Choice:
    """A variable at the head of a dashboard: the values of a tag (or of a text field) of a measurement.

    `within` are the choices that narrow it. Without `several`, exactly one value is chosen. With `newest`, the variable
    is hidden and holds the newest value of the field `of`.
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
        """The field whose values are listed, where `is_field` is set."""
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
    if stored.unit == "J" and entry.scale == WATT_HOURS:
        return "Wh"
    return "time" if stored.is_moment else stored.unit
