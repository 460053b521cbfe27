"""Behaviour of jobs on their GPUs: utilization, sensitivity to the clock, memory, and phases over time.

A job's speed at clock ratio r is 1 / ((1 - c) + c / r), where c is the share of its time that scales with the clock:
about 0.85 for large training, 0.4 for token generation, which is bound by memory. Measured curves spread as widely: a
V100 at 40 % of its limit runs at 0.47 to 1.14 of full speed (Zeus traces, https://github.com/ml-energy/zeus).
"""

import math
import zlib
from dataclasses import dataclass
from typing import Final

__all__ = ["JOB_BEHAVIOURS", "JobBehaviour", "behaviour_of", "speed_at"]


@dataclass(frozen=True, slots=True)
class JobBehaviour:
    """Mean and peak utilization (0 to 1), share of time that scales with the clock, share of GPU memory in use.

    `swing` is the amplitude of slow changes of the utilization, `pause_s` every `pause_every_s` is a checkpoint.
    """

    util: float
    clock_share: float
    memory: float
    swing: float = 0.02
    pause_every_s: float = 0.0
    pause_s: float = 0.0

    @property
    def util_peak(self) -> float:
        """Highest utilization."""
        return min(1.0, self.util + self.swing)

    def util_at(self, job_id: str, run_s: float) -> float:
        """Return the utilization after `run_s` seconds of running; the job's id gives the phase."""
        phase = zlib.crc32(job_id.encode()) % 1000 / 1000.0
        if self.pause_every_s and (run_s + phase * self.pause_every_s) % self.pause_every_s < self.pause_s:
            return 0.3 * self.util
        wave = math.sin(2 * math.pi * (run_s / 1900.0 + phase)) + 0.5 * math.sin(2 * math.pi * (run_s / 530.0 + phase))
        return min(1.0, self.util + self.swing * wave / 1.5)


JOB_BEHAVIOURS: Final = {
    "pretrain": JobBehaviour(0.96, 0.85, 0.92, 0.02, 3600.0, 90.0),
    "finetune": JobBehaviour(0.88, 0.70, 0.80, 0.04, 1800.0, 60.0),
    "inference": JobBehaviour(0.60, 0.40, 0.88, 0.10),
    "research": JobBehaviour(0.52, 0.60, 0.45, 0.12),
}
_UNKNOWN: Final = JobBehaviour(0.92, 0.75, 0.70, 0.03)


def behaviour_of(job_class: str) -> JobBehaviour:
    """Return the behaviour of a job class; an unknown class behaves as ordinary training."""
    return JOB_BEHAVIOURS.get(job_class, _UNKNOWN)


def speed_at(clock_ratio: float, clock_share: float) -> float:
    """Return the speed at a clock ratio relative to full clock, both in (0, 1]."""
    return 1.0 / ((1.0 - clock_share) + clock_share / clock_ratio)
