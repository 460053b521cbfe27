"""The code blocks of README and docs, as the Markdown parser finds them."""

import re
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block: its page, line, language, and the file that it stands for (`title="NAME"`), if any."""

    page: str
    line: int
    language: str
    title: str
    text: str
    indented: bool = False

    @property
    def file(self) -> str:
        """The file to write, "" when the block stands for none or for a part of one."""
        return "" if self.partial else self.title

    @property
    def partial(self) -> bool:
        """Whether the block is a part of a file: `title="site.toml (part)"`."""
        return self.title.endswith(" (part)")


def pages(root: Path) -> list[str]:
    """Return every Markdown page of the project, relative to `root`."""
    found = [*root.glob("*.md"), *root.glob("docs/**/*.md"), *root.glob("examples/**/*.md")]
    return sorted(str(path.relative_to(root)) for path in found if path.name != "CHANGELOG.md")


def blocks(root: Path, page: str) -> list[Block]:
    """Return the code blocks of a page in order."""
    found = []
    for token in MarkdownIt("commonmark").parse((root / page).read_text(encoding="utf-8")):
        if token.type in {"fence", "code_block"}:
            title = re.search(r'title="([^"]*)"', token.info)
            language = token.info.split()[0] if token.info else ""
            line = token.map[0] + 1 if token.map else 0
            found.append(
                Block(page, line, language, title[1] if title else "", token.content, token.type == "code_block")
            )
    return found
