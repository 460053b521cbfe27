"""`powerhall-dashboards serve`: a read-only live page on a store, for those without Grafana."""

import argparse
import asyncio
import sys
from functools import partial
from pathlib import Path

from powerhall.runtime.command_line import Commands, add_command
from powerhall.runtime.errors import Rejected
from powerhall.runtime.extras import EXIT_OK
from powerhall.runtime.log import Log
from powerhall.runtime.settings import Secret
from powerhall.store import existing_store
from powerhall.units import parse_span
from powerhall_dashboards.commands.options import add_store_option

__all__ = ["add_parser"]

_OPTION = "serve: --listen"
_LISTEN = "127.0.0.1:8480"
_TEXT = """\
Serves the first screen (is it safe now, the next two hours, what to do) and every dashboard from a store, as pages
that keep themselves up to date. Nothing can be changed through them.

On loopback anyone on this machine may look. With --token-file a browser asks for a user and a password: any user, and
the token (32 characters or more) as password. Beyond loopback a token is needed, and TLS or --allow-http.

examples:
  powerhall-dashboards serve --store sqlite:///powerhall.db
  powerhall-dashboards serve --store sqlite:///out/demo/store.db --newest
  powerhall-dashboards serve --store URL --listen 0.0.0.0:8480 --token-file t --tls-cert c.crt --tls-key c.key
"""


def add_parser(commands: Commands) -> None:
    """Add the sub-command."""
    parser = add_command(
        commands, "serve", _serve, help="serve the first screen and the dashboards as live pages", description=_TEXT
    )
    add_store_option(parser)
    parser.add_argument("--listen", default=_LISTEN, metavar="IP:PORT", help="default: %(default)s; port 0 takes any")
    parser.add_argument("--token-file", type=Path, metavar="FILE", help="file with the token that pages ask for")
    parser.add_argument("--tls-cert", type=Path, metavar="FILE", help="certificate, with its chain")
    parser.add_argument("--tls-key", type=Path, metavar="FILE", help="private key of the certificate")
    parser.add_argument("--allow-http", action="store_true", help="no TLS beyond loopback: a proxy in front has it")
    parser.add_argument(
        "--refresh", type=parse_span, default=10.0, metavar="SPAN", help="between two looks; default: 10 s"
    )
    parser.add_argument(
        "--newest", action="store_true", help="show the newest point of the store as now, such as the demo's"
    )


def _serve(options: argparse.Namespace) -> int:
    from powerhall.report.html_page import require_libraries
    from powerhall.serving.listener import bind, check_reach, checked_token, read_address
    from powerhall.serving.server_tls import ServerTls
    from powerhall_dashboards.served.live_pages import LivePages
    from powerhall_dashboards.served.page_server import PageServer

    require_libraries("serve")
    log = Log()
    if not 1.0 <= options.refresh <= 3600.0:
        raise Rejected.field("serve", "--refresh", f"{options.refresh:g} s", "must be from 1 s to 1 h")
    host, port = read_address(options.listen, _OPTION, _LISTEN)
    check_reach(host, _OPTION, options.listen, tls=options.tls_cert is not None, allow_http=options.allow_http)
    token = None if options.token_file is None else Secret(options.token_file)
    if token is not None:
        checked_token(token)
    elif not host.is_loopback:
        raise Rejected.field("serve", "--listen", options.listen, "beyond loopback needs --token-file")
    tls = None if options.tls_cert is None else ServerTls(options.tls_cert, options.tls_key, log)
    existing_store(options.store).close()
    pages = LivePages(partial(existing_store, options.store), options.refresh, options.newest)
    listener = bind(host, port, _OPTION, options.listen)
    shown, bound = (f"[{host}]" if host.version == 6 else str(host)), listener.getsockname()[1]
    sys.stdout.write(f"{'http' if tls is None else 'https'}://{shown}:{bound}/\n")
    sys.stdout.flush()
    asyncio.run(PageServer(listener, pages, token, log, tls=tls).run_until_told())
    return EXIT_OK
