"""`powerhall-dashboards verify`: check data source, dashboards and queries of a Grafana."""

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
    parser = add_command(
        commands, "verify", _verify, help="check a Grafana: data source, every dashboard, every query of every panel"
    )
    add_json_option(parser)
    add_grafana_options(parser, with_store=False)


def _verify(options: argparse.Namespace) -> int:
    from powerhall_dashboards.live.client import open_grafana
    from powerhall_dashboards.live.verify import as_table, verify

    checks = verify(open_grafana(options), options.datasource, by_class=by_class(options), by_hall=options.by_hall)
    print_result(options, [check.as_dict() for check in checks], as_table(checks))
    return EXIT_OK if all(check.ok for check in checks) else EXIT_REFUSED
