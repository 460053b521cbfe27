"""The preview and the live pages in a real browser: no error, no request, every panel with marks, WCAG AA."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from powerhall.jobs.model import Job
from powerhall.store import open_store
from powerhall.store.line_protocol import Point, encode
from powerhall_dashboards.boards import BOARDS
from powerhall_dashboards.cli import main
from powerhall_optimizer.report.page import report_html
from rigs.browser import axe_source, chromium, faults
from rigs.plans import greedy_plan, small_site
from rigs.site_data import SiteData

END_S = 1_790_000_100

MARKS = ".scatterlayer .trace path, .heatmaplayer image, .barlayer path, .stat, tbody tr"


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("preview")
    url = f"sqlite:///{folder / 'site.db'}"
    store = open_store(url)
    store.write(SiteData(end_s=END_S).lines())
    store.close()
    assert main(["preview", "--store", url, "--out", str(folder / "out"), "--var", "node=n4"]) == 0
    return folder / "out" / "index.html"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as started:
        yield started


@pytest.mark.rig
def test_every_panel_has_marks_and_no_reader_trips(browser: Any, page_file: Path) -> None:
    """On a desk and on a phone, by day and by night: axe-core, console, requests, width."""
    assert faults(browser, page_file.as_uri(), axe_source(), ("desk, light", "phone, dark")) == []
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto(page_file.as_uri())
    page.wait_for_selector("body[data-drawn]")
    panels = page.query_selector_all(".panel")
    assert len(panels) == sum(len(board.panels) for board in BOARDS)
    bare = page.evaluate(f"[...document.querySelectorAll('.panel')].filter(p => !p.querySelector('{MARKS}')).length")
    assert bare == 0
    page.close()


@pytest.mark.rig
def test_the_live_page_keeps_itself_up_to_date_and_says_when_it_cannot(browser: Any, page_file: Path) -> None:
    url = f"sqlite:///{page_file.parents[1] / 'site.db'}"
    command = [Path(sys.executable).with_name("powerhall-dashboards"), "serve", "--store", url]
    options = ["--newest", "--listen", "127.0.0.1:0", "--refresh", "1"]
    with subprocess.Popen([*command, *options], stdout=subprocess.PIPE, text=True) as running:
        try:
            address = running.stdout.readline().strip()  # type: ignore[union-attr]
            assert faults(browser, address, axe_source()) == []
            assert faults(browser, f"{address}d/powerhall-site", axe_source()) == []
            page = browser.new_page(viewport={"width": 390, "height": 844}, color_scheme="dark")
            page.goto(address)
            assert page.title().startswith("Within every limit")
            store = open_store(url)
            point = Point("site_10s", {"site": "phx"}, {"facility_power_w": 99e6, "budget_w": 1e6}, (END_S - 10) * 1000)
            store.write(encode(point))
            store.close()
            page.wait_for_selector("h1.verdict.critical", timeout=15_000)
            assert page.title().startswith("NOT SAFE")
            assert page.inner_text(".verdict").startswith("NOT SAFE: over the limit: phx at the meter")
            running.terminate()
            page.wait_for_selector("#lost:not([hidden])", timeout=15_000)
            assert page.inner_text("#lost").startswith(
                "No answer from the server of this page. What stands below is of"
            )
            assert page.title() == "NO ANSWER - Powerhall"
            page.close()
        finally:
            running.kill()


@pytest.mark.rig
def test_a_plan_report_trips_no_reader(browser: Any, tmp_path: Path) -> None:
    jobs = [Job("a", 16, 7200.0), *(Job(f"wait{number}", 64, 3600.0) for number in range(40))]
    site = small_site([f"n{number}" for number in range(8)])
    plan = greedy_plan(site, jobs, start_s=1_784_124_000, slot_s=600, budget_w=(60_000,) * 12)
    assert len(plan.waiting) > 30
    (tmp_path / "report.html").write_text(report_html(plan), encoding="utf-8")
    assert faults(browser, (tmp_path / "report.html").as_uri(), axe_source()) == []


@pytest.mark.rig
def test_values_from_the_store_are_text_and_never_markup(browser: Any, tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{tmp_path / 'site.db'}")
    store.write(SiteData(end_s=END_S, hours=0.2).lines())
    evil = b'</script><img src=x onerror=document.title="owned">'
    store.write(
        b'event,site=phx,kind=xid detail="%s",severity=2.0,code=79.0 1790000000000\n' % evil.replace(b'"', b'\\"')
    )
    store.write(b'plan_slot,site=phx,hall=h1,lane=0 job="<b>&x</b>",gpus=1.0 1790000400000\n')
    store.close()
    main(["preview", "--store", f"sqlite:///{tmp_path / 'site.db'}", "--out", str(tmp_path)])
    page = browser.new_page()
    page.goto((tmp_path / "index.html").as_uri())
    page.wait_for_selector("body[data-drawn]")
    assert page.title() == "Powerhall preview"
    assert "onerror=document.title" in page.inner_text("#powerhall-site")
    page.close()
