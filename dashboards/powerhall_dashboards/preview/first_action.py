"""The first thing to do where a site is not safe or not known to be: what no alert says, since alerts need readings."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

__all__ = ["LimitLine", "ToDo", "first_action"]

_SHOWN = 3


@dataclass(frozen=True, slots=True)
class LimitLine:
    """A limit: what is used of it in percent, what is left, and its role."""

    name: str
    used_percent: float
    left: str
    role: str


@dataclass(frozen=True, slots=True)
class ToDo:
    """An alarm with where it stands and the first thing to do, or a reason for which jobs wait and what would help."""

    what: str
    where: str
    do: str
    role: str
    board: str = ""


def first_action(
    limits: Sequence[LimitLine], silent: Sequence[str], *, is_fresh: bool, is_alarmed: bool
) -> Iterator[ToDo]:
    """Yield what to do about limits that are exceeded, unless an alarm says it, then about those that are not known."""
    over = [line.name for line in limits if line.role == "critical"]
    if over and not is_alarmed:
        do = "Stop or slow what was started last there, and do not start more; then find why the plan did not hold."
        yield ToDo("Over the limit", _names(over), do, "critical", _board(over[0]))
    if not is_fresh:
        do = (
            "Check that the store answers and that the roll-up runs (systemctl status powerhall-rollup); until it "
            "does, start nothing and read the meters on site."
        )
        yield ToDo("Nothing is known", "", do, "critical", "powerhall-health")
        return
    if not limits and not silent:
        do = "Give the site a power limit, or its halls cooling plants, in site.toml, then check it."
        yield ToDo("No limit is known", "", do, "critical", "powerhall-health")
    cooling = [name for name in silent if name.endswith(" cooling")]
    weather = [name for name in cooling if f"{name.removesuffix('cooling')}power" not in silent]
    others = [name for name in silent if name not in weather]
    if others:
        do = (
            "See which agents are silent and whether the roll-up runs (its log names them); start nothing there, and "
            "read the meters on site until it is known."
        )
        yield ToDo("Nothing is known of", _names(others), do, "critical", "powerhall-health")
    if weather:
        do = "Give planning.weather a file that covers this hour; until then count on the plants' worst."
        yield ToDo("Cooling capacity is not known of", _names(weather), do, "critical", "powerhall-cooling")


def _names(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _board(name: str) -> str:
    """Return the dashboard that shows a limit."""
    if " cooling" in name:
        return "powerhall-cooling"
    return "powerhall-site" if name.endswith(" at the meter") else "powerhall-hall"
