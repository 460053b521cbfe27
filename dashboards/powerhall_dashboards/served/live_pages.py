"""Renders the live pages from a store, each at most once in a few seconds however many look at it."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlencode

from powerhall.forecasts.page_times import moment_in
from powerhall.report.colours import hall_colours
from powerhall.report.html_page import render_page
from powerhall.runtime.errors import PowerhallError
from powerhall.store import Store
from powerhall_dashboards.boards import BOARDS
from powerhall_dashboards.preview.answers import answer_board, choose, events, halls_of, newest_s, sites
from powerhall_dashboards.preview.overview import Overview, overview
from powerhall_dashboards.preview.page import PACKAGE, PageBuilder, chosen_text
from powerhall_dashboards.preview.site_time import site_zone

__all__ = ["BOARD_NAMES", "LivePages", "Page"]

BOARD_NAMES: Final = {board.uid: board for board in BOARDS}
_KEPT_S = 5.0
_MOST_KEPT = 32
Given = Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Page:
    """A page, and whether the store gave what it shows."""

    html: str
    is_known: bool = True


@dataclass(slots=True)
class LivePages:
    """Pages of one store; not for use by several threads at once.

    `shows_newest` shows the newest point of the store as if it were now, for a store of the past such as the demo's;
    else pages are of this moment, and what is older is said to be unknown.
    """

    open_store: Callable[[], Store]
    refresh_s: float
    shows_newest: bool = False
    clock: Callable[[], float] = time.time
    _store: Store | None = None
    _kept: dict[tuple[str, tuple[tuple[str, tuple[str, ...]], ...]], tuple[float, Page]] = field(default_factory=dict)

    def first_screen(self, given: Given) -> Page:
        """Return the page that keeps its first screen up to date by itself."""
        page, known = self.now(given), self._sites()
        html = render_page(
            PACKAGE,
            "live.html",
            title="Powerhall",
            boards=BOARDS,
            here="",
            query=_query(given),
            now=page.html,
            sites=known if len(known) > 1 else [],
            shown=given.get("site", known[:1] or ("",))[0],
            refresh_s=self.refresh_s,
        )
        return Page(html, page.is_known)

    def now(self, given: Given) -> Page:
        """Return the part of the first screen that changes."""
        return self._cached("", given, self._now)

    def board(self, uid: str, given: Given) -> Page:
        """Return the page of one dashboard; `uid` is one of BOARD_NAMES."""
        return self._cached(uid, given, lambda asked: self._board(uid, asked))

    def state(self, given: Given) -> Overview:
        """Return the answers of the first screen as data."""
        store, end_s = self._open(), self._end_s()
        site = given.get("site") or choose(store, end_s, {"hall": (), "node": (), "plan": (), "job": ()})["site"]
        return overview(store, site, end_s, site_zone(store, site, end_s))

    def close(self) -> None:
        """Close the store."""
        if self._store is not None:
            self._store.close()
            self._store = None

    def _now(self, given: Given) -> str:
        found = self.state(given)
        store, end_s = self._open(), self._end_s()
        site = given.get("site") or tuple(self._sites()[:1]) or ("",)
        end = moment_in(site_zone(store, site, end_s), end_s)
        return render_page(PACKAGE, "now.html", first=found, end=end, chosen=chosen_text({"site": site}), site=site[0])

    def _board(self, uid: str, given: Given) -> str:
        store, end_s, board = self._open(), self._end_s(), BOARD_NAMES[uid]
        chosen = choose(store, end_s, given)
        zone = site_zone(store, chosen["site"], end_s)
        answers = answer_board(store, board, given, chosen, end_s, hours=None, zone=zone)
        marked = events(store, chosen["site"], min(answer.start_s for answer in answers), end_s + 1)
        builder = PageBuilder(marked, hall_colours(halls_of(store, chosen["site"], end_s)))
        section = builder.section(board, answers)
        shown = {name: chosen[name] for name in ("site", *(c.name for c in board.choices)) if chosen.get(name)}
        return render_page(
            PACKAGE,
            "board.html",
            title=f"Powerhall: {board.short_title}",
            boards=BOARDS,
            here=uid,
            section=section,
            figures=builder.figures,
            end=moment_in(zone, end_s),
            chosen=chosen_text(shown),
            query=_query(given),
        )

    def _sites(self) -> list[str]:
        try:
            return sorted(set(sites(self._open(), self._end_s())))
        except PowerhallError:
            return []

    def _end_s(self) -> float:
        return newest_s(self._open()) if self.shows_newest else self.clock()

    def _open(self) -> Store:
        if self._store is None:
            self._store = self.open_store()
        return self._store

    def _cached(self, name: str, given: Given, make: Callable[[Given], str]) -> Page:
        key, now_s = (name, tuple(sorted(given.items()))), time.monotonic()
        kept = self._kept.get(key)
        if kept is not None and now_s - kept[0] < _KEPT_S:
            return kept[1]
        try:
            page = Page(make(given))
        except PowerhallError as error:  # the store is away or holds nothing yet: the page says so and stays
            self.close()
            page = Page(_unknown(name, given, str(error)), is_known=False)
        self._kept[key] = time.monotonic(), page
        while len(self._kept) > _MOST_KEPT:
            self._kept.pop(next(iter(self._kept)))
        return page


def _unknown(uid: str, given: Given, why: str) -> str:
    """Return the part of the first screen, or a whole page, that says that nothing is known."""
    if not uid:
        return render_page(PACKAGE, "unknown.html", why=why)
    title = "UNKNOWN - Powerhall"
    return render_page(PACKAGE, "unknown_page.html", title=title, boards=BOARDS, here=uid, query=_query(given), why=why)


def _query(given: Given) -> str:
    text = urlencode(given, doseq=True)
    return f"?{text}" if text else ""
