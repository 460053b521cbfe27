"""The folder of files that come with Powerhall: inside the installed package, or `deploy` of the checkout."""

import shutil
from pathlib import Path

from powerhall.runtime.errors import Rejected
from powerhall.runtime.files import replace_file

__all__ = ["FOLDERS", "copy_folder", "shipped_file"]

FOLDERS = (
    "compose",
    "config",
    "dashboards",
    "grafana",
    "helm",
    "kubernetes",
    "slurm",
    "systemd",
    "sysusers.d",
    "tmpfiles.d",
)
"""Folders that a wheel holds; pyproject.toml names the same ones."""
_PACKAGE = Path(__file__).resolve().parent.parent


def shipped_file(folder: str, name: str = "") -> Path:
    """Return the path of a file that comes with Powerhall, or of its folder; Rejected where it is absent."""
    checkout = _PACKAGE.parents[1]
    outside = checkout / ("dashboards/grafana" if folder == "dashboards" else f"deploy/{folder}")
    for path in (_PACKAGE / "deploy" / folder / name, outside / name):
        if path.exists():
            return path
    raise Rejected(f"{_PACKAGE}: deploy/{folder}/{name}: is not in this package: install Powerhall from its wheel")


def copy_folder(folder: str, out: Path) -> int:
    """Copy one of FOLDERS to `out` and return the number of its files. Raises OSError."""
    source = shipped_file(folder)
    files = [path for path in sorted(source.rglob("*")) if path.is_file()]
    paths = [path for path in files if "secrets" not in path.relative_to(source).parts]
    for path in paths:
        copy = out / folder / path.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        replace_file(copy, path.read_bytes())
        shutil.copymode(path, copy)
    if folder == "compose":  # beside the copied folders, and without the checkout that images are built from
        replace_file(out / folder / ".env", b"POWERHALL_DASHBOARDS=../dashboards\n")
    return len(paths)
