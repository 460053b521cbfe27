"""What a part of Powerhall installs on a host: each file with its place and its text for this host."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from powerhall.install.shipped import shipped_file
from powerhall.runtime.errors import Rejected

__all__ = ["HostFile", "Part", "Service", "host_files", "users_of"]

_USER_KEYS = re.compile(r"^(User|Group|SupplementaryGroups)=(.*)$", re.MULTILINE)
_WORD = re.compile(r"[A-Za-z0-9_-]+")
_USER_NAME = re.compile(r"[a-z_][a-z0-9_-]{0,30}")
_PREFIX = "/opt/powerhall/"


@dataclass(frozen=True, slots=True)
class Service:
    """Files of one service; `user` is the name that its units have, "" where it cannot be changed."""

    units: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()
    user: str = ""
    chosen: bool = True
    """Installed where no service is named."""
    others: Callable[[], Sequence["HostFile"]] = tuple
    """More files, which are the same on every host."""


@dataclass(frozen=True, slots=True)
class Part:
    """A program with its services by name, and `conf`, the name of its files for users and folders."""

    program: str
    conf: str
    services: Mapping[str, Service]


@dataclass(frozen=True, slots=True)
class HostFile:
    """A file of a host: its place, absolute on that host, and its text."""

    place: str
    text: str


def users_of(part: Part, given: Sequence[str]) -> dict[str, str]:
    """Return default user -> user from words such as `lease=carrier`; anything else raises Rejected."""
    able = sorted(name for name, service in part.services.items() if service.user)
    users: dict[str, str] = {}
    for word in given:
        service, _, user = word.partition("=")
        if service not in able:
            raise Rejected.field("command line", "--user", word, f"must be SERVICE=USER with {', '.join(able)}")
        if not _USER_NAME.fullmatch(user) or user == "root":
            raise Rejected.field("command line", "--user", word, "must name a user other than root: a-z, 0-9, _ and -")
        users[part.services[service].user] = user
    return users


def host_files(part: Part, services: Sequence[str], prefix: str, users: Mapping[str, str]) -> list[HostFile]:
    """Return the files of some services, started from the environment at `prefix` as the given users."""
    chosen = [part.services[name] for name in services]
    files = list(_unit_files(chosen, prefix, users))
    if any(service.user for service in chosen):
        for folder in ("sysusers.d", "tmpfiles.d"):
            text = shipped_file(folder, f"{part.conf}.conf").read_text(encoding="utf-8")
            files.append(HostFile(f"/etc/{folder}/{part.conf}.conf", _with_users(text, users)))
    files += [file for service in chosen for file in service.others()]
    for name in dict.fromkeys(name for service in chosen for name in service.settings):
        text = shipped_file("config", name).read_text(encoding="utf-8")
        files.append(HostFile(f"/etc/powerhall/{name}.example", _with_users(text, users, 'agent_user = "')))
    return files


def _unit_files(services: Sequence[Service], prefix: str, users: Mapping[str, str]) -> Iterator[HostFile]:
    for name in dict.fromkeys(name for service in services for name in service.units):
        text = shipped_file("systemd", name).read_text(encoding="utf-8").replace(_PREFIX, f"{prefix.rstrip('/')}/")
        if name.endswith(".cron"):
            yield HostFile(f"/etc/cron.d/{name.removesuffix('.cron')}", text)
        else:
            text = _USER_KEYS.sub(lambda found: f"{found[1]}={_renamed(found[2], users)}", text)
            yield HostFile(f"/etc/systemd/system/{name}", text)


def _with_users(text: str, users: Mapping[str, str], only: str = "") -> str:
    lines = text.splitlines(keepends=True)
    return "".join(_renamed(line, users) if line.startswith(only) and line[0] != "#" else line for line in lines)


def _renamed(text: str, users: Mapping[str, str]) -> str:
    """Replace whole names outside paths: `/var/lib/powerhall-signals` stays whatever the users are called."""
    parts = re.split(r"(/\S*|\"[^\"]* [^\"]*\")", text)
    parts[::2] = [_WORD.sub(lambda found: users.get(found[0], found[0]), part) for part in parts[::2]]
    return "".join(parts)
