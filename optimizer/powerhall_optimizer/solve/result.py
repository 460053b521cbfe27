"""What a solve returns: the plan and its proof."""

from dataclasses import dataclass

from powerhall_optimizer.problem.arrays import PriceCertificate, Schedule

__all__ = ["SolveResult", "StageReport"]


@dataclass(frozen=True, slots=True)
class StageReport:
    """Report of one stage: seconds of wall clock, and value and bound after it."""

    name: str
    seconds: float
    value: int
    bound: float
    work: int
    """Steps done."""
    cut: bool
    """The deadline cut its work short: on another machine, or at another time, it may find something else."""


@dataclass(frozen=True, slots=True)
class SolveResult:
    """The plan and its proof. `bound` >= the value of every schedule; `gap` = (bound - value) / |value|."""

    schedule: Schedule
    value: int
    bound: int
    gap: float
    certificate: PriceCertificate
    certificate_bound: int  # bound from the prices alone
    bound_from: str  # "prices" or "cp-sat"
    stages: tuple[StageReport, ...]

    @property
    def cut(self) -> tuple[str, ...]:
        """The stages that the deadline cut short."""
        return tuple(stage.name for stage in self.stages if stage.cut)
