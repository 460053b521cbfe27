"""`powerhall-optimizer schema`: JSON Schemas of the files of the planner host."""

from powerhall.runtime.command_line import Commands
from powerhall.runtime.schema_command import Json, SchemaFile, add_schema_parser, struct_schema

__all__ = ["FILES", "add_parser"]


def _site() -> Json:
    from powerhall.site.json_schema import site_schema

    return site_schema()


def _round() -> Json:
    from powerhall_optimizer.inputs.round_settings import RoundSettings

    return struct_schema(RoundSettings)


def _scheduler() -> Json:
    from powerhall_optimizer.schedulers.registry import settings_type

    return struct_schema(settings_type())


def _jobs() -> Json:
    from powerhall.jobs import Job

    return struct_schema(list[Job])


def _events() -> Json:
    from powerhall.site.curtailment import EventRow

    return struct_schema(list[EventRow])


def _plan() -> Json:
    from powerhall.plan.plan import Plan

    return struct_schema(Plan)


def _lease() -> Json:
    from powerhall.lease import SignedLease

    return struct_schema(SignedLease)


FILES = {
    "site.toml": SchemaFile("the site: halls, racks, node types, limits, cooling, storage", _site),
    "round.toml": SchemaFile("settings of a round", _round),
    "scheduler.toml": SchemaFile("settings of Slurm, Kubernetes and files", _scheduler),
    "jobs.json": SchemaFile("a queue of jobs", _jobs),
    "events.json": SchemaFile("curtailments of the grid", _events),
    "plan.json": SchemaFile("a plan of one site, as rounds write it", _plan),
    "lease.json": SchemaFile("a signed lease of a node, as the capper reads it", _lease),
}


def add_parser(commands: Commands) -> None:
    """Add the sub-command."""
    add_schema_parser(commands, "powerhall-optimizer", FILES)
