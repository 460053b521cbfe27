"""Chromium for the tests of pages: what a reader would trip over, as lists that must be empty.

axe-core comes from npm (tests/browser/axe, locked); without node, npm or the registry the tests skip.
"""

import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
VIEWS = {
    "desk, light": (1280, "light"),
    "desk, dark": (1280, "dark"),
    "phone, light": (390, "light"),
    "phone, dark": (390, "dark"),
}
_AXE = Path(__file__).parents[1] / "browser" / "axe"
_WIDER = """[...document.querySelectorAll('main *')]
  .filter(e => e.getBoundingClientRect().right > innerWidth + 1 && !e.closest('.scroll') && !e.closest('.chart'))
  .map(e => e.tagName + ' ' + e.className)"""
_AUDIT = """() => axe.run({exclude: ['.chart']}, {
  runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa'],
  resultTypes: ['violations'],
}).then(found => found.violations.flatMap(v => v.nodes.map(n => v.id + ': ' + n.target.join(' ') + ': ' +
  (n.any[0] ? n.any[0].message : v.help) + ' ' + n.html.slice(0, 160))))"""


@contextmanager
def chromium() -> Iterator[Any]:
    """A browser; skips the test where there is none."""
    playwright = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("chromium not installed (apt install chromium)")
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield started
        started.close()


def axe_source() -> str:
    """The script of axe-core, installed from the lock file where it is not yet."""
    script = _AXE / "node_modules" / "axe-core" / "axe.min.js"
    if not script.exists():
        npm = shutil.which("npm")
        if npm is None:
            pytest.skip("npm not installed")
        command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline"]
        done = subprocess.run(command, cwd=_AXE, capture_output=True, text=True, timeout=120, check=False)
        if done.returncode:
            pytest.skip(f"npm ci failed: {done.stderr.strip()[-200:]}")
    return script.read_text(encoding="utf-8")


def faults(browser: Any, url: str, axe: str, views: Sequence[str] = tuple(VIEWS)) -> list[str]:
    """What is wrong with a page: console messages, requests to elsewhere, too wide elements, findings of axe-core.

    Charts are left to the reader's eye: axe-core does not see into them.
    """
    found: list[str] = []
    for width in dict.fromkeys(VIEWS[name][0] for name in views):
        page = browser.new_page(viewport={"width": width, "height": 900})
        _listen(page, url, found)
        for name in (name for name in views if VIEWS[name][0] == width):
            page.emulate_media(color_scheme=VIEWS[name][1])
            if page.url != url:
                page.goto(url)
                if page.query_selector("#figures"):
                    page.wait_for_selector("body[data-drawn]")
                page.evaluate(axe)
            if page.evaluate("document.documentElement.scrollWidth") > width:
                found.append(f"{name}: the page is wider than the screen")
            found += [f"{name}: wider than the page: {element}" for element in page.evaluate(_WIDER)]
            found += [f"{name}: {finding}" for finding in page.evaluate(_AUDIT)]
        page.close()
    return found


def _listen(page: Any, url: str, found: list[str]) -> None:
    origin = url if url.startswith("file:") else "/".join(url.split("/")[:3])

    def asked(request: Any) -> None:
        if not request.url.startswith((origin, "data:", "blob:")):
            found.append(f"request: {request.url}")

    def said(message: Any) -> None:
        if message.type in ("error", "warning"):
            found.append(f"console: {message.text}")

    page.on("request", asked)
    page.on("console", said)
    page.on("pageerror", lambda error: found.append(f"error: {error}"))
