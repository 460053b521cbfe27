"""Options and output that several sub-commands share."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

__all__ = [
    "add_grafana_options",
    "add_json_option",
    "add_retention_option",
    "add_store_option",
    "by_class",
    "print_result",
]


def add_json_option(parser: argparse.ArgumentParser) -> None:
    """Add `--json`."""
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def add_store_option(parser: argparse.ArgumentParser) -> None:
    """Add `--store`."""
    parser.add_argument(
        "--store",
        required=True,
        metavar="URL",
        help="such as sqlite:///PATH or influxdb://HOST:PORT/BUCKET?version=1|2|3&...",
    )


def add_retention_option(parser: argparse.ArgumentParser) -> None:
    """Add `--retention`."""
    parser.add_argument(
        "--retention", choices=("one", "classes"), default="one", help="as in the store's URL; default: %(default)s"
    )


def add_halls_option(parser: argparse.ArgumentParser) -> None:
    """Add `--by-hall`."""
    parser.add_argument(
        "--by-hall", action="store_true", help="each hall has a store and a data source powerhall-HALL of its own"
    )


def add_grafana_options(parser: argparse.ArgumentParser, *, with_store: bool) -> None:
    """Add the address, the token, and the names of folder and data source of a Grafana."""
    parser.add_argument("--url", required=True, help="address of Grafana, such as https://grafana.example")
    parser.add_argument(
        "--token-file", type=Path, required=True, metavar="FILE", help="file with a service account token"
    )
    parser.add_argument("--folder", default="Powerhall", help="default: %(default)s")
    parser.add_argument("--datasource", default="powerhall", metavar="UID", help="default: %(default)s")
    parser.add_argument("--ca-file", metavar="FILE", help="certificate authority of Grafana's certificate")
    parser.add_argument("--allow-http", action="store_true", help="send the token in the clear to another machine")
    add_retention_option(parser)
    add_halls_option(parser)
    if with_store:
        parser.add_argument(
            "--store",
            metavar="URL",
            help="also create the data source of this influxdb:// store, or those of halls:///FILE",
        )


def by_class(options: argparse.Namespace) -> bool:
    """Return whether each class of retention has a bucket of its own."""
    return bool(options.retention == "classes")


def print_result(options: argparse.Namespace, data: object, lines: Sequence[str]) -> None:
    """Print the result as JSON where `--json` was given, else as lines."""
    text = json.dumps(data, indent=2) if options.json else "\n".join(lines)
    sys.stdout.write(text + "\n" if text else "")
