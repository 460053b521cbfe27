"""Times of a plan as the checker writes them."""

from datetime import UTC, datetime

__all__ = ["time_text"]


def time_text(time_s: float) -> str:
    """Write a time as `2026-07-15T12:00Z`; one that no calendar has, as its seconds."""
    try:
        return datetime.fromtimestamp(time_s, UTC).strftime("%Y-%m-%dT%H:%MZ")
    except (OverflowError, ValueError, OSError):
        return f"{time_s:g} s"
