"""Power levels as small files that a job's prolog reads: LEVEL_DIR/JOBID holds shell assignments.

`deploy/slurm/task_prolog.sh` turns them into the job's environment.
"""

from pathlib import Path

__all__ = ["level_text", "stale_levels", "write_level"]


def level_text(mode: str, power_w: int) -> str:
    """Return a level file's text."""
    return f"POWERHALL_MODE={mode}\nPOWERHALL_GPU_POWER_W={power_w}\n"


def write_level(folder: Path, job_id: str, text: str) -> None:
    """Write a job's file in one step; readers see the old one or the new one."""
    part = folder / f".{job_id}.part"
    part.write_text(text, encoding="utf-8")
    part.chmod(0o644)
    part.replace(folder / job_id)


def stale_levels(folder: Path, live: set[str]) -> list[Path]:
    """Return files of jobs that Slurm no longer knows."""
    return [path for path in sorted(folder.iterdir()) if path.name[0].isdigit() and path.name not in live]
