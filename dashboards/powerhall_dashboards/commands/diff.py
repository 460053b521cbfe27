"""`powerhall-dashboards diff`: compare the dashboards of a Grafana with the code."""

import argparse

from powerhall.runtime.command_line import Commands, add_command
from powerhall.runtime.extras import EXIT_OK, EXIT_REFUSED
from powerhall_dashboards.commands.options import (
    add_grafana_options,
    add_json_option,
    by_class,
    print_result,
)

__all__ = ["add_parser"]


def add_parser(commands: Commands) -> None:
    """Add the sub-command."""
    parser = add_command(commands, "diff", _diff, help="list where the dashboards of a Grafana differ from the code")
    add_json_option(parser)
    add_grafana_options(parser, with_store=False)


def _diff(options: argparse.Namespace) -> int:
    from powerhall_dashboards.live.client import open_grafana
    from powerhall_dashboards.live.publish import differences

    found = differences(open_grafana(options), by_class=by_class(options), by_hall=options.by_hall)
    print_result(options, {"differences": found}, found or ["no differences"])
    return EXIT_REFUSED if found else EXIT_OK
