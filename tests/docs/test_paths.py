"""Every file and folder that README and docs name exists."""

import re
from pathlib import Path

import pytest

from rigs.pages import pages

ROOT = Path(__file__).parents[2]
PARTS = ("core", "agent", "optimizer", "twin", "dashboards")
TREES = (*PARTS, "deploy", "tests", "benchmarks", "examples", "tools", "docs")
FILES = [str(path) for tree in TREES for path in (ROOT / tree).rglob("*.py")]
PACKAGES = tuple(f"{tree}/powerhall" + (f"_{tree}" if tree != "core" else "") for tree in PARTS)


def named(text: str) -> set[str]:
    """Return the paths in code spans that begin with a folder of the checkout."""
    spans = re.findall(r"`([^`\s]+)`", text)
    return {
        span
        for span in spans
        if span.split("/")[0] in TREES and "/" in span and not set(span) & set("*<>{}=$") and "NAME" not in span
    }


@pytest.mark.parametrize("page", pages(ROOT))
def test_every_path_of_a_page_exists(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    absent = [path for path in sorted(named(text)) if not (ROOT / path.split("::")[0]).exists()]
    assert absent == []


@pytest.mark.parametrize("page", pages(ROOT))
def test_every_module_of_a_page_exists(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    spans = {span for span in re.findall(r"`([\w/]+\.py)`", text) if "NAME" not in span}
    assert [span for span in sorted(spans) if not any(file.endswith(f"/{span}") for file in FILES)] == []


def test_every_module_of_the_walks_exists() -> None:
    page = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    walks = page[page.index("## A watt to a panel") : page.index("## The model")]
    for step in re.split(r"\n\d\. ", walks):
        packages = [ROOT / name for name in PACKAGES if f"`{name}/" in step]
        for module in re.findall(r"`([a-z_]+(?:/[a-z_]+)*\.py)`", step):
            there = [ROOT / module, *(path for package in packages for path in package.rglob(module))]
            assert any(path.exists() for path in there), module
