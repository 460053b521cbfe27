"""Node name lists as Slurm writes them: `gn[01-16]`, `h1-k[1-3]-n[1-4],login1`."""

import re
from collections.abc import Iterable
from itertools import product

from powerhall.runtime.decode.limits import MOST_NAMES, enlarged
from powerhall.runtime.decode.numbers_in import digits

__all__ = ["compress", "count_names", "expand"]

_BRACKET = re.compile(r"\[([^\[\]]*)\]")
_TAIL = re.compile(r"(.*?)([0-9]{1,18})$", re.DOTALL)
_MOST_BRACKETS = 8
_MOST_NAME_CHARS = 255
"""Of an expanded name; the names of hosts have 253 at most."""


def _split(text: str) -> list[str]:
    parts: list[str] = []
    depth = start = 0
    for i, char in enumerate(text):
        depth += (char == "[") - (char == "]")
        if char == "," and depth == 0:
            parts.append(text[start:i])
            start = i + 1
    if depth != 0:
        raise ValueError(f"{text[:80]!r}: brackets must be closed, as in 'gn[01-16]'")
    return [p.strip() for p in (*parts, text[start:]) if p.strip()]


def _range(text: str) -> tuple[range, int]:
    """Return the numbers of a range such as `01-16`, and their least width."""
    first, dash, last = text.partition("-")
    low, high = digits(first), digits(last if dash else first)
    if low is None or high is None or high < low:
        raise ValueError(f"[{text[:80]}]: a range must rise, as in '[01-16]'")
    return range(low, high + 1), len(first)


_Ranges = list[list[tuple[range, int]]]
"""Numbers and width of every item of every bracket."""


def _ranges(text: str, most: int) -> tuple[list[str], _Ranges, int]:
    """Return what stands around the brackets of a part, the brackets, and the number of names."""
    pieces = _BRACKET.split(text)
    brackets = [[_range(item.strip()) for item in piece.split(",")] for piece in pieces[1::2]]
    if len(brackets) > _MOST_BRACKETS:
        raise ValueError(f"{text[:80]!r}: must have at most {_MOST_BRACKETS} brackets")
    if any("[" in piece or "]" in piece for piece in pieces[::2]):
        raise ValueError(f"{text[:80]!r}: brackets must not be nested")
    width = max(len(item) for piece in pieces[1::2] for item in piece.split(","))
    if sum(map(len, pieces[::2])) + width > _MOST_NAME_CHARS:
        raise ValueError(f"{text[:80]!r}: a name must have at most {_MOST_NAME_CHARS} characters")
    count = 1
    for ranges in brackets:
        count *= sum(numbers.stop - numbers.start for numbers, _ in ranges)  # `len` ends at 2**63
    if count > most:
        raise ValueError(f"{text[:80]!r}: must give at most {enlarged(MOST_NAMES):,} names")
    return pieces[::2], brackets, count


def _part(text: str, most: int) -> list[str]:
    """Expand one part, in the order in which a counter runs: the last bracket fastest."""
    fixed, brackets, _ = _ranges(text, most)
    steps = [[str(i).zfill(width) for numbers, width in ranges for i in numbers] for ranges in brackets]
    return ["".join(_interleaved(fixed, values)) for values in product(*steps)]


def _interleaved(fixed: list[str], values: tuple[str, ...]) -> Iterable[str]:
    for piece, value in zip(fixed, (*values, ""), strict=True):
        yield piece
        yield value


def expand(text: str) -> tuple[str, ...]:
    """Expand a host list in order; a malformed or too long one (a million names, 255 characters) raises ValueError."""
    names: list[str] = []
    most = enlarged(MOST_NAMES)
    for part in _split(text):
        names.extend(_part(part, most - len(names)) if "[" in part or "]" in part else (part,))
    return tuple(names)


def count_names(text: str) -> int:
    """Return the number of names that `expand` gives, at once; raise what it raises."""
    count, most = 0, enlarged(MOST_NAMES)
    for part in _split(text):
        count += _ranges(part, most - count)[2] if "[" in part or "]" in part else 1
    return count


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
