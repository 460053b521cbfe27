"""Power at a site's meter per slot while jobs are placed and removed, by the true curves, and its ramp limits."""

import numpy as np
import numpy.typing as npt

from powerhall.physics.cooling import hall_load
from powerhall_optimizer.physics.plan_loads import power_now_w
from powerhall_optimizer.physics.site_conditions import SiteConditions
from powerhall_optimizer.placement.placement_reasons import PlacementCause, PlacementReason
from powerhall_optimizer.problem.site_problem import Choice

__all__ = ["SitePower"]

Floats = npt.NDArray[np.float64]
_NEAR_W = 1.0
"""Kept free below a ramp limit, so that the order of additions does not matter."""


class SitePower:
    """Heat of every hall per slot; the power is computed on demand."""

    def __init__(self, conditions: SiteConditions) -> None:
        s = conditions.snapshot
        self.conditions = conditions
        self.slots = s.slots
        self.up_w = _step_w(conditions.site.ramp_up_w_per_s, s.slot_s)
        self.down_w = _step_w(conditions.site.ramp_down_w_per_s, s.slot_s)
        self.before_w = power_now_w(s) if self.limited else 0.0
        self.halls = {hall.zone: hall for hall in conditions.site.halls}
        base = {name: conditions.hall_base(hall) for name, hall in self.halls.items()}
        self.liquid_w: dict[str, Floats] = {name: np.full(s.slots, heat.liquid_w) for name, heat in base.items()}
        self.air_w: dict[str, Floats] = {name: np.full(s.slots, heat.air_w) for name, heat in base.items()}
        self.known_w: dict[str, Floats] = {name: np.full(s.slots, np.nan) for name in base}

    @property
    def limited(self) -> bool:
        """Whether the site has a ramp limit."""
        return min(self.up_w, self.down_w) < np.inf

    def added_w(self, choice: Choice) -> float:
        """Return the IT power that a choice adds."""
        kind = self.conditions.site.node_types[choice.node_type]
        gpus = self.conditions.drawing_gpus(choice.job) if choice.running else choice.job.gpus
        return gpus * max(0.0, choice.gpu_power_w - kind.idle_gpu_power_w)

    def add(self, choice: Choice, start: int, end: int, sign: int = 1) -> None:
        """Count a run from slot start to end; with sign -1 take it off again."""
        load_w = sign * self.added_w(choice)
        share = self.conditions.site.node_types[choice.node_type].liquid_fraction
        self.liquid_w[choice.hall][start:end] += share * load_w
        self.air_w[choice.hall][start:end] += (1 - share) * load_w
        self.known_w[choice.hall][start:end] = np.nan

    def at(self, slot: int) -> float:
        """Return the power at the meter in W; slot -1 is just before the plan."""
        if slot < 0:
            return self.before_w
        total = 0.0
        for name, hall in self.halls.items():
            if np.isnan(self.known_w[name][slot]):
                heat = float(self.liquid_w[name][slot]), float(self.air_w[name][slot])
                self.known_w[name][slot] = hall_load(hall, *heat, self.conditions.weather[slot]).facility_power_w
            total += float(self.known_w[name][slot])
        return total

    def rise_w(self, slot: int) -> float:
        """Return how much the power rises at the beginning of a slot."""
        return self.at(slot) - self.at(slot - 1)

    def allows(self, choice: Choice, start: int, end: int) -> bool:
        """Whether the start of a run that is counted, and its end, keep the ramp limits beside all else."""
        if not self.limited:
            return True
        self.add(choice, start, end)
        fits = self.rise_w(start) <= self.up_w and (end >= self.slots or -self.rise_w(end) <= self.down_w)
        self.add(choice, start, end, -1)
        return fits

    def ramp_reason(self, up: bool, slot: int) -> PlacementReason:
        """Return the ramp limit, up or down, at a slot as the reason to move a job."""
        site, s = self.conditions.site, self.conditions.snapshot
        rate = (site.ramp_up_w_per_s if up else site.ramp_down_w_per_s) or 0.0
        time_s = s.start_s + slot * s.slot_s
        return PlacementReason(PlacementCause.RAMP, site=site.name, rate_w_per_s=rate, is_up=up, time_s=time_s)


def _step_w(rate: float | None, slot_s: int) -> float:
    return np.inf if rate is None else max(0.0, rate * slot_s - _NEAR_W)
