"""The capper's socket: one JSON message per line from the agent, one status line back.

Messages: `{"lease": {"body": "...", "signature": "..."}}`, `{"alive": true}`, `{"status": true}`. Only root and the
user that the settings name may connect (by the peer credentials of the socket).

Nothing that arrives here ends the capper or keeps it from its GPUs: lines, connections, messages per turn, half lines
and unread answers are bounded, and whatever a message does, the next turn comes.
"""

import selectors
import time
from collections.abc import Callable

import msgspec

from powerhall.lease import RefusedForNow, SignedConfirmation, SignedLease
from powerhall.runtime.errors import Rejected
from powerhall.runtime.log import Log
from powerhall_agent.capper.capper import Capper, Status
from powerhall_agent.capper.connection import Connection
from powerhall_agent.capper.limiter import DriverGone
from powerhall_agent.capper.listener import Listener
from powerhall_agent.capper.node_clock import boot_s
from powerhall_agent.capper.node_key import NodeKeyFile

__all__ = ["CapperServer", "Message"]

_TICK_S = 0.2
_MAX_CONNECTIONS = 16
_ACCEPTS_PER_TURN = 8
_MESSAGES_PER_TURN = 4
_REASON_CHARS = 500


class Message(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A message of the agent; exactly one field is set."""

    lease: SignedLease | None = None
    alive: bool = False
    status: bool = False


class _Answer(msgspec.Struct, frozen=True):
    """The answer to a message; `later` where the same lease may be accepted later."""

    status: Status
    refused: str = ""
    confirmation: SignedConfirmation | None = None
    later: bool = False


class CapperServer:
    """Serves the socket and ticks the capper until it is told to stop."""

    def __init__(
        self,
        capper: Capper,
        listener: Listener,
        allowed_uids: Callable[[], frozenset[int]],
        log: Log,
        key_file: NodeKeyFile | None = None,
        *,
        users_problem: Callable[[], str] = str,
    ) -> None:
        """`allowed_uids` is asked at every connection, so that a user who is made later is let in.

        `users_problem` says why somebody who should connect cannot, or "".
        """
        self._capper, self._listener, self._allowed = capper, listener, allowed_uids
        self._log, self._key_file, self._users_problem = log, key_file, users_problem
        self._connections: list[Connection] = []
        self._state = ""

    def prepare(self) -> None:
        """Read the key and open the socket, so that a peer that connects right after is served."""
        self._look_after()
        self._listener.descriptor()

    def run(self, stop: Callable[[], bool], watchdog: Callable[[], None]) -> None:
        """Serve until `stop()`; `watchdog()` is called on every turn that the GPUs were looked after."""
        while not stop():
            self._wait()
            self._capper.tick(boot_s())
            self._look_after()
            watchdog()

    def close(self) -> None:
        """Close the sockets; the caps are not touched."""
        for connection in self._connections:
            connection.close()
        self._listener.close()

    def _wait(self) -> None:
        """Wait for messages, or until the next tick, and answer a few."""
        with selectors.DefaultSelector() as selector:
            if (descriptor := self._listener.descriptor()) is not None:
                selector.register(descriptor, selectors.EVENT_READ, None)
            for connection in self._connections:
                selector.register(connection.descriptor, selectors.EVENT_READ, connection)
            has_lines = any(connection.has_line for connection in self._connections)
            ready = [key.data for key, _ in selector.select(0.0 if has_lines else _TICK_S)]
        for connection in self._connections:
            if connection in ready:
                connection.receive()
            self._serve(connection)
        if None in ready:
            self._accept()
        self._drop_dead()

    def _look_after(self) -> None:
        """Compare the clocks, read a mended key, and log what changed."""
        wall_s, mono_s = time.time(), boot_s()
        if step_s := self._capper.note_clocks(wall_s, mono_s):
            self._log.warning("clock_step", step_s=step_s, detail="lifetimes of leases are not changed by it")
        if self._key_file is not None and self._key_file.refresh(mono_s):
            self._capper.key, self._capper.key_problem = (
                self._key_file.key,
                self._key_file.problem or self._key_file.exposed,
            )
        problems = [problem for problem in (self._users_problem(), self._listener.problem) if problem]
        self._capper.socket_problem = "; ".join(problems)
        for problem in problems:
            self._log.warning("socket", key=problem, detail=problem)
        if self._capper.summary != self._state:
            self._state = self._capper.summary
            status = self._capper.status()
            self._log.info(
                "caps", state=status.state, reason=status.reason, plan=status.plan_id, gpus=self._capper.wanted,
                error=status.error, alarms="; ".join(status.alarms),
            )  # fmt: skip

    def _accept(self) -> None:
        for _ in range(_ACCEPTS_PER_TURN):
            peer = self._listener.accept()
            if peer is None:
                return
            if peer.uid not in self._allowed():
                self._log.warning("refused", key="", uid=peer.uid, detail="this user may not connect")
                peer.socket.close()
                continue
            if len(self._connections) >= _MAX_CONNECTIONS:
                oldest = min(self._connections, key=lambda connection: connection.used_s)
                oldest.close()
                self._connections.remove(oldest)
            self._connections.append(Connection(peer.socket))

    def _drop_dead(self) -> None:
        now_s = boot_s()
        for connection in self._connections:
            if not connection.is_open or connection.is_late(now_s):
                connection.close()
        self._connections = [connection for connection in self._connections if connection.is_open]

    def _serve(self, connection: Connection) -> None:
        for _ in range(_MESSAGES_PER_TURN):
            line = connection.next_line()
            if line is None or not connection.is_open:
                return
            connection.send(self._reply(line))

    def _reply(self, line: bytes) -> bytes:
        try:
            return msgspec.json.encode(self._handle(line)) + b"\n"
        except DriverGone:
            raise
        except Exception:  # noqa: BLE001 - a message that nobody foresaw must not end the capper
            self._log.exception("message", detail="an unforeseen message; refused")
            return b'{"refused":"the capper cannot read this message"}\n'

    def _handle(self, line: bytes) -> _Answer:
        try:
            message = msgspec.json.decode(line, type=Message)
            if message.lease is not None:
                self._capper.offer(message.lease, time.time(), boot_s())
            elif message.alive:
                self._capper.heard(boot_s())
        except (msgspec.DecodeError, UnicodeError, RecursionError, Rejected) as error:
            text = str(error).encode("utf-8", "backslashreplace").decode()[:_REASON_CHARS]
            self._log.warning("lease_refused", key=type(error).__name__, detail=text)
            return _Answer(self._capper.status(), text, later=isinstance(error, RefusedForNow))
        return _Answer(self._capper.status(), confirmation=self._capper.confirmation(time.time()))
