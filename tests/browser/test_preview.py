"""The preview in a real browser: no error, no request, every panel with marks, on a desk and on a phone."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from powerhall.store import open_store
from powerhall_dashboards.boards import BOARDS
from powerhall_dashboards.cli import main
from rigs.site_data import SiteData

playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
MARKS = ".scatterlayer .trace path, .heatmaplayer image, .barlayer path, .stat, tbody tr"


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("preview")
    url = f"sqlite:///{folder / 'site.db'}"
    store = open_store(url)
    store.write(SiteData(end_s=1_790_000_100).lines())
    store.close()
    assert main(["preview", "--store", url, "--out", str(folder / "out"), "--var", "node=n4"]) == 0
    return folder / "out" / "index.html"


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    if CHROMIUM is None:
        pytest.skip("chromium not installed (apt install chromium)")
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield started
        started.close()


@pytest.mark.rig
@pytest.mark.parametrize(("width", "height"), [(1280, 900), (390, 844)], ids=["desk", "phone"])
def test_every_panel_has_marks_and_nothing_fails_or_is_fetched(
    browser: object, page_file: Path, width: int, height: int
) -> None:
    page = browser.new_page(viewport={"width": width, "height": height})
    problems, requests = [], []
    page.on("console", lambda message: problems.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(page_file.as_uri())
    page.wait_for_function("document.body.dataset.drawn")
    assert problems == []
    assert [url for url in requests if not url.startswith(("data:", "blob:"))] == [page_file.as_uri()]
    panels = page.query_selector_all(".panel")
    assert len(panels) == sum(len(board.panels) for board in BOARDS)
    bare = [panel.query_selector("h4").inner_text() for panel in panels if not panel.query_selector(MARKS)]
    assert bare == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width, "no sideways scrolling"
    outside = page.evaluate(
        "[...document.querySelectorAll('.panel')].filter(p => p.getBoundingClientRect().right > innerWidth).length"
    )
    assert outside == 0
    page.close()


@pytest.mark.rig
def test_values_from_the_store_are_text_and_never_markup(browser: object, tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{tmp_path / 'site.db'}")
    store.write(SiteData(end_s=1_790_000_100, hours=0.2).lines())
    evil = b'</script><img src=x onerror=document.title="owned">'
    store.write(
        b'event,site=phx,kind=xid detail="%s",severity=2.0,code=79.0 1790000000000\n' % evil.replace(b'"', b'\\"')
    )
    store.write(b'plan_slot,site=phx,hall=h1,lane=0 job="<b>&x</b>",gpus=1.0 1790000400000\n')
    store.close()
    main(["preview", "--store", f"sqlite:///{tmp_path / 'site.db'}", "--out", str(tmp_path)])
    page = browser.new_page()
    page.goto((tmp_path / "index.html").as_uri())
    page.wait_for_function("document.body.dataset.drawn")
    assert page.title() == "Powerhall preview"
    assert "onerror=document.title" in page.inner_text("#powerhall-site")
    page.close()
