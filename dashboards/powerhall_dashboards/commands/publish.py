"""`powerhall-dashboards publish`: publish folder, data source and dashboards to a Grafana."""

import argparse

from powerhall.runtime.command_line import Commands, add_command
from powerhall.runtime.extras import EXIT_OK
from powerhall_dashboards.commands.options import (
    add_grafana_options,
    add_json_option,
    by_class,
    print_result,
)

__all__ = ["add_parser"]


def add_parser(commands: Commands) -> None:
    """Add the sub-command."""
    parser = add_command(
        commands,
        "publish",
        _publish,
        help="publish folder, data source and dashboards to a Grafana",
    )
    add_json_option(parser)
    add_grafana_options(parser, with_store=True)


def _publish(options: argparse.Namespace) -> int:
    from powerhall_dashboards.live.client import open_grafana
    from powerhall_dashboards.live.publish import publish

    done = publish(
        open_grafana(options),
        options.folder,
        options.datasource,
        options.store,
        by_class=by_class(options),
        by_hall=options.by_hall,
    )
    print_result(options, {"done": done}, done)
    return EXIT_OK
