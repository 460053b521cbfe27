"""`powerhall-dashboards preview`: draw every panel from a store into one HTML file."""

import argparse
from functools import partial
from pathlib import Path

from powerhall.runtime.command_line import Commands, add_command
from powerhall.runtime.errors import Rejected
from powerhall.runtime.extras import EXIT_OK
from powerhall.store import existing_store
from powerhall.timeseries import parse_time
from powerhall.units import parse_span
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
    parser.add_argument("--length", type=parse_span, metavar="SPAN", help="range; default: each dashboard's own")
    parser.add_argument("--hours", type=partial(parse_span, bare="h"), dest="length", help=argparse.SUPPRESS)


def _preview(options: argparse.Namespace) -> int:
    from powerhall_dashboards.boards import BOARDS
    from powerhall_dashboards.preview.write import write_preview

    known = sorted({choice.name for board in BOARDS for choice in board.choices})
    given: dict[str, tuple[str, ...]] = {}
    for text in options.var:
        name, equals, value = text.partition("=")
        if not (name and equals and value):
            raise Rejected.field("preview", "--var", text, "must be NAME=VALUE, such as node=n17")
        if name not in known:
            raise Rejected.field("preview", "--var", text, f"must name one of {', '.join(known)}")
        given[name] = (*given.get(name, ()), value)
    try:
        end_s = parse_time(options.end) if options.end else None
    except ValueError as error:
        raise Rejected.field("preview", "--end", options.end, str(error)) from None
    if options.length == 0:
        raise Rejected.field("preview", "--length", "0", "must be above 0, such as 6h")
    hours = None if options.length is None else options.length / 3600.0
    store = existing_store(options.store)
    try:
        path, empty = write_preview(store, options.out, given, end_s=end_s, hours=hours)
    finally:
        store.close()
    each = [f"{title}: {panel}: no data" for title, panels in empty.items() for panel in panels]
    lines = [f"{title}: no data: {'; '.join(panels)}" for title, panels in empty.items()]
    print_result(options, {"file": str(path), "empty": each}, [str(path), *lines])
    return EXIT_OK
