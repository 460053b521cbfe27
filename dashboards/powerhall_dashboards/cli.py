"""The command line of `powerhall-dashboards`."""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from powerhall import __version__
from powerhall.runtime.errors import PowerhallError, Rejected
from powerhall.runtime.extras import EXIT_OK, EXIT_REFUSED
from powerhall.store import open_store
from powerhall.timeseries import parse_time

__all__ = ["main"]

_EXAMPLES = """\
examples:
  powerhall-dashboards init-store --store 'influxdb://127.0.0.1:8086/power?version=1&retention=classes'
  powerhall-dashboards preview --store sqlite:///out/demo/store.db --out out/preview
  powerhall-dashboards build --check
  powerhall-dashboards build --out /etc/powerhall/grafana --retention classes
  powerhall-dashboards publish --url https://grafana.example --token-file /run/secrets/grafana \\
      --store 'influxdb://tsdb.example:8086/power?token_file=/run/secrets/influx'
  powerhall-dashboards verify --url https://grafana.example --token-file /run/secrets/grafana

exit codes: 0 ok, 1 refused input or failed check, 2 usage, 3 internal error
"""
Command = Callable[[argparse.Namespace], int]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    options = _parser().parse_args(arguments)
    command: Command = options.command
    try:
        return command(options)
    except PowerhallError as error:
        sys.stderr.write(f"powerhall-dashboards: {error}\n")
        return EXIT_REFUSED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "powerhall-dashboards",
        description="Seven Grafana dashboards and their alert rules as code: build, publish, verify, preview.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"powerhall-dashboards {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    build = _add(
        commands,
        "build",
        _build,
        "write what is made from code: dashboards, alert rules, docs/schema.md, docs/alerts.md",
    )
    build.add_argument("--root", type=Path, default=Path(), metavar="DIR", help="checkout to write into; default: here")
    build.add_argument("--check", action="store_true", help="write nothing; fail where files differ from the code")
    build.add_argument(
        "--out", type=Path, metavar="DIR", help="write only dashboards and alert rules, for provisioning"
    )
    _retention_option(build)
    for name, run, text in (
        ("publish", _publish, "put folder, data source and dashboards into a Grafana; again is the same"),
        ("verify", _verify, "check a Grafana: data source, every dashboard, every query of every panel"),
        ("diff", _diff, "say where the dashboards of a Grafana differ from the code"),
    ):
        _grafana_options(_add(commands, name, run, text), with_store=name == "publish")
    start = _add(commands, "init-store", _init_store, "make databases or buckets, their retention, and mappings")
    _store_option(start)
    start.add_argument(
        "--retention-days",
        type=int,
        metavar="N",
        help="days that one bucket keeps; default: 90, by class as the schema",
    )
    start.add_argument("--dry-run", action="store_true", help="print what would be done")
    preview = _add(commands, "preview", _preview, "draw every panel from a store into one HTML file, without Grafana")
    _store_option(preview)
    preview.add_argument("--out", type=Path, default=Path("out/preview"), metavar="DIR", help="default: %(default)s")
    preview.add_argument(
        "--var", action="append", default=[], metavar="NAME=VALUE", help="such as node=n17; repeatable"
    )
    preview.add_argument("--end", metavar="TIME", help="ISO 8601 or seconds; default: the newest point")
    preview.add_argument("--hours", type=float, help="how far to look back; default: as each dashboard says")
    return parser


def _add(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]", name: str, run: Command, text: str
) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
    parser.set_defaults(command=run)
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    return parser


def _store_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--store", required=True, metavar="URL", help="sqlite:///PATH or influxdb://HOST:PORT/BUCKET?version=1|2|3&..."
    )


def _retention_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--retention", choices=("one", "classes"), default="one", help="as in the store's URL; default: %(default)s"
    )


def _grafana_options(parser: argparse.ArgumentParser, *, with_store: bool) -> None:
    parser.add_argument("--url", required=True, help="address of Grafana, such as https://grafana.example")
    parser.add_argument(
        "--token-file", type=Path, required=True, metavar="FILE", help="file with a service account token"
    )
    parser.add_argument("--folder", default="Powerhall", help="default: %(default)s")
    parser.add_argument("--datasource", default="powerhall", metavar="UID", help="default: %(default)s")
    parser.add_argument("--ca-file", metavar="FILE", help="certificate authority of Grafana's certificate")
    parser.add_argument("--allow-http", action="store_true", help="send the token in the clear to another machine")
    _retention_option(parser)
    if with_store:
        parser.add_argument("--store", metavar="URL", help="also make the data source, for this influxdb:// store")


def _print(options: argparse.Namespace, data: object, lines: Sequence[str]) -> None:
    text = json.dumps(data, indent=2) if options.json else "\n".join(lines)
    sys.stdout.write(text + "\n" if text else "")


def _by_class(options: argparse.Namespace) -> bool:
    return bool(options.retention == "classes")


def _build(options: argparse.Namespace) -> int:
    from powerhall_dashboards.build import differences, write, write_provisioning

    if options.out:
        paths = [str(path) for path in write_provisioning(options.out, by_class=_by_class(options))]
        _print(options, {"files": paths}, paths)
        return EXIT_OK
    if _by_class(options):
        raise Rejected.field(
            "build", "--retention", options.retention, "needs --out: the checkout holds the other form"
        )
    if options.check:
        found = differences(options.root)
        _print(options, {"differences": found}, found or ["up to date"])
        return EXIT_REFUSED if found else EXIT_OK
    paths = [str(path) for path in write(options.root)]
    _print(options, {"files": paths}, paths)
    return EXIT_OK


def _publish(options: argparse.Namespace) -> int:
    from powerhall_dashboards.live.client import open_grafana
    from powerhall_dashboards.live.publish import publish

    done = publish(
        open_grafana(options), options.folder, options.datasource, options.store, by_class=_by_class(options)
    )
    _print(options, {"done": done}, done)
    return EXIT_OK


def _verify(options: argparse.Namespace) -> int:
    from powerhall_dashboards.live.client import open_grafana
    from powerhall_dashboards.live.verify import as_table, verify

    checks = verify(open_grafana(options), options.datasource, by_class=_by_class(options))
    _print(options, [check.as_dict() for check in checks], as_table(checks))
    return EXIT_OK if all(check.ok for check in checks) else EXIT_REFUSED


def _diff(options: argparse.Namespace) -> int:
    from powerhall_dashboards.live.client import open_grafana
    from powerhall_dashboards.live.publish import differences

    found = differences(open_grafana(options), by_class=_by_class(options))
    _print(options, {"differences": found}, found or ["no differences"])
    return EXIT_REFUSED if found else EXIT_OK


def _init_store(options: argparse.Namespace) -> int:
    from powerhall_dashboards.init_store import init_store

    done = init_store(options.store, options.retention_days, dry_run=options.dry_run)
    _print(options, {"done": done}, done)
    return EXIT_OK


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
    _print(options, {"file": str(path), "empty": empty}, [str(path), *empty])
    return EXIT_OK
