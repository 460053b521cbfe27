"""The capper's socket: one JSON message per line from the agent, one status line back.

Messages: `{"lease": {"body": "...", "signature": "..."}}`, `{"alive": true}`, `{"status": true}`. Only root and the
user that the settings name may connect (by the peer credentials of the socket). One agent at a time is served; a
second connection takes the place of the first, so that a restarted agent is never locked out by its dead predecessor.
"""

import os
import pwd
import selectors
import socket
import struct
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from powerhall.lease import SignedLease
from powerhall.runtime.errors import Rejected
from powerhall.runtime.log import Log
from powerhall_agent.capper.capper import Capper

__all__ = ["CapperServer", "Message", "owner_uids"]

_TICK_S = 0.2
_LINE_BYTES = 256 * 1024


class Message(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A message of the agent; exactly one field is set."""

    lease: SignedLease | None = None
    alive: bool = False
    status: bool = False


class CapperServer:
    """Serves the socket and ticks the capper until it is told to stop."""

    def __init__(self, capper: Capper, path: Path, allowed_uids: frozenset[int], log: Log) -> None:
        """Bind the socket; an old socket file of a dead capper is replaced."""
        self._capper = capper
        self._allowed = allowed_uids
        self._log = log
        self._buffer = b""
        self._agent: socket.socket | None = None
        self._state = ""
        path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        path.chmod(0o660)
        self._listener.listen(1)
        self._listener.setblocking(False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)

    def run(self, stop: Callable[[], bool], watchdog: Callable[[], None]) -> None:
        """Serve until `stop()`; `watchdog()` is called on every turn that the GPUs were looked after."""
        while not stop():
            for key, _ in self._selector.select(_TICK_S):
                if key.fileobj is self._listener:
                    self._accept()
                else:
                    self._receive()
            self._capper.tick(time.monotonic())
            self._note()
            watchdog()

    def close(self) -> None:
        """Close the sockets; the caps are not touched."""
        self._drop()
        self._selector.close()
        self._listener.close()

    def _note(self) -> None:
        if self._capper.summary != self._state:
            self._state = self._capper.summary
            status = self._capper.status()
            self._log.info("caps", state=status.state, reason=status.reason, plan=status.plan_id, error=status.error)

    def _accept(self) -> None:
        connection, _ = self._listener.accept()
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        _, uid, _ = struct.unpack("3i", credentials)
        if uid not in self._allowed:
            self._log.warning("refused", key="", uid=uid, detail="this user may not connect")
            connection.close()
            return
        self._drop()
        connection.setblocking(False)
        self._agent, self._buffer = connection, b""
        self._selector.register(connection, selectors.EVENT_READ)

    def _drop(self) -> None:
        if self._agent is not None:
            self._selector.unregister(self._agent)
            self._agent.close()
            self._agent = None

    def _receive(self) -> None:
        agent = self._agent
        if agent is None:
            return
        try:
            data = agent.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self._buffer += data
        if not data or len(self._buffer) > _LINE_BYTES:
            self._drop()
            return
        *lines, self._buffer = self._buffer.split(b"\n")
        for line in lines:
            self._answer(agent, self._handle(line))

    def _handle(self, line: bytes) -> dict[str, object]:
        try:
            message = msgspec.json.decode(line, type=Message)
            if message.lease is not None:
                self._capper.offer(message.lease, time.time(), time.monotonic())
            elif message.alive:
                self._capper.heard(time.monotonic())
        except (msgspec.ValidationError, msgspec.DecodeError, Rejected) as error:
            self._log.warning("lease_refused", key=str(error), detail=error)
            return {"refused": str(error), "status": self._capper.status()}
        return {"status": self._capper.status(), "confirmation": self._capper.confirmation(time.time())}

    def _answer(self, agent: socket.socket, reply: dict[str, object]) -> None:
        try:
            agent.sendall(msgspec.json.encode(reply) + b"\n")
        except OSError:
            if agent is self._agent:
                self._drop()


def owner_uids(*names: str) -> frozenset[int]:
    """Return root, this process's user and the named users; an unknown name raises Rejected."""
    uids = {0, os.geteuid()}
    for name in names:
        try:
            uids.add(pwd.getpwnam(name).pw_uid)
        except KeyError:
            raise Rejected.field("capper", "agent_user", name, "must be a user of this host") from None
    return frozenset(uids)
