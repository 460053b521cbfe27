"""Who may connect to the capper's socket: root, the capper's own user, and the user and group that the settings name.

Users and groups may be made after the capper has started, so they are looked up again, at most once a second.
"""

import grp
import os
import pwd
from collections.abc import Callable
from typing import Final

from powerhall_agent.capper.node_clock import boot_s

__all__ = ["SocketUsers"]

_CHECK_S: Final = 1.0
_TODO: Final = "make it (`powerhall-agent install capper lease` prints how) or correct it in capper.toml"


class SocketUsers:
    """The `agent_user` and `socket_group` of the settings, as this host knows them now."""

    def __init__(self, user: str, group: str = "", *, clock: Callable[[], float] = boot_s) -> None:
        """`user` may be empty: root alone connects. An empty `group` is the first group of the user."""
        self._user, self._given_group, self._clock = user, group, clock
        self._uids: frozenset[int] = frozenset({0, os.geteuid()})
        self._group = group
        self._problem = ""
        self._next_s = 0.0

    def uids(self) -> frozenset[int]:
        """Return who may connect; a user that the host does not know admits nobody."""
        self._look()
        return self._uids

    def group(self) -> str:
        """Return the name of the group that may open the socket; "" where there is none."""
        self._look()
        return self._group

    def problem(self) -> str:
        """Return why nobody but root can connect, or ""."""
        self._look()
        return self._problem

    def _look(self) -> None:
        if self._clock() < self._next_s:
            return
        self._next_s = self._clock() + _CHECK_S
        self._problem, uids = "", {0, os.geteuid()}
        if self._user:
            try:
                found = pwd.getpwnam(self._user)
            except (KeyError, ValueError):
                self._problem = f"agent_user {self._user!r}: this host has no such user, only root can connect: {_TODO}"
            else:
                uids.add(found.pw_uid)
                self._group = self._given_group or _name_of(found.pw_gid)
        self._uids = frozenset(uids)


def _name_of(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return ""
