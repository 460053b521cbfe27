"""A page as PDF, printed by a Chromium of the host where there is one; no library is needed for it."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

__all__ = ["write_pdf"]

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_MOST_S = 60.0


def write_pdf(page: Path, pdf: Path) -> str | None:
    """Print an HTML page of ours to a file; return None, or in one line why there is none. An old file goes first."""
    pdf.unlink(missing_ok=True)
    browser = next((found for name in _NAMES if (found := shutil.which(name))), None)
    if browser is None:
        return "no Chromium found (chromium, google-chrome)"
    with tempfile.TemporaryDirectory(prefix="powerhall-pdf-") as folder:
        part = Path(folder) / "page.pdf"
        command = [
            browser,
            "--headless",
            "--disable-gpu",
            "--no-pdf-header-footer",
            f"--user-data-dir={folder}/profile",
        ]
        command += ["--no-sandbox"] if os.geteuid() == 0 else []  # it refuses to run as root with it
        command += ["--virtual-time-budget=5000", f"--print-to-pdf={part}", page.resolve().as_uri()]
        try:
            done = subprocess.run(
                command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=_MOST_S, check=False
            )
        except subprocess.TimeoutExpired:
            return f"{browser} took more than {_MOST_S:g} s"
        except OSError as error:
            return f"{browser}: {error.strerror}"
        if not part.exists():
            return f"{browser} ended with {done.returncode} and wrote none"
        shutil.move(part, pdf)
    return None
