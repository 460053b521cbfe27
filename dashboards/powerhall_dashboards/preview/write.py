"""Writes the preview of a store into a folder."""

from collections.abc import Mapping
from pathlib import Path

from powerhall.forecasts.page_times import moment_in
from powerhall.report.colours import hall_colours
from powerhall.runtime.files import replace_file
from powerhall.store import Store
from powerhall_dashboards.boards import BOARDS
from powerhall_dashboards.preview.answers import answer_board, choose, events, halls_of, newest_s
from powerhall_dashboards.preview.overview import overview
from powerhall_dashboards.preview.page import PageBuilder, render_preview
from powerhall_dashboards.preview.site_time import site_zone

__all__ = ["write_preview"]


def write_preview(
    store: Store,
    folder: Path,
    given: Mapping[str, tuple[str, ...]],
    *,
    end_s: float | None = None,
    hours: float | None = None,
) -> tuple[Path, dict[str, list[str]]]:
    """Write index.html; return it and, by dashboard, the titles of the panels without data."""
    until_s = newest_s(store) if end_s is None else end_s
    chosen = choose(store, until_s, given)
    zone = site_zone(store, chosen["site"], until_s)
    boards = [(board, answer_board(store, board, given, chosen, until_s, hours=hours, zone=zone)) for board in BOARDS]
    earliest_s = min(answer.start_s for _, answers in boards for answer in answers)
    marked = events(store, chosen["site"], earliest_s, until_s + 1)
    builder = PageBuilder(marked, hall_colours(halls_of(store, chosen["site"], until_s)))
    first = overview(store, chosen["site"], until_s, zone)
    page = render_preview(boards, chosen, moment_in(zone, until_s), builder, first)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "index.html"
    replace_file(path, page.encode())
    empty = {board.title: [answer.panel.title for answer in answers if answer.empty] for board, answers in boards}
    return path, {title: panels for title, panels in empty.items() if panels}
