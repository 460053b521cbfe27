"""Pictures of the documentation, taken by Chromium from a store of the demo.

    powerhall-twin demo --out out/demo
    python -m tools.screenshots out/demo/store.db

`--end` is the moment that the pictures show; by default shortly before the demo's curtailment.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Literal

from playwright.sync_api import Page, sync_playwright

ROOT = Path(__file__).resolve().parent.parent
IMAGES = ROOT / "docs" / "images"
BOARDS = {
    "site": "powerhall-site",
    "hall": "powerhall-hall",
    "cooling": "powerhall-cooling",
    "node": "powerhall-node",
    "job": "powerhall-job",
    "optimizer": "powerhall-optimizer",
    "bills": "powerhall-bills",
}
_MOST_PX = 2400


def main() -> None:
    """Write docs/images/preview-*.png."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", type=Path)
    parser.add_argument("--end", default="2026-07-15T13:36Z")
    parser.add_argument("--only", help="names of pictures, such as overview,phone")
    options = parser.parse_args()
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as driver:
        program = Path(sys.executable).with_name("powerhall-dashboards")
        url = f"sqlite:///{options.store.resolve()}"
        subprocess.run([program, "preview", "--store", url, "--out", folder, "--end", options.end], check=True)
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        wanted = set(options.only.split(",")) if options.only else {"overview", "phone", *BOARDS}
        views: tuple[tuple[int, Literal["light", "dark"]], ...] = ((1280, "light"), (390, "dark"))
        for width, scheme in views:
            page = browser.new_page(viewport={"width": width, "height": 844}, color_scheme=scheme)
            page.goto((Path(folder) / "index.html").as_uri())
            page.wait_for_selector("body[data-drawn]")
            _pictures(page, "phone" if scheme == "dark" else "", wanted)
        browser.close()


def _pictures(page: Page, phone: str, wanted: set[str]) -> None:
    if (phone or "overview") in wanted:
        bottom_px = page.evaluate("document.getElementById('overview').getBoundingClientRect().bottom")
        width_px = page.evaluate("innerWidth")
        page.set_viewport_size({"width": width_px, "height": 844 if phone else round(bottom_px) + 12})
        page.screenshot(path=IMAGES / f"preview-{phone or 'overview'}.png")
        page.set_viewport_size({"width": width_px, "height": _MOST_PX})
    for name, board in () if phone else BOARDS.items():
        if name in wanted:
            page.locator(f"#{board}").scroll_into_view_if_needed()
            page.locator(f"#{board}").screenshot(path=IMAGES / f"preview-{name}.png")


if __name__ == "__main__":
    main()
