"""Series that a store refuses again and again, such as those of a field that it keeps with another type.

To find refused lines costs requests (see bisection.py). Where every line of a series with the same fields is refused
twice in a row, its next lines are set aside without asking, first for a minute, then for twice as long each time, up to
ten minutes; then one batch goes whole again and shows whether the store takes them now.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from powerhall.runtime.decode.numbers_in import digits

__all__ = ["RefusedSeries", "newest_ms"]

_TIMES = 2
_FIRST_S = 60.0
_LONGEST_S = 600.0
_MOST = 10_000
"""Series that are remembered; a node has some hundreds."""
_TEXT = re.compile(rb'"(?:[^"\\]|\\.)*"')
_SERIES = re.compile(rb"((?:[^ \\]|\\.)+) (.*) [^ ]*")

Key = tuple[bytes, ...]


@dataclass(slots=True)
class _Memory:
    times: int = 0
    held_s: float = 0.0
    """How long the last hold lasts."""
    until_s: float = 0.0


class RefusedSeries:
    """Remembers which series, with which fields, are refused; times are those of a monotonic clock."""

    def __init__(self) -> None:
        self._known: dict[Key, _Memory] = {}

    def split(self, lines: bytes, now_s: float) -> tuple[bytes, bytes]:
        """Return the lines to send, and those to set aside unsent."""
        if not any(memory.until_s > now_s for memory in self._known.values()):
            return lines, b""
        sent, held = list[bytes](), list[bytes]()
        for line in lines.splitlines(keepends=True):
            memory = self._known.get(_key(line))
            (held if memory is not None and memory.until_s > now_s else sent).append(line)
        return b"".join(sent), b"".join(held)

    def delivered(self, lines: bytes) -> None:
        """Forget the series of lines that the store has taken."""
        if self._known:
            self.learn(lines.splitlines(keepends=True), (), 0.0)

    def learn(self, delivered: Iterable[bytes], refused: Iterable[bytes], now_s: float) -> int:
        """Take in what became of lines; return how many series are now held back."""
        taken = {_key(line) for line in delivered}
        for key in taken:
            self._known.pop(key, None)
        for key in {_key(line) for line in refused} - taken:
            if len(self._known) < _MOST or key in self._known:
                self._refuse(self._known.setdefault(key, _Memory()), now_s)
        return sum(memory.until_s > now_s for memory in self._known.values())

    def _refuse(self, memory: _Memory, now_s: float) -> None:
        memory.times += 1
        if memory.times >= _TIMES:
            memory.held_s = min(2 * memory.held_s or _FIRST_S, _LONGEST_S)
            memory.until_s = now_s + memory.held_s


def _key(line: bytes) -> Key:
    """Return measurement and tags, then the names of the fields; the whole line where it is not well-formed."""
    found = _SERIES.fullmatch(line.rstrip(b"\n"))
    if found is None:
        return (line,)
    return (found[1], *(pair.partition(b"=")[0] for pair in _TEXT.sub(b"", found[2]).split(b",")))


def newest_ms(lines: bytes) -> int:
    """Return the timestamp of the last line, 0 when it has none."""
    word = lines.rstrip(b"\n").rpartition(b" ")[2]
    return digits(word.decode("utf-8", "replace")) or 0
