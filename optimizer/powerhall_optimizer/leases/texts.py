"""Texts about grants. No code reads them back."""

__all__ = ["only_lowered"]


def only_lowered(error: Exception) -> str:
    """Write the note of a grant in which an event leaves less than the safe caps."""
    return f"an event asks for less than the safe caps: nothing is raised ({error})"
