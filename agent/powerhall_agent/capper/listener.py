"""The listening socket of the capper: its own, made and made again where it is lost, or one that systemd hands over.

systemd's socket activation (sd_listen_fds(3)): LISTEN_PID is this process and LISTEN_FDS at least 1; the first socket,
descriptor 3, is used. Its owner and mode are then those of the `.socket` unit.
"""

import contextlib
import grp
import os
import socket
import stat
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from powerhall_agent.capper.node_clock import boot_s

__all__ = ["Listener", "Peer"]

_BACKLOG: Final = 128
_FIRST_SYSTEMD_DESCRIPTOR: Final = 3
_CHECK_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Peer:
    """A connection and the user at its other end."""

    socket: socket.socket
    uid: int


class Listener:
    """Listens on a path; what keeps it from that is in `problem`, and it tries again every second."""

    def __init__(
        self, path: Path, *, mode: int = 0o660, group: Callable[[], str] = str, environment: Mapping[str, str]
    ) -> None:
        """`mode` and `group` ("": that of this process) are those of the socket file.

        The group is asked for every second: one that is made later gets the file then.
        """
        self._path, self._mode, self._group = path, mode, group
        self._owned_by = ""
        self._inode: int | None = None
        self._next_s = 0.0
        self.problem = ""
        self._socket = _from_systemd(environment)
        self._is_ours = self._socket is None

    def descriptor(self) -> int | None:
        """Return the descriptor to wait on; binds the path where the socket is not there, at most once a second."""
        if self._is_ours and boot_s() >= self._next_s:
            self._next_s = boot_s() + _CHECK_S
            if self._socket is None or not self._is_in_place():
                self._bind()
            elif self._owned_by != self._group():
                self._own()
        return self._socket.fileno() if self._socket is not None else None

    def accept(self) -> Peer | None:
        """Return the next connection; None where there is none or it is gone already."""
        if self._socket is None:
            return None
        try:
            peer, _ = self._socket.accept()
        except OSError:
            return None
        try:
            credentials = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        except OSError:
            peer.close()
            return None
        return Peer(peer, struct.unpack("3i", credentials)[1])

    def close(self) -> None:
        """Stop listening; a file of our own is removed."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        if self._is_ours and self._is_in_place():
            with contextlib.suppress(OSError):
                self._path.unlink()

    def _is_in_place(self) -> bool:
        try:
            return self._path.stat().st_ino == self._inode
        except OSError:
            return False

    def _bind(self) -> None:
        """Bind the path anew; a socket file of a dead capper is replaced, any other file is left alone."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            _remove_old(self._path)
            listener.bind(str(self._path))
            self._inode = self._path.stat().st_ino
            self._own()
            listener.listen(_BACKLOG)
            listener.setblocking(False)
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else error
            self.problem = f"{self._path}: cannot listen: {reason}"
            listener.close()
            return
        self._socket = listener

    def _own(self) -> None:
        """Give the file its group, then its mode: never open to a group that is not meant."""
        self.problem = ""
        if group := self._group():
            try:
                gid = grp.getgrnam(group).gr_gid
                if self._path.stat().st_gid != gid:  # as its unit has it, which may change no owner
                    os.chown(self._path, -1, gid)
            except KeyError:
                self.problem = f"{self._path}: this host has no group {group!r}: make it or correct socket_group"
            except OSError as error:
                self.problem = f"{self._path}: cannot be given to group {group!r}: {error.strerror}"
        self._owned_by = "" if self.problem else group
        try:
            self._path.chmod(self._mode)
        except OSError as error:  # the file has gone since, or its disk is read-only now
            self.problem = f"{self._path}: cannot be given mode {self._mode:04o}: {error.strerror}"


def _remove_old(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise OSError(0, "is there and is no socket")
    path.unlink()


def _from_systemd(environment: Mapping[str, str]) -> socket.socket | None:
    if environment.get("LISTEN_PID") != str(os.getpid()) or environment.get("LISTEN_FDS", "0") in {"", "0"}:
        return None
    found = socket.socket(fileno=_FIRST_SYSTEMD_DESCRIPTOR)
    found.setblocking(False)
    os.set_inheritable(_FIRST_SYSTEMD_DESCRIPTOR, False)
    return found
