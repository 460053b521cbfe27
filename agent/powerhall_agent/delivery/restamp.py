"""Gives spooled lines the time that a corrected clock would have shown."""

from collections.abc import Callable

__all__ = ["Change", "restamp"]

Change = Callable[[bytes], bytes]
"""Turns lines into as many other lines."""


def restamp(by_ms: int, from_ms: int, to_ms: int) -> Change:
    """Return a change that moves the timestamps within these bounds; those of jobs come from another clock reading."""

    def change(lines: bytes) -> bytes:
        moved = []
        for line in lines.splitlines(keepends=True):
            head, _, stamp = line.rpartition(b" ")
            try:
                time_ms = int(stamp)
            except ValueError:
                time_ms = from_ms - 1
            if from_ms <= time_ms <= to_ms and not line.startswith(b"job_interval"):
                line = b"%b %d\n" % (head, time_ms + by_ms)  # noqa: PLW2901
            moved.append(line)
        return b"".join(moved)

    return change
