"""Node name lists as Slurm writes them: `gn[01-16]`, `h1-k[1-3]-n[1-4],login1`."""

import re
from collections.abc import Iterable

__all__ = ["compress", "expand"]

_BRACKET = re.compile(r"\[([^\[\]]*)\]")
_TAIL = re.compile(r"(.*?)(\d+)$", re.DOTALL)


def _split(text: str) -> list[str]:
    parts: list[str] = []
    depth = start = 0
    for i, char in enumerate(text):
        depth += (char == "[") - (char == "]")
        if char == "," and depth == 0:
            parts.append(text[start:i])
            start = i + 1
    if depth != 0:
        raise ValueError(f"{text!r}: brackets must be closed, as in 'gn[01-16]'")
    return [p.strip() for p in (*parts, text[start:]) if p.strip()]


def _range(text: str) -> list[str]:
    low, dash, high = text.partition("-")
    if not low.isdigit() or (dash and not high.isdigit()) or (dash and int(high) < int(low)):
        raise ValueError(f"[{text}]: a range must rise, as in '[01-16]'")
    if not dash:
        return [low]
    return [str(i).zfill(len(low)) for i in range(int(low), int(high) + 1)]


def expand(text: str) -> tuple[str, ...]:
    """Expand a host list in order; a malformed one raises ValueError."""
    names: list[str] = []
    for part in _split(text):
        found = _BRACKET.search(part)
        if found is None:
            names.append(part)
            continue
        head, tail = part[: found.start()], part[found.end() :]
        values = [value for item in found[1].split(",") for value in _range(item.strip())]
        names.extend(head + value + rest for value in values for rest in (expand(tail) if tail else ("",)))
    return tuple(names)


def compress(names: Iterable[str]) -> str:
    """Write names as a host list, rising runs of equal width in brackets; `expand(compress(x)) == tuple(x)`."""
    runs: list[tuple[str, str, str]] = []  # head, first digits, last digits; a name without digits is all head
    for name in names:
        found = _TAIL.fullmatch(name)
        head, digits = (found[1], found[2]) if found else (name, "")
        if digits and runs and runs[-1][0] == head:
            _, first, last = runs[-1]
            if len(last) == len(digits) and int(digits) == int(last) + 1:
                runs[-1] = (head, first, digits)
                continue
        runs.append((head, digits, digits))
    return ",".join(head + (first if first == last else f"[{first}-{last}]") for head, first, last in runs)
