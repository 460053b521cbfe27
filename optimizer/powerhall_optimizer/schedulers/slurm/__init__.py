"""Slurm, through its own commands."""

import msgspec

from powerhall.site.topology import Site
from powerhall_optimizer.schedulers.base import PlanWriter, QueueReader, Scheduler
from powerhall_optimizer.schedulers.slurm.slurm_settings import SlurmSettings, check_settings

__all__ = ["SCHEDULER"]


def _reader(settings: SlurmSettings, site: Site | None) -> QueueReader:
    from powerhall_optimizer.schedulers.slurm.writer import SlurmReader

    assert site is not None
    return SlurmReader(site, settings)


def _writer(settings: SlurmSettings) -> PlanWriter:
    from powerhall_optimizer.schedulers.slurm.writer import SlurmWriter

    return SlurmWriter(settings)


SCHEDULER = Scheduler(
    name="slurm",
    settings=SlurmSettings,
    needs_site=True,
    reader=_reader,
    writer=_writer,
    check=check_settings,
    may_stop=lambda settings: msgspec.structs.replace(settings, preempt=True),
)
