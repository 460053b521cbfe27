"""Parts of a page that the macros of the base template draw."""

from dataclasses import dataclass

__all__ = ["Cell", "LegendEntry", "Table", "Tile"]

Cell = str | tuple[str, ...]
"""A text, or several lines of it."""


@dataclass(frozen=True, slots=True)
class Tile:
    """A figure with its label; `colour` is a variable of the page's style, such as `--power`."""

    label: str
    value: str
    small: str = ""
    colour: str = ""


@dataclass(frozen=True, slots=True)
class LegendEntry:
    """A line of a chart's legend: `shape` is a CSS class, "" for a line, "dash" or "box"."""

    text: str
    colour: str
    shape: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """A table; the columns in `numbers` are aligned to the right, `note` stands below.

    A `stacked` one, with sentences in it, shows its rows as cards on a phone.
    """

    header: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    numbers: frozenset[int] = frozenset()
    note: str = ""
    stacked: bool = False
