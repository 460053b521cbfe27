"""`powerhall-dashboards preview`: draw every panel from a store into one HTML file."""

import argparse
from pathlib import Path

from powerhall.runtime.command_line import Commands, add_command
from powerhall.runtime.errors import Rejected
from powerhall.runtime.extras import EXIT_OK
from powerhall.store import open_store
from powerhall.timeseries import parse_time
from powerhall_dashboards.commands.options import (
    add_json_option,
    add_store_option,
    print_result,
)

__all__ = ["add_parser"]


def add_parser(commands: Commands) -> None:
    """Add the sub-command."""
    parser = add_command(
        commands, "preview", _preview, help="draw every panel from a store into one HTML file, without Grafana"
    )
    add_json_option(parser)
    add_store_option(parser)
    parser.add_argument("--out", type=Path, default=Path("out/preview"), metavar="DIR", help="default: %(default)s")
    parser.add_argument("--var", action="append", default=[], metavar="NAME=VALUE", help="such as node=n17; repeatable")
    parser.add_argument("--end", metavar="TIME", help="ISO 8601 or seconds; default: the newest point")
    parser.add_argument("--hours", type=float, help="range in hours; default: each dashboard's own")


def _preview(options: argparse.Namespace) -> int:
    from powerhall_dashboards.preview.write import write_preview

    given: dict[str, tuple[str, ...]] = {}
    for text in options.var:
        name, equals, value = text.partition("=")
        if not (name and equals and value):
            raise Rejected.field("preview", "--var", text, "must be NAME=VALUE, such as node=n17")
        given[name] = (*given.get(name, ()), value)
    try:
        end_s = parse_time(options.end) if options.end else None
    except ValueError as error:
        raise Rejected.field("preview", "--end", options.end, str(error)) from None
    store = open_store(options.store)
    try:
        path, empty = write_preview(store, options.out, given, end_s=end_s, hours=options.hours)
    finally:
        store.close()
    each = [f"{title}: {panel}: no data" for title, panels in empty.items() for panel in panels]
    lines = [f"{title}: no data: {'; '.join(panels)}" for title, panels in empty.items()]
    print_result(options, {"file": str(path), "empty": each}, [str(path), *lines])
    return EXIT_OK
