"""Finds the lines that a store refuses: a refused batch is halved until single lines are left.

One bad line among n costs at most 2 * log2(n) requests besides the first; every other line is delivered on the way. The
same line may reach the store more than once (some servers write the good part of a batch they refuse); it is the same
point each time. A batch that is too large for a proxy is halved until its parts pass; none of its lines is set aside.

A batch that the store keeps failing on (500) is halved too. There a line is set aside only when it has failed in
several cycles while other parts of the batch were taken; a store that takes nothing is left alone.

An answer that has the form of the store's but not its header may be a gateway's, and one of the store that says nothing
of a line may be about the request. After either a line is set aside only when it is refused once more after another
line of the batch has been taken; a line that has been taken before is sent again for that, which changes nothing in
the store.
"""

from collections import deque
from collections.abc import Callable

from powerhall.runtime.errors import Rejected
from powerhall_agent.delivery.errors import (
    ForeignAnswerError,
    PointsTooOld,
    RefusedByForm,
    RequestTooLarge,
    StoreFault,
)
from powerhall_agent.delivery.refused_series import newest_ms
from powerhall_agent.delivery.spool import Batch

__all__ = ["Bisection"]

_FAULTS = 4
"""Cycles in which a single line has failed, beside deliveries of others, after which it counts as refused."""
_UNSURE = "by something that may not be the store, or not of a line, and nothing is taken: is a proxy between?"
_BY_FORM = 12
"""Refusals in a row that are not certain after which it has to take something before more is sent."""


class Bisection:
    """A refused batch that is being split into delivered and refused lines.

    The halves of a part that the store failed on are sent last, so that its sibling shows first whether the store takes
    lines at all.
    """

    def __init__(
        self, batch: Batch, lines: bytes, refusal: Rejected | StoreFault, keep: Callable[[bytes, str], None]
    ) -> None:
        """Split `lines`, those of the batch that were sent; `keep` sets refused ones aside."""
        self.batch = batch
        self.cycle = 0
        """Number of the shipper's cycle: failures of one cycle count once."""
        self.delivered: list[bytes] = []
        self.refused: list[bytes] = []
        self._keep = keep
        self._left: deque[list[bytes]] = deque()
        self._faults: dict[bytes, set[int]] = {}
        self._by_form: dict[bytes, int] = {}
        """What `_taken` was when a single line was first refused, not for certain."""
        self._taken = 0
        self._in_a_row = 0
        self._trimmed = False
        parts = lines.splitlines(keepends=True)
        if len(parts) == 1 and isinstance(refusal, RequestTooLarge):
            self._left.append(parts)
        else:
            self._after(parts, refusal)

    @property
    def done(self) -> bool:
        """True when every line has been delivered or kept aside."""
        return not self._left

    @property
    def shows_nothing(self) -> bool:
        """True when every line was refused alone, and none of them for certain."""
        alone = all(len(part) == 1 and part[0] in self._by_form for part in self._left)
        return alone and not (self.delivered or self.refused)

    def step(self, send: Callable[[bytes], None]) -> None:
        """Send one part; Retryable passes through and leaves the part to be sent again."""
        part = self._left[0]
        was_refused = self._by_form.get(part[0], -1) == self._taken
        if self.delivered and (was_refused or self._in_a_row > _BY_FORM):
            self._ask_again(send)
        try:
            send(b"".join(part))
        except (Rejected, StoreFault) as refusal:
            self._left.popleft()
            self._after(part, refusal)
        else:
            self._left.popleft()
            self._in_a_row = 0
            self._taken += 1
            self.delivered += part

    def _after(self, part: list[bytes], refusal: Rejected | StoreFault) -> None:
        if isinstance(refusal, StoreFault):
            self._after_fault(part, refusal)
        elif isinstance(refusal, RefusedByForm):
            self._after_form(part, refusal)
        elif len(part) > 1 and isinstance(refusal, PointsTooOld) and not self._trimmed:
            self._trim(part, refusal)
        elif len(part) > 1:
            self._left.extendleft(reversed(_halves(part)))
        elif isinstance(refusal, RequestTooLarge):
            self._left.appendleft(part)  # no line is at fault: it is sent again
            raise ForeignAnswerError(str(refusal)) from None
        elif part:
            self._set_aside(part, refusal)

    def _after_fault(self, part: list[bytes], fault: StoreFault) -> None:
        self._in_a_row += 1
        if len(part) > 1:
            self._left += _halves(part)
        else:
            cycles = self._faults.setdefault(part[0], set())
            cycles.add(self.cycle)
            if self.delivered and len(cycles) >= _FAULTS:
                self._set_aside(part, fault)
                return
            self._left.append(part)
        if self._in_a_row > 1:  # the sibling failed too: pause before the next
            raise fault

    def _after_form(self, part: list[bytes], refusal: RefusedByForm) -> None:
        self._in_a_row += 1
        if len(part) > 1:
            self._left += _halves(part)
        elif self._taken > self._by_form.setdefault(part[0], self._taken):
            self._set_aside(part, refusal)
            return
        else:
            self._left.append(part)
        if self._in_a_row > _BY_FORM and not self.delivered:
            raise ForeignAnswerError(f"{refusal}, {_UNSURE}")

    def _ask_again(self, send: Callable[[bytes], None]) -> None:
        """Send a line that the store has taken before: does the same endpoint still take any?"""
        try:
            send(self.delivered[-1])
        except (Rejected, StoreFault) as refusal:
            raise ForeignAnswerError(f"{refusal}, {_UNSURE}") from None
        self._in_a_row = 0
        self._taken += 1

    def _trim(self, part: list[bytes], refusal: PointsTooOld) -> None:
        """Set aside as many of the oldest lines as the store has dropped; the others are sent once more."""
        self._trimmed = refusal.points > 0
        by_age = sorted(part, key=newest_ms)
        old = by_age[: refusal.points or None]
        self._set_aside(old, refusal)
        if len(old) < len(part):
            self._left.append(by_age[len(old) :])

    def _set_aside(self, part: list[bytes], why: Rejected | StoreFault) -> None:
        self.refused += part
        self._keep(b"".join(part), str(why))


def _halves(part: list[bytes]) -> list[list[bytes]]:
    middle = len(part) // 2
    return [part[:middle], part[middle:]]
