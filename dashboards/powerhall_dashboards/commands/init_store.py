"""`powerhall-dashboards init-store`: create databases or buckets, their retention, and mappings."""

import argparse

from powerhall.runtime.command_line import Commands, add_command
from powerhall.runtime.extras import EXIT_OK
from powerhall_dashboards.commands.options import (
    add_json_option,
    add_store_option,
    print_result,
)

__all__ = ["add_parser"]


def add_parser(commands: Commands) -> None:
    """Add the sub-command."""
    parser = add_command(
        commands, "init-store", _init_store, help="create databases or buckets, their retention, and mappings"
    )
    add_json_option(parser)
    add_store_option(parser)
    parser.add_argument(
        "--retention-days",
        type=int,
        metavar="N",
        help="days that one bucket keeps; default: 90, by class as the schema",
    )
    parser.add_argument("--dry-run", action="store_true", help="print the steps without taking them")


def _init_store(options: argparse.Namespace) -> int:
    from powerhall_dashboards.init_store import init_store

    done = init_store(options.store, options.retention_days, dry_run=options.dry_run)
    print_result(options, {"done": done}, done)
    return EXIT_OK
