"""The GPU side of the capper: which cap every GPU should hold, and how each is brought to it and kept there.

* A GPU is taken in when it answers for the first time, or with another UUID: its limit is noted as found, then it gets
  its cap. One that does not answer is reported and left; what it should hold waits for it.
* A safe limit that is above the range of every GPU is a mistake, and not believed: the lowest limits hold.
* Lower caps are written before higher ones, so that the sum of the limits never passes that of either lease.
* Twice a second the caps are read back; a GPU whose limit was changed by another program is set again, and a write that
  failed is tried again. A clock lock cannot be read back: it is set again when the clock is seen above it.
"""

import contextlib
import math
from collections.abc import Iterable, Mapping
from typing import Final

from powerhall.lease import GpuCap
from powerhall.runtime.errors import PowerhallError, Rejected
from powerhall_agent.capper.found_limits import FoundLimits
from powerhall_agent.capper.gpu_calls import TOLERANCE_W, Range, is_plausible, safe_limit_w
from powerhall_agent.capper.limiter import CapsNotHeld, DriverGone, Limiter

__all__ = ["NodeCaps"]

_CLOCK_STEP_MHZ: Final = 15.0
"""GPUs set clocks in steps of this size."""


class NodeCaps:
    """Holds every GPU of the node at its safe cap, or at the cap of a lease."""

    def __init__(self, limiter: Limiter, safe_w: float, found: FoundLimits, *, gpu_count: int = 0) -> None:
        """Bring every GPU that answers to its safe cap; `gpu_count` is how many the driver lists."""
        self._limiter, self._safe_w, self._found = limiter, safe_w, found
        self._count = gpu_count
        self._spans: dict[int, Range] = {}
        self._leased: dict[int, GpuCap] = {}
        self._wanted: dict[int, GpuCap] = {}
        self._failing: set[int] = set()
        self._is_left = False
        self._silent: frozenset[int] = frozenset()
        self.error = ""
        self.rewrites = 0
        self.most_gpus = gpu_count
        """The most GPUs that this node is known to have; the caller adds what it remembers."""
        self._take_in()
        self.want_safe()

    @property
    def is_well(self) -> bool:
        """Whether every GPU of the node holds its cap, or less, read back."""
        listed = max(self._count, 1 + max(self._spans, default=-1))
        is_held = not (self._failing - self._lower) and not self._is_left and not self._silent
        is_held = is_held and len(self._spans) >= listed
        return is_held and not self._above_lease

    @property
    def safe_problem(self) -> str:
        """One line where the safe limit is above what any GPU accepts, which no owner means; else ""."""
        most_w = max((span.max_w for span in self._spans.values()), default=self._safe_w)
        if self._safe_w <= most_w + TOLERANCE_W:
            return ""
        return (
            f"safe_gpu_power_limit: {self._safe_w:.0f} W: must be at most {most_w:.0f} W, which a GPU here accepts: "
            "the lowest limits hold and leases are refused; mend capper.toml (`powerhall-agent cap --check`)"
        )

    @property
    def _lower(self) -> set[int]:
        """The GPUs that read back below their caps: some accept less than the range that they answer."""
        wanted_w = {gpu: cap.power_limit_w or 0.0 for gpu, cap in self._wanted.items() if cap.sm_clock_mhz is None}
        read_w = {cap.gpu: cap.power_limit_w or math.inf for cap in self._limiter.read()}
        return {gpu for gpu, limit_w in read_w.items() if limit_w < wanted_w.get(gpu, 0.0)}

    @property
    def _above_lease(self) -> list[int]:
        """The GPUs whose lowest limit is above the lease's: a range that changed since."""
        wanted_w = {gpu: cap.power_limit_w or 0.0 for gpu, cap in self._wanted.items()}
        leased_w = {gpu: cap.power_limit_w for gpu, cap in self._leased.items()}
        return [gpu for gpu, limit_w in leased_w.items() if limit_w is not None and wanted_w.get(gpu, 0.0) > limit_w]

    @property
    def wanted_text(self) -> str:
        """The caps that the GPUs should hold, such as `0-3 500 W, 4 300 W at 1200 MHz`."""
        runs: list[tuple[int, int, str]] = []
        for gpu, cap in sorted(self._wanted.items()):
            text = _text(cap)
            if runs and runs[-1][1:] == (gpu - 1, text):
                runs[-1] = (runs[-1][0], gpu, text)
            else:
                runs.append((gpu, gpu, text))
        return ", ".join(f"{first}-{last} {text}" if last > first else f"{first} {text}" for first, last, text in runs)

    def check(self, cap: GpuCap) -> None:
        """Raise Rejected for a cap that a GPU does not accept; one that does not answer now takes any."""
        span = self._spans.get(cap.gpu)
        known = max(self.most_gpus, 1 + max(self._spans, default=-1))
        if span is None and cap.gpu >= known:
            raise Rejected.field("lease", "caps.gpu", cap.gpu, f"must be one of {list(range(known))}")
        limit = cap.power_limit_w
        if span is not None and limit is not None and not span.min_w <= limit <= span.max_w:
            allowed = f"must be from {span.min_w:.0f} to {span.max_w:.0f} W on GPU {cap.gpu}"
            raise Rejected.field("lease", "caps.power_limit_w", limit, allowed)
        if cap.sm_clock_mhz is not None and not 100 <= cap.sm_clock_mhz <= 10_000:
            raise Rejected.field("lease", "caps.sm_clock_mhz", cap.sm_clock_mhz, "must be from 100 to 10000 MHz")

    def want_safe(self) -> bool:
        """Go to the safe caps; return whether no GPU that answers is known to draw more."""
        return self.want_lease(())

    def want_lease(self, caps: Iterable[GpuCap]) -> bool:
        """Go to these caps, and to the safe cap where none is given; return as `want_safe` does."""
        self._is_left = False
        self._leased = {cap.gpu: cap for cap in caps}
        self._wanted = {gpu: self._cap_of(gpu) for gpu in sorted(self._spans)}
        now_w = {cap.gpu: cap.power_limit_w or 0.0 for cap in self._limiter.read()}
        lower = [cap for cap in self._wanted.values() if (cap.power_limit_w or 0.0) <= now_w.get(cap.gpu, 0.0)]
        higher = [cap for cap in self._wanted.values() if (cap.power_limit_w or 0.0) > now_w.get(cap.gpu, 0.0)]
        return self._write(lower) and self._write(higher)

    def hold(self) -> None:
        """Read the caps back and mend what strayed; take in GPUs that came back, appeared or changed."""
        fresh = self._take_in()
        read = {cap.gpu: cap.power_limit_w for cap in self._limiter.read()}
        self._silent = frozenset(self._spans.keys() - read.keys())
        if self._is_left:
            return
        clocks = self._clocks_mhz()
        strayed = {gpu for gpu, cap in self._wanted.items() if gpu in read and _strays(cap, read[gpu], clocks.get(gpu))}
        if strayed - fresh - self._failing:
            self.rewrites += 1
        again = strayed | fresh | (self._failing & self._wanted.keys()) | (self._silent & self._wanted.keys())
        self._write([self._wanted[gpu] for gpu in sorted(again)])

    def adopt_found(self, limits_w: Mapping[int, float]) -> None:
        """Take limits by GPU number, from a memory of an earlier version, as those that were found."""
        for gpu, limit_w in limits_w.items():
            if gpu in self._spans and is_plausible(limit_w, self._spans[gpu]):
                self._found.replace(self._identity(gpu), limit_w)

    def restore(self) -> bool:
        """Put back the limits that were found; return whether every GPU that answers has its own again.

        A GPU that has been exchanged since the last look keeps what it came with.
        """
        with contextlib.suppress(DriverGone):  # what is known is put back all the same
            self._take_in()
        self._wanted, self._leased, self._is_left = {}, {}, True
        self._failing = set()
        caps = [GpuCap(gpu, limit_w) for gpu in sorted(self._spans) if (limit_w := self._found_w(gpu)) is not None]
        self._write(caps)
        for cap in caps:
            if cap.gpu not in self._failing:
                self._found.forget(self._identity(cap.gpu))
        return not self._failing & {cap.gpu for cap in self._limiter.read()}

    def _take_in(self) -> set[int]:
        """Note what is found on new GPUs, and fit the caps of new and changed ones; return their numbers."""
        spans = self._limiter.ranges()
        fresh = {gpu for gpu, span in spans.items() if self._spans.get(gpu) != span}
        if not fresh:
            return fresh
        new = {gpu for gpu in fresh if gpu not in self._spans or self._spans[gpu].uuid != spans[gpu].uuid}
        limits = {cap.gpu: cap.power_limit_w for cap in self._limiter.read()}
        own = {gpu for gpu in new & self._wanted.keys() if not _strays(self._wanted[gpu], limits.get(gpu), None)}
        known_w = {gpu: self._found_w(gpu) for gpu in own}
        self._spans |= spans
        for gpu in sorted(new):
            limit_w = known_w[gpu] if gpu in own else limits.get(gpu)
            if limit_w is not None and is_plausible(limit_w, spans[gpu]):
                self._found.note(self._identity(gpu), limit_w)
        if not self._is_left:
            self._wanted |= {gpu: self._cap_of(gpu) for gpu in fresh}
        return fresh

    def _identity(self, gpu: int) -> str:
        return self._spans[gpu].uuid or f"index-{gpu}"

    def _found_w(self, gpu: int) -> float | None:
        """Return the limit that was found, else the GPU's default, in W; None where neither is known."""
        span = self._spans[gpu]
        limit_w = self._found.get(self._identity(gpu))
        limit_w = span.default_w if limit_w is None else limit_w
        return None if limit_w is None else safe_limit_w(limit_w, span)

    def _cap_of(self, gpu: int) -> GpuCap:
        """Return the cap that a GPU should hold, within its range.

        A lock of the clock alone keeps the limit that was found: the safe limit must not stay beside it.
        """
        span, cap = self._spans[gpu], self._leased.get(gpu)
        if cap is None:
            return GpuCap(gpu, safe_limit_w(0.0 if self.safe_problem else self._safe_w, span))
        if cap.power_limit_w is None:
            return GpuCap(gpu, self._found_w(gpu), cap.sm_clock_mhz)
        return GpuCap(gpu, safe_limit_w(cap.power_limit_w, span), cap.sm_clock_mhz)

    def _clocks_mhz(self) -> dict[int, float]:
        locked = [gpu for gpu, cap in self._wanted.items() if cap.sm_clock_mhz is not None]
        return self._limiter.clocks_mhz(locked) if locked else {}

    def _write(self, caps: list[GpuCap]) -> bool:
        """Write caps; return whether no GPU that answers is known to draw more than it should."""
        if not caps:
            return True
        gpus, is_within = {cap.gpu for cap in caps}, True
        self._failing -= gpus
        try:
            self._limiter.apply(tuple(caps))
        except DriverGone:
            raise
        except CapsNotHeld as error:
            self._failing |= error.failed or gpus
            self.error, is_within = str(error), not error.above
        except PowerhallError as error:
            self._failing |= gpus
            self.error, is_within = str(error), False
        if not self._failing:
            self.error = ""
        return is_within


def _strays(cap: GpuCap, limit_w: float | None, clock_mhz: float | None) -> bool:
    if cap.power_limit_w is not None and abs((limit_w or 0.0) - cap.power_limit_w) > TOLERANCE_W:
        return True
    return cap.sm_clock_mhz is not None and (clock_mhz or 0.0) > cap.sm_clock_mhz + _CLOCK_STEP_MHZ


def _text(cap: GpuCap) -> str:
    limit = "no limit" if cap.power_limit_w is None else f"{cap.power_limit_w:.0f} W"
    return limit if cap.sm_clock_mhz is None else f"{limit} at {cap.sm_clock_mhz:.0f} MHz"
