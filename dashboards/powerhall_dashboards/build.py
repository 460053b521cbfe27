"""Writes the dashboards' JSON and says where files on disk differ from what the code makes."""

from pathlib import Path

from powerhall_dashboards.boards import BOARDS
from powerhall_dashboards.grafana import board_json

__all__ = ["built", "differences", "write"]


def built() -> dict[str, str]:
    """Return file name to JSON text of every dashboard."""
    return {f"{board.uid}.json": board_json(board) for board in BOARDS}


def write(folder: Path) -> list[Path]:
    """Write every dashboard into the folder, made when absent; return the files."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, text in built().items():
        path = folder / name
        path.write_text(text, encoding="utf-8")
        paths.append(path)
    return paths


def differences(folder: Path) -> list[str]:
    """Return one line for each file that is absent, differs or is not ours; none when the folder is up to date."""
    texts = built()
    found = {path.name: path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.json"))}
    lines = [f"{folder / name}: absent" for name in texts if name not in found]
    lines += [
        f"{folder / name}: differs from the code" for name in texts if name in found and found[name] != texts[name]
    ]
    return lines + [f"{folder / name}: no dashboard makes it" for name in found if name not in texts]
