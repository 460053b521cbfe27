"""Options of commands of many runs: processes here, or the workers of a cluster."""

import argparse
import os
import sys

from powerhall.runtime.errors import Rejected
from powerhall_twin.commands.ranges import check_range

__all__ = ["add_calls_options", "check_calls_options"]


def add_calls_options(parser: argparse.ArgumentParser) -> None:
    """Add `--workers` and `--scheduler`."""
    parser.add_argument("--workers", type=int, help="processes of this machine (default: one per core)")
    parser.add_argument(
        "--scheduler",
        metavar="ADDRESS",
        help="run on the workers of a Dask scheduler, such as tcp://host:8786 or tls://host:8786",
    )


def check_calls_options(args: argparse.Namespace) -> int:
    """Return the number of processes; a wrong option raises Rejected, an address without TLS is said on stderr."""
    workers: int = args.workers or os.cpu_count() or 1
    check_range("--workers", workers, 1, 1024)
    if args.scheduler is None:
        return workers
    from powerhall_optimizer.cluster import check_address, is_open_to_others

    if args.workers is not None:
        raise Rejected("command line: --workers: is of this machine; leave it out with --scheduler")
    if is_open_to_others(check_address(args.scheduler)):
        sys.stderr.write(f"{args.scheduler}: without TLS whoever reaches it runs code there; tls:// keeps others out\n")
    return workers
