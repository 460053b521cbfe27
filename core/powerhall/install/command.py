"""`install` and `deploy-files` of the agent's, the optimizer's and the dashboards' command line."""

import argparse
import json
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from powerhall.install.file_changes import Action, Change, changes, signed, write
from powerhall.install.host_files import Part, Service, host_files, users_of
from powerhall.install.shipped import FOLDERS, copy_folder
from powerhall.runtime.command_line import Commands, add_command
from powerhall.runtime.errors import PowerhallError, Rejected
from powerhall.runtime.extras import EXIT_OK, EXIT_REFUSED

__all__ = ["NextCommands", "add_parsers"]

NextCommands = Callable[[Sequence[str]], Sequence[str]]
"""From the names of installed services to the commands that follow, after users, folders and daemon-reload."""
_OLD_NAME = "install-units"
_HIDDEN = ("/home", "/root", "/run/user", "/tmp", "/var/tmp")  # noqa: S108 - not written to; units have their own
_TEXT = """Puts files where they belong on this host: systemd units, started from the environment that this program runs
in, their users (sysusers.d), folders (tmpfiles.d), and example settings, as NAME.example. Touches no secret.

A file that was changed by hand stays: the new one is put beside it as NAME.new, and the exit code is 1. The same
installation again changes nothing. Units are better changed by `systemctl edit`.

services: {services}

examples:
  {program} install --dry-run
  {program} install {some}
  {program} install --user {user}=telemetry
  {program} install --root /mnt/image --prefix /opt/powerhall
"""
_FILES = """Copies files that come with this package to a folder: {folders}.

examples:
  {program} deploy-files --out ./deploy
  {program} deploy-files slurm --out ./deploy
"""


def add_parsers(commands: Commands, part: Part, next_commands: NextCommands) -> None:
    """Add both sub-commands for a part."""
    names = list(part.services)
    user = next(name for name, service in part.services.items() if service.user)
    units = add_command(
        commands,
        "install",
        lambda args: _install(args, part, next_commands),
        help="put systemd units, users, example settings and other files where they belong",
        description=_TEXT.format(program=part.program, services=", ".join(names), some=" ".join(names[:2]), user=user),
    )
    commands.choices[_OLD_NAME] = units
    units.add_argument(
        "services", nargs="*", default=[], metavar="SERVICE", help="services to install (default: all but cron)"
    )
    units.add_argument("--root", type=Path, default=Path("/"), metavar="DIR", help="install into this root (default /)")
    units.add_argument("--prefix", default="", metavar="DIR", help="environment to start (default: this one)")
    units.add_argument(
        "--user",
        action="append",
        default=[],
        metavar="SERVICE=USER",
        help="run a service as this user; repeatable, and to be given again by a later installation",
    )
    units.add_argument("--force", action="store_true", help="replace changed files, and keep the old ones as NAME.old")
    units.add_argument("--dry-run", action="store_true", help="say what would be done, write nothing")
    units.add_argument("--print", action="store_true", help="print the files, write nothing")
    units.add_argument("--json", action="store_true", help="print the result as JSON")
    files = add_command(
        commands,
        "deploy-files",
        _deploy,
        help="copy dashboards, charts, plug-ins and units to a folder",
        description=_FILES.format(program=part.program, folders=", ".join(FOLDERS)),
    )
    files.add_argument("folders", nargs="*", default=[], metavar="FOLDER", help="folders to copy (default: all)")
    files.add_argument("--out", type=Path, required=True, metavar="DIR", help="where to copy them to")
    files.add_argument("--json", action="store_true", help="print the result as JSON")


def _install(args: argparse.Namespace, part: Part, next_commands: NextCommands) -> int:
    services = args.services or [name for name, service in part.services.items() if service.chosen]
    for name in services:
        if name not in part.services:
            raise Rejected.field("command line", "SERVICE", name, f"must be one of {', '.join(part.services)}")
    prefix = args.prefix or sys.prefix
    if not Path(prefix).is_absolute():
        raise Rejected.field("command line", "--prefix", args.prefix, "must be an absolute path")
    files = host_files(part, services, prefix, users_of(part, args.user))
    if args.print:
        sys.stdout.write("\n".join(f"# FILE {file.place}\n{signed(file.text, file.place)}" for file in files))
        return EXIT_OK
    found = changes(files, args.root, force=args.force)
    if not args.dry_run:
        for change in found:
            write(change)
    follow = _next(part, [part.services[name] for name in services], args.root, next_commands(services))
    sys.stdout.write(_json(found, follow, args) if args.json else _lines(found, follow, args))
    _warn(part.program, prefix)
    return EXIT_REFUSED if any(change.action is Action.KEEP for change in found) else EXIT_OK


def _next(part: Part, services: Sequence[Service], root: Path, own: Sequence[str]) -> list[str]:
    at = "" if root == Path("/") else f" --root={shlex.quote(str(root))}"
    after = [_inside(command, root) for command in own] if at else list(own)
    if not any(service.user for service in services):
        return after
    make = [f"systemd-sysusers{at} {part.conf}.conf", f"systemd-tmpfiles{at} --create {part.conf}.conf"]
    return [*make, *after] if at else [*make, "systemctl daemon-reload", *after]


def _inside(command: str, root: Path) -> str:
    """Return a command for files below another root: units are enabled there and start with its host."""
    folder = shlex.quote(str(root).rstrip("/"))
    command = command.replace("systemctl enable --now ", f"systemctl --root={folder} enable ")
    command = command.replace("systemctl enable ", f"systemctl --root={folder} enable ")
    return command.replace(" /etc/", f" {folder}/etc/")


def _json(found: Sequence[Change], follow: Sequence[str], args: argparse.Namespace) -> str:
    files = [{"path": str(change.path), "action": change.action.value} for change in found]
    return json.dumps({"files": files, "next": list(follow), "dry_run": args.dry_run}) + "\n"


def _lines(found: Sequence[Change], follow: Sequence[str], args: argparse.Namespace) -> str:
    notes = {
        Action.KEEP: ": was changed by hand; the new one is NAME.new (--force replaces it)",
        Action.REPLACE: ": was changed by hand; the old one is NAME.old",
    }
    lines = [
        f"{change.action.value:<8}{change.path}{notes.get(change.action, '').replace('NAME', change.path.name)}"
        for change in found
    ]
    if args.dry_run:
        lines.append("nothing was written (--dry-run)")
    return "\n".join([*lines, "", "next:", *(f"  {command}" for command in follow)]) + "\n"


def _warn(program: str, prefix: str) -> None:
    """Say where services could not start: their sandbox hides home folders and temporary ones."""
    for path in (Path(prefix), (Path(prefix) / "bin" / "python").resolve()):
        if any(path.is_relative_to(hidden) for hidden in _HIDDEN):
            sys.stderr.write(
                f"{program}: warning: services cannot see {path}, and will not start: install Powerhall under /opt, "
                f"with a Python outside {', '.join(_HIDDEN)}\n"
            )


def _deploy(args: argparse.Namespace) -> int:
    for name in args.folders:
        if name not in FOLDERS:
            raise Rejected.field("command line", "FOLDER", name, f"must be one of {', '.join(FOLDERS)}")
    counts: dict[str, int] = {}
    for name in args.folders or FOLDERS:
        try:
            counts[name] = copy_folder(name, args.out)
        except OSError as error:
            raise PowerhallError(f"{args.out}: cannot write: {error.strerror or error}") from None
    if args.json:
        sys.stdout.write(json.dumps({"folders": {str(args.out / name): n for name, n in counts.items()}}) + "\n")
    else:
        sys.stdout.writelines(f"{args.out / name}: {count} files\n" for name, count in counts.items())
    return EXIT_OK
