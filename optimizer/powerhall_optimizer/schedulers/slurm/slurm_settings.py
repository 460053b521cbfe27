"""The table [slurm] of the scheduler settings."""

from typing import Literal

import msgspec

from powerhall.runtime.errors import Rejected
from powerhall_optimizer.schedulers.base import check_numbers
from powerhall_optimizer.schedulers.job_fields import JobFields

__all__ = ["SlurmSettings", "check_settings"]


class SlurmSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a plan is written into Slurm; see docs/slurm.md.

    `hold`: jobs that must wait get a StartTime that expires by itself ("lease"), or a real hold ("hold").
    `lease_s`: how long such a StartTime reaches ahead; it is renewed when half of it is over.
    `pin`: how the planned nodes are requested. `licence` ("" for none): the licence that counts power, in `licence_w`.
    `zone` ("" for the site): whose budget becomes licence reservations. `level_dir`: where nodes read a job's power
    level. `preempt`: requeue jobs that the plan stops. `power_save_s`: nodes without planned work for this long are
    powered down (0: never).
    """

    hold: Literal["lease", "hold"] = "lease"
    lease_s: float = 1800.0
    pin: Literal["nodes", "features", "none"] = "nodes"
    top_priority: int = 4_294_967_000
    licence: str = "kw"
    licence_w: float = 1000.0
    zone: str = ""
    level_dir: str = ""
    preempt: bool = False
    power_save_s: float = 0.0
    resume_lead_s: float = 300.0
    timeout_s: float = 30.0
    fields: JobFields = JobFields()


def check_settings(settings: SlurmSettings, source: str) -> None:
    """Refuse a number outside its range by file, field and value."""
    check_numbers(
        settings,
        source,
        "slurm",
        positive=("lease_s", "licence_w", "timeout_s"),
        not_negative=("power_save_s", "resume_lead_s"),
    )
    if not 1_000_000 <= settings.top_priority <= 4_294_967_293:
        allowed = "must be from 1000000 to 4294967293"
        raise Rejected.field(source, "slurm.top_priority", settings.top_priority, allowed)
