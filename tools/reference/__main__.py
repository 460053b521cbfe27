"""Write the reference pages that are generated from code, or check that they are up to date.

python -m tools.reference           write them
python -m tools.reference --check    exit code 1 and a list when a page differs
"""

import sys
from pathlib import Path

from tools.reference import commands, settings

ROOT = Path(__file__).parents[2]
PAGES = {
    "docs/reference/commands.md": commands.render,
    "docs/reference/site-file.md": settings.site_file,
    "docs/reference/agent-settings.md": settings.agent_settings,
    "docs/reference/optimizer-settings.md": settings.optimizer_settings,
}


def main(arguments: list[str]) -> int:
    """Write or check every page; return the exit code."""
    stale = [name for name, render in PAGES.items() if _refresh(ROOT / name, render(ROOT), "--check" in arguments)]
    for name in stale:
        sys.stderr.write(f"{name}: differs from the code; run `make reference`\n")
    return 1 if stale else 0


def _refresh(path: Path, text: str, check: bool) -> bool:
    """Write `text` where it differs; with `check` only say whether it does."""
    if path.exists() and path.read_text(encoding="utf-8") == text:
        return False
    if not check:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return check


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
