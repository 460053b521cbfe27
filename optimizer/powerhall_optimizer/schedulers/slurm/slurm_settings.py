"""The table [slurm] of the scheduler settings."""

from typing import Literal

import msgspec

from powerhall.hostlist import expand
from powerhall.runtime.errors import Rejected
from powerhall_optimizer.schedulers.base import check_numbers
from powerhall_optimizer.schedulers.job_fields import JobFields

__all__ = ["SlurmSettings", "check_settings"]


class SlurmSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a plan is written into Slurm; see docs/guide/slurm.md."""

    hold: Literal["lease", "hold"] = "lease"
    """A job that must wait gets a `StartTime` that expires by itself (`lease`) or a real hold (`hold`)."""
    lease_s: float = 1800.0
    """How far such a `StartTime` reaches ahead, in s; it is renewed at half of it."""
    pin: Literal["nodes", "features", "none"] = "nodes"
    """How the planned nodes are requested: by name, by the hall's name as a feature, or not at all."""
    top_priority: int = 4_294_967_000
    """Priority of the job that starts first, from 1000000 to 4294967293; later ones count down from it."""
    licence: str = "kw"
    """Licence that counts power; empty uses none."""
    licence_w: float = 1000.0
    """Power that one licence stands for, in W."""
    power_tree: Literal["auto", "off"] = "auto"
    """Where Slurm has hierarchical resources (25.11 and later) and no flat licence of this name, write the site's
    power limits into resources.yaml (`auto`); `off` never writes it."""
    resources_file: str = ""
    """The resources.yaml to write; empty is the one beside slurm.conf."""
    prepaid: str = ""
    """Nodes, such as `gn[07-08]`, whose full power the licence's total leaves out: `PREPAID` of job_submit.lua."""
    zone: str = ""
    """Zone whose budget becomes licence reservations; empty is the site."""
    level_dir: str = ""
    """Folder where nodes read the power level of their jobs; empty writes none."""
    preempt: bool = False
    """Requeue running jobs that the plan stops; `false` leaves them running and reports them."""
    power_save_s: float = 0.0
    """Power down nodes without planned work for this long, in s; 0 never does."""
    resume_lead_s: float = 300.0
    """Power nodes up this long before their job, in s."""
    round_s: float = 300.0
    """Time between two plans, in s; nodes of a plan older than two of them are withdrawn from its jobs."""
    timeout_s: float = 30.0
    """Longest wait for one Slurm command, in s."""
    fields: JobFields = JobFields()
    """How Slurm's jobs become jobs of the plan."""


def check_settings(settings: SlurmSettings, source: str) -> None:
    """Refuse a number outside its range by file, field and value."""
    check_numbers(
        settings,
        source,
        "slurm",
        positive=("lease_s", "licence_w", "round_s", "timeout_s"),
        not_negative=("power_save_s", "resume_lead_s"),
    )
    try:
        expand(settings.prepaid)
    except ValueError as error:
        raise Rejected.field(source, "slurm.prepaid", settings.prepaid, str(error)) from None
    if not 1_000_000 <= settings.top_priority <= 4_294_967_293:
        allowed = "must be from 1000000 to 4294967293"
        raise Rejected.field(source, "slurm.top_priority", settings.top_priority, allowed)
