"""`powerhall-dashboards build`: write the generated files."""

import argparse
from pathlib import Path

from powerhall.runtime.command_line import Commands, add_command
from powerhall.runtime.errors import Rejected
from powerhall.runtime.extras import EXIT_OK, EXIT_REFUSED
from powerhall_dashboards.commands.options import (
    add_json_option,
    add_retention_option,
    by_class,
    print_result,
)

__all__ = ["add_parser"]


def add_parser(commands: Commands) -> None:
    """Add the sub-command."""
    parser = add_command(
        commands,
        "build",
        _build,
        help="write the generated files: dashboards, alert rules, docs/reference/schema.md and alerts.md",
    )
    add_json_option(parser)
    parser.add_argument(
        "--root", type=Path, default=Path(), metavar="DIR", help="checkout to write into; default: here"
    )
    parser.add_argument("--check", action="store_true", help="write nothing; fail where files differ from the code")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="write only dashboards and alert rules, for provisioning"
    )
    parser.add_argument(
        "--hall",
        action="append",
        default=[],
        metavar="NAME",
        help="with --out: a hall with a store of its own; repeatable",
    )
    add_retention_option(parser)


def _build(options: argparse.Namespace) -> int:
    from powerhall_dashboards.build import differences, write, write_provisioning

    if options.out:
        paths = [str(path) for path in write_provisioning(options.out, by_class=by_class(options), halls=options.hall)]
        print_result(options, {"files": paths}, paths)
        return EXIT_OK
    if options.hall:
        raise Rejected.field("build", "--hall", options.hall[0], "needs --out: the checkout holds the other form")
    if by_class(options):
        raise Rejected.field(
            "build", "--retention", options.retention, "needs --out: the checkout holds the other form"
        )
    if options.check:
        found = differences(options.root)
        print_result(options, {"differences": found}, found or ["up to date"])
        return EXIT_REFUSED if found else EXIT_OK
    paths = [str(path) for path in write(options.root)]
    print_result(options, {"files": paths}, paths)
    return EXIT_OK
