"""Why a job waits or runs slower than it could, as facts. Texts are in `planning.texts`."""

from dataclasses import dataclass

from powerhall.plan.plan import WaitCode
from powerhall_optimizer.problem.resources import Resource, ResourceKind
from powerhall_optimizer.problem.site_problem import Choice

__all__ = ["Alternative", "Shortage", "Slowdown", "WaitReason"]


@dataclass(frozen=True, slots=True)
class Shortage:
    """Shortage of one resource for an alternative: the amount, and the first and last slot in which it is missing."""

    resource: Resource
    amount: int
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Alternative:
    """One way to run a job: choice, start and end slot, value in USD, and its shortages (none: it fits)."""

    choice: Choice
    option: int
    start: int
    end: int
    value_usd: float
    shortages: tuple[Shortage, ...]


@dataclass(frozen=True, slots=True)
class WaitReason:
    """Why a job does not start within the horizon.

    `fits_at` is the first start slot at which it fits; `short` are its alternatives that miss something, the least
    short last; `weight_needed` is the weight from which it pays its prices, where that is above its own.
    """

    fits_at: int | None
    short: tuple[Alternative, ...]
    weight: float
    weight_needed: float | None

    @property
    def nearest(self) -> tuple[Shortage, ...]:
        """Shortages of the alternative that comes closest."""
        return self.short[-1].shortages if self.short and self.fits_at is None else ()

    @property
    def binding(self) -> tuple[str, ...]:
        """Zones whose resources are missing for some alternative."""
        return tuple(dict.fromkeys(s.resource.zone for a in self.short for s in a.shortages))

    @property
    def code(self) -> WaitCode:
        """The kind of resource that the job is short of first."""
        missing = [s.resource for s in self.nearest]
        if not missing:
            return WaitCode.WORTH
        if any(resource.is_gpus for resource in missing):
            return WaitCode.GPUS
        if any(resource.kind is ResourceKind.BLOCKS for resource in missing):
            return WaitCode.TOPOLOGY
        return WaitCode.COOLING if any(resource.is_cooling for resource in missing) else WaitCode.POWER


@dataclass(frozen=True, slots=True)
class Slowdown:
    """A planned job runs in `own_mode`, not in the faster `mode`, or (mode None) not at the earlier slot `start`."""

    own_mode: str
    mode: str | None
    start: int
    shortages: tuple[Shortage, ...]
