"""A hall called `dc1.hall1` works in every dashboard: in queries, variables, links and the preview."""

import re
from pathlib import Path

import pytest

from powerhall.store import open_store
from powerhall_dashboards.boards import BOARDS
from powerhall_dashboards.cli import main
from powerhall_dashboards.grafana.dashboard import choice_query
from powerhall_dashboards.grafana.query import interpolate, targets
from rigs.site_data import SiteData

PLAIN, DOTTED = "h1", "dc1.hall1"
PATTERN = re.compile(r'"(?:hall|zone)" =~ /(.*?)/(?= |$|\))')


def preview(folder: Path, hall: str) -> str:
    """Write a small site whose first hall has this name, and return its preview."""
    lines = SiteData(end_s=1_790_000_100, hours=0.5).lines()
    lines = re.sub(rb"\b(hall|zone)=h1\b", rb"\1=" + hall.encode(), lines)
    lines = lines.replace(b'hall="h1"', f'hall="{hall}"'.encode())
    url = f"sqlite:///{folder / f'{hall}.db'}"
    store = open_store(url)
    store.write(lines)
    store.close()
    assert main(["preview", "--store", url, "--out", str(folder / hall), "--var", f"hall={hall}"]) == 0
    return (folder / hall / "index.html").read_text()


def test_the_preview_shows_for_a_dotted_hall_what_it_shows_for_a_plain_one(tmp_path: Path) -> None:
    plain, dotted = preview(tmp_path, PLAIN), preview(tmp_path, DOTTED)
    assert dotted.count(DOTTED) > 10
    assert dotted.replace(DOTTED, PLAIN) == plain


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.uid)
def test_a_chosen_hall_selects_that_hall_alone(board: object) -> None:
    queries = [target.query for panel in board.panels for target in targets(panel)]
    others = {choice.name: choice for choice in board.choices}
    queries += [choice_query(choice, others) for choice in board.choices]
    asked = [query for query in queries if "$hall" in query or "${hall}" in query]
    assert asked or "hall" not in others
    for query in asked:
        sent = interpolate(query, dict.fromkeys(others, ("x",)) | {"hall": (DOTTED,)})
        assert "$hall" not in sent
        patterns = PATTERN.findall(sent)
        assert patterns or f"= '{DOTTED}'" in sent
        for pattern in patterns:
            assert re.search(pattern, DOTTED)
            assert not re.search(pattern, "dc1xhall1")
            assert not re.search(pattern, f"{DOTTED}.row1")
