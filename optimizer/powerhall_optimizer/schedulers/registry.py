"""The registry of workload managers: every module or package of this folder that carries a `SCHEDULER`."""

import pkgutil
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import msgspec

from powerhall.runtime.errors import ConfigError, Rejected
from powerhall.runtime.settings import read_toml
from powerhall.site.topology import Site
from powerhall_optimizer import schedulers
from powerhall_optimizer.schedulers.base import PlanWriter, QueueReader, Releasing, Scheduler, Withdrawing

__all__ = [
    "open_reader",
    "open_releasing",
    "open_withdrawing",
    "open_writer",
    "read_settings",
    "scheduler_names",
    "settings_type",
]


@cache
def _registered() -> dict[str, Scheduler[Any]]:
    """Return the schedulers by name; each module of the folder is imported once."""
    names = (info.name for info in pkgutil.iter_modules(schedulers.__path__))
    found = (getattr(import_module(f"{schedulers.__name__}.{name}"), "SCHEDULER", None) for name in names)
    return {scheduler.name: scheduler for scheduler in found if isinstance(scheduler, Scheduler)}


def scheduler_names() -> tuple[str, ...]:
    """Return the names of all schedulers."""
    return tuple(_registered())


def settings_type() -> type[msgspec.Struct]:
    """Return the struct of a settings file: a table for each scheduler."""
    fields = [(name, scheduler.settings, scheduler.settings()) for name, scheduler in _registered().items()]
    return msgspec.defstruct("SchedulerSettings", fields, frozen=True, forbid_unknown_fields=True)


def read_settings(path: Path | None) -> dict[str, Any]:
    """Read one settings table per scheduler, or the defaults without a file; refuse a wrong one by file and field."""
    tables = settings_type()
    read: object = tables() if path is None else read_toml(path, tables)
    settings = {name: getattr(read, name) for name in scheduler_names()}
    for name, scheduler in _registered().items():
        scheduler.check(settings[name], str(path))
    return settings


def open_reader(name: str, settings: Path | None, site: Site | None) -> QueueReader:
    """Return the queue reader of a scheduler; `site` maps its nodes to halls."""
    scheduler = _registered()[name]
    own = read_settings(settings)[name]
    if site is None and scheduler.needs_site:
        raise ConfigError(f"queue: --site: {name}: a site file must say in which hall its nodes are")
    return scheduler.reader(own, site)


def open_writer(name: str, settings: Path | None, *, may_stop: bool = False) -> PlanWriter:
    """Return the plan writer of a scheduler; with `may_stop` it stops running jobs whatever its settings are."""
    scheduler = _registered()[name]
    own = read_settings(settings)[name]
    return scheduler.writer(scheduler.may_stop(own) if may_stop else own)


def open_releasing(name: str, settings: Path | None) -> Releasing:
    """Return the plan writer of a scheduler that can restore all jobs; the others are refused."""
    writer = open_writer(name, settings)
    if not isinstance(writer, Releasing):
        raise Rejected.field("command line", "--release", name, "must be with --scheduler slurm")
    return writer


def open_withdrawing(name: str, settings: Path | None) -> Withdrawing:
    """Return the plan writer of a scheduler that can free jobs of an old plan; the others are refused."""
    writer = open_writer(name, settings)
    if not isinstance(writer, Withdrawing):
        raise Rejected.field("command line", "--withdraw", name, "must be with --scheduler slurm or kubernetes")
    return writer
