"""Power levels as small files that a job's prolog reads: LEVEL_DIR/JOBID holds shell assignments.

`deploy/slurm/task_prolog.sh` turns them into the job's environment.
"""

import re
from pathlib import Path

from powerhall_optimizer.schedulers.slurm.ownership_mark import one_word

__all__ = ["is_job_id", "level_text", "stale_levels", "write_level"]


def is_job_id(text: str) -> bool:
    """Return whether this is a Slurm job id (12 or 12_3); only such a name becomes a file."""
    return re.fullmatch(r"\d+(_\d+)?", text) is not None


def level_text(mode: str, power_w: int) -> str:
    """Return a level file's text; the mode as one word."""
    return f"POWERHALL_MODE={one_word(mode)}\nPOWERHALL_GPU_POWER_W={power_w}\n"


def write_level(folder: Path, job_id: str, text: str) -> None:
    """Write a job's file in one step; readers see the old one or the new one."""
    part = folder / f".{job_id}.part"
    part.write_text(text, encoding="utf-8")
    part.chmod(0o644)
    part.replace(folder / job_id)


def stale_levels(folder: Path, live: set[str]) -> list[Path]:
    """Return files of jobs that Slurm no longer lists."""
    return [path for path in sorted(folder.iterdir()) if is_job_id(path.name) and path.name not in live]
