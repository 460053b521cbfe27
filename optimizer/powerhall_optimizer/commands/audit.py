"""`powerhall-optimizer audit`: check the rounds that an archive keeps, and make them again."""

import argparse
import json
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from powerhall.runtime.command_line import Commands, add_command
from powerhall.runtime.errors import Rejected
from powerhall.runtime.extras import EXIT_OK, EXIT_REFUSED
from powerhall.runtime.files import replace_file
from powerhall.runtime.settings import read_json
from powerhall.runtime.signals import StopFlag
from powerhall.store import existing_store
from powerhall_optimizer.leases.keys import read_site_key

if TYPE_CHECKING:
    from powerhall_optimizer.archive.keep import Archive

__all__ = ["add_parser"]

_TEXT = """\
Checks what `round --archive` kept: every file as it was written (each entry names the one before it and its inputs and
plan by their hashes, and is signed with the site key), every plan against every limit, and every round by making it
again from its inputs: the plan must be the same to the bit. Prints one line for each fault, which names the file, and
each thing that could not be checked. An older state of the whole archive in place of the newest looks sound by itself:
give --seen a file of your own, and the next audit finds it. Exit code 1 when there is a fault.

examples:
  powerhall-optimizer round --site site.toml --jobs jobs.csv --archive rounds --site-key site.key
  powerhall-optimizer audit rounds --site-key site.key
  powerhall-optimizer audit --store sqlite:///powerhall.db --site phx --last 12 --json
"""


def add_parser(commands: Commands) -> None:
    """Add the sub-command."""
    parser = add_command(
        commands, "audit", _audit, help="check the rounds that were kept, and make them again", description=_TEXT
    )
    parser.add_argument("folder", type=Path, nargs="?", metavar="DIR", help="folder of `round --archive`")
    parser.add_argument("--store", help="store URL, for rounds of `round --archive store`")
    parser.add_argument("--site", action="append", help="with --store: the site; several for rounds of several sites")
    parser.add_argument("--site-key", type=Path, help="file with the site key (default: signatures are not checked)")
    parser.add_argument(
        "--seen", type=Path, metavar="FILE", help="keep the newest entry there: the next audit finds what is taken away"
    )
    parser.add_argument("--last", type=int, metavar="N", help="make only the newest N rounds again; check all")
    parser.add_argument("--no-replay", action="store_true", help="make no round again")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def _audit(args: argparse.Namespace) -> int:
    from powerhall_optimizer.archive.keep import Archive
    from powerhall_optimizer.archive.shelf import FolderShelf, StoreShelf
    from powerhall_optimizer.round.publish import multi_site_key

    if (args.folder is None) == (args.store is None):
        raise Rejected("command line: needs the folder of an archive, or --store with --site")
    if args.last is not None and args.last < 0:
        raise Rejected.field("command line", "--last", args.last, "must not be negative")
    key = None if args.site_key is None else read_site_key(args.site_key)
    if args.store is None:
        if not args.folder.is_dir():
            raise Rejected.field("command line", "DIR", args.folder, "must be a folder of `round --archive`")
        return _run(args, Archive(FolderShelf(args.folder), key))
    if not args.site:
        raise Rejected("command line: --store: needs --site, the site whose rounds it keeps")
    with closing(existing_store(args.store, "run a round with --archive store first")) as store:
        return _run(args, Archive(StoreShelf(store, multi_site_key(args.site)), key))


def _run(args: argparse.Namespace, archive: "Archive") -> int:
    from powerhall_optimizer.archive.audit import Seen, audit

    def show(done: int, count: int) -> None:
        if sys.stderr.isatty():
            sys.stderr.write(f"\r{done} of {count} rounds" + ("\n" if done == count else ""))

    with StopFlag() as stop:
        seen = None if args.seen is None or not args.seen.exists() else read_json(args.seen, Seen)
        found = audit(archive, replay=not args.no_replay, last=args.last, seen=seen, progress=show, stop=stop)
    if args.seen is not None and not found.faults and found.newest is not None:
        replace_file(args.seen, msgspec.json.encode(found.newest))
    if args.json:
        counts = {"entries": found.entries, "verified": found.verified, "replayed": found.replayed}
        faults = [msgspec.structs.asdict(fault) for fault in found.faults]
        sys.stdout.write(json.dumps({"sound": not faults, **counts, "faults": faults, "notes": found.notes}) + "\n")
    else:
        sys.stdout.writelines(f"{fault}\n" for fault in found.faults)
        sys.stdout.writelines(f"note: {note}\n" for note in found.notes)
        verdict = f"{len(found.faults)} faults" if found.faults else "sound"
        counted = f"{found.entries} rounds, {found.verified} plans verified, {found.replayed} made again bit for bit"
        sys.stdout.write(f"{verdict}: {counted}\n")
    return EXIT_REFUSED if found.faults else EXIT_OK
