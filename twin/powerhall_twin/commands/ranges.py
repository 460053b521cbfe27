"""Range checks of numeric options."""

from powerhall.runtime.errors import Rejected

__all__ = ["check_range"]


def check_range(option: str, value: float, low: float, high: float) -> None:
    """Refuse a value of an option outside low..high, by Rejected."""
    if not low <= value <= high:
        raise Rejected.field("command line", option, f"{value:g}", f"must be from {low:g} to {high:g}")
