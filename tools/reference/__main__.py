"""Write all files that are generated from code: reference pages, dashboards, alert rules; or check them.

python -m tools.reference           write them
python -m tools.reference --check    exit code 1 and a list when a file differs
"""

import sys
from pathlib import Path

from powerhall_dashboards import build
from tools.reference import commands, settings

ROOT = Path(__file__).parents[2]
PAGES = {
    "docs/reference/commands.md": commands.render,
    "docs/reference/site-file.md": settings.site_file,
    "docs/reference/agent-settings.md": settings.agent_settings,
    "docs/reference/optimizer-settings.md": settings.optimizer_settings,
}


def main(arguments: list[str]) -> int:
    """Write or check every file; return the exit code."""
    if "--check" in arguments:
        found = differences(ROOT)
        sys.stderr.writelines(f"{line}; run `make reference`\n" for line in found)
        return 1 if found else 0
    for name, render in PAGES.items():
        (ROOT / name).write_text(render(ROOT), encoding="utf-8")
    build.write(ROOT)
    return 0


def differences(root: Path) -> list[str]:
    """Return a line for each generated file that differs from the code."""
    stale = [name for name, render in PAGES.items() if _text(root / name) != render(root)]
    return [f"{name}: differs from the code" for name in stale] + build.differences(root)


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.exists() else ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
