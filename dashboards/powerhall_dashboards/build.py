"""Writes the generated files (dashboards, alert rules, two pages of documentation) and compares them with the code."""

from collections.abc import Sequence
from pathlib import Path

from powerhall.runtime.files import replace_file
from powerhall_dashboards.boards import BOARDS
from powerhall_dashboards.grafana.alert_files import alerts_markdown, provisioning_json
from powerhall_dashboards.grafana.dashboard import board_json
from powerhall_dashboards.schema_text import schema_markdown

__all__ = ["built", "differences", "write", "write_provisioning"]


def built() -> dict[str, str]:
    """Return path in the repository to text of every file that is made from code."""
    texts = {f"dashboards/grafana/{board.uid}.json": board_json(board) for board in BOARDS}
    return texts | {
        "deploy/grafana/provisioning/alerting/powerhall.json": provisioning_json(),
        "docs/reference/schema.md": schema_markdown(),
        "docs/reference/alerts.md": alerts_markdown(),
    }


def write(root: Path) -> list[Path]:
    """Write every file under this folder; return their paths."""
    paths = []
    for name, text in built().items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, text.encode())
        paths.append(path)
    return paths


def write_provisioning(folder: Path, *, by_class: bool, halls: Sequence[str] = ()) -> list[Path]:
    """Write dashboards and alert rules for Grafana's provisioning by files; return their paths.

    With `halls` each of them has a store, and its own rules for what its nodes write.
    """
    texts = {
        f"dashboards/{board.uid}.json": board_json(board, by_class=by_class, by_hall=bool(halls)) for board in BOARDS
    }
    texts["alerting/powerhall.json"] = provisioning_json(by_class=by_class, halls=halls)
    for name, text in texts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        replace_file(folder / name, text.encode())
    return [folder / name for name in texts]


def differences(root: Path) -> list[str]:
    """Return one line for each file that is absent or differs, and for each foreign dashboard; none when up to date."""
    lines = []
    texts = built()
    for name, text in texts.items():
        path = root / name
        if not path.is_file():
            lines.append(f"{name}: absent")
        elif path.read_text(encoding="utf-8") != text:
            lines.append(f"{name}: differs from the code")
    there = (f"dashboards/grafana/{path.name}" for path in sorted((root / "dashboards/grafana").glob("*.json")))
    return lines + [f"{name}: no dashboard makes it" for name in there if name not in texts]
