"""Finds the lines that a store refuses: a refused batch is halved until single lines are left.

One bad line among n costs at most 2 * log2(n) requests besides the first; every other line is delivered on the way. The
same line may reach the store more than once (some servers write the good part of a batch they refuse); it is the same
point each time.
"""

from collections.abc import Callable

from powerhall.runtime.errors import Rejected
from powerhall_agent.delivery.errors import PointsTooOld
from powerhall_agent.delivery.spool import Batch

__all__ = ["Bisection"]


class Bisection:
    """A refused batch that is being split into delivered and refused lines."""

    def __init__(self, batch: Batch, refusal: Rejected, keep: Callable[[bytes, str], None]) -> None:
        self.batch = batch
        self._keep = keep
        self._left: list[list[bytes]] = []
        self._halve(batch.lines.splitlines(keepends=True), refusal)

    @property
    def done(self) -> bool:
        """True when every line has been delivered or kept aside."""
        return not self._left

    def step(self, send: Callable[[bytes], None]) -> None:
        """Send one part; Retryable passes through and leaves the part to be sent again."""
        part = self._left[-1]
        try:
            send(b"".join(part))
        except Rejected as refusal:
            self._left.pop()
            self._halve(part, refusal)
        else:
            self._left.pop()

    def _halve(self, part: list[bytes], refusal: Rejected) -> None:
        if len(part) <= 1 or isinstance(refusal, PointsTooOld):  # the store has written the points that are not too old
            if part:
                self._keep(b"".join(part), str(refusal))
            return
        middle = len(part) // 2
        self._left += [part[middle:], part[:middle]]
