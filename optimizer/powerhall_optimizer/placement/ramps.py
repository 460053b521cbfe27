"""Ramp limits of sites: move starts and ends that would change the power at the meter too fast.

The limits hold for decisions of the plan: starts and raises of jobs upwards, ends of jobs that it starts downwards.
Ends of jobs that run already, slowing and shedding for a budget are exempt; nothing is added where they are steep.
"""

import numpy as np
import numpy.typing as npt

from powerhall_optimizer.placement.placement_reasons import PlacementCause, PlacementReason
from powerhall_optimizer.placement.placer import Placer
from powerhall_optimizer.placement.site_power import SitePower

__all__ = ["keep_ramp_limits"]

_MOST_MOVES = 8


def keep_ramp_limits(placer: Placer) -> None:
    """Move jobs until every site's ramp limits hold; a job that was moved often, or fits nowhere, waits."""
    for site, power in placer.site_powers.items():
        if power.limited:
            _Smoother(placer, site, power).run()


class _Smoother:
    def __init__(self, placer: Placer, site: str, power: SitePower) -> None:
        self.placer = placer
        self.power = power
        self.mine = np.array([choice.site == site for choice in placer.built.choices], bool)
        self.runs = np.array([job.state == "running" for job in placer.built.jobs], bool)
        self.moves: dict[int, int] = {}

    def run(self) -> None:
        slot = 0
        while slot < self.power.slots:
            rise_w = self.power.rise_w(slot)
            up = rise_w > self.power.up_w
            jobs = self._starting(slot) if up else self._ending(slot) if -rise_w > self.power.down_w else []
            if not jobs:
                slot += 1
                continue
            limit_w = self.power.up_w if up else self.power.down_w
            slot = min(slot, self._move(self._pick(jobs, abs(rise_w) - limit_w, limit_w), slot, up))

    def _planned(self) -> npt.NDArray[np.bool_]:
        option = self.placer.option
        if not len(self.mine):
            return np.zeros(len(option), bool)
        result: npt.NDArray[np.bool_] = (option >= 0) & ~self.runs & self.mine[np.maximum(option, 0)]
        return result

    def _starting(self, slot: int) -> list[int]:
        """Jobs that the plan starts in a slot; in the first also running jobs that it raises."""
        found: list[int] = np.flatnonzero(self._planned() & (self.placer.start == slot)).tolist()
        return found or (self._raised() if slot == 0 else [])

    def _raised(self) -> list[int]:
        option = self.placer.option
        runs = np.flatnonzero(self.runs & (option >= 0)).tolist()
        mine = [job for job in runs if self.mine[option[job]]]
        return [job for job in mine if self._back(job) not in (None, int(option[job]))]

    def _back(self, job: int) -> int | None:
        """Return the option that continues a running job in its present mode, if it draws less than the planned one."""
        choices = self.placer.built.choices
        now = [o for o in self.placer.problem.options_of(job) if choices[o].mode == choices[o].job.mode]
        own = choices[int(self.placer.option[job])]
        return next((o for o in now if choices[o].gpu_power_w < own.gpu_power_w), None)

    def _ending(self, slot: int) -> list[int]:
        option = np.maximum(self.placer.option, 0)
        ends = self.placer.start + self.placer.problem.option_duration[option] if len(self.mine) else self.placer.start
        found: list[int] = np.flatnonzero(self._planned() & (ends == slot)).tolist()
        return found

    def _pick(self, jobs: list[int], excess_w: float, limit_w: float) -> int:
        """Choose a job that breaks the limit alone; else the least valuable that is enough; else the least valuable."""

        def value_of(job: int) -> tuple[int, int]:
            return self.placer.value_of(job), job

        load = {job: self.power.added_w(self.placer.choice(job)) for job in jobs}
        alone = [job for job in jobs if load[job] > limit_w]
        enough = [job for job in jobs if load[job] >= excess_w]
        return min(alone or enough or jobs, key=value_of)

    def _move(self, job: int, slot: int, up: bool) -> int:
        """Move one job; return the first slot whose power that changed."""
        placer = self.placer
        before = int(placer.start[job])
        if self.runs[job]:
            option = self._back(job)
            assert option is not None
            own = int(placer.option[job])
            placer.drop(job)
            if not placer.put(job, option, 0) and not placer.put(job, own, 0):
                placer.left_out[job] = PlacementReason(PlacementCause.NO_MODE)
            return before
        self.moves[job] = self.moves.get(job, 0) + 1
        placer.drop(job)
        reason = self.power.ramp_reason(up, slot)
        if self.moves[job] <= _MOST_MOVES and placer.place_best(job):
            placer.moved[job] = reason
            return min(before, int(placer.start[job]))
        placer.moved.pop(job, None)
        placer.left_out[job] = reason
        return before
