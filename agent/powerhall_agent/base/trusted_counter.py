"""A total that only rises, made from the readings of a hardware counter of which some may be garbage.

A reading is believed when the rise since the last believed one is possible in the time between. One that is not is
dropped: the total goes on by the caller's estimate, and is right again with the next believed reading. A counter that
begins again at zero is followed at once; one that goes on from any other value, once five readings in a row agree with
each other, and rise at a hundredth at least of what was expected. If the counter comes back to its former course within
a minute, that course is taken up again, so that nothing of the detour stays in the total. A counter that stood still
may catch up: what is possible is reckoned from the time of its last change.
"""

from enum import Enum, auto
from typing import Final, NamedTuple

__all__ = ["LEAST_SHARE", "TrustedCounter", "Verdict"]

_CONFIRM: Final = 5
_STRAY: Final = 4
LEAST_SHARE: Final = 100
"""Two sensors of one quantity that differ by this factor: the smaller one shows another unit, or nothing."""
_BACK_NS: Final = 60_000_000_000
_SECOND_NS: Final = 1_000_000_000
_SENTINELS: Final = frozenset({0xFFFFFFFF, 0x7FFFFFFFFFFFFFFF, 0xFFFFFFFFFFFFFFFF})
"""What drivers show in place of a value. A counter that counts on past one of them loses a single reading."""


class Verdict(Enum):
    """What became of a reading."""

    BELIEVED = auto()
    DROPPED = auto()
    RESTARTED = auto()
    """Believed as the first of a counter that has begun anew."""


class _Course(NamedTuple):
    """A believed reading, the total that belongs to it, and when it was first read."""

    raw: int
    total: int
    at_ns: int


class TrustedCounter:
    """Follows one counter; `most_per_s` is the fastest that it can rise and `slack` the size of its steps."""

    def __init__(  # noqa: PLR0917 - the state of an earlier run is three of them
        self, most_per_s: int, slack: int, wrap: int = 0, total: int = 0, raw: int | None = None, raw_ns: int = 0
    ) -> None:
        """Continue from a total and the reading that belonged to it, read at `raw_ns` by the monotonic clock.

        A counter that wraps does so at `wrap`; 0 means that it does not.
        """
        self.most_per_s, self.slack, self._wrap = most_per_s, slack, wrap
        self.total = total
        self.reason = ""
        """Why the last reading was dropped."""
        self.rise = self.over_ns = 0
        """How far the counter rose between the last two believed readings, and in which time."""
        self._now = None if raw is None else _Course(raw, total, raw_ns)
        self._before: _Course | None = None
        self._former: _Course | None = None
        """The last believed reading, the one before it, and the last one before the counter began anew."""
        self._candidate: _Course | None = None
        self._agreeing = 0
        self._first_agreeing = 0, 0
        """The first of the readings that agree, and what was expected up to then."""
        self._estimated = self._expected = 0

    @property
    def raw(self) -> int | None:
        """The last believed reading."""
        return None if self._now is None else self._now.raw

    @property
    def raw_ns(self) -> int:
        """When it was read first: a counter that stands still shows the same again."""
        return 0 if self._now is None else self._now.at_ns

    @property
    def steady(self) -> bool:
        """Whether the total is exactly that of the last believed reading."""
        return self._now is not None and self._now.total == self.total and not self._estimated

    def most_within(self, elapsed_ns: int) -> int:
        """Return the largest rise that is possible in this time."""
        return self.most_per_s * max(0, elapsed_ns) // _SECOND_NS + self.slack

    def take(self, now_ns: int, raw: int, estimate: int = 0, expected: int = 0) -> Verdict:
        """Take a reading; `estimate` is how much the total rises meanwhile if the reading cannot be believed.

        `expected` is a guess where there is no estimate: it tells a likely reading, and is never added to the total.
        """
        expected = max(estimate, expected)
        if raw in _SENTINELS or raw < 0:
            return self._drop(f"{raw} is no reading", estimate)
        if self._now is None:
            self._now = _Course(raw, self.total, now_ns)
            return Verdict.BELIEVED
        rise = self._rise(self._now, now_ns, raw)
        if rise is not None and not self._strays(rise, expected):
            self._before = self._now
            self._follow(self._now, rise, now_ns, raw)
            return Verdict.BELIEVED
        for course in (self._before, self._former):
            if course is None or raw > self._now.raw > course.raw or now_ns - course.at_ns > _BACK_NS:
                continue
            back = self._rise(course, now_ns, raw)
            if back is not None:
                self._before = self._former = None
                self._follow(course, back, now_ns, raw)
                return Verdict.BELIEVED
        self._expected += expected
        return self._doubt(self._now, now_ns, raw, estimate)

    @staticmethod
    def may_pass(raws: list[int]) -> bool:
        """Return whether none of the readings stands for a missing value."""
        return _SENTINELS.isdisjoint(raws)

    def skip(self, estimate: int) -> None:
        """Count on by an estimate where there was no reading."""
        self._estimated += estimate
        if self._now is None:
            self.total += estimate
        else:
            self.total = max(self.total, self._now.total + self._estimated)

    def advance(self, times_ns: tuple[int, int], raws: tuple[int, int]) -> None:
        """Follow readings that were already found possible; the last two of them are given."""
        assert self._now is not None
        offset, stands = self._now.total - self._now.raw, raws[0] == self._now.raw
        self._before = _Course(raws[0], raws[0] + offset, self._now.at_ns if stands else times_ns[0])
        self._follow(self._before, raws[1] - raws[0], times_ns[1], raws[1])

    def _rise(self, course: _Course, now_ns: int, raw: int) -> int | None:
        """Return how far a counter has risen since a reading; None where that is impossible."""
        most = self.most_within(now_ns - course.at_ns)
        if course.raw <= raw:
            rise = raw - course.raw
            return rise if rise <= most else None
        wrapped = raw + self._wrap - course.raw
        return wrapped if raw > 0 and course.raw < self._wrap and wrapped <= min(most, self._wrap // 2) else None

    def _strays(self, rise: int, expected: int) -> bool:
        """Return whether a reading after dropped ones is far above what was expected meanwhile.

        Garbage that stays becomes possible with time, as far as the fastest rise alone tells.
        """
        expected += self._expected
        return self._candidate is not None and expected > 0 and rise > _STRAY * expected + self.slack

    def _follow(self, course: _Course, rise: int, now_ns: int, raw: int) -> None:
        """Believe a reading that is this far above an earlier one."""
        self._now = _Course(raw, course.total + rise, now_ns if raw != course.raw else course.at_ns)
        self.rise, self.over_ns = rise, now_ns - course.at_ns
        self.total = max(self.total, self._now.total)
        self._candidate, self._agreeing = None, 0
        self._estimated = self._expected = 0

    def _drop(self, reason: str, estimate: int) -> Verdict:
        self.reason = reason
        self.skip(estimate)
        return Verdict.DROPPED

    def _doubt(self, now: _Course, now_ns: int, raw: int, estimate: int) -> Verdict:
        """Decide on a reading that is impossible: has the counter begun anew, or is it garbage?"""
        candidate = self._candidate
        agrees = candidate is not None and self._rise(candidate, now_ns, raw) is not None
        from_zero = 0 < raw < now.raw // 2 and raw <= self.most_within(now_ns - now.at_ns)
        if agrees and candidate is not None and candidate.raw > 0:
            from_zero = False  # it goes on from a reading that was too high for one that began at zero
        self._candidate, self._agreeing = _Course(raw, 0, now_ns), self._agreeing + 1 if agrees else 1
        if not agrees:
            self._first_agreeing = raw, self._expected
        first_raw, first_expected = self._first_agreeing
        slow = LEAST_SHARE * (raw - first_raw) < self._expected - first_expected
        if not from_zero and (self._agreeing < _CONFIRM or slow or raw == 0):
            verb = "falls" if raw < now.raw else "jumps"
            return self._drop(f"the counter {verb} from {now.raw} to {raw}", estimate)
        self.skip(estimate)
        self._former, self._before = now, None
        total = max(self.total, now.total + raw) if from_zero else self.total
        self._follow(now, total - now.total, now_ns, raw)
        return Verdict.RESTARTED
