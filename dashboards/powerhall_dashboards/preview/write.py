"""Writes the preview of a store into a folder."""

from collections.abc import Mapping
from pathlib import Path

from powerhall.store import Store
from powerhall_dashboards.boards import BOARDS
from powerhall_dashboards.preview.answers import answer_board, choose, events, newest_s
from powerhall_dashboards.preview.page import render_preview

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
    boards = [(board, answer_board(store, board, given, chosen, until_s, hours=hours)) for board in BOARDS]
    earliest_s = min(answer.start_s for _, answers in boards for answer in answers)
    page = render_preview(boards, chosen, until_s, events(store, chosen["site"], earliest_s, until_s + 1))
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "index.html"
    path.write_text(page, encoding="utf-8")
    empty = {board.title: [answer.panel.title for answer in answers if answer.empty] for board, answers in boards}
    return path, {title: panels for title, panels in empty.items() if panels}
